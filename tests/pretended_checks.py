"""Comparing what the pretended CUDA device gave with what the CPU gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretended_cuda import CUDA


def parts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What a result consists of: (path, tensor, array or number)."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, Mapping):
        for key in value:
            yield from parts(value[key], f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from parts(each, f"{name}[{number}]")
    else:
        yield name, value


def assert_same(found: Any, expected: Any, *, device: torch.device | None = CUDA, tolerance: float = 1e-5) -> None:
    """The same values but for rounding, relative to the largest; tensors on this device, None for anywhere."""
    one, other = dict(parts(found)), dict(parts(expected))
    assert one.keys() == other.keys()
    for name, value in one.items():
        wanted = other[name]
        if isinstance(value, Tensor):
            assert isinstance(wanted, Tensor), name
            assert device is None or value.device == device, f"{name} is on {value.device}"
            assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), name
            value, wanted = value.detach().cpu(), wanted.detach()
            if value.is_floating_point():
                scale = float(wanted[wanted.isfinite()].abs().max()) if wanted.isfinite().any() else 0.0
                torch.testing.assert_close(
                    value,
                    wanted,
                    rtol=0,
                    atol=tolerance * scale,
                    equal_nan=True,
                    msg=lambda text, at=name: f"{at}: {text}",
                )
            else:
                assert torch.equal(value, wanted), name
        elif isinstance(value, np.ndarray | float):
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            assert value == wanted, name


def state_of(model: nn.Module) -> dict[str, Any]:
    """What an explanation could change: values, gradients, modes, hooks, random states."""
    state: dict[str, Any] = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"{name}'s gradient"] = (
            parameter.requires_grad,
            None if parameter.grad is None else parameter.grad.tolist(),
        )
    for name, module in model.named_modules():
        hooks = {key: sorted(value) for key, value in vars(module).items() if "hook" in key and isinstance(value, dict)}
        state[f"module {name}"] = module.training, sorted(vars(module)), hooks
    return state | {"random": torch.get_rng_state(), "random, device": torch.cuda.get_rng_state()}


def assert_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Two `state_of` the same model."""
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name], name
