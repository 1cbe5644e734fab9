"""Work goes to the caller's stream and device, from several threads at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import midgrain as mg
from gpu_for_tests import assert_same, channels_first, pictures, put, slopes, stream_of_its_own, synchronise


def whole(images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Every operation once, each on the results of the one before."""
    lab = mg.ops.rgb_to_lab(images)
    raw, _ = mg.ops.slic(lab, [10.0] * 3, 100, ranges=mg.ops.LAB_RANGES, enforce_connectivity=False)
    labels, counts = mg.ops.enforce_connectivity(raw, 60)
    scores = mg.pool(maps, labels, n=200, spatial_dims=2)
    painted = mg.paint(scores, labels, spatial_dims=2)
    patches = mg.ops.extract_patches(painted[:, None], 4, 2)
    return labels, counts, scores, painted, patches, mg.ops.aggregate_patches(patches[:, :, 0, :4, :4], 2)


def expected_of(images: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    return [each.numpy() for each in whole(torch.from_numpy(images), torch.from_numpy(maps))]


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Pictures, gradient maps and what comes out of them."""
    made = []
    for index, images in enumerate(np.split(pictures(8, 150, 130), 4)):
        inputs = channels_first(images), slopes(images) * np.float32(index + 1)
        made.append((*inputs, expected_of(*inputs)))
    return made


def test_a_stream_that_is_not_the_default(device, cases):
    """The inputs are made on that stream, behind work that takes a while: on any other they would not be there yet."""
    for images, maps, expected in cases:
        with stream_of_its_own(device):
            late = put(np.zeros_like(images), device)
            busy = torch.ones(2048 if device.type == "cuda" else 64, 64, device=device)
            for _ in range(50):
                busy = (busy @ busy.T @ busy).clamp(-1, 1)
            late.copy_(put(images, device))
            results = whole(late, put(maps, device))
            late.zero_()  # Behind the kernels that read it.
        for result, wanted in zip(results, expected, strict=True):
            assert_same(result, wanted, device)


def test_threads_with_streams_of_their_own(device, cases):
    def work(number: int) -> list[tuple[torch.Tensor, ...]]:
        images, maps, _ = cases[number % len(cases)]
        with stream_of_its_own(device):
            results = [whole(put(images, device), put(maps, device)) for _ in range(6)]
        synchronise(device)
        return results

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(8)))
    for number, runs in enumerate(found):
        for results in runs:
            for result, wanted in zip(results, cases[number % len(cases)][2], strict=True):
                assert_same(result, wanted, device)


def test_gradients_on_a_stream(device, cases):
    _, maps, expected = cases[0]
    labels = put(expected[0], device)
    with stream_of_its_own(device):
        leaf = put(maps, device).requires_grad_(True)
        mg.paint(mg.pool(leaf, labels, n=200, spatial_dims=2), labels, spatial_dims=2).square().sum().backward()
    reference = torch.from_numpy(maps).requires_grad_(True)
    on_cpu = torch.from_numpy(expected[0])
    mg.paint(mg.pool(reference, on_cpu, n=200, spatial_dims=2), on_cpu, spatial_dims=2).square().sum().backward()
    torch.testing.assert_close(leaf.grad.cpu(), reference.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_the_current_stream_and_device_stay(gpu, cases):
    before = torch.cuda.current_device(), torch.cuda.current_stream()
    whole(put(cases[0][0], gpu), put(cases[0][1], gpu))
    assert (torch.cuda.current_device(), torch.cuda.current_stream()) == before


@pytest.mark.gpu
def test_the_second_device(gpu, cases):
    """Arrays of a device that is not the current one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    other = torch.device("cuda", 1 - gpu.index if gpu.index < 2 else 0)
    images, maps, expected = cases[0]
    results = whole(put(images, other), put(maps, other))
    for result, wanted in zip(results, expected, strict=True):
        assert result.device == other
        assert_same(result, wanted, other)
    assert torch.cuda.current_device() == gpu.index
