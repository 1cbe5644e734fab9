"""What explainers share that switch superpixels off and ask the network what becomes of the score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain import ops
from midgrain.baseline import Baseline, make_baseline
from midgrain.cams import make_map_scorer
from midgrain.driver import Pass, Target
from midgrain.explainer_base import ManyPassExplainer, check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.network.altered import check_batch_size
from midgrain.network.probe import READINGS, MakeInputs, Probe, check_output
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar
from midgrain.randomness import seeded_by_content
from midgrain.regions.base import RegionExplainer, painted
from midgrain.regions.superpixels import Segmentation, SlicOptions, SuperpixelChoice
from midgrain.scorers import Scorer, ScorerFunction
from midgrain.stability import Stability, check_stop_at

__all__ = ["Asker", "Bools", "Design", "Floats", "RegionFit", "SwitchedRegions"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Baseline of superpixels: each one's own mean colour.
SEGMENT_MEAN = "segment-mean"


@dataclass(frozen=True)
class RegionFit:
    """What some samples say of one target."""

    #: float64 [K].
    scores: Floats
    #: Numbers for `Explanation.details`.
    details: Mapping[str, float] = field(default_factory=dict)
    #: A map of any size, float64 [*m], to refine the painted scores with; see `SwitchedRegions.heatmap`.
    map: Tensor | None = None


class Asker(Protocol):
    """Asks the network about altered copies of a batch, see `midgrain.network.probe.Probe`."""

    @property
    def x(self) -> Tensor:
        """The batch."""
        ...

    @property
    def targets(self) -> Sequence[Target]:
        """What is explained."""
        ...

    @property
    def results(self) -> Sequence[Pass]:
        """Per target what the pass on the unaltered batch gave."""
        ...

    @property
    def unaltered(self) -> Tensor:
        """The scores of the unaltered batch, float64 [targets, B]."""
        ...

    def scores(self, make: MakeInputs, wanted: Tensor, advance: Callable[[int], object]) -> Tensor:
        """The scores of altered copies, float64 [targets, B, J]."""
        ...


class Design(Protocol):
    """Which altered copies of one input are looked at, and what is made of their scores."""

    @property
    def table(self) -> Bools:
        """Which superpixels are on, [n, K]."""
        ...

    def fit(self, scores: Floats, unaltered: float, place: int) -> RegionFit:
        """What the first rows of the table say.

        Args:
            scores: [m], of the first m rows.
            unaltered: the score with everything on.
            place: of the target among those explained together.
        """
        ...


class SwitchedRegions(RegionExplainer, ManyPassExplainer):
    """Base of the explainers that learn from copies of the input with some superpixels off.

    A pixel of a superpixel that is off shows the baseline. Which superpixels are off does not depend on the scores, so
    that all targets share the passes, unless the superpixels themselves depend on the target.

    Args:
        model: see `Explainer`.
        superpixels: how they are made, see `midgrain.SWAG`.
        options: of gradient-augmented SLIC.
        scorer: makes the pixel scores for superpixels that follow them.
        n_samples: passes through the network, at least 2; the unaltered input is one of them.
        baseline: see `midgrain.measures.deletion`; also "segment-mean", each superpixel's own mean colour.
        output: "probability", "logit" or "log-odds" of the class.
        batch_size: copies at once; None chooses by the input's size.
        seed: of the samples.
        progress: show a bar.
        stop_at: rank correlation between successive estimates from which a sample has settled; None never stops.
        mean: see `Explainer`.
        std: see `Explainer`.
    """

    #: Samples between two looks at whether the scores have settled.
    block = 50

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice,
        options: SlicOptions,
        *,
        scorer: str | Scorer | ScorerFunction,
        n_samples: int,
        baseline: Baseline,
        output: str,
        batch_size: int | None,
        seed: int,
        progress: bool,
        stop_at: float | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ):
        super().__init__(model, superpixels, options, mean=mean, std=std)
        self.scorer = make_map_scorer(scorer, mean=mean, std=std)
        self.n_samples = check_int(n_samples, "n_samples", 2)
        self.baseline = baseline
        self.output = check_output(output, READINGS)
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")
        self.stop_at = check_stop_at(stop_at)

    def design(self, count: int, generator: torch.Generator) -> Design:
        """How one input is looked at.

        Args:
            count: superpixels of the input.
            generator: belongs to the input.
        """
        raise NotImplementedError

    def heatmap(self, scores: Tensor, fits: Sequence[RegionFit], segments: Segmentation) -> Tensor:
        """The heat map [B, *S] of the scores [B, n_max]: painted."""
        return painted(scores, segments)

    def probe(self, x: Tensor, targets: Sequence[Target]) -> Asker:
        """Who asks the network; it has run on the batch as it is."""
        return Probe(self.model, x, targets, output=self.output, batch_size=self.batch_size)

    def designs(self, probe: Asker, segments: Segmentation) -> Sequence[Design]:
        """How each input of a batch is looked at."""
        return [
            self.design(int(count), generator)
            for count, generator in zip(segments.counts, self.generators(probe.x), strict=True)
        ]

    def generators(self, x: Tensor) -> list[torch.Generator]:
        """Random numbers for each input."""
        return [seeded_by_content(sample, self.seed) for sample in x.float().cpu()]

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        if self.superpixels.uses_gradient and len(targets) > 1:  # Each target has superpixels of its own.
            return [self._explain_all(x, [target])[0] for target in targets]
        x = x.detach()
        rgb = self.rgb(x)
        self.check_picture(x, rgb)
        segments = self.segment(x, rgb, self._gradient(x, targets[0]))
        empty = self._empty(x, segments)
        probe = self.probe(x, targets)
        designs = self.designs(probe, segments)
        fits, passes = self._fits(probe, designs, _Copies(x, empty, segments, [each.table for each in designs]))
        return [
            self._explanation(probe, place, fits[place], passes[place], segments, rgb) for place in range(len(targets))
        ]

    def _gradient(self, x: Tensor, target: Target) -> Tensor | None:
        if not self.superpixels.uses_gradient:
            return None
        maps = self.scorer.score(self.model, x, target).map
        check_scores(maps)
        return maps

    def _empty(self, x: Tensor, segments: Segmentation) -> Tensor:
        """What stands where a superpixel is off, of x's shape."""
        if isinstance(self.baseline, str) and self.baseline == SEGMENT_MEAN:
            return _own_means(x, segments)
        try:
            return make_baseline(self.baseline, x, self.seed, self._normalisation)
        except ValueError as error:
            if not isinstance(self.baseline, str):
                raise
            raise ValueError(f"{error} (or {SEGMENT_MEAN!r})") from None

    def _fits(self, probe: Asker, designs: Sequence[Design], copies: _Copies) -> tuple[list[list[RegionFit]], Tensor]:
        """Per target one fit per sample, and the passes that it used, int64 [targets, B]."""
        targets, batch = len(probe.targets), len(designs)
        lengths = torch.tensor([len(design.table) for design in designs])
        scores = np.zeros((targets, batch, int(lengths.max())))
        stable = [[Stability(self.stop_at) for _ in range(batch)] for _ in range(targets)]
        fits: list[list[RegionFit | None]] = [[None] * batch for _ in range(targets)]
        passes = torch.ones(targets, batch, dtype=torch.int64)
        size = self.block if self.stop_at is not None else max(1, int(lengths.max()))
        with progress_bar("switching superpixels off", int(lengths.sum()), shown=self.progress) as advance:
            for start in range(0, max(1, int(lengths.max())), size):
                end = min(start + size, int(lengths.max()))
                unsettled = torch.tensor([any(row[sample] is None for row in fits) for sample in range(batch)])
                wanted = unsettled[:, None] & (torch.arange(start, end) < lengths[:, None])
                found = probe.scores(copies.numbered_from(start), wanted, advance)
                scores[:, :, start:end] = found.cpu().numpy()
                for place in range(targets):
                    for sample in range(batch):
                        if fits[place][sample] is not None:
                            continue
                        used = min(end, int(lengths[sample]))
                        unaltered = float(probe.unaltered[place, sample])
                        fit = designs[sample].fit(scores[place, sample, :used], unaltered, place)
                        if used == lengths[sample] or stable[place][sample].settled(fit.scores):
                            fits[place][sample] = fit
                            passes[place, sample] = used + 1
                if all(fit is not None for row in fits for fit in row):
                    break
        return [[fit for fit in row if fit is not None] for row in fits], passes

    def _explanation(
        self,
        probe: Asker,
        place: int,
        fits: Sequence[RegionFit],
        passes: Tensor,
        segments: Segmentation,
        rgb: Tensor | None,
    ) -> Explanation:
        device = probe.x.device
        shape = (len(fits), int(segments.counts.max()))
        scores = torch.full(shape, torch.nan, dtype=torch.float32)
        for sample, fit in enumerate(fits):
            scores[sample, : len(fit.scores)] = torch.from_numpy(fit.scores)
        scores = scores.to(device)
        details = {"passes": passes}
        for name in fits[0].details:
            details[name] = torch.tensor([fit.details[name] for fit in fits], dtype=torch.float32)
        result = probe.results[place]
        return Explanation(
            heatmap=self.heatmap(scores, fits, segments),
            method=self.name,
            segments=segments.labels.to(device),
            scores=scores,
            counts=segments.counts.to(device),
            target=result.target,
            outputs=result.outputs,
            details={name: value.to(device) for name, value in details.items()},
            image=to_uint8(rgb),
        )


