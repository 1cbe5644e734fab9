"""What makes two results comparable: fingerprints of networks, options and objects, as JSON."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["described", "differences", "digest", "environment", "fingerprint"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PACKAGES = ("midgrain", "torch", "numpy", "scipy", "scikit-image", "scikit-learn", "pillow")


def fingerprint(model: Any) -> str:
    """SHA-256 of a network's structure and of every parameter and buffer; of other callables, of their name."""
    digest = hashlib.sha256()
    if not isinstance(model, nn.Module):
        digest.update(_name_of(model).encode())
        return digest.hexdigest()
    digest.update(_ADDRESS.sub("", repr(model)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(_content(tensor).encode() if isinstance(tensor, Tensor) else repr(tensor).encode())
    return digest.hexdigest()


def described(value: Any) -> Any:
    """A value as JSON: equal for equal values, also in another process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return _content(value)
    if isinstance(value, np.ndarray):
        return _content(torch.from_numpy(value)) if value.dtype.kind in "fiub" else repr(value)
    if isinstance(value, Mapping):
        return {str(key): described(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((described(each) for each in value), key=str)
    if isinstance(value, list | tuple):
        return [described(each) for each in value]
    if isinstance(value, nn.Module):
        return fingerprint(value)
    return _object(value)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def environment() -> dict[str, str]:
    """The versions and the machine that results come from."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = []
        for key in dict.fromkeys([*first, *second]):
            place = f"{path}.{key}" if path else str(key)
            if key not in first or key not in second:
                found.append(f"{place} {'is new' if key not in first else 'is gone'}")
            else:
                found += differences(first[key], second[key], place)
        return found
    if first == second or (first != first and second != second):
        return []
    return [f"{path} was {_short(first)} and is {_short(second)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _content(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b""
    return f"{values.dtype}{list(values.shape)}:{hashlib.sha256(raw).hexdigest()[:32]}"


def _name_of(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}"


def _object(value: Any, depth: int = 0) -> Any:
    """An object of a class: its name and its simple attributes, two levels deep; a function: its name."""
    if hasattr(value, "__qualname__"):
        return _name_of(value)
    attributes = {}
    for name, each in sorted(getattr(value, "__dict__", {}).items()):
        if isinstance(each, nn.Module):
            continue  # The network stands for itself.
        if each is None or isinstance(each, bool | int | float | str | list | tuple | Mapping | Tensor | np.ndarray):
            attributes[name] = _plain(each)
        elif depth < 2 and not hasattr(each, "__qualname__"):
            attributes[name] = _object(each, depth + 1)
        else:
            attributes[name] = _name_of(each)
    return {"class": _name_of(value), **attributes}


def _plain(value: Any) -> Any:
    """Containers only as far as they hold simple values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str | Tensor | np.ndarray):
        return described(value)
    return _name_of(value)
