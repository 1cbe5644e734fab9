"""Other libraries' calls, answered by midgrain: change the import line and keep the code.

`gradcam` (pytorch-grad-cam), `captum`, `torchcam`, `lime`, `quantus` and `skimage` (SLIC) take those libraries'
arguments and return their kinds of results; none of them needs to be installed. `pipeline` and `lightning` put
explanations into pipelines and training runs. What equals the other library and what differs: docs/compat.md.

Example:
    >>> import numpy as np
    >>> from midgrain.compat.skimage import slic
    >>> int(slic(np.zeros((40, 60, 3)), n_segments=6, start_label=1).max())
    6
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midgrain.compat import captum, gradcam, lightning, lime, pipeline, quantus, skimage, torchcam

__all__ = ["captum", "gradcam", "lightning", "lime", "pipeline", "quantus", "skimage", "torchcam"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"midgrain.compat.{name}")
    raise AttributeError(f"module 'midgrain.compat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
