"""grad-cam's helpers for pictures, without OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.compat.absent import GRADCAM_UTILS, not_offered
from midgrain.maps import resize_maps

__all__ = ["deprocess_image", "preprocess_image", "scale_cam_image", "show_cam_on_image"]

# OpenCV's numbers of colour maps, as far as Matplotlib has them too.
_COLORMAPS = {
    **{0: "autumn", 1: "bone", 2: "jet", 3: "winter", 4: "rainbow", 6: "summer", 7: "spring", 8: "cool", 9: "hsv"},
    **{11: "hot", 13: "magma", 14: "inferno", 15: "plasma", 16: "viridis", 17: "cividis", 18: "twilight"},
    **{19: "twilight_shifted", 20: "turbo"},
}
_HALVES = (0.5, 0.5, 0.5)


def preprocess_image(img: npt.NDArray[Any], mean: Sequence[float] = _HALVES, std: Sequence[float] = _HALVES) -> Tensor:
    """A picture as a network's input.

    Args:
        img: [H, W, 3], bytes or floats in 0 .. 1.
        mean: per channel.
        std: per channel.

    Returns:
        [1, 3, H, W], (img - mean) / std; the dtype of a picture of floats is kept.

    Raises:
        ValueError: no [H, W, C], or not one number per channel.

    Example:
        >>> import numpy as np
        >>> from midgrain.compat.gradcam import preprocess_image
        >>> preprocess_image(np.full((4, 6, 3), 255, np.uint8)).unique()
        tensor([1.])
    """
    if np.ndim(img) != 3 or np.shape(img)[-1] != len(mean) or len(mean) != len(std):
        raise ValueError(f"img: expected [H, W, {len(mean)}] for mean {list(mean)}, got shape {list(np.shape(img))}")
    unit = img / np.float32(255) if img.dtype == np.uint8 else img
    x = torch.from_numpy(np.ascontiguousarray(unit)).movedim(-1, 0)
    offset, scale = (torch.as_tensor(list(numbers), dtype=x.dtype).reshape(-1, 1, 1) for numbers in (mean, std))
    return ((x - offset) / scale)[None]


def deprocess_image(img: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Any values as a grey-centred picture of bytes: mean 0.5, standard deviation 0.1, clipped."""
    values = (img - np.mean(img)) / (np.std(img) + 1e-5)
    return np.uint8(np.clip(0.1 * values + 0.5, 0, 1) * 255)  # type: ignore[return-value]


def show_cam_on_image(
    img: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    use_rgb: bool = False,
    colormap: int | str = 2,
    image_weight: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """A map in colours over a picture.

    Args:
        img: floats in 0 .. 1, [H, W, 3].
        mask: the map, 0 .. 1, [H, W].
        use_rgb: the picture is RGB; False means BGR.
        colormap: a number of OpenCV's (2 is COLORMAP_JET) or a name of Matplotlib's.
        image_weight: 0 .. 1, how much of the picture remains.

    Returns:
        uint8 [H, W, 3], its brightest value 255.

    Raises:
        ValueError: a picture or a weight out of range, shapes that do not fit, an unknown colour map.
    """
    from matplotlib import colormaps

    name = _COLORMAPS.get(colormap) if isinstance(colormap, int) else colormap
    if name is None or name not in colormaps:
        raise ValueError(f"colormap: Matplotlib has no colour map {colormap!r}")
    if np.max(img) > 1:
        raise ValueError(f"img: expected floats in 0 .. 1, got a maximum of {np.max(img)}")
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight: expected 0 .. 1, got {image_weight}")
    if np.shape(img)[:2] != np.shape(mask):
        raise ValueError(f"mask: expected the picture's shape {np.shape(img)[:2]}, got {np.shape(mask)}")
    colours = np.asarray(colormaps[name](np.uint8(255 * mask)))[..., :3]
    heatmap = np.float32(colours if use_rgb else colours[..., ::-1])
    cam = (1 - image_weight) * heatmap + image_weight * img
    highest = np.max(cam)
    return np.uint8(255 * (cam / highest if highest > 0 else cam))  # type: ignore[return-value]


def scale_cam_image(cam: npt.NDArray[Any], target_size: tuple[int, ...] | None = None) -> npt.NDArray[np.float32]:
    """Each map of [B, *m] rescaled to 0 .. 1, then resized.

    Args:
        cam: the maps.
        target_size: (width, height), of a clip (width, height, frames); None keeps the size.
    """
    low = cam.min(axis=tuple(range(1, cam.ndim)), keepdims=True)
    shifted = cam - low
    unit = np.float32(shifted / (1e-7 + shifted.max(axis=tuple(range(1, cam.ndim)), keepdims=True)))
    if target_size is None:
        return unit  # type: ignore[return-value]
    return resize_maps(torch.from_numpy(unit), target_size[::-1]).numpy()


__getattr__ = not_offered(__name__, "pytorch-grad-cam", GRADCAM_UTILS)
