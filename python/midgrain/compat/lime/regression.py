"""`lime`'s choice of features and its linear model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SELECTIONS", "local_model", "selected"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

#: Ways to choose features.
SELECTIONS = ("auto", "none", "forward_selection", "highest_weights", "lasso_path")
# Up to so many features "auto" looks for the best set one by one.
_FEW = 6


def selected(data: _Floats, values: _Floats, weights: _Floats, count: int, method: str) -> _Ints:
    """The columns to use.

    Args:
        data: on/off vectors [n, K].
        values: what the classifier says, [n].
        weights: [n].
        count: at most so many columns.
        method: one of `SELECTIONS`.
    """
    if method == "auto":
        method = "forward_selection" if count <= _FEW else "highest_weights"
    if method == "none":
        return np.arange(data.shape[1])
    if method == "highest_weights":
        importance = np.abs(_ridge(data, values, weights, 0.01).coef_ * data[0])
        return np.argsort(-importance, kind="stable")[:count]
    if method == "forward_selection":
        return _forward(data, values, weights, count)
    from sklearn.linear_model import lars_path

    roots = np.sqrt(weights)
    rows = (data - np.average(data, axis=0, weights=weights)) * roots[:, None]
    _, _, paths = lars_path(rows, (values - np.average(values, weights=weights)) * roots, method="lasso")
    fitting = [used for used in (np.flatnonzero(path) for path in paths.T[:0:-1]) if len(used) <= count]
    return fitting[0] if fitting else np.flatnonzero(paths.T[1])


def _forward(data: _Floats, values: _Floats, weights: _Floats, count: int) -> _Ints:
    """One column after the other, always the one that leaves least: the residuals are made orthogonal to it."""
    roots = np.sqrt(weights)[:, None]
    columns = (data - np.average(data, axis=0, weights=weights)) * roots
    left = (values - np.average(values, weights=weights)) * roots[:, 0]
    sizes = (columns**2).sum(0)
    used: list[int] = []
    for _ in range(min(count, data.shape[1])):
        norms = (columns**2).sum(0)
        free = norms > 1e-12 * np.maximum(sizes, 1e-300)
        free[used] = False
        gains = np.where(free, (columns.T @ left) ** 2 / np.where(free, norms, 1.0), -1.0)
        gains[used] = -2.0
        best = int(gains.argmax())
        used.append(best)
        if free[best]:
            direction = columns[:, best] / np.sqrt(norms[best])
            left = left - direction * (direction @ left)
            columns = columns - direction[:, None] * (direction @ columns)
    return np.array(used)


def local_model(data: _Floats, values: _Floats, weights: _Floats, used: _Ints, regressor: Any) -> Any:
    """The linear model of these columns: ridge regression (alpha 1), or the user's own, fitted."""
    if regressor is None:
        return _ridge(data[:, used], values, weights, 1.0)
    return regressor.fit(data[:, used], values, sample_weight=weights)


def _ridge(data: _Floats, values: _Floats, weights: _Floats, alpha: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=alpha).fit(data, values, sample_weight=weights)
