"""Performance information curves: what the class gains per byte of picture that is made sharp."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor

from midgrain import driver
from midgrain.driver import Target
from midgrain.explainer_base import to_uint8
from midgrain.measures.curves import Subject, subject
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_int, check_share
from midgrain.randomness import seeded_by_content

__all__ = ["InformationCurve", "aic", "sic"]

#: XRAI's shares of the most important pixels (Kapishnikov et al. 2019 and their notebook).
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
_POINTS = 1001


@dataclass(frozen=True, eq=False)
class InformationCurve:
    """How the class recovers while important pixels are made sharp, over the size of the compressed picture."""

    #: Area under the curve, float32 [B]; NaN where the picture says nothing, see `excluded`.
    auc: Tensor
    #: At 1001 sizes from that of the blurred picture (0) to that of the whole one (1), float32 [B, 1001].
    curve: Tensor
    #: Bool [B]: the class is not above its least probability, or no less probable for the blurred picture, or the
    #: blurred picture compresses no better.
    excluded: Tensor
    #: The classes, int64 [B].
    target: Tensor

    @property
    def value(self) -> Tensor:
        """The measure's number, `auc`."""
        return self.auc


def sic(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    start: float = 0.01,
    least_probability: float = 0.8,
    monotonous: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> InformationCurve:
    """Softmax information curve: the probability of the class while important pixels are made sharp. Higher is better.

    The blurred picture knows one pixel in a hundred, drawn from the seed, and is interpolated linearly between them.
    Sharp pixels join them, the most important first. How much information a picture holds is the size of its lossless
    WebP file. Probability and size are rescaled so that the blurred picture has 0 and the whole one 1.

    Args:
        model: a network that returns logits [B, classes].
        x: images [B, 3 or 1, H, W].
        heatmap: see `midgrain.measures.deletion`.
        target: None (the class predicted for x), a class or one per sample.
        thresholds: which shares of the most important pixels are made sharp, ascending, above 0 and up to 1.
        start: the share of pixels that the blurred picture knows, besides its corners.
        least_probability: images whose class has less are excluded.
        monotonous: let the curve never fall.
        mean: normalisation of x, by default ImageNet's.
        std: likewise.
        batch_size: pictures at once.
        seed: of the pixels that the blurred picture knows; they depend on the picture too, not on its batch.

    Returns:
        `.auc` [B], `.curve` [B, 1001], `.excluded` [B], `.target` [B]. Average over the images that are not excluded.

    Raises:
        TypeError, ValueError: see `deletion`; clips, a callable target, thresholds out of order.

    Source: Kapishnikov et al., "XRAI", 2019, and the `saliency` package, `metrics/pic.py`.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> x = torch.randn(2, 3, 16, 16)
        >>> heatmap = mg.explainer("vanilla", model)(x).heatmap
        >>> mg.measures.sic(model, x, heatmap, least_probability=0.0).curve.shape
        torch.Size([2, 1001])
    """
    return _curves(
        model, x, heatmap, target, thresholds, start, least_probability, monotonous, mean, std, batch_size, seed, False
    )


def aic(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    start: float = 0.01,
    least_probability: float = 0.8,
    monotonous: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> InformationCurve:
    """Accuracy information curve: likewise, with 1 where the class is decided for and 0 where not.

    Args:
        model: see `sic`.
        x: see `sic`.
        heatmap: see `sic`.
        target: see `sic`.
        thresholds: see `sic`.
        start: see `sic`.
        least_probability: see `sic`.
        monotonous: see `sic`.
        mean: see `sic`.
        std: see `sic`.
        batch_size: see `sic`.
        seed: see `sic`.

    Returns:
        See `sic`; images whose blurred picture is decided for too are excluded.

    Raises:
        TypeError, ValueError: see `sic`.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        >>> x = torch.randn(2, 3, 16, 16)
        >>> mg.measures.aic(model, x, torch.rand(2, 16, 16), least_probability=0.0).excluded.dtype
        torch.bool
    """
    return _curves(
        model, x, heatmap, target, thresholds, start, least_probability, monotonous, mean, std, batch_size, seed, True
    )


def _curves(
    model: Any,
    x: Tensor,
    heatmap: Tensor,
    target: Target,
    thresholds: Sequence[float],
    start: float,
    least_probability: float,
    monotonous: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    batch_size: int | None,
    seed: int,
    decisions: bool,
) -> InformationCurve:
    x = driver.check_input(x)
    if x.ndim != 4:
        raise ValueError(
            f"x: expected images [B, 3, H, W], got shape {list(x.shape)}; the size of a clip's file is no use"
        )
    if callable(target):
        raise TypeError("target: expected a class or one per sample, got a callable, whose values are no probabilities")
    shares = _checked(thresholds)
    start, seed = check_share(start, "start"), check_int(seed, "seed", 0, 2**63 - 1)
    normalisation = Normalisation(mean, std)
    rgb = normalisation.rgb(x)
    if rgb is None:
        raise ValueError(f"x: expected pictures of 1 or 3 channels, got {x.shape[1]}")
    pictures = np.asarray(to_uint8(rgb.cpu()))
    with subject(model, x, heatmap, target, 0.0, batch_size, seed) as (asked, _):
        assert asked.classes is not None
        found = []
        for sample, picture in enumerate(pictures):
            known = _drawn(x[sample], start, seed)
            own = asked.maps[sample].double().cpu().numpy()
            masks = [known, *(known | (own >= np.quantile(own, 1 - share)) for share in shares)]
            states = [*(_interpolated(picture, mask) for mask in masks), picture]
            sizes = np.array([_file_size(state) for state in states], dtype=np.float64)
            said, probable = _said(asked, sample, states, normalisation, decisions)
            found.append(_curve(sizes, said, monotonous) if probable >= least_probability else None)
        return _result(found, asked.classes)


def _curve(sizes: npt.NDArray[Any], said: npt.NDArray[Any], monotonous: bool) -> npt.NDArray[Any] | None:
    """From sizes and values of the blurred picture, those on the way and the whole one; None where they say nothing."""
    if sizes[0] >= sizes[-1] or said[0] >= said[-1]:
        return None
    along, values = (np.clip((each[1:-1] - each[0]) / (each[-1] - each[0]), 0.0, 1.0) for each in (sizes, said))
    if monotonous:
        values = np.maximum.accumulate(values)
    along, values = np.append(along, [0.0, 1.0]), np.append(values, [0.0, 1.0])
    order = np.argsort(along, kind="stable")
    curve: npt.NDArray[Any] = np.interp(np.linspace(0.0, 1.0, _POINTS), along[order], values[order])
    curve[-1] = 1.0
    return curve


def _result(found: Sequence[npt.NDArray[Any] | None], classes: Tensor) -> InformationCurve:
    nothing = np.full(_POINTS, np.nan)
    curves = np.stack([nothing if curve is None else curve for curve in found])
    areas = np.trapezoid(curves, dx=1.0 / (_POINTS - 1), axis=1)
    auc, curve = (torch.from_numpy(each).float().to(classes.device) for each in (areas, curves))
    return InformationCurve(auc, curve, torch.tensor([each is None for each in found], device=classes.device), classes)


def _said(
    asked: Subject, sample: int, states: Sequence[npt.NDArray[Any]], normalisation: Normalisation, decisions: bool
) -> tuple[npt.NDArray[Any], float]:
    """Of each picture the probability of the sample's class, or 1 where it is decided for; and that of the last."""
    assert asked.classes is not None
    rgb = torch.from_numpy(np.stack(states)).movedim(-1, 1).float() / 255.0
    inputs = normalisation.inputs(rgb, asked.x[sample])
    rows = torch.full((len(inputs),), sample, device=inputs.device)
    found, decided = [], []
    for part, own in zip(inputs.split(asked.batch_size), rows.split(asked.batch_size), strict=True):
        outputs = asked.outputs(part, own).float()
        target = int(asked.classes[sample])
        found.append(outputs.softmax(1)[:, target])
        decided.append(outputs.argmax(1) == target)
    probability = torch.cat(found).double().cpu().numpy()
    last = float(torch.cat(decided)[-1]) if decisions else float(probability[-1])
    return (torch.cat(decided).double().cpu().numpy() if decisions else probability), last


def _drawn(sample: Tensor, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which pixels the blurred picture knows."""
    height, width = sample.shape[1:]
    known = np.zeros(height * width, bool)
    order = torch.randperm(height * width, generator=seeded_by_content(sample.detach().float().cpu(), seed))
    known[order[: int(share * height * width)].numpy()] = True
    return known.reshape(height, width)


def _interpolated(picture: npt.NDArray[np.uint8], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The picture as its known pixels and its corners give it, linearly in the triangles between them."""
    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if known.all():
        return picture
    if min(picture.shape[:2]) < 2:
        raise ValueError(f"x: expected images of 2 x 2 pixels or more, got {picture.shape[1]} x {picture.shape[0]}")
    values = picture[known].astype(np.float64)
    between = LinearNDInterpolator(np.argwhere(known), values)(np.argwhere(~known))
    between = np.where(np.isfinite(between), between, picture.mean((0, 1)))
    filled = picture.copy()
    # In float32, where halves are halves: the last bits of float64 would decide which way they go.
    filled[~known] = np.round(between.astype(np.float32)).astype(np.uint8)
    return filled


def _file_size(picture: npt.NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="webp", lossless=True, quality=100)
    return file.tell()


def _checked(thresholds: Sequence[float]) -> list[float]:
    if not isinstance(thresholds, list | tuple) or not thresholds:
        raise TypeError("thresholds: expected a list of shares, ascending")
    shares = [check_share(share, "thresholds") for share in thresholds]
    if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
        raise ValueError(f"thresholds: expected ascending shares, got {shares}")
    return shares
