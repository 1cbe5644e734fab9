"""Every method on a pretended CUDA device: the CPU's results, on the input's device, and the model as it was.

pretended_cuda.py says what such a device is and what it cannot show. In short, these tests find code that mixes devices,
leaves results on the wrong one, hands a device's tensor to NumPy or uses an operator that CUDA does not have. They do not
run a CUDA kernel; that is for tests with the mark `gpu`.
"""

from __future__ import annotations

import copy
import functools
import operator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from midgrain.explanation import Explanation
from models_for_tests import CONV, POOL, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from pretended_checks import assert_same, assert_unchanged, state_of
from pretended_cuda import pretended_cuda

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
KERNELS = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "no kernels"])
LABELS = {2: torch.arange(24 * 32).reshape(24, 32) // 96, 3: torch.arange(4 * 12 * 16).reshape(4, 12, 16) // 96}


def mean_net(dims: int = 2) -> nn.Module:
    """Ends in a linear layer over its channels' means, which Saliency Tubes need."""
    return seeded(
        lambda: nn.Sequential(CONV[dims](3, 6, 3), nn.ReLU(), POOL[dims](1), nn.Flatten(), nn.Linear(6, 5))
    ).eval()


def net_for(name: str, dims: int = 2) -> nn.Module:
    return mean_net(dims) if name == "saliency-tubes" else tiny_net(dims)


def explained(name: str, x: Tensor, target: Any = None, **options: Any) -> Explanation:
    return quick_explainer(name, net_for(name, x.ndim - 2).to(x), **options)(x, target)


@functools.cache
def on_the_cpu(name: str, dims: int) -> Explanation:
    return explained(name, batch_for(dims))


@KERNELS
@DIMS
@pytest.mark.parametrize("name", mg.methods())
def test_every_method(name, dims, kernels) -> None:
    expected = on_the_cpu(name, dims)
    with pretended_cuda(kernels=kernels):
        x, net = batch_for(dims).cuda(), net_for(name, dims).cuda()
        x_before, version, before = x.clone(), x._version, state_of(net)
        found = quick_explainer(name, net)(x)
        assert_same(found, expected)
        assert_unchanged(before, state_of(net))
        assert torch.equal(x, x_before)
        assert x._version == version


TARGETS = {
    "class": lambda on: 2,
    "classes": lambda on: [4, 0],
    "on the device": lambda on: on(torch.tensor([4, 0])),
    "on the CPU": lambda on: torch.tensor([4, 0]),
    "array": lambda on: np.array([4, 0], np.int32),
    "callable": lambda on: lambda outputs: outputs[:, 1] - outputs[:, 2],
    "callable with classes": lambda on: lambda outputs: outputs.gather(1, on(torch.tensor([[4], [0]])))[:, 0],
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", mg.methods())
def test_targets(name, kind) -> None:
    if name == "extremal" and kind in ("class", "array", "callable"):
        pytest.skip("slow, and tried with the other targets")
    if name in ("saliency-tubes",) and kind.startswith("callable"):
        pytest.skip("needs classes")
    options = {"output": "logit"} if "output" in mg.registry.method_options(name) else {}
    if name == "scorecam" and kind.startswith("callable"):
        options["output"] = "logit"
    expected = explained(name, batch_for(), TARGETS[kind](lambda tensor: tensor), **options)
    with pretended_cuda():
        found = explained(name, batch_for().cuda(), TARGETS[kind](operator.methodcaller("cuda")), **options)
        assert_same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", mg.methods())
def test_dtypes(name, dtype) -> None:
    expected = explained(name, batch_for(dtype=dtype))
    with pretended_cuda():
        assert_same(explained(name, batch_for().cuda().to(dtype), ), expected)
