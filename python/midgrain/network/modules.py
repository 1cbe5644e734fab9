"""A network's modules: the network behind its wrappers, where it is, and a module by its name."""

from __future__ import annotations

import difflib
import itertools
from typing import Any

import torch
from torch import nn

__all__ = ["find_module", "model_device", "module_name", "unwrapped"]


def unwrapped(model: Any) -> nn.Module:
    """The network itself, behind `torch.compile`, DataParallel and DistributedDataParallel.

    Raises:
        TypeError: no module, or a TorchScript program; their layers cannot be watched.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # What torch.compile returns.
            model = model._orig_mod
        else:
            break
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, whose layers can be watched, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model: a TorchScript program hides its layers; save the network with torch.export.save instead"
        )
    return model


def model_device(model: Any) -> torch.device | None:
    """Where the model's first parameter or buffer is; None where it has none."""
    if not isinstance(model, nn.Module):
        return None
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def find_module(model: nn.Module, layer: Any) -> nn.Module:
    """The module that `layer` means.

    Args:
        model: an unwrapped network.
        layer: a module of the network, or its dotted name as in `model.named_modules()`.

    Raises:
        TypeError: neither.
        ValueError: the network has no such module.
    """
    if isinstance(layer, nn.Module):
        module = unwrapped(layer)
        if all(module is not other for other in model.modules()):
            raise ValueError(f"layer: this {type(module).__name__} is not part of the model")
        return module
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected a module or its dotted name, got {type(layer).__name__}")
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if layer and layer not in modules:
        # Names may be those of the network inside or outside of its wrappers.
        inner = {_without_wrappers(name): name for name in reversed(modules)}
        layer = inner.get(_without_wrappers(layer)) or inner.get(layer.removeprefix("module.")) or layer
    if not layer or layer not in modules:
        close = difflib.get_close_matches(layer, [name for name in modules if name], n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else "; model.named_modules() lists their names"
        raise ValueError(f"layer: the model has no module {layer!r}{hint}")
    return modules[layer]


def _without_wrappers(name: str) -> str:
    """A dotted name without what `torch.compile` puts in."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def module_name(model: nn.Module, module: nn.Module) -> str:
    """The dotted name of a module of the network, its own class's name for the network itself."""
    names: dict[str, nn.Module] = dict(model.named_modules())
    for name, other in names.items():
        if other is module and name:
            return name
    return type(module).__name__
