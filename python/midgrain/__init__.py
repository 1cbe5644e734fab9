"""Fast, region-based visual explanations of PyTorch image and video models.

>>> import midgrain as mg
>>> explainer = mg.SWAG(model)  # doctest: +SKIP
>>> explainer(x).plot()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from midgrain import ops
from midgrain._kernels import build_info
from midgrain.errors import BackendUnavailableError, CudaError
from midgrain.ops.pool import paint, pool
from midgrain.ops.slic_image import slic_image as slic

if TYPE_CHECKING:
    from midgrain import clips, failures, measures, models, video
    from midgrain.cams import make_map_scorer as scorer
    from midgrain.evaluate import evaluate
    from midgrain.explanation import Explanation
    from midgrain.regions.swag import SWAG
    from midgrain.registry import explainer, methods

__version__ = _version("midgrain")

__all__ = [
    "SWAG",
    "BackendUnavailableError",
    "CudaError",
    "Explanation",
    "__version__",
    "build_info",
    "clips",
    "evaluate",
    "explainer",
    "failures",
    "measures",
    "methods",
    "models",
    "ops",
    "paint",
    "pool",
    "scorer",
    "slic",
    "video",
]

# These need torch, which takes seconds to import; superpixels alone do not.
_LAZY = {
    "SWAG": "midgrain.regions.swag",
    "Explanation": "midgrain.explanation",
    "clips": "midgrain.clips",
    "evaluate": "midgrain.evaluate",
    "explainer": "midgrain.registry",
    "failures": "midgrain.failures",
    "measures": "midgrain.measures",
    "methods": "midgrain.registry",
    "models": "midgrain.models",
    "video": "midgrain.video",
}
# Public names of functions that are called otherwise inside.
_RENAMED = {"scorer": ("midgrain.cams", "make_map_scorer")}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module = importlib.import_module(_LAZY[name])
        return module if _LAZY[name] == f"midgrain.{name}" else getattr(module, name)
    if name in _RENAMED:
        module_name, function = _RENAMED[name]
        return getattr(importlib.import_module(module_name), function)
    raise AttributeError(f"module 'midgrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
