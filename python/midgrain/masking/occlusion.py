"""Occlusion: how much the score falls behind a sliding square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.baseline import Baseline, make_baseline
from midgrain.driver import Target
from midgrain.explainer_base import ManyPassExplainer, to_uint8
from midgrain.explanation import Explanation
from midgrain.masking.axes import AXES, check_ints, ints_of_axes
from midgrain.masking.windows import Windows
from midgrain.network.altered import check_batch_size
from midgrain.network.probe import Probe, check_output
from midgrain.ops.checks import check_bool, check_int
from midgrain.progress import progress_bar

__all__ = ["Occlusion"]

# Of the shorter side, and of the frames of a clip.
_SHARE_OF_SIDE, _SHARE_OF_FRAMES = 8, 4


class Occlusion(ManyPassExplainer):
    """A window slides over the input and is set to the baseline; how much the score falls is what it covers is worth.

    H(p) = mean over the windows w that cover pixel p of f(x) - f(x with w set to the baseline) (Zeiler and Fergus
    2014, section 4.2, who slide a grey square; the mean over overlapping windows is captum's). Values keep their
    sign: what speaks against the class is negative.

    The first window lies in the corner, the next ones a stride further each, and the last along an axis is cut at
    the border, so that every pixel is covered.

    `Explanation.details`: "passes", int64 [B], forward passes of each sample; "drops", float32 [B, *windows], how
    much the score falls behind each window, along each axis in order.

    Args:
        model: see `Explainer`.
        window: pixels along each axis: a number for rows and columns, or one per axis, (rows, columns) or
            (frames, rows, columns). By default an eighth of the shorter side, and a quarter of a clip's frames.
        stride: pixels from one window to the next, likewise; by default half a window.
        baseline: what stands in the window, see `midgrain.measures.deletion`; also "black" and "white".
        output: "probability" or "logit" of the class; the scores of a callable target are taken as they are.
        batch_size: occluded inputs at once; None chooses by the input's size. Results do not depend on it but for
            rounding.
        seed: of a baseline of noise.
        progress: show a bar.
        mean: see `Explainer`.
        std: see `Explainer`.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: an option out of its range; when called, a window larger than the input, or a stride longer than
            the window, which would leave pixels out.

    Example:
        >>> import torch, midgrain as mg
        >>> weights = torch.zeros(2, 36)
        >>> weights[0, :6] = 1.0  # class 0 is the sum of the first row
        >>> model = lambda x: x.flatten(1) @ weights.T
        >>> explain = mg.explainer("occlusion", model, window=(1, 6), stride=1, output="logit")
        >>> explain(torch.ones(1, 1, 6, 6), 0).heatmap[0, :, 0]
        tensor([6., 0., 0., 0., 0., 0.])
    """

    def __init__(
        self,
        model: Any,
        *,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        baseline: Baseline = 0.0,
        output: str = "probability",
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        self.window = None if window is None else check_ints(window, "window")
        self.stride = None if stride is None else check_ints(stride, "stride")
        self.baseline = baseline
        self.output = check_output(output)
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        windows = self._windows_of(x)
        probe = Probe(self.model, x, targets, output=self.output, batch_size=self.batch_size)
        hidden = make_baseline(self.baseline, probe.x, self.seed, self._normalisation)

        def occluded(sample: int, numbers: Sequence[int]) -> Tensor:
            return torch.where(windows.masks(numbers)[:, None], hidden[sample], probe.x[sample])

        wanted = torch.ones(len(x), len(windows), dtype=torch.bool)
        with progress_bar("occluding", wanted.numel(), shown=self.progress) as advance:
            scores = probe.scores(occluded, wanted, advance)
        drops = probe.unaltered[..., None] - scores
        heat = windows.mean(drops).float()
        picture = to_uint8(self.rgb(x))
        return [
            Explanation(
                heatmap=heat[place],
                method=self.name,
                target=result.target,
                outputs=result.outputs,
                details={
                    "passes": probe.passes.to(x.device),
                    "drops": drops[place].reshape(len(x), *windows.counts).float(),
                },
                image=picture,
            )
            for place, result in enumerate(probe.results)
        ]

    def _windows_of(self, x: Tensor) -> Windows:
        size = tuple(x.shape[2:])
        side = max(1, round(min(size[-2:]) / _SHARE_OF_SIDE))
        frames = [max(1, round(n / _SHARE_OF_FRAMES)) for n in size[:-2]]
        window = ints_of_axes(self.window, "window", [*frames, side, side])
        stride = ints_of_axes(self.stride, "stride", [max(1, n // 2) for n in window])
        for axis, pixels, length, step in zip(AXES[len(size)], size, window, stride, strict=True):
            if length > pixels:
                raise ValueError(f"window: expected 1 .. {pixels} {axis} for x {list(x.shape)}, got {length}")
            if step > length < pixels:
                raise ValueError(f"stride: expected at most the window's {length} {axis}, got {step}")
        return Windows(size, window, stride, x.device)
