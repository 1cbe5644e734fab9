"""How much of the class's score goes with the first pixels: AOPC and AFOC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midgrain.baseline import Baseline
from midgrain.driver import Target
from midgrain.measures.curves import subject
from midgrain.measures.order import Schedule, check_order, schedule
from midgrain.network.probe import check_output
from midgrain.ops.checks import check_share

__all__ = ["ScoreChange", "afoc", "aopc"]

_STEPS = 10


@dataclass(frozen=True, eq=False)
class ScoreChange:
    """How the class's score changes while the first pixels are removed."""

    #: The measure, float32 [B].
    value: Tensor
    #: The score after 0 .. steps steps, float32 [B, steps + 1].
    curve: Tensor
    #: The classes, int64 [B]; None where a callable gave the values.
    target: Tensor | None


def aopc(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int | None = None,
    *,
    share: float = 0.1,
    order: str = "morf",
    output: str = "logit",
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> ScoreChange:
    """Area over the perturbation curve: the mean fall of the class's score while the first pixels are removed.

    AOPC = 1 / (P + 1) sum over k = 0 .. P of (f_c(x) - f_c(x without its first k parts)), P = `steps` equal parts of
    `share` of the pixels. With `order="morf"`, most relevant first, higher is better; with "lerf", least relevant
    first, lower is better.

    Args:
        model: see `midgrain.measures.deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`; a callable's values are measured as they are.
        steps: into how many parts the share is divided, by default 10, or one for each pixel of a tiny one; as many
            as it has pixels give the formula pixel by pixel.
        share: of the pixels, above 0 and up to 1.
        order: "morf" or "lerf".
        output: "logit" or "probability" of the class.
        baseline: see `deletion`.
        ties: see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.value` [B], `.curve` [B, steps + 1], `.target` [B].

    Raises:
        TypeError, ValueError: see `deletion`; `share`, `order`, `output` out of range.

    Source: Samek et al., "Evaluating the visualization of what a deep neural network has learned", 2016; in this form
    DeepMaps, 2021, appendix B.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
        >>> x = torch.rand(2, 3, 8, 8)
        >>> mg.measures.aopc(model, x, mg.explainer("input-x-gradient", model)(x).heatmap).value.shape
        torch.Size([2])
    """
    curve, classes = _scores(model, x, heatmap, target, steps, share, order, output, baseline, ties, batch_size, seed)
    return ScoreChange((curve[:, :1] - curve).mean(1), curve, classes)


def afoc(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    steps: int | None = None,
    *,
    share: float = 0.1,
    order: str = "lerf",
    output: str = "logit",
    baseline: Baseline = 0.0,
    ties: str = "together",
    batch_size: int | None = None,
    seed: int = 0,
) -> ScoreChange:
    """Absolute fractional output change: |f_c(x) - f_c(x without the share)| / |f_c(x)|.

    With `order="lerf"`, least relevant first, lower is better; with "morf" higher is better.

    Args:
        model: see `midgrain.measures.deletion`.
        x: see `deletion`.
        heatmap: see `deletion`.
        target: see `deletion`; a callable's values are measured as they are.
        steps: of the curve on the way to the share, by default 10, or one for each pixel of a tiny one; `.value`
            depends on its end alone.
        share: of the pixels, above 0 and up to 1.
        order: "lerf" or "morf".
        output: "logit" or "probability" of the class.
        baseline: see `deletion`.
        ties: see `deletion`.
        batch_size: see `deletion`.
        seed: see `deletion`.

    Returns:
        `.value` [B], `.curve` [B, steps + 1], `.target` [B].

    Raises:
        TypeError, ValueError: see `deletion`; `share`, `order`, `output` out of range; a score of 0, of which nothing
            is a fraction.

    Source: Srinivas and Fleuret, "Full-gradient representation", 2019; in this form DeepMaps, 2021, appendix B.

    Example:
        >>> import torch, midgrain as mg
        >>> x, model = torch.ones(1, 1, 2, 2), lambda x: x.flatten(2).sum(2)
        >>> heatmap = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mg.measures.afoc(model, x, heatmap, steps=1, share=0.25).value
        tensor([0.2500])
    """
    curve, classes = _scores(model, x, heatmap, target, steps, share, order, output, baseline, ties, batch_size, seed)
    first = curve[:, 0]
    if (first == 0).any():
        raise ValueError(
            f"model: the explained score is 0 for sample(s) {(first == 0).nonzero()[:, 0].tolist()}, so nothing is a "
            "fraction of it; use output='probability'"
        )
    return ScoreChange((first - curve[:, -1]).abs() / first.abs(), curve, classes)


def _scores(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target,
    steps: int | None,
    share: float,
    order: str,
    output: str,
    baseline: Baseline,
    ties: str,
    batch_size: int | None,
    seed: int,
) -> tuple[Tensor, Tensor | None]:
    """The scores [B, steps + 1] while the share is removed, and the classes."""
    check_order(order)
    check_output(output)
    share = check_share(share, "share")

    def plan(maps: Tensor) -> Schedule:
        pixels = max(1, round(share * maps[0].numel()))
        chosen = min(_STEPS, pixels) if steps is None else steps
        return schedule(maps, chosen, ties, seed, pixels=pixels, least_first=order == "lerf")

    with subject(model, x, heatmap, target, baseline, batch_size, seed, plan) as (asked, planned):
        ends = (asked.known(output), None)
        return asked.curve(asked.x, asked.empty, planned, output, ends=ends), asked.classes
