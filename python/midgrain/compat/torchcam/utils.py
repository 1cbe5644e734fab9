"""torchcam's picture with a map over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["overlay_mask"]


def overlay_mask(img: Image, mask: Image, colormap: Any = "jet", alpha: float = 0.7) -> Image:
    """A picture with a map in colours over it; the map is squared first.

    Args:
        img: the picture, grey or RGB.
        mask: the map, grey, of any size.
        colormap: a name of Matplotlib's, or a colour map.
        alpha: 0 .. below 1, how much of the picture remains.

    Raises:
        TypeError, ValueError: no pictures, a picture of other channels, an unfit `alpha`.

    Example:
        >>> from PIL import Image
        >>> from midgrain.compat.torchcam.utils import overlay_mask
        >>> overlay_mask(Image.new("RGB", (40, 30)), Image.new("F", (7, 7))).size
        (40, 30)
    """
    from matplotlib import colormaps
    from PIL import Image as PILImage

    if not isinstance(img, PILImage.Image) or not isinstance(mask, PILImage.Image):
        raise TypeError(f"img, mask: expected pictures of PIL, got {type(img).__name__} and {type(mask).__name__}")
    if not isinstance(alpha, float) or not 0 <= alpha < 1:
        raise ValueError(f"alpha: expected a float, 0 .. below 1, got {alpha}")
    if len(img.getbands()) not in (1, 3):
        raise ValueError(f"img: expected a grey or RGB picture, got mode {img.mode}")
    values = np.asarray(mask.resize(img.size, resample=PILImage.Resampling.BICUBIC))
    colours = colormaps.get_cmap(colormap)(values**2, bytes=True)[:, :, :3]
    return PILImage.blend(PILImage.fromarray(colours), img.convert("RGB"), alpha)
