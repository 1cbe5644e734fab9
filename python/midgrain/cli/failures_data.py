"""Class folders and CSV files as batches with ids, which can be read again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from midgrain.evaluate.datasets import Entry
    from midgrain.models import LoadedModel

__all__ = ["LabelledPictures"]


class LabelledPictures:
    """The pictures of a data set, batch by batch: (x, classes, ids), and one by one by their ids.

    Pictures that cannot be read are left out and noted in `errors`.

    Args:
        data: class folders, or a CSV file with labels.
        loaded: brings preprocessing and names of classes.
        batch_size: pictures at once.
        limit: no more than the first so many pictures; None for all.

    Raises:
        TypeError, ValueError, OSError: see `midgrain.evaluate.read_dataset`.
    """

    def __init__(self, data: Path, loaded: LoadedModel, batch_size: int, limit: int | None = None):
        from midgrain.evaluate.datasets import read_dataset
        from midgrain.evaluate.samples import ClassNames

        self._loaded, self._batch_size = loaded, batch_size
        self._classes = ClassNames(loaded.labels)
        self._entries = list(read_dataset(data, self._classes).entries)[:limit]
        self._by_id = {entry.id: entry for entry in self._entries}
        #: Id -> what was wrong.
        self.errors: dict[str, str] = {}

    def __len__(self) -> int:
        return -(-len(self._entries) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, list[int], list[str]]]:
        import torch

        for start in range(0, len(self._entries), self._batch_size):
            found = []
            for entry in self._entries[start : start + self._batch_size]:
                try:
                    x, label = self._read(entry)
                except (ValueError, TypeError, OSError) as error:
                    self.errors[entry.id] = str(error)
                    continue
                if label is None:
                    raise ValueError(
                        f"data: expected a class for every picture, {entry.id!r} has none; give class folders, or a "
                        "CSV file with a column 'label'"
                    )
                found.append((x, label, entry.id))
            if found:
                inputs, labels, names = zip(*found, strict=True)
                yield torch.cat(inputs), list(labels), list(names)

    def picture(self, name: Any) -> Tensor:
        """The network's input for a picture, [C, *S].

        Raises:
            ValueError: there is none of this id.
        """
        if name not in self._by_id:
            raise ValueError(f"train: no picture {name!r} there, which the statistics know; give the data of the fit")
        return self._read(self._by_id[name])[0][0]

    def _read(self, entry: Entry) -> tuple[Tensor, int | None]:
        from midgrain.evaluate.samples import prepare

        prepared = prepare(entry.read(), self._loaded.preprocess, self._classes)
        return prepared.x, prepared.label