class _Copies:
    """Copies of a batch's samples with some superpixels off; masks are made as they are asked for."""

    def __init__(self, x: Tensor, empty: Tensor, segments: Segmentation, tables: Sequence[Bools]):
        self.x, self.empty, self.tables = x, empty, tables
        self.labels = segments.labels.to(device=x.device, dtype=torch.int64)

    def numbered_from(self, start: int) -> MakeInputs:
        """Makes copies by the number of their row in the table, less `start`."""

        def make(sample: int, numbers: Sequence[int]) -> Tensor:
            table = self.tables[sample]
            on = np.ones((len(numbers), table.shape[1]), dtype=np.bool_)
            # A callable target sees the whole batch: samples with a shorter table come along unaltered.
            for place, number in enumerate(numbers):
                if start + number < len(table):
                    on[place] = table[start + number]
            masks = torch.from_numpy(on).to(self.x.device)[:, self.labels[sample]]
            return torch.where(masks[:, None], self.x[sample], self.empty[sample])

        return make


def _own_means(x: Tensor, segments: Segmentation) -> Tensor:
    """Every superpixel's own mean colour, of x's shape and dtype."""
    labels = segments.labels
    n = int(segments.counts.max())
    means: Tensor = ops.pool(x.to(labels.device), labels, "mean", n=n, spatial_dims=labels.ndim - 1)
    painted_means = [mean[:, own.long()] for mean, own in zip(means, labels, strict=True)]
    return torch.stack(painted_means).to(device=x.device, dtype=x.dtype)
