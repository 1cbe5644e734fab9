"""The filter removal curve: how fast a network loses its accuracy while its last filters are set to 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.convolution import FilterLayer
from midgrain.cams.layers import Layer
from midgrain.driver import Target
from midgrain.network.altered import check_batch_size, probabilities
from midgrain.network.capture import Site, run_from, run_until
from midgrain.network.channels import channel_places, without_channels
from midgrain.network.modules import unwrapped
from midgrain.network.resume import CannotResume, Resume
from midgrain.network.trace import Trace
from midgrain.ops.checks import check_int

__all__ = ["FilterRemoval", "FilterRemover", "filter_removal"]

# Values of the layer in one pass.
_VALUES_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
_MOST_AT_ONCE = 256

_ORDERS = {"most": True, "least": False}


@dataclass(frozen=True, eq=False)
class FilterRemoval:
    """What a network says of some samples while filters go; all tensors on the samples' device."""

    #: Is the class still the predicted one? Bool [B, steps + 1].
    correct: Tensor
    #: Its softmax probability, float32 [B, steps + 1].
    probability: Tensor
    #: Filters removed, int64 [steps + 1], from 0 to all.
    counts: Tensor
    #: Classes, int64 [B].
    target: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of the samples that are right, float64 [steps + 1]."""
        return self.correct.double().mean(0)

    @property
    def curve(self) -> Tensor:
        """Normalised accuracy: the accuracy divided by that of the whole network, float64 [steps + 1].

        Raises:
            ValueError: the whole network gets no sample right, so there is nothing to divide by.
        """
        accuracy = self.accuracy
        if accuracy[0] == 0:
            raise ValueError(
                f"target: the network gets none of the {len(self.correct)} samples right, so its accuracy cannot be "
                "normalised; pass the samples' true classes, or target=None for the predicted ones"
            )
        return accuracy / accuracy[0]

    @property
    def value(self) -> float:
        """The measure's number: the area under `curve` over the share of filters removed, trapezium rule."""
        return float(torch.trapezoid(self.curve, self.counts.double() / self.counts[-1]))


