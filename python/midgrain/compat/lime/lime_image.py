"""`lime.lime_image`: LIME of a classifier that is a function of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from midgrain.compat.absent import Refusing
from midgrain.compat.lime.copies import Floats, classified_copies, with_all_off
from midgrain.compat.lime.explanation import ImageExplanation
from midgrain.compat.lime.regression import SELECTIONS, local_fit
from midgrain.compat.lime.segmentation import SegmentationAlgorithm, contiguous
from midgrain.ops.checks import check_bool, check_int, check_positive

__all__ = ["ImageExplanation", "LimeImageExplainer", "SegmentationAlgorithm"]


class LimeImageExplainer(Refusing):
    """Explains a picture's classes by its superpixels, as the `lime` package does and with its random numbers.

    Given the same segmentation and `random_state`, coefficients are those of `lime`. What differs: labels of a
    segmentation may start anywhere and have gaps (there, labels from 1 on mean a superpixel 0 that does not exist, and
    the last one is never hidden); quickshift hears the seed; pictures may have any number of channels.
    For a PyTorch model `mg.explainer("lime", model)` is the shorter way.

    Args:
        kernel_width: of the weights.
        kernel: `(distances, kernel_width=...) -> weights`; None is sqrt(exp(-d^2 / width^2)).
        verbose: print intercept, prediction and truth of each label.
        feature_selection: "auto", "none", "forward_selection", "highest_weights" or "lasso_path".
        random_state: a seed or a `numpy.random.RandomState`.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import numpy as np
        >>> from midgrain.compat.lime import LimeImageExplainer, segmentation_fn
        >>> def brightness(pictures):  # class 1 is how bright the upper left quarter is
        ...     p = pictures[:, :20, :20].mean((1, 2, 3))
        ...     return np.stack([1 - p, p], 1)
        >>> found = LimeImageExplainer(random_state=0).explain_instance(
        ...     np.ones((40, 40, 3)), brightness, top_labels=1, hide_color=0, num_samples=200,
        ...     segmentation_fn=lambda picture: np.indices((40, 40)).sum(0) * 0 + np.arange(40) // 20)
        >>> [number for number, weight in found.local_exp[1]]
        [0, 1]
    """

    _instead = {"data_labels": "use explain_instance"}  # noqa: RUF012 - annotated in the base class

    def __init__(
        self,
        kernel_width: float = 0.25,
        kernel: Callable[..., Floats] | None = None,
        verbose: bool = False,
        feature_selection: str = "auto",
        random_state: Any = None,
    ):
        from sklearn.utils import check_random_state

        self.kernel_width = check_positive(kernel_width, "kernel_width")
        self.kernel = kernel or _exponential
        self.verbose = check_bool(verbose, "verbose")
        if feature_selection not in SELECTIONS:
            raise ValueError(f"feature_selection: expected one of {', '.join(SELECTIONS)}, got {feature_selection!r}")
        self.feature_selection = feature_selection
        self.random_state = check_random_state(random_state)

    def explain_instance(
        self,
        image: npt.NDArray[Any],
        classifier_fn: Callable[[npt.NDArray[Any]], Any],
        labels: Iterable[int] = (1,),
        hide_color: Any = None,
        top_labels: int | None = 5,
        num_features: int = 100000,
        num_samples: int = 1000,
        batch_size: int = 10,
        segmentation_fn: Callable[[npt.NDArray[Any]], npt.ArrayLike] | None = None,
        distance_metric: str = "cosine",
        model_regressor: Any = None,
        random_seed: int | None = None,
    ) -> ImageExplanation:
        """Explain one picture.

        Args:
            image: [H, W, C], or grey [H, W], which becomes three channels; any numbers.
            classifier_fn: from pictures [n, H, W, C] to probabilities [n, classes].
            labels: classes to explain, where `top_labels` is None.
            hide_color: what stands where a superpixel is off; None is each one's mean colour.
            top_labels: explain so many of the most probable classes.
            num_features: coefficients of at most so many superpixels.
            num_samples: pictures that the classifier sees, the first of them the picture itself.
            batch_size: of them at once.
            segmentation_fn: from the picture to labels [H, W]; None is quickshift.
            distance_metric: one of scikit-learn's, between on/off vectors.
            model_regressor: a linear model of scikit-learn's instead of ridge regression.
            random_seed: of quickshift.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range, probabilities of another shape.
        """
        from sklearn.metrics import pairwise_distances

        image = np.asarray(image)
        if image.ndim == 2:
            image = np.stack([image] * 3, -1)
        if image.ndim != 3 or image.size == 0:
            raise ValueError(f"image: expected [H, W, C] or [H, W], got shape {image.shape}")
        if not callable(classifier_fn):
            raise TypeError(f"classifier_fn: expected a callable, got {type(classifier_fn).__name__}")
        check_int(num_features, "num_features", 1)
        check_int(num_samples, "num_samples", 2)
        check_int(batch_size, "batch_size", 1)
        seed = int(self.random_state.randint(0, high=1000)) if random_seed is None else random_seed
        if segmentation_fn is None:
            segmentation_fn = SegmentationAlgorithm("quickshift", kernel_size=4, max_dist=200, ratio=0.2, rng=seed)
        segments = contiguous(segmentation_fn(image), image.shape[:2])
        count = int(segments.max()) + 1
        data = self.random_state.randint(0, 2, num_samples * count).reshape(num_samples, count)
        data[0] = 1
        hidden = with_all_off(image, segments, hide_color)
        said = classified_copies(image, hidden, segments, classifier_fn, data, batch_size)
        rows = data.astype(np.float64)
        weights = self.kernel(
            pairwise_distances(rows, rows[:1], metric=distance_metric).ravel(), kernel_width=self.kernel_width
        )
        explanation = ImageExplanation(image, segments)
        chosen = list(labels)
        if top_labels:
            chosen = list(np.argsort(said[0])[-top_labels:])
            explanation.top_labels = chosen[::-1]
        for label in chosen:
            values = said[:, label]
            fit = local_fit(rows, values, weights, num_features, self.feature_selection, model_regressor)
            explanation.add(label, fit)
            if self.verbose:
                print("Intercept", fit.intercept)
                print("Prediction_local", fit.prediction)
                print("Right:", values[0])
        return explanation


def _exponential(distances: Floats, kernel_width: float) -> Floats:
    return np.asarray(np.sqrt(np.exp(-(distances**2) / kernel_width**2)))
