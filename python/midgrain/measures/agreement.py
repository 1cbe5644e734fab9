"""Do two explanations agree on what counts most?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midgrain.driver import Target
from midgrain.maps import min_max
from midgrain.measures.order import check_maps
from midgrain.ops.checks import check_bool, check_int
from midgrain.regions.lime import LIME

__all__ = ["Agreement", "lime_agreement", "model_contrast", "top_k_agreement"]

_TOP = (1, 5)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Whether the best superpixel is among a reference's best."""

    #: The reference's best one, float32 [B], 0 or 1; between where several are best.
    value: Tensor
    #: Its best five, float32 [B].
    top5: Tensor
    #: The reference's scores, float32 [B, n], NaN beyond a sample's own count.
    reference: Tensor


def top_k_agreement(scores: Tensor, reference: Tensor, k: int | Sequence[int] = (1, 5)) -> Tensor:
    """Is the best superpixel of one explanation among the best k of another?

    Args:
        scores: floats [B, n], one per superpixel, NaN beyond a sample's own count.
        reference: of the same superpixels, [B, n]: LIME's with 1000 samples, say.
        k: one number or several.

    Returns:
        Float32 [B], for several k [B, len(k)]: 1 or 0; where several superpixels are best, the share of them that is
        among the reference's k, those with the k-th score included.

    Raises:
        TypeError, ValueError: other kinds or shapes; NaN at different places; k below 1.

    Source: GWS (Hartley et al. 2019), section 4.2.

    Example:
        >>> import torch, midgrain as mg
        >>> scores, lime = torch.tensor([[0.1, 0.9, 0.3]]), torch.tensor([[0.5, 0.4, 0.1]])
        >>> mg.measures.top_k_agreement(scores, lime, k=(1, 2))
        tensor([[0., 1.]])
    """
    counts = [check_int(each, "k", 1) for each in (k if isinstance(k, list | tuple) else [k])]
    for name, value in (("scores", scores), ("reference", reference)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name}: expected a tensor of floats [B, superpixels], got {got}")
    if scores.ndim != 2 or 0 in scores.shape or scores.shape != reference.shape:
        raise ValueError(
            f"scores, reference: expected two tensors [B, superpixels] of one shape, got {list(scores.shape)} and "
            f"{list(reference.shape)}"
        )
    mine, theirs = scores.detach().double(), reference.detach().double().to(scores.device)
    missing = mine.isnan()
    if not torch.equal(missing, theirs.isnan()) or missing.all(1).any() or torch.isinf(mine + theirs).any():
        raise ValueError("scores, reference: expected finite scores, NaN at the same places and not everywhere")
    mine, theirs = mine.masked_fill(missing, -torch.inf), theirs.masked_fill(missing, -torch.inf)
    best = mine == mine.amax(1, keepdim=True)
    ordered = theirs.sort(1, descending=True).values
    rows = []
    for count in counts:
        among = theirs >= ordered[:, min(count, ordered.shape[1]) - 1 : min(count, ordered.shape[1])]
        rows.append((best & among).sum(1) / best.sum(1))
    found = torch.stack(rows, 1).float()
    return found if isinstance(k, list | tuple) else found[:, 0]


def lime_agreement(
    model: Any,
    x: Tensor,
    segments: Tensor,
    scores: Tensor,
    target: Target = None,
    n_samples: int = 1000,
    batch_size: int | None = None,
    seed: int = 0,
) -> Agreement:
    """Is the best superpixel among the best 1 and 5 of LIME in the same superpixels?

    Args:
        model: a network returning logits [B, classes].
        x: [B, 3, *S].
        segments: int32 labels [B, *S].
        scores: floats [B, n], NaN beyond a sample's own count.
        target: the explained class of each sample; None means the predicted one.
        n_samples: of LIME; 1000 in the paper.
        batch_size: LIME's copies at once; None chooses by the input's size.
        seed: of LIME's samples.

    Raises:
        TypeError, ValueError: see `top_k_agreement` and `midgrain.regions.LIME`.

    Source: GWS (Hartley et al. 2019), section 4.2.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> e = mg.explainer("swag-i", model, scorer="input-x-gradient", n_segments=9)(x)
        >>> mg.measures.lime_agreement(model, x, e.segments, e.scores, e.target, n_samples=50).value.shape
        torch.Size([2])
    """
    explain = LIME(model, superpixels=segments, n_samples=n_samples, batch_size=batch_size, seed=seed)
    reference = explain(x, target).scores
    assert reference is not None
    found = top_k_agreement(scores, reference.to(scores.device), _TOP)
    return Agreement(found[:, 0], found[:, 1], reference)


def model_contrast(object_heatmap: Tensor, scene_heatmap: Tensor, mask: Tensor, normalise: bool = True) -> Tensor:
    """BAM's model contrast score: attribution to an object by a network that names it, less by one that does not.

    Args:
        object_heatmap: finite [B, H, W] or [B, T, H, W], of the network that classifies objects.
        scene_heatmap: of the one that classifies scenes, for the same pictures.
        mask: bool, the same shape: the object's pixels, at least one in every sample.
        normalise: rescale each heat map to 0 .. 1 first.

    Returns:
        Mean of the first over the object less mean of the second, float32 [B]; higher is better.

    Raises:
        TypeError, ValueError: other kinds or shapes; a sample without an object.

    Source: Yang and Kim, "Benchmarking attribution methods with relative feature importance", 2019.

    Example:
        >>> import torch, midgrain as mg
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> mg.measures.model_contrast(mask.float(), 1 - mask.float(), mask)
        tensor([1.])
    """
    first = check_maps(object_heatmap, name="object_heatmap")
    second = check_maps(scene_heatmap, tuple(first.shape), name="scene_heatmap").to(first.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            f"mask: expected a bool tensor, got {mask.dtype if isinstance(mask, Tensor) else type(mask).__name__}"
        )
    if mask.shape != first.shape:
        raise ValueError(f"mask: expected the heat maps' shape {list(first.shape)}, got {list(mask.shape)}")
    inside = mask.flatten(1).to(first.device)
    if not inside.any(1).all():
        raise ValueError("mask: expected an object in every sample")
    means = []
    for maps in (first, second):
        values = (min_max(maps.double()) if check_bool(normalise, "normalise") else maps.double()).flatten(1)
        means.append(values.where(inside, 0.0).sum(1) / inside.sum(1))
    return (means[0] - means[1]).float()
