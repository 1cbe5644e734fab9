"""What of torch's own Python code is replaced while a CUDA device is pretended; see pretended_cuda.py."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack

__all__ = ["questions", "torch_cuda"]


def torch_cuda(random: torch.Generator) -> dict[str, Callable[..., Any]]:
    """The functions of torch.cuda that are about a device's state."""
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None, device=torch.device("cuda:0"), query=lambda: True)
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "pretended",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda where=None: None,
        "current_stream": lambda where=None: stream,
        "default_stream": lambda where=None: stream,
        "is_current_stream_capturing": lambda: False,
        "device": lambda where: contextlib.nullcontext(),
        "get_rng_state": lambda where="cuda": random.get_state(),
        "set_rng_state": lambda state, where="cuda": random.set_state(state),
        "manual_seed": lambda seed: random.manual_seed(seed),
        "manual_seed_all": lambda seed: random.manual_seed(seed),
        "empty_cache": lambda: None,
        "memory_allocated": lambda where=None: 0,
        "max_memory_allocated": lambda where=None: 0,
        "reset_peak_memory_stats": lambda where=None: None,
    }


def questions(own: type) -> dict[tuple[Any, str], Callable[..., bool]]:
    """Stand-ins for the question of torch's functions in Python whether a mode wants them whole: (module, name).

    A mode would run them, backward passes with all their hooks among them, with itself off. The device's is needed for
    what they call and not for them; others (midgrain's) still get them.

    Args:
        own: the device's mode.
    """

    def asked(*_: Any) -> bool:
        return any(not isinstance(mode, own) for mode in _get_current_function_mode_stack())

    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    modules = [
        module for name, module in sys.modules.items() if name.startswith("torch.") and name != "torch.overrides"
    ]
    return {(module, name): asked for module in modules for name in names if name in vars(module)}
