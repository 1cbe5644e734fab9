"""Loads the compiled kernels and says what is built and usable.

`cpu` is always there. The CUDA kernels are looked up when an array on a CUDA device first asks for them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import numbers
import os
import sys
from types import ModuleType
from typing import Any

from midgrain._kernels import _cpu as cpu
from midgrain.errors import BackendUnavailableError

__all__ = ["build_info", "check_threads", "cpu", "for_device", "is_usable", "num_threads"]

_NOT_BUILT = "this build of midgrain has no CUDA kernels (nvcc was not found when it was built)"


@functools.cache
def _load_cuda() -> ModuleType | None:
    """The module of the CUDA kernels, None where it was not built. Importing it needs neither driver nor device."""
    if importlib.util.find_spec("midgrain._kernels._cuda") is None:
        return None
    return importlib.import_module("midgrain._kernels._cuda")


@functools.cache
def _cuda_problem() -> str | None:
    """Why the CUDA kernels cannot be used, None where they can. Asks the driver once."""
    module = _load_cuda()
    return _NOT_BUILT if module is None else module.problem()


def for_device(device: str) -> ModuleType:
    """The kernels for "cpu" or "cuda".

    Raises:
        BackendUnavailableError: there are none for this device.
    """
    if device == "cpu":
        return cpu
    if device == "cuda":
        problem, module = _cuda_problem(), _load_cuda()
        if problem is None and module is not None:
            return module
        raise BackendUnavailableError(f"the array is on a CUDA device, but {problem}; move it to the CPU")
    raise BackendUnavailableError(f"expected an array on the CPU or a CUDA device, got one on {device!r}")


def is_usable(device: str) -> bool:
    """Are there kernels for "cpu" or "cuda" that operations can be given arrays for?"""
    return device == "cpu" or (device == "cuda" and _cuda_problem() is None)


def check_threads(requested: object) -> int | None:
    """What a caller passed as `num_threads`, checked and not above what the kernels take; None stays None.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is not positive.
    """
    if requested is None:
        return None
    if isinstance(requested, bool) or not isinstance(requested, numbers.Integral):
        raise TypeError(f"num_threads: expected an int or None, got {type(requested).__name__}")
    if requested < 1:
        raise ValueError(f"num_threads: expected 1 or more, got {requested}")
    return min(int(requested), 1024)


def num_threads(requested: int | None = None) -> int:
    """Threads for one call: `requested`, else MIDGRAIN_NUM_THREADS, else torch's setting, else the usable cores.

    Raises:
        TypeError: `requested` is not an integer.
        ValueError: `requested` or the environment variable is not a positive integer.
    """
    checked = check_threads(requested)
    if checked is not None:
        return checked
    variable = os.environ.get("MIDGRAIN_NUM_THREADS")
    if variable:
        if not variable.isdecimal() or int(variable) < 1:
            raise ValueError(f"MIDGRAIN_NUM_THREADS: expected a positive integer, got {variable!r}")
        return min(int(variable), 1024)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return min(int(torch.get_num_threads()), 1024)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_info() -> dict[str, Any]:
    """What is built, what is usable here and why not.

    Returns:
        "cpu": {"built", "usable", "instruction_set", "instruction_sets", "threads"};
        "cuda": {"built", "usable", "reason"}, reason being None where it is usable; where it is built also "runtime"
        (the version of CUDA that it is made for), "driver" (the version that the driver is made for, None without one)
        and "devices", each {"name", "compute_capability"}.

    Example:
        >>> import midgrain as mg
        >>> mg.build_info()["cpu"]["usable"]
        True
    """
    return {
        "cpu": {
            "built": True,
            "usable": True,
            "instruction_set": cpu.instruction_set(),
            "instruction_sets": cpu.available_instruction_sets(),
            "threads": num_threads(),
        },
        "cuda": _cuda_info(),
    }


def _cuda_info() -> dict[str, Any]:
    info: dict[str, Any] = {"built": False, "usable": is_usable("cuda"), "reason": _cuda_problem()}
    module = _load_cuda()
    if module is not None:
        info["built"] = True
        info["runtime"] = _version(module.runtime_version())
        info["driver"] = _version(module.driver_version())
        info["devices"] = [
            {"name": name, "compute_capability": f"{major}.{minor}"} for name, major, minor in module.devices()
        ]
    return info


def _version(number: int) -> str | None:
    """13000 to "13.0"; 0, which means there is none, to None."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None
