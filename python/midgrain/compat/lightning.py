"""A Lightning callback that logs explanations while a model trains."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midgrain.compat.picture_logs import log_pictures, save_pictures
from midgrain.ops.checks import check_int
from midgrain.registry import explainer

__all__ = ["ExplanationCallback"]


def _base() -> Any:
    """Lightning's `Callback`, of either of its packages; a plain class where there is none."""
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(package).Callback
        except ModuleNotFoundError:
            continue
    return object


class ExplanationCallback(_base()):  # type: ignore[misc]
    """Explains the first samples of the validation data, every so many epochs.

    Drawn explanations go to the trainer's loggers that take pictures (`add_image` of TensorBoard, `log_image` of
    Weights & Biases and others) and, where a folder is given, to files `epoch-0003-sample-0.png` there. The model is
    afterwards as it was: in its mode, with its gradients and random state. Nothing is done in Lightning's sanity check,
    nor by other processes than the first.

    Args:
        method: one of `midgrain.methods()`.
        n_samples: of the validation data, the first ones; the same in every epoch.
        every_n_epochs: validation epochs between two.
        target: "label" explains the batch's labels, "predicted" each sample's best class; or see `midgrain.explainer`.
        name: of the pictures in the logs.
        folder: where to write files; None writes none.
        model: from the Lightning module to the network that is explained; None is the module itself, whose `forward`
            returns logits.
        **options: of the method, `mean` and `std` among them.

    Attributes:
        explanations: the last explanation, on the CPU; None before the first.

    Raises:
        ModuleNotFoundError: Lightning is not installed.
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> from midgrain.compat.lightning import ExplanationCallback
        >>> trainer = lightning.Trainer(callbacks=[ExplanationCallback("gradcam", n_samples=4)])  # doctest: +SKIP
    """

    def __init__(
        self,
        method: str = "swag-ig",
        n_samples: int = 4,
        every_n_epochs: int = 1,
        target: Any = "label",
        name: str = "explanations",
        folder: str | Path | None = None,
        model: Callable[[Any], Any] | None = None,
        **options: Any,
    ):
        if _base() is object:
            raise ModuleNotFoundError("lightning is not installed; pip install 'midgrain[lightning]'")
        super().__init__()
        if isinstance(target, str) and target not in ("label", "predicted"):
            raise ValueError(f"target: expected 'label', 'predicted' or a class, got {target!r}")
        self.n_samples = check_int(n_samples, "n_samples", 1)
        self.every_n_epochs = check_int(every_n_epochs, "every_n_epochs", 1)
        self.method, self.target, self.name, self.model, self.options = method, target, name, model, options
        self.folder = None if folder is None else Path(folder)
        self.explanations: Any = None
        self._x: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the samples before."""
        self._x, self._labels = [], []

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first samples."""
        missing = self.n_samples - sum(len(part) for part in self._x)
        if missing <= 0 or dataloader_idx != 0 or not self._wanted(trainer):
            return
        x, labels = _samples(batch)
        self._x.append(x[:missing].detach())
        if self.target == "label" and isinstance(self.target, str):
            if labels is None:
                raise ValueError("target: expected batches (inputs, labels, ...) for target='label'")
            self._labels.append(labels[:missing].detach())

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Explain and log them."""
        if not self._x or not self._wanted(trainer):
            return
        network = pl_module if self.model is None else self.model(pl_module)
        target: Any = self.target
        if isinstance(target, str):
            target = torch.cat(self._labels) if target == "label" else None
        made = explainer(self.method, network, **self.options)(torch.cat(self._x), target)
        self.explanations = made
        pictures = [made.overlay(i) for i in range(len(made))]
        step = int(trainer.global_step)
        for logger in trainer.loggers:
            log_pictures(logger, self.name, pictures, step)
        if self.folder is not None:
            save_pictures(self.folder, pictures, int(trainer.current_epoch))
        self._x, self._labels = [], []

    def _wanted(self, trainer: Any) -> bool:
        due = trainer.current_epoch % self.every_n_epochs == 0
        return bool(due and not trainer.sanity_checking and trainer.is_global_zero)


def _samples(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Inputs and labels of a batch: a tensor, (inputs, labels, ...), or a dictionary of them."""
    if isinstance(batch, Tensor):
        return batch, None
    values = list(batch.values()) if isinstance(batch, dict) else list(batch)
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        raise TypeError("batch: expected a tensor, (inputs, labels, ...) or a dictionary of tensors")
    labels = next((each for each in tensors[1:] if not each.is_floating_point() and each.ndim == 1), None)
    return tensors[0], labels
