"""`lime`'s choice of features and its linear model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.compat.lime.copies import Floats

__all__ = ["SELECTIONS", "LocalFit", "local_fit"]

_Ints = npt.NDArray[np.int64]

#: Ways to choose features.
SELECTIONS = ("auto", "none", "forward_selection", "highest_weights", "lasso_path")
# Up to so many features "auto" looks for the best set one by one.
_FEW = 6


@dataclass(frozen=True)
class LocalFit:
    """A linear model of one label."""

    intercept: float
    #: (superpixel, coefficient), the largest magnitude first.
    coefficients: list[tuple[int, float]]
    #: R^2.
    score: float
    #: Of the first row, [1].
    prediction: npt.NDArray[np.float64]


def local_fit(data: Floats, values: Floats, weights: Floats, count: int, method: str, regressor: Any) -> LocalFit:
    """The linear model of the columns that are chosen: ridge regression (alpha 1), or the user's own.

    Args:
        data: on/off vectors [n, K].
        values: what the classifier says, [n].
        weights: [n].
        count: at most so many columns.
        method: one of `SELECTIONS`.
        regressor: None, or a linear model of scikit-learn's.
    """
    used = _selected(data, values, weights, count, method)
    rows = data[:, used]
    if regressor is None:
        model = _ridge(rows, values, weights, 1.0)
    else:
        model = regressor.fit(rows, values, sample_weight=weights)
    pairs = zip(used.tolist(), np.asarray(model.coef_).tolist(), strict=True)
    return LocalFit(
        float(model.intercept_),
        sorted(pairs, key=lambda pair: abs(pair[1]), reverse=True),
        float(model.score(rows, values, sample_weight=weights)),
        model.predict(rows[:1]),
    )


def _selected(data: Floats, values: Floats, weights: Floats, count: int, method: str) -> _Ints:
    """The columns to use."""
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


def _forward(data: Floats, values: Floats, weights: Floats, count: int) -> _Ints:
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


def _ridge(data: Floats, values: Floats, weights: Floats, alpha: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=alpha).fit(data, values, sample_weight=weights)
