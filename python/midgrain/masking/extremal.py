"""Extremal perturbation: the smooth mask of a given area behind which the network says most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from midgrain.baseline import Baseline, make_baseline
from midgrain.driver import Target
from midgrain.explainer_base import ManyPassExplainer, to_uint8
from midgrain.explanation import Explanation
from midgrain.masking.axes import check_ints, ints_of_axes
from midgrain.masking.mask_search import Game, MaskSearch
from midgrain.masking.perturbations import BlurPyramid, Fading, Perturbation
from midgrain.masking.smooth_masks import SmoothMasks
from midgrain.network.altered import check_batch_size
from midgrain.network.probe import Probe, check_output
from midgrain.ops.checks import check_bool, check_int, check_positive
from midgrain.progress import progress_bar
from midgrain.stability import check_stop_at

__all__ = ["ExtremalPerturbation"]

# Lattice points of a mask along the shorter side, and pixels of blur: at 224 pixels a step of 7 and 20 pixels.
_POINTS, _BLUR_SHARE = 32, 20 / 224
# Of a clip's frames.
_FRAME_POINTS = 8
_SIGMA_STEPS = 3.0


class ExtremalPerturbation(ManyPassExplainer):
    """For each area a the smooth mask m that shows the share a of the input and keeps the score highest.

    m_a = argmax over masks of Phi(input behind m) - lambda mean((sorted(m) - r_a)^2), where r_a is 0 for all but the
    share a of the pixels and 1 for those; lambda grows, so that the mask becomes one of 0 and 1 of this area (Fong,
    Patrick, Vedaldi 2019). Masks are smooth by how they are made (see
    `midgrain.masking.smooth_masks.SmoothMasks`). They are found by gradient descent with momentum from a mask that
    shows everything, a local search. The heat map is the sum of the masks: 0 .. number of areas, a few levels high.

    Where pixels share the value at the rank where r_a jumps, as all do at first, each gets the mean of their places in
    r_a: what the network sees decides, not the order of the pixels in memory. More area than the score needs lies
    anywhere.

    `Explanation.details`: "masks", float32 [B, areas, *S], 1 where the input is shown ("delete": where it is hidden);
    "areas", [B, areas], their means; "scores", [B, areas], the score behind each mask; "iterations", int64 [B];
    "passes", int64 [B], forward passes of each sample, all but a few of them with a backward pass.

    Args:
        model: see `Explainer`. Its score must be differentiable with respect to the input.
        areas: shares of the input, each in 0 .. 1 exclusive.
        variant: "preserve" shows the mask's inside and maximises the score; "delete" hides it and minimises the
            score; "hybrid" maximises the first less the second, in two passes.
        perturbation: how the input is hidden: "blur" by degrees, or "fade" to the baseline.
        max_blur: the strongest blur's sigma in pixels; None means 20 for a shorter side of 224 and in proportion.
        baseline: what "fade" fades to, see `midgrain.measures.deletion`; also "black" and "white".
        n_iterations: steps of gradient descent.
        step: pixels between the points of the lattice that a mask is made of, a number for rows and columns or one
            per axis; None means 7 for a shorter side of 224 and in proportion, and an eighth of a clip's frames.
        sigma: width of the bump around a point, in pixels, likewise; None means three steps along rows and columns,
            one step along frames.
        area_weight: lambda at the first step; it grows by 0.35 % in each.
        learning_rate: of the gradient descent, for 32 x 32 lattice points; in proportion for others.
        jitter: mirror the perturbed input left to right in every other step, as TorchRay does.
        output: "probability" or "logit" of the class, Phi; a callable's scores are taken as they are.
        stop_at: stop for a sample once its heat map keeps its order: when Spearman's rank correlation of the map with
            that of 50 steps before is at least this, twice in a row. Areas are met less exactly then. None always
            takes all steps.
        batch_size: perturbed inputs at once, with the memory of a backward pass; None chooses by the input's size.
            Results do not depend on it but for rounding.
        seed: of a baseline of noise.
        progress: show a bar.
        mean: see `Explainer`.
        std: see `Explainer`.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: an option out of its range; when called, a score that cannot be differentiated.

    Example:
        >>> import torch, midgrain as mg
        >>> weights = torch.zeros(2, 144)
        >>> weights[0, :24] = 1.0  # class 0 is the sum of the first two rows of 12
        >>> model = lambda x: x.flatten(1) @ weights.T
        >>> explain = mg.explainer("extremal", model, areas=[0.25], perturbation="fade", n_iterations=400)
        >>> heatmap = explain(torch.ones(1, 1, 12, 12), 0).heatmap[0]
        >>> bool(heatmap[:2].min() > 0.8), bool(heatmap[6:].max() < 0.2)
        (True, True)
    """

    def __init__(
        self,
        model: Any,
        *,
        areas: float | Sequence[float] = (0.025, 0.05, 0.1, 0.2),
        variant: str = "preserve",
        perturbation: str = "blur",
        max_blur: float | None = None,
        baseline: Baseline = 0.0,
        n_iterations: int = 800,
        step: int | Sequence[int] | None = None,
        sigma: float | Sequence[float] | None = None,
        area_weight: float = 300.0,
        learning_rate: float = 0.01,
        jitter: bool = False,
        output: str = "logit",
        stop_at: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        if perturbation not in ("blur", "fade"):
            raise ValueError(f"perturbation: expected 'blur' or 'fade', got {perturbation!r}")
        self.perturbation = perturbation
        self.max_blur = None if max_blur is None else check_positive(max_blur, "max_blur")
        self.baseline = baseline
        self.step = None if step is None else check_ints(step, "step")
        self.sigma = _checked_sigma(sigma)
        self.game = Game(
            areas=_checked_areas(areas),
            variant=variant,
            n_iterations=check_int(n_iterations, "n_iterations", 1),
            area_weight=check_positive(area_weight, "area_weight"),
            learning_rate=check_positive(learning_rate, "learning_rate"),
            jitter=check_bool(jitter, "jitter"),
            output=check_output(output),
            stop_at=check_stop_at(stop_at),
        )
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        x = x.detach().clone()  # An inference tensor could not be differentiated through.
        masks = self._masks_of(x)
        probe = Probe(self.model, x, targets, output=self.game.output, batch_size=self.batch_size)
        hidden = make_baseline(self.baseline, x, self.seed, self._normalisation)
        picture = to_uint8(self.rgb(x))
        total = self.game.n_iterations * len(x) * len(targets)
        explanations = []
        with progress_bar("searching masks", total, shown=self.progress) as advance:
            for place, result in enumerate(probe.results):
                search = MaskSearch(self.game, probe, place, masks, advance)
                for samples in search.groups():
                    search.run(samples, self._perturbation_of(x[samples], hidden[samples]))
                found = search.masks
                explanations.append(
                    Explanation(
                        heatmap=found.sum(1),
                        method=self.name,
                        target=result.target,
                        outputs=result.outputs,
                        details={
                            "masks": found,
                            "areas": found.flatten(2).mean(2),
                            "scores": search.scores,
                            "iterations": search.iterations.to(x.device),
                            "passes": search.passes().to(x.device),
                        },
                        image=picture,
                    )
                )
        return explanations

    def _perturbation_of(self, x: Tensor, hidden: Tensor) -> Perturbation:
        if self.perturbation == "fade":
            return Fading(x, hidden)
        return BlurPyramid(x, self.max_blur or min(x.shape[-2:]) * _BLUR_SHARE)

    def _masks_of(self, x: Tensor) -> SmoothMasks:
        size = tuple(x.shape[2:])
        side = max(1, round(min(size[-2:]) / _POINTS))
        frames = [max(1, round(n / _FRAME_POINTS)) for n in size[:-2]]
        step = ints_of_axes(self.step, "step", [*frames, side, side])
        if self.sigma is None or isinstance(self.sigma, float):
            wide = [self.sigma or _SIGMA_STEPS * s for s in step[-2:]]
            sigma = [*(float(s) for s in step[:-2]), *wide]
        elif len(self.sigma) != len(size):
            raise ValueError(f"sigma: expected a number or one per axis of x {list(x.shape)}, got {self.sigma}")
        else:
            sigma = list(self.sigma)
        return SmoothMasks(size, step, sigma, x.device)


def _checked_areas(areas: float | Sequence[float]) -> tuple[float, ...]:
    listed = areas if isinstance(areas, list | tuple | np.ndarray) and np.ndim(areas) == 1 else [areas]
    found = tuple(check_positive(area, "areas") for area in listed)
    if not found or max(found) >= 1.0:
        raise ValueError(f"areas: expected shares of the input between 0 and 1, got {areas}")
    return found


def _checked_sigma(sigma: float | Sequence[float] | None) -> float | tuple[float, ...] | None:
    if isinstance(sigma, list | tuple | np.ndarray) and np.ndim(sigma) == 1:
        return tuple(check_positive(width, "sigma") for width in sigma)
    return None if sigma is None else check_positive(sigma, "sigma")
