"""The kernels as functions on arrays: they validate, allocate in the caller's library, and call.

`slic` here is batched and takes any features; `midgrain.slic` is its form for one picture.
"""

import sys

from midgrain.ops.color import GRADIENT_RANGE, LAB_RANGES, rgb_to_lab
from midgrain.ops.deferred import DeferredChecks, deferred_checks
from midgrain.ops.patches import aggregate_patches, extract_patches
from midgrain.ops.pool import REDUCTIONS, paint, pool
from midgrain.ops.slic import enforce_connectivity, max_superpixels, slic
from midgrain.ops.slic_image import slic_image
from midgrain.ops.slic_pictures import slic_pictures

__all__ = [
    "GRADIENT_RANGE",
    "LAB_RANGES",
    "REDUCTIONS",
    "DeferredChecks",
    "aggregate_patches",
    "deferred_checks",
    "enforce_connectivity",
    "extract_patches",
    "max_superpixels",
    "paint",
    "pool",
    "rgb_to_lab",
    "slic",
    "slic_image",
    "slic_pictures",
]

if "torch" in sys.modules:  # Otherwise registered with the first tensor; NumPy users need not wait for torch.
    from midgrain.ops import torch_library as torch_library
