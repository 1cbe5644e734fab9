"""Jitter-CAM's patches: the definition, torch's functions, exact repeatability, properties, dtypes and gradients."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

import midgrain as mg
from oracles import patches as oracle

extract, aggregate = mg.ops.extract_patches, mg.ops.aggregate_patches

# images, cells, grid, patch_size, size
CASES = {
    "doubled": ((2, 3, 14, 14), 7, 8, None, None),
    "wide": ((1, 2, 12, 20), (3, 5), (4, 6), None, None),
    "not divisible": ((1, 1, 13, 17), (4, 5), (5, 4), None, None),
    "no jitter": ((2, 1, 6, 7), (2, 7), (1, 1), None, None),
    "jitter along x only": ((1, 2, 6, 7), (3, 2), (1, 3), None, None),
    "tiles": ((1, 2, 12, 9), 1, (3, 3), (4, 3), None),
    "small patches": ((1, 1, 9, 11), (2, 3), (5, 4), (4, 6), None),
    "with a rest": ((1, 1, 9, 11), 2, 3, 6, (15, 16)),
    "shrunk": ((1, 1, 30, 20), 2, 3, 4, (8, 9)),
    "one pixel": ((1, 2, 1, 1), 1, 3, None, None),
    "one row": ((1, 1, 1, 9), (1, 3), (2, 4), None, None),
    "clip": ((2, 3, 4, 8, 6), (2, 4, 3), (3, 3, 2), None, None),
    "clip without temporal jitter": ((1, 2, 5, 8, 6), (2, 4, 3), (1, 5, 4), None, None),
    "clip with odd sizes": ((1, 2, 3, 7, 5), (2, 3, 2), (3, 2, 4), None, None),
    "frames only": ((1, 1, 6, 4, 4), (3, 1, 1), (4, 1, 1), None, None),
    "clip, shrunk": ((1, 1, 9, 9, 9), (1, 2, 3), (2, 2, 2), (2, 4, 3), (4, 7, 5)),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def per_axis(value, axes):
    return [value] * axes if isinstance(value, int) else list(value)


def spelt_out(case):
    """The shape of the images, and cells, grid, patch and size for each axis."""
    shape, cells, grid, patch, size = CASES[case]
    axes = len(shape) - 2
    patch = list(shape[2:]) if patch is None else per_axis(patch, axes)
    cells, grid = per_axis(cells, axes), per_axis(grid, axes)
    return shape, cells, grid, patch, list(size or oracle.extent(patch, cells, grid))


def options(case):
    _, cells, grid, patch, size = CASES[case]
    return {"cells": cells, "grid": grid, "patch_size": patch, "size": size}


@st.composite
def layouts(draw):
    """A shape with cells and grid for each axis."""
    axes = draw(st.integers(2, 3))
    spatial = [draw(st.integers(1, 12 if axes == 2 else 6)) for _ in range(axes)]
    cells = [draw(st.integers(1, n)) for n in spatial]
    grid = [draw(st.integers(1, 5 if axes == 2 else 3)) for _ in range(axes)]
    return [draw(st.integers(1, 2)), draw(st.integers(1, 3)), *spatial], cells, grid


seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_patches_are_the_definition_bit_for_bit(case, dtype, rng):
    shape, cells, grid, patch, size = spelt_out(case)
    images = rng.standard_normal(shape).astype(dtype)
    result = extract(images, **options(case))
    assert result.dtype == dtype
    assert result.shape == (shape[0], np.prod(grid), shape[1], *patch)
    np.testing.assert_array_equal(result, oracle.extract_patches(images, cells, grid, patch, size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(layout=layouts(), seed=seeds)
@settings(max_examples=60)
def test_any_patches_are_the_definition_bit_for_bit(dtype, layout, seed):
    shape, cells, grid = layout
    images = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    np.testing.assert_array_equal(extract(images, cells, grid), oracle.extract_patches(images, cells, grid))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_is_the_definition_bit_for_bit(case, dtype, rng):
    shape, cells, grid, patch, size = spelt_out(case)
    patches = rng.standard_normal((shape[0], np.prod(grid), shape[1], *patch)).astype(dtype)
    images = torch.zeros(shape, dtype=torch.from_numpy(patches).dtype, requires_grad=True)
    extract(images, **options(case)).backward(torch.from_numpy(patches))
    expected = oracle.extract_patches_backward(patches, shape[2:], cells, grid, size)
    np.testing.assert_array_equal(images.grad, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(layout=layouts(), seed=seeds, enlarged=st.booleans())
@settings(max_examples=60)
def test_aggregation_is_the_definition_bit_for_bit(dtype, layout, seed, enlarged):
    shape, cells, grid = layout
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((shape[0], np.prod(grid), *cells)).astype(dtype)
    size = [int(n) for n in rng.integers(1, 20, len(cells))] if enlarged else None
    result = aggregate(maps, grid, size=size)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, oracle.aggregate_patches(maps, grid, size))


def interpolated(tensor, size):
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(tensor, size, mode=mode, align_corners=False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("case", CASES)
def test_patches_agree_with_interpolate_and_slices(case, dtype, tolerance):
    shape, cells, grid, patch, size = spelt_out(case)
    images = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    enlarged = interpolated(images, size)
    expected = torch.stack([enlarged[(..., *window)] for window in oracle.windows(patch, cells, grid)], 1)
    torch.testing.assert_close(extract(images, **options(case)), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("side", [56, 57])
def test_agrees_with_unfold_and_fold(side):
    images = torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    patches = extract(images, 7, 8, patch_size=56, size=112)
    columns = F.unfold(interpolated(images, (112, 112)), 56, stride=8)
    torch.testing.assert_close(patches, columns.reshape(2, 3, 56, 56, 64).movedim(-1, 1), rtol=0, atol=1e-12)

    maps = torch.randn(2, 64, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sums, counts = (
        F.fold(m.flatten(2).mT.contiguous(), (14, 14), 7)[:, 0] for m in (maps, torch.ones(2, 64, 7, 7).double())
    )
    torch.testing.assert_close(aggregate(maps, 8), sums / counts, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        aggregate(maps, 8, size=(side, side)), interpolated((sums / counts)[:, None], (side, side))[:, 0]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestRepeatability:
    """The same bits for any number of threads, batch and range of patches."""

    @pytest.mark.parametrize("num_threads", [2, 3, 8])
    def test_threads(self, dtype, num_threads, rng):
        for shape, cells, grid in (((2, 3, 56, 80), (7, 10), (8, 11)), ((1, 3, 8, 24, 32), (2, 3, 4), (3, 4, 5))):
            images = rng.standard_normal(shape).astype(dtype)
            one, more = (extract(images, cells, grid, num_threads=n) for n in (1, num_threads))
            np.testing.assert_array_equal(one, more)
            maps = rng.standard_normal((100, np.prod(grid), *cells)).astype(dtype)
            for size in (None, shape[2:]):
                one, more = (aggregate(maps, grid, size=size, num_threads=n) for n in (1, num_threads))
                np.testing.assert_array_equal(one, more)
            gradients = []
            for n in (1, num_threads):
                leaf = torch.from_numpy(images).requires_grad_()
                extract(leaf, cells, grid, num_threads=n).square().sum().backward()
                gradients.append(leaf.grad)
            np.testing.assert_array_equal(*gradients)

    def test_batch(self, dtype, rng):
        images = rng.standard_normal((3, 2, 11, 13)).astype(dtype)
        maps = rng.standard_normal((3, 12, 4, 5)).astype(dtype)
        patches, means = extract(images, (4, 5), (3, 4)), aggregate(maps, (3, 4), size=(20, 19))
        for b in range(3):
            np.testing.assert_array_equal(patches[b], extract(images[b : b + 1], (4, 5), (3, 4))[0])
            np.testing.assert_array_equal(patches[b][:, :1], extract(images[b : b + 1, :1], (4, 5), (3, 4))[0])
            np.testing.assert_array_equal(means[b], aggregate(maps[b : b + 1], (3, 4), size=(20, 19))[0])

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("step", [1, 3, 7])
    def test_range(self, case, step, dtype, rng):
        images = rng.standard_normal(CASES[case][0]).astype(dtype)
        patches = extract(images, **options(case))
        for start in range(0, patches.shape[1], step):
            count = min(step, patches.shape[1] - start)
            part = extract(images, **options(case), start=start, count=count)
            np.testing.assert_array_equal(part, patches[:, start : start + count])
        np.testing.assert_array_equal(extract(images, **options(case), start=start), patches[:, start:])


@given(layout=layouts(), value=st.floats(-(2.0**100), 2.0**100, width=32))
def test_constant_images_give_constant_patches(layout, value):
    shape, cells, grid = layout
    assert (extract(np.full(shape, value), cells, grid) == value).all()


@given(layout=layouts(), value=st.floats(-(2.0**100), 2.0**100, width=32), seed=seeds)
def test_constant_maps_give_a_constant(layout, value, seed):
    shape, cells, grid = layout
    size = np.random.default_rng(seed).integers(1, 9, len(cells))
    maps = np.full((shape[0], np.prod(grid), *cells), value, np.float32)
    assert (aggregate(maps, grid) == np.float32(value)).all()
    assert (aggregate(maps, grid, size=size) == np.float32(value)).all()


@given(layout=layouts())
def test_every_cell_counts_the_maps_that_cover_it(layout):
    # Map n is n everywhere: the sum of a cell is that of the numbers of the maps over it.
    _, cells, grid = layout
    n = int(np.prod(grid))
    whole = [m + g - 1 for m, g in zip(cells, grid, strict=True)]
    sums, counts = np.zeros(whole), np.zeros(whole)
    for number, place in enumerate(np.ndindex(*grid)):
        window = tuple(slice(i, i + m) for i, m in zip(place, cells, strict=True))
        sums[window] += number
        counts[window] += 1
    assert counts.min() >= 1
    maps = np.broadcast_to(np.arange(float(n)).reshape(-1, *[1] * len(cells)), (n, *cells))
    np.testing.assert_array_equal(aggregate(maps[None], grid)[0], sums / counts)


@given(layout=layouts(), seed=seeds)
def test_without_jitter_nothing_changes(layout, seed):
    shape, cells, _ = layout
    images = np.random.default_rng(seed).standard_normal(shape)
    np.testing.assert_array_equal(extract(images, cells, 1)[:, 0], images)
    np.testing.assert_array_equal(aggregate(images[:, :1], 1), images[:, 0])


@given(layout=layouts(), seed=seeds)
def test_an_axis_without_jitter_is_an_axis_of_items(layout, seed):
    shape, cells, grid = layout
    volume = np.random.default_rng(seed).standard_normal((*shape[:2], 3, *shape[-2:]))
    together = extract(volume, (2, *cells[-2:]), (1, *grid[-2:]))
    for frame in range(3):
        alone = extract(volume[:, :, frame], cells[-2:], grid[-2:])
        np.testing.assert_array_equal(together[:, :, :, frame], alone)


@given(layout=layouts(), seed=seeds)
def test_an_image_is_a_clip_of_one_frame(layout, seed):
    shape, cells, grid = layout
    images = np.random.default_rng(seed).standard_normal((*shape[:2], *shape[-2:]))
    cells, grid = cells[-2:], grid[-2:]
    clips = extract(images[:, :, None], (1, *cells), (1, *grid))
    np.testing.assert_array_equal(clips[:, :, :, 0], extract(images, cells, grid))


def test_a_map_of_pixels_comes_back():
    # With the brightness of each cell as its map, aggregation undoes extraction where nothing is interpolated.
    images = np.random.default_rng(0).standard_normal((2, 1, 9, 12)).astype(np.float32)
    patches = extract(images, (5, 4), (5, 9), patch_size=(5, 4))
    np.testing.assert_array_equal(aggregate(patches[:, :, 0], (5, 9)), images[:, 0])


def test_patches_of_a_wide_image_overlap_cell_by_cell():
    patches = extract(np.arange(2 * 3 * 40.0).reshape(1, 1, 6, 40), (2, 5), (1, 6))
    assert patches.shape == (1, 6, 1, 6, 40)
    for left, right in zip(patches[0, :-1], patches[0, 1:], strict=True):
        np.testing.assert_array_equal(left[..., 8:], right[..., :-8])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_near(bad):
    images = np.zeros((1, 1, 8, 8), np.float32)
    images[..., 2, 5] = bad
    patches = extract(images, 4, 5)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(patches, oracle.extract_patches(images, [4, 4], [5, 5]))
    assert not np.isfinite(patches).all()
    assert np.isfinite(patches[..., :4]).any()
    np.testing.assert_array_equal(extract(images, 4, 1)[:, 0], images)
    maps = np.full((1, 4, 2, 2), bad)
    np.testing.assert_array_equal(aggregate(maps, 2), np.full((1, 3, 3), bad))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_views_that_are_not_contiguous(library, rng):
    images, maps = rng.standard_normal((2, 9, 3, 16)), rng.standard_normal((2, 5, 12, 4))
    views = images.transpose(0, 2, 1, 3)[..., ::2], maps.transpose(0, 2, 1, 3)
    expected = extract(views[0].copy(), 3, 2), aggregate(views[1].copy(), (4, 3))
    if library == "torch":
        views = torch.from_numpy(images).permute(0, 2, 1, 3)[..., ::2], torch.from_numpy(maps).permute(0, 2, 1, 3)
    np.testing.assert_array_equal(extract(views[0], 3, 2), expected[0])
    np.testing.assert_array_equal(aggregate(views[1], (4, 3)), expected[1])


def test_channels_last_and_expanded_tensors():
    images = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    expected = extract(images, 2, 3)
    assert torch.equal(extract(images.contiguous(memory_format=torch.channels_last), 2, 3), expected)
    same = extract(images[:1].expand(4, -1, -1, -1), 2, 3)
    assert all(torch.equal(item, expected[0]) for item in same)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.dtype(">f4"), np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (np.bool_, np.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
    ],
    ids=str,
)
def test_dtypes(dtype, expected):
    numbers = [[[[0, 1], [1, 0]]]]
    array = torch.tensor(numbers, dtype=dtype) if isinstance(dtype, torch.dtype) else np.array(numbers, dtype)
    patches, means = extract(array, 1, (1, 2)), aggregate(array, 1)
    assert type(patches) is type(means) is type(array)
    assert patches.dtype == means.dtype == expected
    assert patches.tolist() == [[[[[0, 0.25], [1, 0.75]]], [[[0.75, 1], [0.25, 0]]]]]
    assert means.tolist() == [[[0, 1], [1, 0]]]


@pytest.mark.parametrize("integers", [np.int64, np.int32, int])
def test_integers_of_any_kind(integers):
    images = np.arange(24.0).reshape(1, 1, 4, 6)
    result = extract(images, np.array([2, 3], integers), integers(2), size=(integers(6), 8), count=integers(3))
    np.testing.assert_array_equal(result, extract(images, (2, 3), (2, 2))[:, :3])


# Extraction without copies and with, in both directions, part of the patches only.
GRADIENT_CASES = ["not divisible", "small patches", "with a rest", "shrunk", "jitter along x only", "clip, shrunk"]


@pytest.mark.parametrize("case", [*GRADIENT_CASES, "clip with odd sizes"])
def test_the_gradient_of_patches_is_torchs(case):
    shape, cells, grid, patch, size = spelt_out(case)
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.zeros(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    patches = extract(ours, **options(case))
    weights = torch.randn(patches.shape, dtype=torch.float64, generator=generator)
    (patches * weights).sum().backward()
    enlarged = interpolated(theirs, size)
    expected = torch.stack([enlarged[(..., *window)] for window in oracle.windows(patch, cells, grid)], 1)
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", GRADIENT_CASES)
@pytest.mark.parametrize("part", [{}, {"start": 1, "count": 2}])
def test_gradients_of_patches(case, part):
    shape = [1, 2, *CASES[case][0][2:]]
    images = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def patches(images):
        return extract(images, **options(case), **part)

    assert torch.autograd.gradcheck(patches, (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(patches, (images,), fast_mode=True)


@pytest.mark.parametrize(
    ("shape", "grid", "size"),
    [
        ((2, 6, 2, 3), (2, 3), None),
        ((1, 6, 2, 3), (2, 3), (7, 4)),
        ((1, 1, 2, 2), (1, 1), (3, 5)),
        ((1, 12, 1, 2, 3), (3, 2, 2), None),
        ((1, 4, 2, 2, 1), (1, 2, 2), (2, 5, 1)),
    ],
)
def test_gradients_of_aggregation(shape, grid, size):
    maps = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: aggregate(maps, grid, size=size), (maps,))
    assert torch.autograd.gradgradcheck(lambda maps: aggregate(maps, grid, size=size), (maps,))


def test_gradients_keep_the_dtype_of_half_images():
    images = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    aggregate(extract(images, 2, 2)[:, :, 0], 2).sum().backward()
    assert images.grad.dtype == torch.bfloat16
    assert images.grad.sum() == 9


def test_patches_of_two_batches_are_those_of_one_under_autograd():
    images = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, parts = images.clone().requires_grad_(), images.clone().requires_grad_()
    extract(whole, 4, 3).pow(3).sum().backward()
    for start in (0, 4, 8):
        extract(parts, 4, 3, start=start, count=min(4, 9 - start)).pow(3).sum().backward()
    torch.testing.assert_close(whole.grad, parts.grad)
