"""Why is a prediction wrong? What surprised the network, where, and what it missed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from midgrain import driver
from midgrain.baseline import Baseline
from midgrain.cams.convolution import FilterLayer
from midgrain.failures.predictions import read_predictions
from midgrain.failures.statistics import FilterStatistics
from midgrain.failures.suppression import N_SEGMENTS, REMOVALS, Suppression, suppress
from midgrain.failures.surprise import HIGH, LOW, Surprise, surprise
from midgrain.failures.through_filter import ThroughFilter
from midgrain.maps import min_max, resize_maps
from midgrain.network.capture import capture
from midgrain.network.modules import unwrapped
from midgrain.ops.checks import check_bool, check_int
from midgrain.regions.swag import SWAG

__all__ = ["THROUGH", "Example", "Failure", "Finding", "ImagesById", "explain", "filter_maps", "regions_behind"]

#: Which filter repairs are searched through.
THROUGH = ("surprising", "against")
#: From the id of a training image to the network's input for it, [C, *S]: a callable, or a data set whose items are
#: such inputs or (input, class).
ImagesById: TypeAlias = Callable[[Any], Any] | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Example:
    """A training image that speaks for a filter."""

    #: As in the statistics.
    id: int | str
    #: Its class.
    true_class: int
    #: The filter's score for it.
    score: float
    #: The network's input for it, [C, *S], and the filter's activations on it, resized to it and rescaled to 0 .. 1,
    #: float32 [*S]; None unless `images` was given.
    input: Tensor | None = None
    mask: Tensor | None = None

    @property
    def masked(self) -> Tensor | None:
        """The input behind the mask, [C, *S]."""
        return None if self.input is None or self.mask is None else self.input * self.mask


@dataclass(frozen=True, eq=False)
class Finding:
    """One filter of one sample that surprises or is missed."""

    filter: int
    score: float
    #: Of the class's training images: the mean, and the percentile that the score lies beyond.
    mean: float
    limit: float
    #: How extreme it is: (score - mean) / standard deviation.
    deviation: float
    #: Training images that speak for the filter: of surprise, of all classes; of expectation, of the true class.
    examples: tuple[Example, ...] = ()
    #: Of surprise, mean gradient through this filter of each superpixel, float32 [*S], and the best of them, bool [*S].
    heatmap: Tensor | None = None
    region: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Failure:
    """Why a sample is predicted wrongly."""

    true_class: int
    predicted: int
    #: Of the true class: softmax probability and logit.
    probability: float
    logit: float
    #: How typical the sample is of its class: below 0 less than the training images on average (eq. 6.8).
    beta: float
    #: Filters, the most extreme first; at most as many as asked for.
    surprising: tuple[Finding, ...]
    expected: tuple[Finding, ...]
    #: How many filters there are of either kind.
    n_surprising: int
    n_expected: int
    #: Removing what the gradient through one filter points at, and the same without a filter; for this sample alone, a
    #: batch of one. None where it was not searched: of the first, because nothing surprises.
    repair: Suppression | None = None
    unfiltered_repair: Suppression | None = None

    @property
    def correct(self) -> bool:
        """It is no failure."""
        return self.true_class == self.predicted


def explain(
    model: Any,
    x: Tensor,
    true_class: int | Sequence[int] | Tensor,
    stats: FilterStatistics,
    *,
    images: ImagesById | None = None,
    n_filters: int = 3,
    n_examples: int = 3,
    n_segments: int = 50,
    low: float = LOW,
    high: float = HIGH,
    few: str = "error",
    correct: str = "error",
    repair: bool = True,
    through: str = "surprising",
    search_segments: int | Sequence[int] = N_SEGMENTS,
    removals: int | Sequence[int] = REMOVALS,
    baseline: Baseline = 0.0,
    guided: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[Failure]:
    """What misled the network, what it missed, and how typical the samples are of their classes.

    The region behind a surprising filter is the best of 50 superpixels of the picture, scored by the true class's
    gradient through that filter alone. Beside it stand the training images for which the filter has the highest scores
    for their own class; beside a filter that is missed, those of the true class.

    Args:
        model: the network of the statistics.
        x: floats [B, C, *S], wrongly predicted.
        true_class: of each sample.
        stats: see `FilterStatistics.fit`.
        images: gives the training images, to show them and where they activate the filters; None leaves that out.
        n_filters: at most so many surprising and so many missed filters of each sample, the most extreme ones.
        n_examples: training images for each, at most the `keep` of the statistics.
        n_segments: superpixels of the regions.
        low: percentile below which a filter is missed.
        high: percentile above which it surprises.
        few: "error" or "extreme", what to do with classes of too few training images for these, see `surprise`.
        correct: what to do with samples that are predicted rightly: "error", or "explain" them as well.
        repair: also search for a repair, through a filter and without one.
        through: this filter: the most "surprising" one, as in the thesis; or the one most "against" the class, whose
            score is the most standard deviations below the class's mean. That is where what misleads to another class
            shows, see docs/failure_reports.md.
        search_segments: numbers of superpixels that the search tries, see `suppress`.
        removals: how many of them it removes, see `suppress`.
        baseline: what a removed pixel becomes, see `suppress`.
        guided: guided backpropagation in regions and repairs instead of the plain gradient.
        batch_size: altered inputs at once; None chooses by the input's size.
        seed: of baseline "noise".
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Returns:
        One `Failure` for each sample.

    Raises:
        TypeError, ValueError: samples that are predicted rightly; statistics of another network, or without images of
            a class; see `surprise` and `suppress`.

    Source: T. Hartley's PhD thesis, chapter 6.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> data = torch.utils.data.TensorDataset(torch.rand(80, 3, 24, 24), torch.arange(80) % 4)
        >>> stats = mg.failures.FilterStatistics.fit(model, torch.utils.data.DataLoader(data, batch_size=16))
        >>> x = torch.rand(1, 3, 24, 24) ** 3
        >>> wrong = (int(model(x).argmax()) + 1) % 4
        >>> (failure,) = mg.failures.explain(model, x, wrong, stats, images=data, few="extreme")
        >>> failure.true_class == wrong, len(failure.surprising) <= 3
        (True, True)
    """
    driver.check_model(model)
    x = driver.check_input(x)
    n_filters, n_examples = check_int(n_filters, "n_filters", 1), check_int(n_examples, "n_examples", 1)
    n_segments, guided = check_int(n_segments, "n_segments", 1), check_bool(guided, "guided")
    repair = check_bool(repair, "repair")
    if through not in THROUGH:
        raise ValueError(f"through: expected one of {', '.join(THROUGH)}, got {through!r}")
    if correct not in ("error", "explain"):
        raise ValueError(f"correct: expected 'error' or 'explain', got {correct!r}")
    if images is not None and not callable(images) and not hasattr(images, "__getitem__"):
        raise TypeError(f"images: expected a data set or a callable from ids, got {type(images).__name__}")
    found = surprise(model, x, true_class, stats, low=low, high=high, few=few)
    seen = read_predictions(found.outputs, found.true_class)
    if correct == "error" and bool(seen.correct.any()):
        right = seen.correct.nonzero()[:, 0].tolist()
        raise ValueError(
            f"x: expected wrong predictions, got sample(s) {right} predicted rightly; leave them out, or say "
            "correct='explain'"
        )
    chosen = list(
        zip(
            _findings(found, found.extreme(found.surprising, 1.0, n_filters), found.upper),
            _findings(found, found.extreme(found.expected, -1.0, n_filters), found.lower),
            strict=True,
        )
    )
    filters = [[each.filter for each in surprising] for surprising, _ in chosen]
    regions = regions_behind(
        model, x, seen.true_class, filters, stats, n_segments=n_segments, guided=guided, mean=mean, std=std
    )
    library = _Library(model, stats, images, min(n_examples, stats.keep), x)
    search = functools.partial(
        suppress,
        model,
        layer=stats.layer,
        n_segments=search_segments,
        removals=removals,
        guided=guided,
        baseline=baseline,
        batch_size=batch_size,
        seed=seed,
        mean=mean,
        std=std,
    )
    failures = []
    for sample, (surprising, expected) in enumerate(chosen):
        own = int(seen.true_class[sample])
        one, label = x[sample : sample + 1], seen.true_class[sample : sample + 1]
        repaired = unfiltered = None
        if repair:
            unfiltered = search(one, label)
            number = _through(through, surprising, found.deviation[sample])
            repaired = None if number is None else search(one, label, number)
        failures.append(
            Failure(
                own,
                int(seen.predicted[sample]),
                float(seen.probability[sample]),
                float(seen.logit[sample]),
                float(found.beta[sample]),
                tuple(
                    replace(each, heatmap=heatmap, region=region, examples=library.of(each.filter, None))
                    for each, (heatmap, region) in zip(surprising, regions[sample], strict=True)
                ),
                tuple(replace(each, examples=library.of(each.filter, own)) for each in expected),
                int(found.surprising[sample].sum()),
                int(found.expected[sample].sum()),
                repaired,
                unfiltered,
            )
        )
    return failures


def filter_maps(model: Any, x: Tensor, filters: int | Tensor, stats: FilterStatistics) -> Tensor:
    """Where a filter is active, resized to the input and rescaled to 0 .. 1.

    Args:
        model: the network of the statistics.
        x: floats [B, C, *S].
        filters: one for all samples, or int64 [B].
        stats: whose layer is meant.

    Returns:
        Float32 [B, *S].

    Raises:
        TypeError, ValueError: another network; no such filter.
    """
    stats.check_model(model)
    x = driver.check_input(x)
    numbers = torch.as_tensor(filters, device=x.device).expand(len(x))
    if not 0 <= int(numbers.min()) <= int(numbers.max()) < stats.n_filters:
        raise ValueError(f"filters: expected 0 .. {stats.n_filters - 1}, got {numbers.tolist()}")
    network = unwrapped(model)
    with driver.preserved(network, x):
        site = FilterLayer(stats.layer).site(network, x, None)
        seen = capture(network, x, None, [site], backward=False)
    maps = seen.activations[0][torch.arange(len(x), device=x.device), numbers]
    return min_max(resize_maps(maps, x.shape[2:]))


def _findings(found: Surprise, chosen: Sequence[Sequence[int]], limits: Tensor) -> list[list[Finding]]:
    """What there is to say of the filters chosen of each sample."""
    return [
        [
            Finding(
                number,
                float(found.scores[sample, number]),
                float(found.mean[sample, number]),
                float(limits[sample, number]),
                float(found.deviation[sample, number]),
            )
            for number in numbers
        ]
        for sample, numbers in enumerate(chosen)
    ]


def regions_behind(
    model: Any,
    x: Tensor,
    classes: Tensor,
    filters: Sequence[Sequence[int]],
    stats: FilterStatistics,
    *,
    n_segments: int,
    guided: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[list[tuple[Tensor, Tensor]]]:
    """Per sample and filter the heat map [*S] and the best superpixel, bool [*S]; as many as there are `filters`."""
    regions: list[list[tuple[Tensor, Tensor]]] = [[] for _ in filters]
    for place in range(max(map(len, filters))):
        rows = [sample for sample, numbers in enumerate(filters) if len(numbers) > place]
        chosen = torch.tensor([filters[sample][place] for sample in rows])
        scorer = ThroughFilter(chosen, stats.layer, guided)
        explained = SWAG(model, "image", scorer, n_segments=n_segments, mean=mean, std=std)(x[rows], classes[rows])
        assert explained.segments is not None
        assert explained.scores is not None
        for sample, heatmap, segments, scores in zip(
            rows, explained.heatmap, explained.segments, explained.scores, strict=True
        ):
            best = int(torch.where(scores.isnan(), -math.inf, scores).argmax())
            regions[sample].append((heatmap, segments == best))
    return regions


def _through(through: str, surprising: Sequence[Finding], deviation: Tensor) -> int | None:
    """The filter that a repair is searched through; None where there is none."""
    if through == "surprising":
        return surprising[0].filter if surprising else None
    least = int(deviation.argmin())
    return least if float(deviation[least]) < 0 else None


class _Library:
    """Training images that speak for filters; read once however many samples they stand beside."""

    def __init__(self, model: Any, stats: FilterStatistics, images: ImagesById | None, most: int, like: Tensor):
        self.model, self.stats, self.images, self.most, self.like = model, stats, images, most, like
        self._kept: dict[tuple[int, int | None], tuple[Example, ...]] = {}

    def of(self, filter_: int, class_: int | None) -> tuple[Example, ...]:
        """The best images of a class, or of all."""
        key = (filter_, class_)
        if key not in self._kept:
            classes = self.stats.count.nonzero()[:, 0].tolist() if class_ is None else [class_]
            found = [
                Example(image, each, value)
                for each in classes
                for image, value in self.stats.top_images(each, filter_, self.most)
            ]
            found.sort(key=lambda example: -example.score)
            self._kept[key] = tuple(self._shown(filter_, example) for example in found[: self.most])
        return self._kept[key]

    def _shown(self, filter_: int, example: Example) -> Example:
        if self.images is None:
            return example
        read = self.images(example.id) if callable(self.images) else self.images[example.id]  # type: ignore[index]
        item = read[0] if isinstance(read, tuple | list) else read
        if not isinstance(item, Tensor) or item.ndim != self.like.ndim - 1:
            got = list(item.shape) if isinstance(item, Tensor) else type(item).__name__
            raise TypeError(f"images: expected an input of {self.like.ndim - 1} axes for id {example.id!r}, got {got}")
        x = item[None].to(self.like.device)
        return replace(example, input=x[0], mask=filter_maps(self.model, x, filter_, self.stats)[0])
