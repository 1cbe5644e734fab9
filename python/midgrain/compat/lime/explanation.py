"""What `lime` returns for a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.compat.lime.regression import LocalFit

__all__ = ["ImageExplanation"]


class ImageExplanation:
    """An explanation as in `lime.lime_image`.

    Attributes:
        image: the picture, [H, W, C].
        segments: int64 labels [H, W], 0 .. n - 1.
        intercept: per label the linear model's.
        local_exp: per label (superpixel, coefficient), the largest magnitude first.
        top_labels: the explained labels, best first; only where `top_labels` was asked for.
        score: R^2 of the linear model of the label that was explained last, as there; see `scores`.
        local_pred: what that model predicts for the picture, [1].
        scores: R^2 per label.
        local_preds: predictions per label.
    """

    def __init__(self, image: npt.NDArray[Any], segments: npt.NDArray[np.int64]):
        self.image = image
        self.segments = segments
        self.intercept: dict[Any, float] = {}
        self.local_exp: dict[Any, list[tuple[int, float]]] = {}
        self.top_labels: list[Any] = []
        self.score = 0.0
        self.local_pred: npt.NDArray[np.float64] | None = None
        self.scores: dict[Any, float] = {}
        self.local_preds: dict[Any, npt.NDArray[np.float64]] = {}

    def add(self, label: Any, fit: LocalFit) -> None:
        """Keep the linear model of a label."""
        self.intercept[label], self.local_exp[label] = fit.intercept, fit.coefficients
        self.scores[label] = self.score = fit.score
        self.local_preds[label] = self.local_pred = fit.prediction

    def get_image_and_mask(
        self,
        label: Any,
        positive_only: bool = True,
        negative_only: bool = False,
        hide_rest: bool = False,
        num_features: int = 5,
        min_weight: float = 0.0,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The picture with its most important superpixels, and which they are.

        Args:
            label: one of those explained.
            positive_only: only superpixels that speak for the label.
            negative_only: only those that speak against it.
            hide_rest: black out the others; the picture's dtype is kept.
            num_features: at most so many.
            min_weight: only coefficients above this magnitude.

        Returns:
            A copy of the picture, and 1 (0, and -1 where both kinds are asked for and it speaks against) per pixel.
            With both kinds, superpixels for the label are tinted green, those against it red.

        Raises:
            KeyError: a label that was not explained.
            ValueError: both `positive_only` and `negative_only`.
        """
        if label not in self.local_exp:
            raise KeyError(f"label: expected one of {list(self.local_exp)}, got {label!r}")
        if positive_only and negative_only:
            raise ValueError("positive_only, negative_only: expected at most one of them")
        mask = np.zeros_like(self.segments)
        shown = np.zeros_like(self.image) if hide_rest else self.image.copy()
        found = self.local_exp[label]
        if positive_only or negative_only:
            sign = 1 if positive_only else -1
            chosen = [number for number, weight in found if sign * weight > max(0.0, min_weight)][:num_features]
            inside = np.isin(self.segments, chosen)
            shown[inside], mask[inside] = self.image[inside], 1
            return shown, mask
        for number, weight in found[:num_features]:
            if abs(weight) >= min_weight:
                inside = self.segments == number
                mask[inside] = -1 if weight < 0 else 1
                shown[inside] = self.image[inside]
                shown[inside, 0 if weight < 0 else 1] = self.image.max()
        return shown, mask
