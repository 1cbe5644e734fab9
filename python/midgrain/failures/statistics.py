"""How the filters of a network react to the images of each class: one pass over a training set."""

from __future__ import annotations

import math
import numbers
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from midgrain.cams.layers import Layer
from midgrain.driver import Target
from midgrain.failures.class_statistics import NO_IMAGE, ClassStatistics
from midgrain.failures.class_table import ClassTable
from midgrain.failures.filters import FilterPass, FilterScorer
from midgrain.failures.fitting import Fitting
from midgrain.failures.statistics_file import read_statistics, write_statistics
from midgrain.files import check_writable_folder
from midgrain.identity import differences, fingerprint
from midgrain.network.modules import unwrapped
from midgrain.ops.checks import check_bool, check_int

__all__ = ["FilterStatistics", "images_needed"]

_FEW = ("error", "nan", "extreme")
# Settings that statistics to be merged must share.
_OF_WHAT = ("model", "layer", "measure", "output", "keep", "classes", "filters")


class FilterStatistics:
    """Per class and filter: count, mean, variance, percentiles, and the images that activate the filter most.

    Made by `fit`, `load` and `merge`, and not changed afterwards.

    **Percentiles.** The `keep` greatest and least values of every filter are always kept, so the extremes that
    surprise and expectation need are exact: P(99.9) while a class has no more than 1000 (`keep` - 1) images. For
    what lies between, all values are kept while they fit into `memory`; beyond it they become sketches (KLL, from the
    package datasketches: `pip install "midgrain[failures]"`), whose percentiles have a rank that is off by at most
    `rank_error`; without that package, or where not even sketches fit, only the extremes stay, and a warning says so.

    **Memory.** 32 + 16 `keep` bytes per class and filter, and at most `memory` for values or sketches. With 1000
    classes, 2048 filters (ImageNet, ResNet-50) and `keep=8` that is 0.33 GB and `memory`, 4 GiB unless said
    otherwise; all values would be 10.5 GB. Ids that are texts come on top.

    Attributes:
        n_classes: outputs of the network.
        n_filters: filters of the layer.
        layer: the layer's name.
        measure: of the filters, see `midgrain.failures.filter_scores`.
        output: likewise.
        keep: extremes kept for every filter.
    """

    def __init__(self, settings: dict[str, Any], table: ClassTable):
        self._settings = settings
        self._table = table
        self._classes = table.by_class
        self.n_classes: int = settings["classes"]
        self.n_filters: int = settings["filters"]
        self.layer: str = settings["layer"]
        self.measure: str = settings["measure"]
        self.output: str = settings["output"]
        self.keep: int = settings["keep"]
        #: The network that was checked last, and where its weights were then.
        self._checked: tuple[weakref.ref[nn.Module], list[tuple[int, int]]] | None = None

    @classmethod
    def fit(
        cls,
        model: Any,
        loader: Iterable[Any],
        *,
        measure: str = "grad-amap",
        layer: Layer | None = None,
        after_norm: bool = False,
        output: str = "logit",
        keep: int = 8,
        memory: int = 4 * 2**30,
        first_id: int = 0,
        checkpoint: str | Path | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> FilterStatistics:
        """One pass over a training set: one forward pass per image, and a backward pass as far as the layer.

        Args:
            model: a network with convolutions that returns logits [B, classes].
            loader: gives batches (x, y) or (x, y, ids): floats [B, C, *S], true classes [B], and an integer or a text
                that names each image. Batches go to the device that the model is on. Pre-processed as for testing,
                not augmented at random.
            measure: see `midgrain.failures.filter_scores`.
            layer: likewise.
            after_norm: likewise.
            output: likewise.
            keep: the greatest and the least values of every filter that are kept, with the greatest ones' images.
            memory: bytes for values or sketches; see above.
            first_id: without ids, images are numbered in their order from here on; parts of a data set that are to be
                merged must not share numbers.
            checkpoint: a file (.npz) that is written from time to time. Where it is there already, the fit goes on
                after the batches in it, which the loader must give again in the same order; a finished one is read.
            seed: of measure "random".
            progress: show a bar.

        Raises:
            TypeError: arguments or batches of other kinds.
            ValueError: the same with values; an empty loader; scores that are NaN or infinite; a checkpoint of another
                network or with other options, or whose batches the loader does not repeat.

        Source: T. Hartley's PhD thesis, 6.2.3.

        Example:
            >>> import torch, midgrain as mg
            >>> model = torch.nn.Sequential(
            ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            ...     torch.nn.Linear(8, 4))
            >>> data = torch.utils.data.TensorDataset(torch.rand(20, 3, 16, 16), torch.arange(20) % 4)
            >>> stats = mg.failures.FilterStatistics.fit(model, torch.utils.data.DataLoader(data, batch_size=5))
            >>> stats.mean.shape, stats.count.tolist(), len(stats.top_images(0, 3))
            (torch.Size([4, 8]), [5, 5, 5, 5], 5)
        """
        fitting = Fitting(
            model,
            measure=measure,
            layer=layer,
            after_norm=after_norm,
            output=output,
            seed=seed,
            keep=check_int(keep, "keep", 1),
            memory=check_int(memory, "memory", 0),
            first_id=check_int(first_id, "first_id", 0),
            checkpoint=None if checkpoint is None else Path(checkpoint),
        )
        return cls(*fitting.run(loader, check_bool(progress, "progress")))

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get: no network."""
        return {**self.__dict__, "_checked": None}

    @cached_property
    def count(self) -> Tensor:
        """Images per class, int64 [classes]."""
        counts = torch.zeros(self.n_classes, dtype=torch.int64)
        for number, each in self._classes.items():
            counts[number] = each.count
        return counts

    @cached_property
    def mean(self) -> Tensor:
        """Float64 [classes, filters]; NaN for classes without an image, see `check_classes`."""
        return self._filled(lambda each: each.sums.mean())

    @cached_property
    def variance(self) -> Tensor:
        """Mean squared deviation from the mean, float64 [classes, filters]; NaN likewise."""
        return self._filled(lambda each: each.sums.variance())

    @property
    def std(self) -> Tensor:
        """Its square root."""
        return self.variance.sqrt()

    @property
    def exact(self) -> bool:
        """Are all values kept, so that every percentile is exact?"""
        return self._table.between == "values"

    @property
    def rank_error(self) -> float:
        """By how much the rank of a percentile between the extremes may be off, as a share of a class's images.

        0 where it is exact; with a probability of 99 % for sketches; NaN where only the extremes are kept.
        """
        kept = [each.between for each in self._classes.values()]
        return max((math.nan if each is None else each.rank_error for each in kept), default=0.0)

    @property
    def nbytes(self) -> int:
        """Of memory, without ids that are texts."""
        return self._table.nbytes

    def percentile(self, q: float, classes: int | Sequence[int] | Tensor | None = None, few: str = "error") -> Tensor:
        """Percentile q of every filter, over the images of a class; between two values a straight line.

        A class needs 100 / min(q, 100 - q) images for it, 1000 for 0.1 and 99.9: with fewer, no image lies beyond.

        Args:
            q: 0 .. 100.
            classes: one, or several; None all that have images.
            few: for a class with too few images "error", "nan", or "extreme": the least or the greatest value there
                is, which the percentile of more images could only exceed.

        Returns:
            Float64 [filters] of one class, otherwise [classes asked for, filters]; of None [n_classes, filters], NaN
            for classes without images.

        Raises:
            TypeError, ValueError: another q or few; a class without images, or with too few for q; a percentile
                between the extremes where only these are kept.
        """
        q = _check_percentile(q)
        if few not in _FEW:
            raise ValueError(f"few: expected one of {', '.join(_FEW)}, got {few!r}")
        chosen = sorted(self._classes) if classes is None else self.check_classes(classes)
        needed = images_needed(q)
        short = [number for number in dict.fromkeys(chosen) if self._classes[number].count < needed]
        if short and few == "error":
            raise ValueError(
                f"q: percentile {q:g} needs {needed} images of a class; there are "
                f"{', '.join(f'{self._classes[number].count} of class {number}' for number in short[:5])}"
                f"{' and others' if len(short) > 5 else ''}; choose one nearer to 50, or say few='extreme' or 'nan'"
            )
        rows = [self._percentile(number, q, few if number in short else None) for number in chosen]
        found = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, self.n_filters, dtype=torch.float64)
        if classes is None:
            every = torch.full((self.n_classes, self.n_filters), torch.nan, dtype=torch.float64)
            every[chosen] = found
            return every
        alone = isinstance(classes, numbers.Integral) or (isinstance(classes, Tensor) and classes.ndim == 0)
        return found[0] if alone else found

    def top_images(self, class_: int, filter_: int, n: int | None = None) -> list[tuple[int | str, float]]:
        """The images of a class that activate a filter most: (id, value), greatest first.

        Args:
            class_: the class.
            filter_: the filter.
            n: how many; None all that are kept, at most `keep`.

        Raises:
            TypeError, ValueError: a class without images; no such filter; n out of range.
        """
        (number,) = self.check_classes(class_)
        place = check_int(filter_, "filter_", 0, self.n_filters - 1)
        most = self.keep if n is None else check_int(n, "n", 1, self.keep)
        each = self._classes[number]
        found = zip(each.high_images[place, :most].tolist(), each.high[place, :most].tolist(), strict=True)
        names = self._table.names
        return [(image if names is None else names[image], value) for image, value in found if image != NO_IMAGE]

    def check_classes(self, classes: int | Sequence[int] | Tensor) -> list[int]:
        """The classes as a list.

        Raises:
            TypeError: no integers.
            ValueError: out of range, or without an image.
        """
        given = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
        listed = list(given) if isinstance(given, list | tuple | range) else [given]
        found = [check_int(each, "class", 0, self.n_classes - 1) for each in listed]
        unseen = [number for number in dict.fromkeys(found) if number not in self._classes]
        if unseen:
            raise ValueError(
                f"class: the statistics hold no image of class {', '.join(map(str, unseen))}; fit them on images of it"
            )
        return found

    def check_model(self, model: Any) -> None:
        """See that they are of this network.

        Raises:
            TypeError: no network.
            ValueError: they are of another one.
        """
        network = unwrapped(model)
        state = [(each.data_ptr(), each._version) for each in [*network.parameters(), *network.buffers()]]
        checked = self._checked  # once: other threads may check meanwhile
        if checked is not None and checked[0]() is network and checked[1] == state:
            return
        if fingerprint(network) != self._settings["model"]:
            raise ValueError(
                "stats: these statistics are of another network, or of this one with other weights; fit them again"
            )
        self._checked = (weakref.ref(network), state)

    def score(self, model: Any, x: Tensor, target: Target = None) -> FilterPass:
        """Scores of new inputs, measured as those of the statistics were.

        Args:
            model: the network that they are of.
            x: floats [B, C, *S].
            target: see `midgrain.failures.filter_scores`; the true classes.

        Raises:
            TypeError, ValueError: another network; see `filter_scores`.
        """
        self.check_model(model)
        scorer = FilterScorer(self.measure, layer=self.layer, output=self.output, seed=self._settings["seed"])
        found = scorer(model, x, target)
        if found.scores[self.measure].shape[1] != self.n_filters:
            raise ValueError(
                f"stats: layer {self.layer} has {found.scores[self.measure].shape[1]} filters for this input, the "
                f"statistics have {self.n_filters}"
            )
        return found

    def merge(self, *others: FilterStatistics) -> FilterStatistics:
        """The statistics of all the images together, as one fit would have given them; nothing is changed.

        Raises:
            TypeError: not statistics.
            ValueError: of another network, layer or measure; of the same images, as far as their ids tell.
        """
        made = self
        for other in others:
            if not isinstance(other, FilterStatistics):
                raise TypeError(f"other: expected FilterStatistics, got {type(other).__name__}")
            made = made._merged(other)
        return made

    def save(self, path: str | Path) -> None:
        """Write them into one file, a NumPy archive (.npz) whose arrays `write_statistics` lists; no pickle.

        Raises:
            PermissionError, ValueError: nothing can be written there.
        """
        file = Path(path)
        check_writable_folder(file.parent, "path")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(file, {**self._settings, "done": None}, self._table)

    @classmethod
    def load(cls, path: str | Path) -> FilterStatistics:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something else, another version, or a checkpoint of a fit that has not finished.
            ModuleNotFoundError: it needs the package datasketches.
        """
        about, table = read_statistics(Path(path))
        if about.pop("done") is not None:
            raise ValueError(
                f"path: {str(path)!r} is the checkpoint of a fit that has not finished; call fit with checkpoint= again"
            )
        return cls(about, table)

    def __repr__(self) -> str:
        return (
            f"FilterStatistics({int(self.count.sum())} images of {len(self._classes)} of {self.n_classes} classes, "
            f"{self.n_filters} filters of {self.layer}, measure {self.measure!r})"
        )

    def _merged(self, other: FilterStatistics) -> FilterStatistics:
        names = [*_OF_WHAT, *(["seed"] if self.measure == "random" else [])]
        changed = differences({n: self._settings[n] for n in names}, {n: other._settings[n] for n in names})
        if changed:
            raise ValueError(f"other: expected statistics of the same network, layer and measure; {'; '.join(changed)}")
        return FilterStatistics(self._settings, self._table.merged(other._table))

    def _filled(self, make: Callable[[ClassStatistics], npt.NDArray[np.float64]]) -> Tensor:
        found = torch.full((self.n_classes, self.n_filters), torch.nan, dtype=torch.float64)
        for number, each in self._classes.items():
            found[number] = torch.from_numpy(make(each))
        return found

    def _percentile(self, number: int, q: float, few: str | None) -> npt.NDArray[np.float64]:
        each = self._classes[number]
        if few == "nan":
            return np.full(self.n_filters, np.nan)
        found = each.percentile((0.0 if q < 50 else 100.0) if few == "extreme" else q)
        if found is None:
            raise ValueError(
                f"q: percentile {q:g} of class {number} lies between the {self.keep} least and greatest values that "
                "are kept; fit with more memory= or keep=, or install the package datasketches for estimates"
            )
        return found


def images_needed(q: float) -> int:
    """How many images of a class percentile q needs, so that one of them may lie beyond it.

    Example:
        >>> from midgrain.failures.statistics import images_needed
        >>> images_needed(99.9), images_needed(50), images_needed(100)
        (1000, 2, 1)
    """
    beyond = min(q, 100.0 - q)
    return 1 if beyond == 0 else math.ceil(round(100.0 / beyond, 6))


def _check_percentile(q: object) -> float:
    if isinstance(q, bool) or not isinstance(q, int | float | np.number):
        raise TypeError(f"q: expected a number in 0 .. 100, got {type(q).__name__}")
    if not 0.0 <= q <= 100.0:
        raise ValueError(f"q: expected a number in 0 .. 100, got {q}")
    return float(q)
