"""Ridge regression of scores on which regions were on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LinearFit", "weighted_ridge"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """scores = intercept + rows @ coefficients, nearly."""

    #: float64 [K], one per region.
    coefficients: Floats
    intercept: float
    #: Weighted R^2: the share of the scores' variance that the fit explains; 1 where they do not vary.
    r2: float


def weighted_ridge(rows: npt.NDArray[Any], scores: Floats, weights: Floats, alpha: float) -> LinearFit:
    """Minimises sum_i weights_i (scores_i - intercept - rows_i . c)^2 + alpha |c|^2.

    Args:
        rows: bool or floats [n, K].
        scores: [n].
        weights: [n], not negative, not all 0.
        alpha: 0 is least squares; of several solutions the one of least norm is taken.

    Example:
        >>> import numpy as np
        >>> from midgrain.regions.ridge import weighted_ridge
        >>> rows = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
        >>> fit = weighted_ridge(rows, np.array([3.5, 2.5, 1.5, 0.5]), np.ones(4), alpha=0.0)
        >>> fit.coefficients.round(6), round(fit.intercept, 6), round(fit.r2, 6)
        (array([2., 1.]), 0.5, 1.0)
    """
    from sklearn.linear_model import LinearRegression, Ridge

    # Relative to one of them, so that scores that are all equal give exactly 0.
    first = float(scores[0])
    # Singular values rather than normal equations: they stay exact for any alpha.
    model = Ridge(alpha=alpha, solver="svd") if alpha > 0 else LinearRegression()
    model.fit(rows.astype(np.float64), scores - first, sample_weight=weights)
    residuals = scores - first - model.predict(rows.astype(np.float64))
    spread = scores - np.average(scores, weights=weights)
    total = float(weights @ spread**2)
    r2 = 1.0 - float(weights @ residuals**2) / total if np.ptp(scores) > 0 and total > 0 else 1.0
    return LinearFit(np.asarray(model.coef_, dtype=np.float64), float(model.intercept_) + first, r2)
