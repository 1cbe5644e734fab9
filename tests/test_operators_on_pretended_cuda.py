"""midgrain's operators for CUDA tensors on a pretended device, with kernels that are executed on the CPU.

Unlike other tests of these kernels, tensors say here that they are on a device: what an operator makes must be there,
too, and explanations pass through all of it, from the input to the heat map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch

import cuda_library as cuda
import midgrain as mg
from midgrain import _kernels
from midgrain.ops import torch_cuda
from models_for_tests import batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread
from pretended_checks import assert_same
from pretended_cuda import Traffic, pretended_cuda

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")


def _aligned(count: int, like: torch.Tensor) -> torch.Tensor:
    """As torch's memory on a device is."""
    memory = torch.empty(count + 256, dtype=torch.uint8, device=like.device)
    return memory[-memory.data_ptr() % 256 :][:count]


@contextmanager
def executed() -> Iterator[Traffic]:
    """A pretended device on which midgrain's own code for CUDA tensors runs."""
    with ExitStack() as stack:
        for target, name, value in [
            (_kernels, "_load_cuda", cuda.module),
            (_kernels, "_cuda_problem", lambda: None),
            (torch_cuda, "_allocate", _aligned),
        ]:
            stack.enter_context(mock.patch.object(target, name, value))
        yield stack.enter_context(pretended_cuda(code=torch_cuda))


def x_of(on, dims=2):
    return on(batch_for(dims))


def labels_of(on, dims=2):
    size = batch_for(dims).shape[2:]
    return on((torch.arange(size.numel()).reshape(size) // 37).repeat(2, *[1] * dims))


def gradient(call):
    def found(on):
        leaf = x_of(on).requires_grad_()
        return torch.autograd.grad(call(leaf, on).square().sum(), leaf)[0]

    return found


OPERATIONS = {
    **{
        f"pool, {how}": lambda on, how=how: mg.pool(x_of(on), labels_of(on), how)
        for how in ("mean", "max", "sum", "std")
    },
    "pool, clips": lambda on: mg.pool(x_of(on, 3), labels_of(on, 3), n=30),
    "paint": lambda on: mg.paint(on(torch.arange(42.0).reshape(2, 21)), labels_of(on)),
    "slic": lambda on: mg.ops.slic(x_of(on), [20.0] * 3, 12),
    "slic, clips": lambda on: mg.ops.slic(x_of(on, 3), [20.0] * 3, 12),
    "slic of a picture": lambda on: mg.slic(x_of(on)[0].sigmoid().movedim(0, -1), n_segments=12),
    "slic_pictures": lambda on: mg.ops.slic_pictures(x_of(on), 12, gradient=x_of(on)[:, 0].abs()),
    "rgb_to_lab": lambda on: mg.ops.rgb_to_lab(x_of(on).sigmoid()),
    "gradient of pool": gradient(lambda x, on: mg.pool(x, labels_of(on))),
    "gradient of the largest": gradient(lambda x, on: mg.pool(x, labels_of(on), "max")),
    "gradient of paint": gradient(lambda x, on: mg.paint(x.flatten(2), labels_of(on))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name) -> None:
    expected = OPERATIONS[name](lambda tensor: tensor)
    with executed() as traffic:
        assert_same(OPERATIONS[name](lambda tensor: tensor.cuda()), expected)
        assert traffic.kernels > 0 or name == "slic of a picture"  # Whose code calls the kernels itself.


@pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
@pytest.mark.parametrize(
    "name", ["swag-i", "swag-ig", "swag-g", "lime-i", "lime-prior", "kernel-shap", "xrai", "jittercam"]
)
def test_explanations(name, dims) -> None:
    expected = quick_explainer(name, tiny_net(dims))(batch_for(dims))
    with executed() as traffic:
        found = quick_explainer(name, tiny_net(dims).cuda())(batch_for(dims).cuda())
        assert traffic.kernels > 0
        assert_same(found, expected, tolerance=1e-4)


def test_what_is_wrong_with_values_is_said() -> None:
    with executed():
        x = batch_for().cuda()
        x[1, 0, 3, 4] = torch.nan
        with pytest.raises(ValueError, match="NaN or infinity in item 1"):
            mg.ops.slic(x, [20.0] * 3, 12)
        with pytest.raises(ValueError, match="labels"):
            mg.pool(batch_for().cuda(), labels_of(lambda tensor: tensor.cuda()), n=3)


def test_how_often_the_host_waits() -> None:
    """SWAG of a batch asks the device for its labels' faults once, not once for each operator."""
    waits = {}
    with executed() as traffic:
        for batch in (2, 8):
            net, x = tiny_net().cuda(), batch_for(batch=batch).cuda()
            before = traffic.waits
            mg.explainer("swag-ig", net)(x)
            waits[batch] = traffic.waits - before
    assert waits[2] == waits[8]
