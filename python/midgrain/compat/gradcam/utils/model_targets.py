"""grad-cam's targets: from one sample's output to the score that is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "BinaryClassifierOutputTarget",
    "ClassifierOutputReST",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "FasterRCNNBoxScoreTarget",
    "FinerWeightedTarget",
    "RawScoresOutputTarget",
    "SemanticSegmentationTarget",
    "SoftmaxOutputTarget",
]


class ClassifierOutputTarget:
    """A class's logit.

    Example:
        >>> import torch
        >>> from midgrain.compat.gradcam import ClassifierOutputTarget
        >>> ClassifierOutputTarget(1)(torch.tensor([0.5, 2.0]))
        tensor(2.)
    """

    def __init__(self, category: int):
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """[classes] -> scalar, [B, classes] -> [B]."""
        return model_output[..., self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """A class's probability."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """[classes] -> scalar, [B, classes] -> [B]."""
        return super().__call__(model_output.softmax(-1))


class ClassifierOutputReST(ClassifierOutputTarget):
    """A class's logit less its cross entropy (arXiv 2501.06261)."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """[classes] -> scalar, [B, classes] -> [B]."""
        return super().__call__(model_output) + super().__call__(F.log_softmax(model_output, -1))


class BinaryClassifierOutputTarget:
    """The only output of a binary classifier, or its negative for category 0."""

    def __init__(self, category: int):
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """The same shape."""
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget:
    """All probabilities."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """The same shape."""
        return model_output.softmax(-1)


class RawScoresOutputTarget:
    """The outputs as they are."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """The same shape."""
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's scores [classes, H, W] over the pixels of a mask [H, W]."""

    def __init__(self, category: int, mask: npt.NDArray[Any]):
        self.category = category
        self.mask = torch.from_numpy(mask)

    def __call__(self, model_output: Tensor) -> Tensor:
        """[classes, H, W] -> scalar."""
        return (model_output[self.category] * self.mask.to(model_output.device)).sum()


class FasterRCNNBoxScoreTarget:
    """How well a detector finds given boxes again: overlap plus score of the best fitting box of the same label.

    Args:
        labels: one per box.
        bounding_boxes: [n, 4], as (x1, y1, x2, y2).
        iou_threshold: boxes that overlap no more than this count 0.
    """

    def __init__(self, labels: Sequence[Any], bounding_boxes: npt.NDArray[Any], iou_threshold: float = 0.5):
        self.labels = labels
        self.bounding_boxes = bounding_boxes
        self.iou_threshold = iou_threshold

    def __call__(self, model_outputs: dict[str, Tensor]) -> Tensor:
        """The outputs of one picture ("boxes", "labels", "scores") -> [1]."""
        boxes = model_outputs["boxes"]
        total = boxes.new_zeros(1)
        if len(boxes) == 0:
            return total
        for box, label in zip(self.bounding_boxes, self.labels, strict=True):
            overlaps = _overlaps(torch.as_tensor(np.asarray(box)).to(boxes), boxes)
            best = int(overlaps.argmax())
            if overlaps[best] > self.iou_threshold and model_outputs["labels"][best] == label:
                total = total + overlaps[best] + model_outputs["scores"][best]
        return total


def _overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of a box [4] and boxes [n, 4]."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared)


class FinerWeightedTarget:
    """A class's logit less `alpha` times those of similar classes, weighted by their probabilities (Finer-CAM)."""

    def __init__(self, main_category: int, comparison_categories: Sequence[int], alpha: float):
        self.main_category = main_category
        self.comparison_categories = comparison_categories
        self.alpha = alpha

    def __call__(self, model_output: Tensor) -> Tensor:
        """[classes] -> scalar, [B, classes] -> [B]."""
        others = list(self.comparison_categories)
        weights = model_output.softmax(-1)[..., others]
        gaps = model_output[..., self.main_category, None] - self.alpha * model_output[..., others]
        return (weights * gaps).sum(-1) / (weights.sum(-1) + 1e-9)
