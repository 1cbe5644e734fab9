"""Explanations in other people's pipelines: called like Hugging Face's, or a step of scikit-learn's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from midgrain.classes import top_classes
from midgrain.compat.transformer import ExplanationTransformer
from midgrain.models import LoadedModel, load_model
from midgrain.network.modules import model_device
from midgrain.ops.checks import check_int
from midgrain.pictures import Preprocess, open_picture
from midgrain.registry import explainer

__all__ = ["ExplanationPipeline", "ExplanationTransformer"]


class ExplanationPipeline:
    """From pictures to dictionaries of classes and heat maps, called like `transformers.pipeline(...)`.

    Args:
        model: "demo", "torchvision:NAME", a file, ..., see `midgrain.models.load_model`; or a `LoadedModel`, which
            says how pictures become inputs and what classes are called.
        method: one of `midgrain.methods()`.
        device: where to put a model that is named.
        **options: of the method.

    Raises:
        TypeError, ValueError: see `midgrain.models.load_model` and `midgrain.explainer`; a network for clips.

    Example:
        >>> from PIL import Image
        >>> from midgrain.compat.pipeline import ExplanationPipeline
        >>> explain = ExplanationPipeline("demo", method="gradcam")
        >>> (best,) = explain(Image.new("RGB", (300, 260)), top_k=1)
        >>> sorted(best), best["heatmap"].shape
        (['heatmap', 'index', 'label', 'overlay', 'score'], (224, 224))
    """

    def __init__(
        self, model: str | LoadedModel = "demo", method: str = "swag-ig", *, device: Any = "cpu", **options: Any
    ):
        loaded = load_model(model, device) if isinstance(model, str) else model
        if not isinstance(loaded, LoadedModel):
            raise TypeError(f"model: expected a name or a LoadedModel, got {type(loaded).__name__}")
        if not isinstance(loaded.preprocess, Preprocess):
            raise ValueError("model: expected a network for pictures, got one for clips")
        self.loaded = loaded
        self.preprocess = loaded.preprocess
        self.explainer = explainer(
            method, loaded.model, mean=loaded.preprocess.mean, std=loaded.preprocess.std, **options
        )

    def __call__(
        self, images: Any, *, top_k: int = 5, target: int | str | None = None, batch_size: int = 8
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Explain a picture, or several.

        Args:
            images: a path, a PIL picture or an array [H, W, 3] of bytes; or a list of these.
            top_k: so many of the most probable classes, each with its heat map.
            target: one class instead, by number or name.
            batch_size: pictures that go through the network together.

        Returns:
            Per picture (of a single one without the outer list) dictionaries, the most probable class first: "label",
            "score" (probability), "index", "heatmap" float32 [h, w] and "overlay", a PIL picture; both show the
            network's crop.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or out of range.
        """
        check_int(top_k, "top_k", 1)
        check_int(batch_size, "batch_size", 1)
        several = isinstance(images, list | tuple)
        pictures = [_picture(each) for each in (images if several else [images])]
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(pictures), batch_size):
            found += self._batch(pictures[start : start + batch_size], top_k, self._index(target))
        return found if several else found[0]

    def _batch(self, pictures: Sequence[Image.Image], top_k: int, target: int | None) -> list[list[dict[str, Any]]]:
        x = torch.cat([self.preprocess(picture) for picture in pictures])
        x = x.to(model_device(self.loaded.model) or "cpu")
        made = self.explainer(x, target)
        if made.outputs is None:
            raise ValueError("model: expected it to return logits [B, classes]")
        logits = made.outputs
        order = logits.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
        targets = order.T if target is None else torch.full((1, len(x)), target)
        found: list[list[dict[str, Any]]] = [[] for _ in pictures]
        for number, classes in enumerate(targets):
            if number:
                made = self.explainer(x, classes)
            for sample, index in enumerate(classes.tolist()):
                probability = float(logits[sample].float().softmax(0)[index])
                found[sample].append(
                    {
                        "label": self.loaded.label(index),
                        "score": probability,
                        "index": index,
                        "heatmap": made.heatmap[sample].cpu().numpy(),
                        "overlay": Image.fromarray(made.overlay(sample)),
                    }
                )
        return found

    def _index(self, target: int | str | None) -> int | None:
        if not isinstance(target, str):
            return target
        labels = list(self.loaded.labels or ())
        if target not in labels:
            raise ValueError(f"target: the model has no class {target!r}")
        return labels.index(target)

    def classes(self, image: Any, k: int = 5) -> list[str]:
        """The names of the k most probable classes of a picture."""
        with torch.no_grad():
            logits = self.loaded.model(self.preprocess(_picture(image)).to(model_device(self.loaded.model) or "cpu"))
        return [each.label for each in top_classes(logits[0], self.loaded.label, k)]


def _picture(image: Any) -> Image.Image:
    if isinstance(image, str | os.PathLike):
        return open_picture(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"images: expected bytes [H, W, 3], got {image.dtype} {list(image.shape)}")
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    raise TypeError(f"images: expected paths, PIL pictures or arrays of bytes, got {type(image).__name__}")
