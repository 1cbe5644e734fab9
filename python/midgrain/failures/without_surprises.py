"""A data set without the regions that surprise a network in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from midgrain import driver
from midgrain.baseline import Baseline, make_baseline
from midgrain.failures.explaining import regions_behind
from midgrain.failures.statistics import FilterStatistics
from midgrain.failures.surprise import HIGH, LOW, surprise
from midgrain.network.batches import labelled_batches
from midgrain.network.modules import model_device
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar

__all__ = ["WithoutSurprises", "without_surprises"]

_SIGNS = {"surprising": 1.0, "against": -1.0}


class WithoutSurprises(Dataset[tuple[Tensor, Any]]):
    """A data set some of whose pixels are removed; made by `without_surprises`.

    Items are (x [C, *S], class). It holds one bit per pixel of the samples that lose some, and reads everything else
    from the data set when asked.

    Attributes:
        changed: which samples lose pixels, bool [n].
    """

    def __init__(
        self,
        dataset: Any,
        kept: Sequence[npt.NDArray[np.uint8] | None],
        shape: Sequence[int],
        baseline: Baseline,
        seed: int,
    ):
        self._dataset, self._kept, self._shape = dataset, kept, tuple(shape)
        self._baseline, self._seed = baseline, seed
        self.changed = torch.tensor([bits is not None for bits in kept])

    def __len__(self) -> int:
        return len(self._kept)

    def mask(self, index: int) -> Tensor:
        """The pixels that sample `index` loses, bool [*S]."""
        bits = self._kept[index]
        if bits is None:
            return torch.zeros(self._shape, dtype=torch.bool)
        flat = np.unpackbits(bits, count=int(np.prod(self._shape))).astype(bool)
        return torch.from_numpy(flat.reshape(self._shape))

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected less than {len(self)}, got {index}")
        x, label = self._dataset[index % len(self)]
        if self._kept[index] is None:
            return x, label
        empty = make_baseline(self._baseline, x[None], seed=self._seed)[0]
        return x.where(~self.mask(index).to(x.device), empty), label


def without_surprises(
    dataset: Any,
    model: Any,
    stats: FilterStatistics,
    *,
    filters: str = "surprising",
    n_filters: int = 1,
    n_segments: int = 50,
    low: float = LOW,
    high: float = HIGH,
    few: str = "error",
    baseline: Baseline = 0.0,
    guided: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: bool = False,
) -> WithoutSurprises:
    """Mask out of a training set what surprises a network that was trained on it, to train another one.

    Of every sample in which filters surprise, the superpixel behind each of the most surprising ones is removed, see
    `explain`. One forward and one backward pass for every sample, and for those that lose a region as many again as
    filters.

    Args:
        dataset: gives (x, class) with floats x [C, *S], all of one size; with `len()` and `dataset[i]`.
        model: the network of the statistics.
        stats: of the same data.
        filters: "surprising", those above percentile `high` of their class (the thesis's surprise); or "against",
            those below percentile `low`: they speak against the class as hardly ever in training.
        n_filters: at most so many of a sample.
        n_segments: superpixels.
        low: see `surprise`.
        high: see `surprise`.
        few: see `surprise`.
        baseline: what a removed pixel becomes, see `suppress`.
        guided: guided backpropagation instead of the plain gradient.
        batch_size: samples at once.
        seed: of baseline "noise".
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.
        progress: show a bar.

    Raises:
        TypeError, ValueError: a data set of another kind; statistics of another network or without a class; see
            `surprise` about classes of few images.

    Source: the idea is T. Hartley's PhD thesis, 6.5; it has no experiment.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> data = torch.utils.data.TensorDataset(torch.rand(40, 3, 24, 24), torch.arange(40) % 4)
        >>> stats = mg.failures.FilterStatistics.fit(model, torch.utils.data.DataLoader(data, batch_size=10))
        >>> masked = mg.failures.without_surprises(data, model, stats, low=10, high=90)
        >>> len(masked), bool(masked.changed.any())
        (40, True)
    """
    driver.check_model(model)
    if isinstance(dataset, Tensor) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise TypeError(f"dataset: expected one with len() and dataset[i], got {type(dataset).__name__}")
    if filters not in _SIGNS:
        raise ValueError(f"filters: expected one of {', '.join(_SIGNS)}, got {filters!r}")
    n_filters, n_segments = check_int(n_filters, "n_filters", 1), check_int(n_segments, "n_segments", 1)
    batch_size, guided = check_int(batch_size, "batch_size", 1), check_bool(guided, "guided")
    kept: list[npt.NDArray[np.uint8] | None] = []
    shape: Sequence[int] = ()
    with progress_bar("masking", len(dataset), shown=check_bool(progress, "progress")) as advance:
        for batch in labelled_batches(_batches(dataset, batch_size), model_device(model)):
            shape = shape or batch.x.shape[2:]
            found = surprise(model, batch.x, batch.y, stats, low=low, high=high, few=few)
            flagged = found.surprising if filters == "surprising" else found.against
            chosen = found.extreme(flagged, _SIGNS[filters], n_filters)
            regions = regions_behind(
                model, batch.x, batch.y.to(batch.x.device), chosen, stats, n_segments=n_segments, guided=guided,
                mean=mean, std=std,
            )  # fmt: skip
            for each in regions:
                masks = [region.cpu().numpy() for _, region in each]
                kept.append(np.packbits(np.logical_or.reduce(masks)) if masks else None)
            advance(len(batch.y))
    return WithoutSurprises(dataset, kept, shape, baseline, seed)


def _batches(dataset: Any, size: int) -> Iterator[tuple[Tensor, list[Any]]]:
    shape = None
    for start in range(0, len(dataset), size):
        items = [dataset[index] for index in range(start, min(start + size, len(dataset)))]
        for place, item in enumerate(items, start):
            if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], Tensor):
                raise TypeError(
                    f"dataset: expected (x, class) with a tensor x, got {type(item).__name__} as item {place}"
                )
            shape = shape or item[0].shape
            if item[0].shape != shape:
                raise ValueError(
                    f"dataset: expected samples of one size, got {list(shape)} and, as item {place}, "
                    f"{list(item[0].shape)}"
                )
        yield torch.stack([x for x, _ in items]), [int(label) for _, label in items]
