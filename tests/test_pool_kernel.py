"""The pooling kernels of every instruction set: the definition bit for bit, both layouts, any number of threads."""

import functools

import numpy as np
import pytest
import torch

import midgrain as mg
from midgrain._kernels import _cpu
from oracles import pool as oracle

REDUCTIONS = mg.ops.REDUCTIONS
DTYPES = (np.float32, np.float64)

pytestmark = pytest.mark.usefixtures("instruction_set")

# One pixel, one vector and its neighbours, both sides of where the unit passes 2^51 and of where a chunk ends.
SIZES = (1, 7, 8, 49, 1024, 1025, 2047, 2048, 2049, 2111, 4300)


def label_maps(pixels, rng):
    """Labels 0 .. 8 of `pixels` pixels: long and short runs, none, and one region alone."""
    steps = rng.integers(0, 9, pixels)
    lengths = np.clip(rng.geometric(0.08, pixels), 1, 40)
    return {
        "runs": np.repeat(steps, lengths)[:pixels],
        "short runs": np.repeat(steps, np.clip(lengths // 6, 1, 7))[:pixels],
        "random": steps,
        "stripes": np.arange(pixels) % 2 * 8,
        "one": np.full(pixels, 3),
        "two": np.where(np.arange(pixels) < pixels // 2, 5, 2),
    }


@functools.cache
def planes(pixels, dtype):
    """Values with their labels, and what every reduction of them should be."""
    rng = np.random.default_rng(pixels)
    found = []
    for number, labels in enumerate(label_maps(pixels, rng).values()):
        values = rng.standard_normal(pixels) + 100.0 * (number % 2)
        values = (values * 10.0 ** rng.integers(-8, 3, pixels) * 10.0 ** (10 * number - 20)).astype(dtype)
        with np.errstate(over="ignore", under="ignore"):
            expected = {r: oracle.pool(values, labels, 9, r).astype(dtype) for r in REDUCTIONS}
        found.append((values, labels.astype(np.int32), expected))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", SIZES)
def test_equals_the_definition_bit_for_bit(pixels, dtype):
    for values, labels, expected in planes(pixels, dtype):
        for reduce in REDUCTIONS:
            result = mg.pool(values[None], labels[None], reduce, n=9, num_threads=1)
            np.testing.assert_array_equal(result, expected[reduce], err_msg=reduce)


@pytest.mark.parametrize("pixels", [3, 49, 1024, 1025, 3000, 70_000])
def test_terms_are_rounded_to_the_nearest_even_unit(pixels):
    """Halves of the unit, and numbers next to them."""
    rng = np.random.default_rng(0)
    unit = 2.0 ** -(62 - (pixels - 1).bit_length())
    halves = (2 * rng.integers(-(2**30), 2**30, pixels) + 1) * (unit / 2)
    values = np.nextafter(halves, rng.choice([-1.0, 1.0], pixels))
    values[::2] = halves[::2]
    values[0] = 0.75
    labels = rng.integers(0, 5, pixels)
    terms = np.rint(values / unit).astype(np.int64)
    expected = np.zeros(5, np.int64)
    np.add.at(expected, labels, terms)
    result = mg.pool(values[None], labels[None], "sum", n=5)
    np.testing.assert_array_equal(result, expected.astype(np.float64) * unit)
    if pixels < 5000:
        np.testing.assert_array_equal(result, oracle.pool(values, labels, 5, "sum"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", [9, 1500])
@pytest.mark.parametrize("exponent", [-1073, -1000, -970, -150, -126, 0, 127, 900, 1023])
def test_every_magnitude(exponent, pixels, dtype):
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore", under="ignore"):
        values = np.clip(np.ldexp(rng.uniform(-1, 1, pixels), exponent), *[s * np.finfo(dtype).max for s in (-1, 1)])
        values = values.astype(dtype)
        labels = rng.integers(0, 4, pixels)
        # The median halves before it adds, which rounds subnormal numbers.
        for reduce in set(REDUCTIONS) - {"median"}:
            expected = oracle.pool(values, labels, 5, reduce).astype(dtype)
            result = mg.pool(values[None], labels[None], reduce, n=5)
            np.testing.assert_array_equal(result, expected, err_msg=reduce)


def batch(channels, shape, dtype, label_groups=2, items=2):
    """Values [items, channels, *shape] of various magnitudes and labels [label_groups, *shape]."""
    rng = np.random.default_rng(channels)
    scale = 10.0 ** rng.integers(-5, 6, (items, channels, *[1] * len(shape)))
    values = (rng.standard_normal((items, channels, *shape)) * scale).astype(dtype)
    rows = np.repeat(rng.integers(0, 20, (label_groups, *shape[:-1], -(-shape[-1] // 5))), 5, -1)
    return values, rows[..., : shape[-1]].astype(np.int32)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 17, 65])
def test_channels_last_gives_the_same_bits(channels, dtype, reduce):
    for shape in ((6, 7), (35, 61)):
        values, labels = batch(channels, shape, dtype)
        first = mg.pool(values, labels, reduce, n=21, spatial_dims=2)
        last = mg.pool(
            np.ascontiguousarray(np.moveaxis(values, 1, -1)), labels, reduce, n=21, spatial_dims=2, channel_axis=-1
        )
        assert last.shape == (2, 21, channels)
        np.testing.assert_array_equal(last.swapaxes(1, 2), first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 16, 65])
def test_painting_both_layouts(channels, dtype):
    for shape in ((6, 7), (35, 61), (3, 30, 40)):
        _, labels = batch(channels, shape, dtype)
        scores = np.random.default_rng(0).standard_normal((2, channels, 20)).astype(dtype)
        expected = np.stack([own[:, label] for own, label in zip(scores, labels, strict=True)])
        last = np.ascontiguousarray(scores.swapaxes(1, 2))
        for threads in (1, 5):
            np.testing.assert_array_equal(mg.paint(scores, labels, num_threads=threads), expected)
            painted = mg.paint(last, labels, channel_axis=-1, num_threads=threads)
            np.testing.assert_array_equal(painted, np.moveaxis(expected, 1, -1))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("items", "channels", "shape"), [(1, 1, (300, 1100)), (1, 3, (200, 331)), (3, 40, (50, 60))])
def test_threads_change_nothing(items, channels, shape, reduce):
    """Enough values for several workers: with tiles of their own, and on parts of the same plane."""
    values, labels = batch(channels, shape, np.float32, items, items)
    values[:, :, ::7] = np.copysign(0.0, values[:, :, ::7])
    expected = mg.pool(values, labels, reduce, n=25, spatial_dims=2, num_threads=1)
    last = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    for threads in (2, 5):
        assert (
            mg.pool(values, labels, reduce, n=25, spatial_dims=2, num_threads=threads).tobytes() == expected.tobytes()
        )
        result = mg.pool(last, labels, reduce, n=25, spatial_dims=2, channel_axis=-1, num_threads=threads)
        assert result.swapaxes(1, 2).tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0)])
def test_of_equal_extremes_the_first_pixel_counts(zeros, threads):
    values = np.full((300, 1000), zeros[1])
    values[0, 0] = zeros[0]
    for labels in (np.zeros(values.shape, np.int32), np.arange(values.size).reshape(values.shape) % 2):
        for reduce in ("max", "min"):
            result = mg.pool(values, labels, reduce, num_threads=threads)
            assert np.signbit(result[0]) == np.signbit(zeros[0])


@pytest.mark.parametrize("n", [1, 5, 100_000])
def test_few_and_many_regions(n):
    rng = np.random.default_rng(0)
    values, labels = rng.standard_normal((2, 3, 90, 100)), rng.integers(0, n, (90, 100))
    for reduce in ("sum", "max", "mean", "std"):
        first = mg.pool(values, labels, reduce, n=n, num_threads=1)
        last = mg.pool(np.moveaxis(values, 1, -1).copy(), labels, reduce, n=n, channel_axis=-1)
        np.testing.assert_array_equal(last.swapaxes(1, 2), first)
    sums = mg.pool(values[0, 0], labels, "sum", n=n)
    np.testing.assert_allclose(sums, np.bincount(labels.ravel(), values[0, 0].ravel(), n), rtol=0, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("place", [0, 63, 64, 2047, 2048, 150_000, 199_999])
@pytest.mark.parametrize("bad", [-1, 7, 2**31 - 1, -(2**31)])
def test_a_bad_label_is_named(bad, place, threads):
    labels = np.zeros((1, 200_000), np.int32)
    labels[0, place] = bad
    labels[0, place + 1 :] = -5
    values = np.full(labels.shape, np.nan)  # The labels are named first.
    with pytest.raises(ValueError, match=rf"^labels: expected values in 0 \.\. 6, got {bad}$"):
        mg.pool(values, labels, n=7, num_threads=threads)
    with pytest.raises(ValueError, match=rf"^labels: expected values in 0 \.\. 6, got {bad}$"):
        mg.paint(np.zeros(7), labels, num_threads=threads)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_is_refused(dtype, bad):
    labels = np.zeros((50, 60), np.int32)
    for place in ((0, 0, 0), (1, 7, 3), (2, 49, 59)):
        values = np.full((3, 50, 60), -np.finfo(dtype).max, dtype)
        values[place] = bad
        for reduce in REDUCTIONS:
            with pytest.raises(ValueError, match=r"^values: expected finite values"):
                mg.pool(values, labels, reduce)
            with pytest.raises(ValueError, match=r"^values: expected finite values"):
                mg.pool(np.moveaxis(values, 0, -1).copy(), labels, reduce, channel_axis=-1)


def test_the_raw_kernels_take_no_channels_at_all():
    labels, bad = np.zeros((1, 9), np.int32), np.full((1, 9), 4, np.int32)
    for shape, out, last in (((1, 0, 9), (1, 0, 4), False), ((1, 9, 0), (1, 4, 0), True), ((0, 9, 3), (0, 4, 3), True)):
        _cpu.pool(np.zeros(shape), labels, "mean", np.zeros(out), 1, last)
        _cpu.paint(np.zeros(out), labels, np.zeros(shape), 1, last)
        with pytest.raises(ValueError, match=r"^labels: expected values in 0"):
            _cpu.pool(np.zeros(shape), bad, "mean", np.zeros(out), 1, last)


def test_the_raw_kernels_refuse_label_maps_that_do_not_divide_the_items():
    arrays = np.zeros((3, 9, 2)), np.zeros((2, 9), np.int32), np.zeros((3, 4, 2))
    with pytest.raises(ValueError, match=r"^labels: expected a number of label maps that divides 3, got 2"):
        _cpu.pool(arrays[0], arrays[1], "sum", arrays[2], 1, channels_last=True)
    with pytest.raises(ValueError, match=r"^labels: expected a number of label maps that divides 3, got 2"):
        _cpu.paint(arrays[2], arrays[1], arrays[0], 1, channels_last=True)


def test_a_tensor_in_channels_last_memory_is_read_where_it_lies():
    values, labels = batch(16, (30, 40), np.float32)
    tensor, labels = torch.from_numpy(values), torch.from_numpy(labels)
    moved = tensor.contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = tensor.clone().requires_grad_()
    for reduce in ("mean", "sum", "max", "min"):
        results = [mg.pool(values, labels, reduce) for values in (plain, moved)]
        torch.testing.assert_close(*results, rtol=0, atol=0)
        gradients = [torch.autograd.grad(r.square().sum(), v) for r, v in zip(results, (plain, moved), strict=True)]
        torch.testing.assert_close(*[g[0] for g in gradients], rtol=0, atol=0)
        assert gradients[1][0].is_contiguous(memory_format=torch.channels_last)
