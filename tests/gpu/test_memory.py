"""Memory stays flat: after a thousand runs there is as much as before, as torch and the driver count it."""

from __future__ import annotations

import gc
import resource

import pytest
import torch

import midgrain as mg
from gpu_for_tests import channels_first, pictures, put, slopes, synchronise
from models_for_tests import batch_for, one_thread, tiny_net

__all__ = ["one_thread"]  # a fixture for the whole file

RUNS = 1000
#: What the process may have grown by on the CPU, where the system counts: pages of the allocator, not a leak per run.
CPU_BYTES_PER_RUN = 4096


def used(device: torch.device) -> tuple[int, ...]:
    """Bytes in use: on CUDA allocated, reserved and taken from the device as a whole; on the CPU the process's most."""
    gc.collect()
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device), total - free
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,)


def assert_flat(call, device: torch.device, runs: int, drivers: int = 0) -> None:
    """`drivers`: bytes that the driver may keep for itself, by which a leak of each run would be noticed."""
    for _ in range(30):
        call()
    before = used(device)
    for _ in range(runs):
        call()
    after = used(device)
    if device.type == "cuda":
        assert after[:2] == before[:2]
        assert after[2] - before[2] <= drivers
    else:
        assert after[0] - before[0] <= CPU_BYTES_PER_RUN * runs


@pytest.fixture
def runs(device) -> int:
    return RUNS if device.type == "cuda" else 60


def test_operations(device, runs):
    images = put(channels_first(pictures(2, 64, 64)), device)
    maps = put(slopes(pictures(2, 64, 64)), device).requires_grad_(True)

    def call():
        labels, _ = mg.ops.slic_pictures(images, 40, gradient=maps.detach())
        scores = mg.pool(maps, labels, n=80, spatial_dims=2)
        mg.paint(scores, labels, spatial_dims=2).sum().backward()
        maps.grad = None
        mg.pool(maps, labels, "median", n=80, spatial_dims=2)
        mg.ops.enforce_connectivity(labels, 30)
        patches = mg.ops.extract_patches(mg.ops.rgb_to_lab(images), 4, 2)
        mg.ops.aggregate_patches(patches[:, :, 0, :4, :4], 2, size=(64, 64))

    assert_flat(call, device, runs)


def test_workspaces_are_given_back(device, runs):
    """A large batch in between leaves nothing allocated behind."""
    images = put(channels_first(pictures(1, 64, 64)), device)
    many = images.expand(64, -1, -1, -1)

    def call():
        mg.ops.slic_pictures(images, 40)
        mg.ops.slic_pictures(many, 40)

    assert_flat(call, device, runs // 10)


def test_errors(device, runs):
    labels = put(pictures(1, 32, 32)[..., 0].astype("int64"), device)
    values = torch.ones(1, 32, 32, device=device)

    def call():
        with pytest.raises(ValueError, match="labels"):
            mg.pool(values, labels, n=2, spatial_dims=2)

    assert_flat(call, device, runs // 5)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_explainers(device, runs, compiled):
    explainer = mg.explainer("swag-ig", tiny_net().to(device), n_segments=12)
    x = batch_for().to(device)
    call = explainer.compile(x) if compiled else explainer
    assert_flat(lambda: call(x), device, runs)


def test_compiling_again_and_again(device, runs):
    """Graphs are freed with the explainers that hold them."""
    explainer = mg.explainer("swag-ig", tiny_net().to(device), n_segments=12)
    x = batch_for().to(device)
    assert_flat(lambda: explainer.compile(x)(x), device, runs // 20, drivers=2**23)