class FilterRemover:
    """Removes filters by several rankings at once; the network is run as a whole once for each sample.

    Args:
        model: see `filter_removal`.
        step: see `filter_removal`.
        order: see `filter_removal`.
        layer: see `filter_removal`.
        after_norm: see `filter_removal`.
        batch_size: see `filter_removal`.

    Raises:
        TypeError, ValueError: see `filter_removal`.
    """

    def __init__(
        self,
        model: Any,
        *,
        step: int = 16,
        order: str = "most",
        layer: Layer | None = None,
        after_norm: bool = False,
        batch_size: int | None = None,
    ):
        driver.check_model(model)
        self.network = unwrapped(model)
        self.step = check_int(step, "step", 1)
        if order not in _ORDERS:
            raise ValueError(f"order: expected 'most' or 'least' (important first), got {order!r}")
        self.order = order
        self.batch_size = check_batch_size(batch_size)
        self._layer = FilterLayer(layer, after_norm)
        self._rest: tuple[Site, Resume | None] | None = None

    def __call__(self, x: Tensor, scores: Mapping[str, Tensor], target: Target = None) -> dict[str, FilterRemoval]:
        """The curves of some rankings of one batch.

        Args:
            x: see `filter_removal`.
            scores: name -> one ranking, see `filter_removal`.
            target: see `filter_removal`.

        Raises:
            TypeError, ValueError: see `filter_removal`.
        """
        x = driver.check_input(x).detach()
        _refuse_callable(target)
        if not scores:
            raise ValueError("scores: expected at least one ranking, got none")
        with driver.preserved(self.network, x), torch.no_grad():
            site = self._layer.site(self.network, x, target)
            trace = self._layer.trace(self.network, x, target)
            found: list[_States] = []
            for piece in self._pieces(site, trace, x):
                if not found:
                    places = channel_places(site, piece.values, "the filter removal curve sets")
                    ranks = [self._ranks(name, each, len(x), len(places)) for name, each in scores.items()]
                    every = torch.stack(ranks).to(x.device)
                    counts = torch.tensor([*range(0, len(places), self.step), len(places)])
                found.append(self._measured(piece, places, every, counts, target))
        correct, probability = (torch.cat([each[part] for each in found], 1) for part in (0, 1))
        classes = torch.cat([each[2] for each in found])
        return {
            name: FilterRemoval(correct[place], probability[place], counts.to(x.device), classes)
            for place, name in enumerate(scores)
        }

    def _pieces(self, site: Site, trace: Trace, x: Tensor) -> Iterator[_Piece]:
        """The batch at the layer: as a whole where that is all that the rest needs, otherwise sample by sample."""
        if self._rest is None or self._rest[0] is not site:
            try:
                self._rest = site, Resume(self.network, trace, site, x[:1], poison=True)
            except CannotResume:
                self._rest = site, None
        if self._rest[1] is not None:
            yield _Piece(slice(0, len(x)), run_until(self.network, x, site), self._rest[1])
            return
        for sample in range(len(x)):
            one = x[sample : sample + 1]
            try:
                resume = Resume(self.network, trace, site, one)
            except CannotResume:
                yield _Piece(
                    slice(sample, sample + 1), run_until(self.network, one, site), _FromStart(self.network, site, one)
                )
            else:
                yield _Piece(slice(sample, sample + 1), resume.recorded, resume)

    def _measured(self, piece: _Piece, places: Tensor, every: Tensor, counts: Tensor, target: Target) -> _States:
        """Per ranking and sample of the piece correct and probability, and the classes."""
        ranks = every[:, piece.rows]
        shape = (*ranks.shape[:2], len(counts))
        at_once = self.batch_size or self._at_once(piece.values)
        counts = counts.to(ranks.device)

        def states(ranking: Tensor, sample: Tensor, removed: Tensor) -> Iterator[Tensor]:
            """The network's outputs without the first filters of a ranking of a sample."""
            for r, b, c in zip(*(each.split(at_once) for each in (ranking, sample, removed)), strict=True):
                if not len(r):  # One step takes all filters.
                    return
                gone = (ranks[r, b] < c[:, None]).to(piece.values.device)
                yield piece.run(without_channels(piece.values[b.to(piece.values.device)], places, gone))

        samples = torch.arange(shape[1], device=ranks.device)
        nothing = torch.zeros_like(samples)
        whole = torch.cat(list(states(nothing, samples, nothing)))
        classes = _classes(whole, target, piece.rows, every.shape[1])
        # Without any filter removed, or with all of them, the rankings are the same.
        ends = [_read(whole, classes)]
        bare = states(nothing, samples, torch.full_like(samples, int(counts[-1])))
        ends.append(_read(torch.cat(list(bare)), classes))
        numbers = torch.cartesian_prod(*(torch.arange(n, device=ranks.device) for n in (*shape[:2], shape[2] - 2)))
        rows = numbers.reshape(-1, 3).unbind(1)
        # Written in place: small tensors that stay, between large ones that go, would scatter over the memory.
        of = classes[rows[1]]
        right = torch.zeros(len(of), dtype=torch.bool, device=ranks.device)
        probable = torch.zeros(len(of), dtype=torch.float32, device=ranks.device)
        done = 0
        for outputs in states(rows[0], rows[1], counts[1 + rows[2]]):
            some = slice(done, done + len(outputs))
            right[some], probable[some] = _read(outputs, of[some])
            done += len(outputs)
        found = []
        for part, inner in enumerate((right, probable)):
            values = torch.zeros(shape, dtype=inner.dtype, device=ranks.device)
            values[..., 0], values[..., -1] = ends[0][part], ends[1][part]
            values[..., 1:-1] = inner.reshape(*shape[:2], -1)
            found.append(values)
        return found[0], found[1], classes

    def _ranks(self, name: str, scores: object, batch: int, filters: int) -> Tensor:
        """Place of every filter in the order of removal, int64 [B, K]."""
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"scores: expected a tensor of floats [B, filters], got {got} for {name!r}")
        if list(scores.shape) != [batch, filters]:
            raise ValueError(
                f"scores: expected one per sample and filter of the layer ([{batch}, {filters}]), got "
                f"{list(scores.shape)} for {name!r}"
            )
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f"scores: expected finite numbers, got NaN or infinity for {name!r}")
        order = scores.detach().cpu().argsort(dim=1, descending=_ORDERS[self.order], stable=True)
        return order.argsort(1)

    @staticmethod
    def _at_once(values: Tensor) -> int:
        most = _VALUES_AT_ONCE["cuda" if values.is_cuda else "cpu"] // values[0].numel()
        return min(max(1, most), _MOST_AT_ONCE)


