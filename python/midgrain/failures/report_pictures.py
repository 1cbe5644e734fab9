"""What a failure report draws: the misled region, training images that speak for a filter, and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from torch import Tensor

from midgrain.drawing import resize_nearest
from midgrain.explainer_base import to_uint8
from midgrain.failures.explaining import Failure, Finding
from midgrain.failures.suppression import Suppression
from midgrain.html_page import jpeg_uri
from midgrain.normalisation import Normalisation

__all__ = ["drawn_failure", "drawn_input", "failure_figure", "outlined", "pixels_of", "removed", "still"]

Pixels = npt.NDArray[np.uint8]
_YELLOW = (255, 214, 0)
_GREY = 128
# Side of the pictures in the page, and of a picture over the thickness of its outlines.
_SIDE, _SIDE_PER_LINE = 224, 80
# White between pictures in a row.
_GAP = 4


def pixels_of(x: Tensor, normalisation: Normalisation) -> Pixels:
    """An input [C, *S] as uint8 RGB [*S, 3]; grey where its channels are no colours."""
    found = to_uint8(normalisation.rgb(x[None]))
    if found is None:
        return np.full((*x.shape[1:], 3), _GREY, np.uint8)
    pixels: Pixels = found[0].cpu().numpy()
    return pixels


def still(pixels: Pixels, mask: npt.NDArray[Any] | None = None) -> tuple[Pixels, npt.NDArray[Any] | None]:
    """Of a clip [T, H, W, 3] the frame that has the most of a mask [T, H, W], the middle one without; images as is."""
    if pixels.ndim == 3:
        return pixels, mask
    frame = len(pixels) // 2
    if mask is not None and mask.any():
        frame = int(mask.reshape(len(mask), -1).sum(1, dtype=np.float64).argmax())
    return pixels[frame], None if mask is None else mask[frame]


def outlined(pixels: Pixels, region: npt.NDArray[np.bool_]) -> Pixels:
    """The pixels [H, W, 3] with a yellow line along the inner edge of a region [H, W]."""
    width = max(1, min(region.shape) // _SIDE_PER_LINE)
    edge = region & ~ndimage.binary_erosion(region, iterations=width)
    result = pixels.copy()
    result[edge] = _YELLOW
    return result


def removed(pixels: Pixels, mask: npt.NDArray[np.bool_]) -> Pixels:
    """The pixels [H, W, 3] with grey where a mask [H, W] says that something was removed."""
    result = pixels.copy()
    result[mask] = _GREY
    return result


def drawn_input(x: Tensor, normalisation: Normalisation) -> str:
    """An input [C, *S] as a data URI."""
    return _uri(still(pixels_of(x, normalisation))[0])


def drawn_failure(x: Tensor, failure: Failure, normalisation: Normalisation) -> list[dict[str, Any]]:
    """Rows of pictures, each with "title" and "pictures", a list of (caption, data URI).

    Args:
        x: the input [C, *S].
        failure: why it is predicted wrongly.
        normalisation: of x and of the training images.
    """
    pixels = pixels_of(x, normalisation)
    rows = [_row("", [("input", _uri(still(pixels)[0]))])]
    if failure.surprising:
        first = failure.surprising[0]
        rows.append(_row(_said("surprised by", first), [*_region(pixels, first), *_examples(first, normalisation)]))
    if failure.expected:
        first = failure.expected[0]
        pictures = list(_examples(first, normalisation, with_input=True))
        rows.append(_row(_said("missed", first), pictures))
    repairs = [
        *_repaired(pixels, failure.repair, "through a filter"),
        *_repaired(pixels, failure.unfiltered_repair, "without filtering"),
    ]
    if repairs:
        rows.append(_row("comes right without", repairs))
    return [row for row in rows if row["pictures"] or row["title"]]


def failure_figure(x: Tensor, failure: Failure, normalisation: Normalisation) -> Pixels:
    """One picture for a failure, its parts side by side.

    From left to right: the input; the region that misled, with the training images that speak for its filter; those of
    what is missed; the repairs with and without filtering, where there are any, in grey.

    Args:
        x: the input [C, *S].
        failure: why it is predicted wrongly.
        normalisation: of x and of the training images.

    Returns:
        uint8 [H, W, 3].
    """
    pixels = pixels_of(x, normalisation)
    tiles = [still(pixels)[0]]
    for findings in (failure.surprising, failure.expected):
        for finding in findings[:1]:
            if finding.region is not None:
                shown, region = still(pixels, finding.region.cpu().numpy())
                assert region is not None
                tiles.append(outlined(shown, region))
            tiles += [masked for _, _, masked in _shown(finding, normalisation)]
    for repair in (failure.repair, failure.unfiltered_repair):
        if repair is not None and bool(repair.fixed[0]):
            shown, mask = still(pixels, repair.mask[0].cpu().numpy())
            assert mask is not None
            tiles.append(removed(shown, mask))
    gap = np.full((len(tiles[0]), _GAP, 3), 255, np.uint8)
    height, width = tiles[0].shape[:2]
    alike = [resize_nearest(tile, height, width) for tile in tiles]
    return np.concatenate([part for tile in alike for part in (gap, tile)][1:], axis=1)


def _row(title: str, pictures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"title": title, "pictures": [list(each) for each in pictures]}


def _said(what: str, finding: Finding) -> str:
    return (
        f"{what} filter {finding.filter}: score {finding.score:.3g}, {finding.deviation:+.1f} standard deviations from "
        f"the class's mean {finding.mean:.3g}"
    )


def _region(pixels: Pixels, finding: Finding) -> Iterator[tuple[str, str]]:
    if finding.region is not None:
        shown, region = still(pixels, finding.region.cpu().numpy())
        assert region is not None
        yield f"filter {finding.filter}", _uri(outlined(shown, region))


def _examples(finding: Finding, normalisation: Normalisation, *, with_input: bool = False) -> Iterator[tuple[str, str]]:
    for caption, pixels, masked in _shown(finding, normalisation):
        if with_input:
            yield caption, _uri(pixels)
        yield f"{caption}, masked", _uri(masked)


def _shown(finding: Finding, normalisation: Normalisation) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Of each training image what it is, its pixels, and those behind the mask."""
    for example in finding.examples:
        if example.input is not None and example.mask is not None:
            pixels, mask = still(pixels_of(example.input, normalisation), example.mask.cpu().numpy())
            assert mask is not None
            masked = np.rint(pixels * mask[..., None]).astype(np.uint8)
            yield f"{example.id} (class {example.true_class}, {example.score:.3g})", pixels, masked


def _repaired(pixels: Pixels, repair: Suppression | None, how: str) -> Iterator[tuple[str, str]]:
    if repair is not None and bool(repair.fixed[0]):
        shown, mask = still(pixels, repair.mask[0].cpu().numpy())
        assert mask is not None
        count, number = repair.setting[0].tolist()
        caption = f"{how}: {number} of {count} superpixels, {float(repair.share[0]):.1%} of the pixels"
        yield caption, _uri(removed(shown, mask))


def _uri(pixels: Pixels) -> str:
    longest = max(pixels.shape[:2])
    if longest > _SIDE:
        height, width = (max(1, round(_SIDE * n / longest)) for n in pixels.shape[:2])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    return jpeg_uri(np.ascontiguousarray(pixels))
