"""What some measures put beside an explanation: the same explainer's maps of other samples, or of a second network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.evaluate.datasets import Entry
from midgrain.maps import resize_maps
from midgrain.randomness import seeded_by_text

__all__ = ["OTHERS", "POOL", "Companions", "OtherSamples"]

#: Other samples are drawn from so many of the data set, so that explaining them costs little beside the run itself.
POOL = 20

#: How many of them stand beside each sample by default, as in DeepMaps, section 4.3.
OTHERS = 5


class OtherSamples:
    """A few samples of the data set whose heat maps stand beside those of every sample.

    Which ones is drawn from the seed and the sample's id alone, so that it does not matter who asks first. Heat maps
    are kept for the next sample that needs them, but do not travel to other processes.

    Args:
        entries: the data set; `POOL` of it are used.
        seed: of the drawing.
    """

    def __init__(self, entries: Sequence[Entry], seed: int):
        self.seed = seed
        drawn = torch.randperm(len(entries), generator=torch.Generator().manual_seed(seed))[:POOL]
        self.pool = [entries[index] for index in sorted(drawn.tolist())]
        self._kept: dict[tuple[str, str], Tensor | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def maps(self, explainer: str, own: str, k: int, explain: Callable[[Entry], Tensor]) -> list[Tensor]:
        """Heat maps [*S] of k samples other than `own`; broken ones are passed over.

        Args:
            explainer: its name in the results.
            own: the id of the sample that they are wanted for.
            k: how many.
            explain: makes one, or raises an exception where the sample cannot be explained.

        Raises:
            ValueError: there are fewer.
        """
        others = [entry for entry in self.pool if entry.id != own]
        order = torch.randperm(len(others), generator=seeded_by_text(own, self.seed)).tolist()
        found: list[Tensor] = []
        for place in order:
            key = (explainer, others[place].id)
            if key not in self._kept:
                try:
                    self._kept[key] = explain(others[place]).cpu()
                except Exception:  # It stands among the errors when its own turn comes.
                    self._kept[key] = None
            kept = self._kept[key]
            if kept is not None:
                found.append(kept)
            if len(found) == k:
                return found
        raise ValueError(f"k: expected heat maps of {k} other samples, got {len(found)}; no more could be explained")


class Companions:
    """What stands beside one explanation; made when it is asked for.

    Args:
        others: `k -> heat maps [*S]` of k other samples.
        second: `label -> heat map [1, *S]` of this sample for the second network of a measure.
    """

    def __init__(self, others: Callable[[int], Sequence[Tensor]], second: Mapping[str, Callable[[], Tensor]]):
        self._others, self._second = others, second

    def others(self, k: int, like: Tensor) -> Tensor:
        """Float32 [1, K, *S], resized to the heat map `like` [1, *S] where the other sample is of another size."""
        size = like.shape[1:]
        maps = [each.to(like.device).float() for each in self._others(k)]
        if any(each.ndim != len(size) for each in maps):
            raise ValueError("others: expected all samples to be images or all clips")
        return torch.stack([each if each.shape == size else resize_maps(each[None], size)[0] for each in maps])[None]

    def second(self, label: str) -> Tensor:
        """Heat map [1, *S]."""
        return self._second[label]()