#: Per ranking correct and probability [R, b, steps + 1], and the classes [b].
_States: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some samples of the batch at the layer, and the network from there on."""

    rows: slice
    values: Tensor
    run: Callable[[Tensor], Tensor]


class _FromStart:
    """A network that cannot be entered at the layer: all of it, with the layer's output exchanged."""

    def __init__(self, network: nn.Module, site: Site, one: Tensor):
        self.network, self.site, self.one = network, site, one

    def __call__(self, values: Tensor) -> Any:
        return run_from(self.network, self.one.expand(len(values), *self.one.shape[1:]), self.site, values)


def _classes(outputs: Tensor, target: Target, rows: slice, batch: int) -> Tensor:
    """The classes of some samples of a batch."""
    if target is None:
        classes, _ = driver.resolve_target(outputs, None, len(outputs))
    else:
        # A class per sample: all are checked at once.
        wide = outputs if len(outputs) == batch else outputs[:1].expand(batch, *outputs.shape[1:])
        classes, _ = driver.resolve_target(wide, target, batch)
        classes = None if classes is None else classes[rows]
    assert classes is not None
    return classes


def _refuse_callable(target: Target) -> None:
    if callable(target):
        raise TypeError("target: expected classes, whose accuracy is measured, got a callable")


def _read(outputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Is the class the predicted one, and its probability."""
    driver.resolve_target(outputs, classes, len(outputs))
    found = probabilities(outputs).gather(1, classes[:, None])[:, 0].float()
    return outputs.argmax(1) == classes, found


def filter_removal(
    model: Any,
    x: Tensor,
    scores: Tensor | Callable[[Tensor, Tensor], Tensor],
    target: Target = None,
    *,
    step: int = 16,
    order: str = "most",
    layer: Layer | None = None,
    after_norm: bool = False,
    batch_size: int | None = None,
) -> FilterRemoval:
    """Filter removal: the accuracy while filters of the last convolution are set to 0, most important first.

    Every sample has its own ranking. The accuracy is normalised: divided by the whole network's, so the curve begins
    at 1; it may rise above it. A measure of filters is good where the area is small, and smaller than that of a random
    ranking. What comes before the layer is run once; every step runs the rest of the network alone.

    Args:
        model: a network that returns logits [B, classes].
        x: floats [B, C, H, W] or [B, C, T, H, W], normalised as the model expects.
        scores: finite floats [B, filters], greater is more important, or a callable `(x, target) -> scores`, given
            the classes int64 [B]. Of equal scores the first filter is the more important one.
        target: true classes: one, or one per sample; None takes the predicted ones, whose accuracy begins at 1.
        step: filters that go at a time.
        order: "most" important first, or "least".
        layer: see `midgrain.failures.filter_scores`; the same as the scores'.
        after_norm: set what the norm after the layer returns to 0, not what the layer itself does. A filter set to 0
            before the norm still counts as the norm's constant; this is what pruning the filter leaves.
        batch_size: states of the network at once; None chooses by the layer's size. Results do not depend on it
            beyond rounding.

    Returns:
        `.value`, the area; `.curve` and `.accuracy` float64 [steps + 1]; per sample `.correct` and `.probability`
        [B, steps + 1]; `.counts` [steps + 1], the filters removed.

    Raises:
        TypeError: arguments of other kinds; a callable target.
        ValueError: scores of another shape, or NaN; a target out of range; no such layer.

    Source: T. Hartley's PhD thesis, 6.2.2.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 4))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> scores = mg.failures.filter_scores(model, x)
        >>> result = mg.measures.filter_removal(model, x, scores, step=2)
        >>> result.counts.tolist(), result.correct.shape
        ([0, 2, 4, 6, 8], torch.Size([2, 5]))
    """
    remover = FilterRemover(model, step=step, order=order, layer=layer, after_norm=after_norm, batch_size=batch_size)
    if callable(scores):
        x = driver.check_input(x)
        _refuse_callable(target)
        with driver.preserved(remover.network, x):
            classes = driver.forward(remover.network, x, target).target
        assert classes is not None
        target, scores = classes, scores(x, classes)
    return remover(x, {"scores": scores}, target)["scores"]
