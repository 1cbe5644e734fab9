"""Segmentations for LIME: callables from a picture to labels from 0 on."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.compat.absent import Refusing
from midgrain.compat.skimage import slic

__all__ = ["SegmentationAlgorithm", "contiguous", "segmentation_fn"]


class SegmentationAlgorithm(Refusing):
    """A segmentation with its parameters, as in `lime.wrappers.scikit_image`.

    Args:
        algo_type: "slic" (midgrain's kernels, labels from 0 on), "quickshift" or "felzenszwalb" (scikit-image's).
        **target_params: of `midgrain.compat.skimage.slic`, or of the functions in `skimage.segmentation`;
            "random_seed", quickshift's older name for its seed, is understood.

    Raises:
        TypeError, ValueError: a parameter or an algorithm that there is not.

    Example:
        >>> import numpy as np
        >>> from midgrain.compat.lime import SegmentationAlgorithm
        >>> segment = SegmentationAlgorithm("slic", n_segments=6)
        >>> np.unique(segment(np.zeros((40, 60, 3)))).tolist()
        [0, 1, 2, 3, 4, 5]
    """

    _instead = dict.fromkeys(("filter_params", "set_params"), "make another SegmentationAlgorithm")

    def __init__(self, algo_type: str, **target_params: Any):
        from skimage.segmentation import felzenszwalb, quickshift

        functions = {"slic": slic, "quickshift": quickshift, "felzenszwalb": felzenszwalb}
        if algo_type not in functions:
            raise ValueError(f"algo_type: expected one of {', '.join(functions)}, got {algo_type!r}")
        self.algo_type = algo_type
        self.target_fn: Any = functions[algo_type]
        if algo_type == "quickshift" and "random_seed" in target_params:
            target_params["rng"] = target_params.pop("random_seed")
        unknown = target_params.keys() - inspect.signature(self.target_fn).parameters.keys() - {"image"}
        if unknown:
            raise TypeError(f"{algo_type!r} has no parameter {', '.join(sorted(unknown))}")
        self.target_params = target_params

    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """[H, W, C] -> labels [H, W], 0 .. n - 1."""
        return contiguous(self.target_fn(image, **self.target_params), np.shape(image)[:2])


#: About 50 SLIC superpixels, a callable from [H, W, C] to labels [H, W] from 0 on.
segmentation_fn = SegmentationAlgorithm("slic", n_segments=50, compactness=20.0)


def contiguous(labels: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Labels renumbered to 0 .. n - 1 in their order.

    Raises:
        TypeError, ValueError: no integers, or another shape.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "biu":
        raise TypeError(f"segmentation_fn: expected integer labels, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"segmentation_fn: expected labels of shape {shape}, got {array.shape}")
    return np.unique(array, return_inverse=True)[1].reshape(shape).astype(np.int64)
