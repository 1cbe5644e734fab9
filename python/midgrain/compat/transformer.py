"""Explanations as a step of a scikit-learn pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from midgrain.network.modules import model_device
from midgrain.ops.checks import check_int
from midgrain.registry import explainer

__all__ = ["ExplanationTransformer"]


class ExplanationTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Heat maps as a step of a scikit-learn pipeline; there is nothing to fit.

    Args:
        model: the network.
        method: one of `midgrain.methods()`.
        target: a class for all samples; None explains each sample's best class.
        batch_size: samples that go through the network together.
        flat: return [n, H * W] instead of [n, H, W].
        options: of the method.

    Example:
        >>> import numpy as np, torch
        >>> from sklearn.decomposition import PCA
        >>> from sklearn.pipeline import make_pipeline
        >>> from midgrain.compat.pipeline import ExplanationTransformer
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> steps = make_pipeline(ExplanationTransformer(model, "vanilla", flat=True), PCA(2))
        >>> steps.fit_transform(np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32)).shape
        (6, 2)
    """

    def __init__(
        self,
        model: Any,
        method: str = "swag-ig",
        target: int | None = None,
        batch_size: int = 8,
        flat: bool = False,
        options: dict[str, Any] | None = None,
    ):
        self.model = model
        self.method = method
        self.target = target
        self.batch_size = batch_size
        self.flat = flat
        self.options = options

    def fit(self, X: Any, y: Any = None) -> ExplanationTransformer:  # noqa: N803 - scikit-learn's name
        """Nothing."""
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803 - scikit-learn's name
        """Heat maps float32 [n, H, W] (or flat) of inputs [n, C, H, W], normalised as the model expects."""
        check_int(self.batch_size, "batch_size", 1)
        x = X if isinstance(X, Tensor) else torch.as_tensor(np.asarray(X))
        explain = explainer(self.method, self.model, **(self.options or {}))
        device = model_device(self.model) or "cpu"
        parts = [explain(part.to(device), self.target).heatmap.cpu() for part in x.split(self.batch_size)]
        maps: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return maps.reshape(len(maps), -1) if self.flat else maps

    def __sklearn_is_fitted__(self) -> bool:
        return True
