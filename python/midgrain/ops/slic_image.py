"""SLIC for one image or volume, with scikit-image's argument names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from midgrain import _kernels
from midgrain.ops import slic_image_numpy
from midgrain.ops.arrays import (
    as_numpy,
    is_torch,
    plain,
    require_dense,
    require_real,
    require_same_device,
    require_same_kind,
    wrap_like,
)
from midgrain.ops.checks import (
    check_compactness,
    check_int,
    check_positive,
    check_spacing,
)
from midgrain.ops.device_arrays import takes_device_arrays
from midgrain.ops.slic import min_superpixel_size

__all__ = ["slic_image"]


@takes_device_arrays("image", "gradient")
def slic_image(
    image: Any,
    n_segments: int = 100,
    compactness: float = 10.0,
    max_num_iter: int = 10,
    *,
    gradient: Any = None,
    gradient_compactness: float = 9.0,
    spacing: Sequence[float] | None = None,
    convert2lab: bool | None = None,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    start_label: int = 0,
    channel_axis: int | None = -1,
    num_threads: int | None = None,
) -> Any:
    """Superpixels of one image or volume, from its colours, a gradient map or both (Thesis 3.4).

    The squared distance of a pixel to a centre is (colour / compactness)^2 + (space / grid step)^2 +
    (gradient / gradient_compactness)^2.

    Args:
        image: [H, W], [H, W, C] or a volume [T, H, W, C]; with `channel_axis=None` [H, W] or [T, H, W]. RGB is
            uint8, uint16 or floats in 0 .. 1. None with `gradient=` uses the gradient alone (the "G" variant).
        n_segments: wanted number of superpixels, 1 .. pixels. The result is close to it, not equal.
        compactness: weight of colour against space (w_c). Higher is squarer. For Lab 10 is the classic value.
        max_num_iter: k-means iterations.
        gradient: [H, W] or [T, H, W], any finite values; rescaled to 0 .. 100 over the image.
        gradient_compactness: weight of the gradient against space (w_g).
        spacing: pixel size along each spatial axis.
        convert2lab: convert RGB to CIELAB first. By default where the image has three channels. Other channels
            are rescaled together to 0 .. 1, as scikit-image does, so that compactness has its meaning there.
        enforce_connectivity: one connected piece per superpixel, small ones merged (see `midgrain.ops.slic`).
        min_size_factor: smallest superpixel, relative to the expected size.
        start_label: label of the first superpixel.
        channel_axis: axis of the channels, None if there is none. A [H, W] image needs no mention of it.
        num_threads: threads for this call.

    Returns:
        int32 labels [H, W] or [T, H, W] from `start_label` on without gaps, the kind of array that came in.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: a wrong shape, channel count or range; NaN or infinity; RGB floats outside 0 .. 1.

    Example:
        >>> import numpy as np, midgrain as mg
        >>> photo = np.zeros((60, 80, 3), np.uint8)
        >>> photo[:, 40:] = (200, 30, 30)
        >>> labels = mg.slic(photo, n_segments=12)
        >>> labels.shape, int(labels.max()) + 1
        ((60, 80), 12)
    """
    caller = gradient if image is None else image
    if caller is None:
        raise ValueError("image: expected an image, a gradient or both, got neither")
    if image is not None and gradient is not None:
        require_same_kind(image, gradient, ("image", "gradient"))
        require_same_device(image=image, gradient=gradient)
    pixels = None if image is None else _channels_first(_view(image, "image"), channel_axis)
    slope = None if gradient is None else _checked_gradient(_view(gradient, "gradient"))
    spatial = _spatial_shape(pixels, slope)
    weights = [
        1.0 if pixels is None else check_compactness(compactness, "compactness"),
        1.0 if slope is None else check_compactness(gradient_compactness, "gradient_compactness"),
    ]
    if convert2lab and pixels is not None and pixels.shape[0] != 3:
        raise ValueError(f"convert2lab: expected an RGB image (3 channels), got {pixels.shape[0]} channels")
    check_int(n_segments, "n_segments", 1, math.prod(spatial))
    check_int(start_label, "start_label", 0, 2**30)
    check_int(max_num_iter, "max_num_iter", 1, 1_000_000)
    check_positive(min_size_factor, "min_size_factor", zero=True)
    size = min_superpixel_size(math.prod(spatial), n_segments, min_size_factor) if enforce_connectivity else 0
    steps = list(check_spacing(spacing, len(spatial)))
    threads = _kernels.check_threads(num_threads)
    arguments = (int(n_segments), int(max_num_iter), steps)
    is_on_cuda = _is_on_cuda(caller)
    if is_on_cuda:
        from midgrain.ops import slic_image_cuda

        kernels: ModuleType = slic_image_cuda
    else:
        kernels = slic_image_numpy
    if pixels is None or (pixels.shape[0] == 3 and convert2lab is not False):
        batch = None if pixels is None else kernels.unit_rgb(pixels)[None]
        # Channels last in memory are handed on as they are: the kernel reads both orders.
        axis = 1
        if batch is not None and not _is_contiguous(batch):
            batch, axis = _moved(batch, 1, -1), -1
        maps = None if slope is None else slope[None]
        labels, _ = kernels.slic_pictures(batch, maps, axis, [1.0] * 3, [0.0] * 3, weights, *arguments, size, threads)
    else:
        features, per_channel, ranges = kernels.stack(pixels, slope, weights)
        labels, _ = kernels.slic(features, per_channel, *arguments, ranges, size, threads)
    result = labels[0]
    if start_label:
        result += start_label
    return result if is_on_cuda else wrap_like(result, caller)


def _is_on_cuda(array: Any) -> bool:
    return is_torch(array) and bool(array.is_cuda)


def _view(array: Any, name: str) -> Any:
    """A tensor on a CUDA device as it is, anything else as a NumPy view."""
    if not _is_on_cuda(array):
        return as_numpy(array, name)
    require_dense(array, name)
    return plain(array)


def _moved(array: Any, source: int, destination: int) -> Any:
    return array.movedim(source, destination) if is_torch(array) else np.moveaxis(array, source, destination)


def _is_contiguous(array: Any) -> bool:
    return bool(array.is_contiguous() if is_torch(array) else array.flags.c_contiguous)


def _channels_first(image: Any, channel_axis: int | None) -> Any:
    """Views the image as [C, H, W] or [C, T, H, W]."""
    require_real(image, "image")
    shape = [int(n) for n in image.shape]
    if 0 in shape:
        raise ValueError(f"image: expected at least one pixel, got shape {shape}")
    if image.ndim == 2 or channel_axis is None:
        if image.ndim not in (2, 3):
            raise ValueError(f"image: expected [H, W] or [T, H, W] with channel_axis=None, got shape {shape}")
        return image[None]
    if isinstance(channel_axis, bool) or not isinstance(channel_axis, int | np.integer):
        raise TypeError(f"channel_axis: expected an int or None, got {type(channel_axis).__name__}")
    if not -image.ndim <= channel_axis < image.ndim:
        raise ValueError(f"channel_axis: expected an axis of shape {shape}, got {channel_axis}")
    if image.ndim not in (3, 4):
        raise ValueError(f"image: expected [H, W, C] or [T, H, W, C], got shape {shape}")
    first = _moved(image, int(channel_axis), 0)
    if first.shape[0] > _kernels.cpu.MAX_CHANNELS:
        raise ValueError(
            f"image: expected at most {_kernels.cpu.MAX_CHANNELS} channels along axis {channel_axis}, got shape "
            f"{shape}; a volume without channels needs channel_axis=None"
        )
    return first


def _checked_gradient(gradient: Any) -> Any:
    require_real(gradient, "gradient")
    shape = [int(n) for n in gradient.shape]
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"gradient: expected [H, W] or [T, H, W] with at least one pixel, got shape {shape}")
    return gradient


def _spatial_shape(pixels: Any, slope: Any) -> list[int]:
    if pixels is None:
        return [int(n) for n in slope.shape]
    spatial = [int(n) for n in pixels.shape[1:]]
    if slope is not None and list(slope.shape) != spatial:
        raise ValueError(f"gradient: expected the image's shape {spatial}, got {list(slope.shape)}")
    return spatial
