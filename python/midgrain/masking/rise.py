"""RISE: what the network says of the input behind random masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from midgrain.baseline import Baseline, make_baseline
from midgrain.driver import Target
from midgrain.explainer_base import ManyPassExplainer, to_uint8
from midgrain.explanation import Explanation
from midgrain.masking.axes import check_ints
from midgrain.masking.rise_masks import RiseMasks
from midgrain.network.altered import check_batch_size
from midgrain.network.probe import Probe, check_output
from midgrain.ops.checks import check_bool, check_int, check_int_per_axis, check_positive
from midgrain.progress import progress_bar
from midgrain.stability import Stability, check_stop_at

__all__ = ["RISE"]

# Values of all masks that are held at a time.
_MASK_VALUES = 2**22
# With `stop_at`, maps are compared every so many masks.
_CHECK_EVERY = 100


class RISE(ManyPassExplainer):
    """Randomised input sampling for explanation: S = 1 / (N p) * sum over N masks m of f(x m + x0 (1 - m)) * m.

    f is the class's probability and m a mask of random soft squares (Petsiuk et al. 2018, equation 6). The masks
    are the original code's (see `midgrain.masking.rise_masks.RiseMasks`), the same for all samples of a batch; the
    first n of them do not depend on how many are asked for.

    `Explanation.details`: "passes", int64 [B], forward passes of each sample.

    Args:
        model: see `Explainer`.
        n_samples: masks. 4000 as in the paper for VGG16; it takes 8000 for ResNet-50.
        grid: cells along each axis of the grid that a mask is made of: one number for all axes (but never more than
            frames or pixels), or one per axis, (rows, columns) or (frames, rows, columns).
        keep: p, the probability that a cell is kept.
        baseline: x0, what stands where the input is hidden, see `midgrain.measures.deletion`; also "black" and
            "white".
        output: "probability" or "logit" of the class; the scores of a callable target are taken as they are.
        stop_at: stop for a sample once its map keeps its order: when Spearman's rank correlation of the map with
            that of 100 masks before is at least this, twice in a row. None always takes all masks.
        batch_size: masked inputs at once; None chooses by the input's size. Results do not depend on it but for
            rounding.
        seed: of the masks and of a baseline of noise.
        progress: show a bar.
        mean: see `Explainer`.
        std: see `Explainer`.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: an option out of its range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> explanation = mg.explainer("rise", model, n_samples=50)(torch.rand(1, 3, 16, 16))
        >>> explanation.heatmap.shape, explanation.details["passes"].tolist()
        (torch.Size([1, 16, 16]), [51])
    """

    def __init__(
        self,
        model: Any,
        *,
        n_samples: int = 4000,
        grid: int | Sequence[int] = 8,
        keep: float = 0.5,
        baseline: Baseline = 0.0,
        output: str = "probability",
        stop_at: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        self.n_samples = check_int(n_samples, "n_samples", 1)
        self.grid = check_ints(grid, "grid")
        self.keep = check_positive(keep, "keep")
        if self.keep > 1.0:
            raise ValueError(f"keep: expected 0 < keep <= 1, got {keep}")
        self.baseline = baseline
        self.output = check_output(output)
        self.stop_at = check_stop_at(stop_at)
        self.batch_size = check_batch_size(batch_size)
        self.seed = check_int(seed, "seed", 0, 2**63 - 1)
        self.progress = check_bool(progress, "progress")

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        probe = Probe(self.model, x, targets, output=self.output, batch_size=self.batch_size)
        masks = RiseMasks(x.shape[2:], self._grid_of(x), self.keep, self.seed, x.device)
        hidden = make_baseline(self.baseline, probe.x, self.seed, self._normalisation)
        sums = _Sums(len(targets), len(x), x.shape[2:], x.device, self.stop_at)
        with progress_bar("masking at random", self.n_samples * len(x), shown=self.progress) as advance:
            for count in _portions(self.n_samples, probe, self.stop_at):
                wanted = sums.wanted()
                if not wanted.any():
                    break
                chunk = masks.next(count)

                def masked(sample: int, numbers: Sequence[int], chunk: Tensor = chunk) -> Tensor:
                    shown = chunk[list(numbers), None].to(x.dtype)
                    return hidden[sample] + shown * (probe.x[sample] - hidden[sample])

                sums.add(probe.scores(masked, wanted[:, None].expand(-1, count), advance), chunk)
        heat = sums.maps(self.keep)
        picture = to_uint8(self.rgb(x))
        return [
            Explanation(
                heatmap=heat[place],
                method=self.name,
                target=result.target,
                outputs=result.outputs,
                details={"passes": (sums.used[place] + 1).to(x.device)},
                image=picture,
            )
            for place, result in enumerate(probe.results)
        ]

    def _grid_of(self, x: Tensor) -> list[int]:
        """Cells along each axis of this input."""
        axes = x.ndim - 2
        cells = check_int_per_axis(self.grid, "grid", axes, 1)
        if isinstance(self.grid, int):
            return [min(number, pixels) for number, pixels in zip(cells, x.shape[2:], strict=True)]
        for number, pixels in zip(cells, x.shape[2:], strict=True):
            if number > pixels:
                raise ValueError(
                    f"grid: expected no more cells than pixels along an axis, {list(x.shape[2:])}, got {cells}"
                )
        return cells


class _Sums:
    """Masks added up, weighted by their scores, for every target and sample until its map has settled."""

    def __init__(
        self, targets: int, batch: int, size: Sequence[int], device: torch.device, stop_at: float | None
    ) -> None:
        self._sums = torch.zeros(targets, batch, *size, dtype=torch.float64, device=device)
        self._stabilities = [[Stability(stop_at) for _ in range(batch)] for _ in range(targets)]
        self._watched = stop_at is not None
        self._going_on = torch.ones(targets, batch, dtype=torch.bool)
        #: Masks that count for each target and sample, int64 [targets, B].
        self.used = torch.zeros(targets, batch, dtype=torch.int64)

    def wanted(self) -> Tensor:
        """The samples that need more masks, bool [B]."""
        return self._going_on.any(0)

    def add(self, scores: Tensor, masks: Tensor) -> None:
        """Scores [targets, B, n] of masks [n, *S]."""
        going_on = self._going_on.to(scores.device)
        # In double precision, so that it hardly matters how many masks come at a time.
        flat = masks.flatten(1).double()
        with torch.autocast(scores.device.type, enabled=False):
            added = (scores * going_on[..., None]) @ flat
        self._sums += added.reshape(self._sums.shape)
        self.used += self._going_on * len(masks)
        if self._watched:
            for target, sample in self._going_on.nonzero().tolist():
                if int(self.used[target, sample]) % _CHECK_EVERY == 0:
                    settled = self._stabilities[target][sample].settled(self._sums[target, sample].cpu().numpy())
                    self._going_on[target, sample] = not settled

    def maps(self, keep: float) -> Tensor:
        """Float32 [targets, B, *S]."""
        counts = self.used.to(self._sums).reshape(*self.used.shape, *[1] * (self._sums.ndim - 2))
        return (self._sums / (counts * keep)).float()


def _portions(n_samples: int, probe: Probe, stop_at: float | None) -> list[int]:
    """How many masks to hold at a time: whole batches, and up to where maps are compared."""
    at_once = max(1, _MASK_VALUES // probe.x[0, 0].numel() // probe.batch_size) * probe.batch_size
    every = n_samples if stop_at is None else _CHECK_EVERY
    portions = []
    for start in range(0, n_samples, every):
        end = min(start + every, n_samples)
        portions += [min(at_once, end - place) for place in range(start, end, at_once)]
    return portions
