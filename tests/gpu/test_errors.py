"""What is wrong gets the CPU's errors; afterwards everything works as before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import midgrain as mg
from gpu_for_tests import assert_same, channels_first, pictures, put, slopes


def assert_works(device: torch.device) -> None:
    """The device and the CPU still do what they should."""
    images = channels_first(pictures(1, 40, 50))
    for place in (device, torch.device("cpu")):
        labels, _ = mg.ops.slic_pictures(put(images, place), 20)
        assert_same(labels, mg.ops.slic_pictures(images, 20)[0], place)


def about(raised_: tuple[type, str]) -> tuple[type, str]:
    """The kind of an error and the argument that it names: a device does not tell the values themselves."""
    return raised_[0], raised_[1].split(":")[0]


def raised(call, place: torch.device | None) -> tuple[type, str]:
    """The kind and the text of what a call raises with its arrays there; None: with NumPy's."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(place)
    return caught.type, str(caught.value)


POISON = [np.nan, np.inf, -np.inf]


def with_poison(value: float) -> dict[str, object]:
    features = channels_first(pictures(2, 30, 40)).astype(np.float32)
    features[1, 2, 7, 9] = value
    values = slopes(pictures(2, 30, 40))
    values[0, 3, 3] = value
    labels = np.zeros((2, 30, 40), np.int64)
    return {
        "slic": lambda d: mg.ops.slic(put(features, d), [9.0] * 3, 20),
        "slic with ranges": lambda d: mg.ops.slic(put(features, d), [9.0] * 3, 20, ranges=[(0, 255)] * 3),
        "slic_pictures": lambda d: mg.ops.slic_pictures(put(features / 255, d), 20),
        "slic_pictures, gradient": lambda d: mg.ops.slic_pictures(None, 20, gradient=put(values, d)),
        "rgb_to_lab": lambda d: mg.ops.rgb_to_lab(put(features / 255, d)),
        "pool": lambda d: mg.pool(put(values, d), put(labels, d), spatial_dims=2),
        "pool, max": lambda d: mg.pool(put(values, d), put(labels, d), "max", spatial_dims=2),
    }


@pytest.mark.parametrize("value", POISON, ids=str)
@pytest.mark.parametrize("case", with_poison(0.0))
def test_values_that_are_not_finite(any_device, case, value):
    call = with_poison(value)[case]
    kind, text = raised(call, any_device)
    assert kind is ValueError
    assert "NaN or infinity" in text
    assert about((kind, text)) == about(raised(call, None))
    assert_works(any_device)


@pytest.mark.parametrize("label", [-1, 5, 2**31 - 1, -(2**31)])
def test_labels_outside(any_device, label):
    labels = np.zeros((2, 30, 40), np.int64)
    labels[1, 4, 4] = label

    def pool(place):
        return mg.pool(put(slopes(pictures(2, 30, 40)), place), put(labels, place), n=5, spatial_dims=2)

    def paint(place):
        return mg.paint(put(np.ones((2, 5), np.float32), place), put(labels, place))

    for call in (pool, paint):
        kind, text = raised(call, any_device)
        assert kind is ValueError
        assert text.startswith("labels: expected values in 0 .. 4, got ")
        assert raised(call, None)[1].startswith("labels: expected values in 0 .. 4, got ")
    assert_works(any_device)


def test_weights_that_are_too_small(any_device):
    features = channels_first(pictures(1, 30, 40)).astype(np.float32)

    def call(place):
        return mg.ops.slic(put(features, place), [1e-25] * 3, 20)

    assert about(raised(call, any_device)) == about(raised(call, None)) == (ValueError, "weights")
    assert_works(any_device)


def test_shapes_kinds_and_numbers(any_device):
    """These are found before anything is launched, on every device alike."""
    x = torch.zeros(1, 3, 8, 9)
    calls = [
        lambda d: mg.ops.slic(x.to(d), [1.0] * 2, 4),
        lambda d: mg.ops.slic(x.to(d).to(torch.complex64), [1.0] * 3, 4),
        lambda d: mg.ops.slic(x[0, 0].to(d), [1.0], 4),
        lambda d: mg.ops.slic_pictures(x.to(d), 0),
        lambda d: mg.pool(x.to(d), torch.zeros(7, 9, dtype=torch.int64, device=d)),
        lambda d: mg.pool(x.to(d), torch.zeros(8, 9, device=d)),
        lambda d: mg.pool(x.to(d), torch.zeros(8, 9, dtype=torch.int64, device=d), "mode"),
        lambda d: mg.ops.extract_patches(x.to(d), 10, 2),
        lambda d: mg.ops.aggregate_patches(x.to(d), 2),
        lambda d: mg.ops.rgb_to_lab(x[:, :2].to(d)),
        lambda d: mg.ops.enforce_connectivity(x[0].to(d), 4),
    ]
    for call in calls:
        kind, text = raised(call, any_device)
        assert kind in (TypeError, ValueError)
        assert about((kind, text)) == about(raised(call, torch.device("cpu")))
    assert_works(any_device)


@pytest.mark.gpu
def test_arrays_on_different_devices(gpu):
    values, labels = torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.int64)
    for first, second in ((values.to(gpu), labels), (values, labels.to(gpu))):
        for call in (mg.pool, lambda v, s: mg.paint(v[0], s)):
            with pytest.raises(
                BufferError, match=r"^labels: expected an array on (cpu|cuda:\d), as \w+ is, got one on "
            ):
                call(first, second)
    with pytest.raises(BufferError, match=r"^gradient: expected an array on cuda:\d, as images is, got one on cpu"):
        mg.ops.slic_pictures(torch.zeros(1, 3, 4, 5, device=gpu), 4, gradient=torch.zeros(1, 4, 5))
    if torch.cuda.device_count() > 1:
        other = torch.device("cuda", 1 - gpu.index)
        with pytest.raises(BufferError, match=r"^labels: expected an array on cuda:\d, as values is, got one on cuda"):
            mg.pool(values.to(gpu), labels.to(other))
    assert_works(gpu)


@pytest.mark.gpu
def test_too_little_memory(gpu):
    """A workspace that the device has no room for: torch's error, and the device goes on working."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(gpu)
    # Inputs take a byte per value, workspaces over 60 per pixel: room for the first and not for the second.
    side = 2048
    pictures_in = max(1, int(free * 0.35) // (3 * side * side))
    images = torch.zeros(pictures_in, 3, side, side, dtype=torch.uint8, device=gpu)
    with pytest.raises(torch.OutOfMemoryError, match="memory") as caught:
        mg.ops.slic_pictures(images, 1000)
    assert any("slic_pictures needs" in note for note in caught.value.__notes__)
    del images
    torch.cuda.empty_cache()
    assert_works(gpu)


@pytest.mark.gpu
def test_deferred_checks_collect(gpu):
    """Nothing is raised inside; the first mistake is raised when asked."""
    images = torch.rand(1, 3, 20, 30, device=gpu)
    poisoned = images.clone()
    poisoned[0, 0, 1, 1] = torch.nan
    with mg.ops.deferred_checks() as checks:
        mg.ops.slic_pictures(images, 10)
        mg.ops.slic_pictures(poisoned, 10)
        mg.pool(images, torch.full((20, 30), 9, device=gpu), n=3)
    assert len(checks) >= 3
    with pytest.raises(ValueError, match="NaN"):
        checks.raise_if_bad()
    with mg.ops.deferred_checks() as checks:
        mg.ops.slic_pictures(images, 10)
    checks.raise_if_bad()
    assert_works(gpu)
