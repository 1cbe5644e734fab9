"""SLIC of pictures in one pass: the same as converting, rescaling, stacking and clustering one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import midgrain as mg

N = 40
WEIGHTS = {"compactness": 8.0, "gradient_compactness": 6.0}


def step_by_step(images, gradient, n_segments, compactness=10.0, gradient_compactness=9.0, **options):
    """The same superpixels from `rgb_to_lab` and `slic`; gradient not flat; images uint8 or floats of 0 .. 1."""
    features, weights, ranges = [], [], []
    if images is not None:
        features.append(mg.ops.rgb_to_lab(images))
        weights += [compactness] * 3
        ranges += mg.ops.LAB_RANGES
    if gradient is not None:
        largest = np.abs(gradient).reshape(len(gradient), -1).max(1)
        unit = np.ldexp(1.0, -np.frexp(largest.astype(np.float64))[1]).reshape(-1, *[1] * (gradient.ndim - 1))
        scaled = (gradient * unit).astype(np.float32)
        axes = tuple(range(1, gradient.ndim))
        low, high = scaled.min(axes, keepdims=True), scaled.max(axes, keepdims=True)
        features.append(((scaled - low) / (high - low) * np.float32(100))[:, None])
        weights.append(gradient_compactness)
        ranges.append(mg.ops.GRADIENT_RANGE)
    return mg.ops.slic(np.concatenate(features, 1), weights, n_segments, ranges=ranges, **options)


@pytest.fixture(scope="module")
def batch(photos):
    return np.stack([photo[:101, :90].transpose(2, 0, 1) for photo in photos.values()])


@pytest.fixture(scope="module")
def slope(batch):
    return np.random.default_rng(0).normal(0, 1e-3, (len(batch), *batch.shape[2:])).astype(np.float32)


@pytest.mark.parametrize(("with_images", "with_gradient"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_equals_the_steps(with_images, with_gradient, num_threads, batch, slope, instruction_set):
    images, gradient = batch if with_images else None, slope if with_gradient else None
    expected = step_by_step(images, gradient, N, **WEIGHTS)
    labels, counts = mg.ops.slic_pictures(images, N, gradient=gradient, num_threads=num_threads, **WEIGHTS)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(counts, expected[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_both_channel_orders(dtype, batch, slope):
    images = batch if dtype == np.uint8 else (batch / 255).astype(dtype)
    expected, _ = step_by_step(images, slope, N)
    last = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    for given_images, axis in (
        (images, 1),
        (last, -1),
        (np.moveaxis(last, -1, 1), 1),
        (images[..., ::-1][..., ::-1], 1),
    ):
        labels, _ = mg.ops.slic_pictures(given_images, N, gradient=slope, channel_axis=axis)
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_clips(num_threads, instruction_set):
    rng = np.random.default_rng(1)
    clips = rng.integers(0, 256, (2, 3, 5, 30, 37), np.uint8)
    gradient = rng.random((2, 5, 30, 37), np.float32)
    expected, _ = step_by_step(clips, gradient, 30, spacing=(2, 1, 1))
    labels, _ = mg.ops.slic_pictures(clips, 30, gradient=gradient, spacing=(2, 1, 1), num_threads=num_threads)
    np.testing.assert_array_equal(labels, expected)


def test_normalised_input(batch, slope):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    unit = batch.astype(np.float32) / np.float32(255)
    shape = (1, 3, 1, 1)
    x = (unit - np.float32(mean).reshape(shape)) / np.float32(std).reshape(shape)
    restored = x * np.float32(std).reshape(shape) + np.float32(mean).reshape(shape)
    expected, _ = step_by_step(restored, slope, N)
    labels, _ = mg.ops.slic_pictures(x, N, gradient=slope, mean=mean, std=std)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("flat", [0.0, 3.5, -1e30, 1e-42])
def test_a_flat_gradient_says_nothing(flat, batch):
    expected, _ = step_by_step(batch, None, N)
    gradient = np.full((len(batch), *batch.shape[2:]), flat, np.float32)
    labels, _ = mg.ops.slic_pictures(batch, N, gradient=gradient)
    np.testing.assert_array_equal(labels, expected)
    alone, counts = mg.ops.slic_pictures(None, N, gradient=gradient)
    assert (alone == alone[0]).all()
    assert (counts == counts[0]).all()
    assert counts[0] > 20


@pytest.mark.parametrize("factor", [1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_the_scale_of_a_gradient_does_not_matter(factor, slope):
    signs = np.sign(slope) * np.round(np.abs(slope) / np.abs(slope).max() * 8) / 8
    expected, _ = step_by_step(None, signs.astype(np.float32), N)
    labels, _ = mg.ops.slic_pictures(None, N, gradient=signs.astype(np.float64) * 2.0 ** np.floor(np.log2(factor)))
    np.testing.assert_array_equal(labels, expected)


def test_weights_beyond_the_narrow_form():
    rng = np.random.default_rng(2)
    images, gradient = rng.integers(0, 256, (2, 3, 20, 24), np.uint8), rng.random((2, 20, 24), np.float32)
    options = {"compactness": 0.3, "gradient_compactness": 0.5}
    expected, _ = step_by_step(images, gradient, 12, **options)
    labels, _ = mg.ops.slic_pictures(images, 12, gradient=gradient, num_threads=2, **options)
    np.testing.assert_array_equal(labels, expected)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    compactness=st.sampled_from([1.0, 5.0, 10.0, 40.0]),
    iterations=st.integers(1, 12),
)
def test_any_size(shape, share, seed, compactness, iterations):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (1, 3, *shape), np.uint8)
    gradient = rng.random((1, *shape), np.float32)
    n_segments = 1 + int(share * (np.prod(shape) - 1))
    options = {"compactness": compactness, "max_num_iter": iterations}
    expected, _ = step_by_step(images, gradient if np.ptp(gradient) else None, n_segments, **options)
    labels, _ = mg.ops.slic_pictures(images, n_segments, gradient=gradient, **options)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors(dtype, batch):
    images = torch.from_numpy(batch) if dtype == torch.uint8 else torch.from_numpy(batch / 255).to(dtype)
    expected, _ = mg.ops.slic_pictures(images.numpy() if dtype != torch.bfloat16 else images.float().numpy(), N)
    labels, counts = mg.ops.slic_pictures(images, N)
    assert labels.dtype == counts.dtype == torch.int32
    np.testing.assert_array_equal(labels, expected)


def test_channels_last_tensors(batch, slope):
    images = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
    labels, _ = mg.ops.slic_pictures(images, N, gradient=torch.from_numpy(slope))
    np.testing.assert_array_equal(labels, step_by_step(batch, slope, N)[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_passes_opcheck(with_images, channel_axis):
    images = torch.zeros((2, 3, 5, 6, 7) if channel_axis == 1 else (2, 5, 6, 7, 3), dtype=torch.uint8)
    arguments = (channel_axis, [1.0] * 3, [0.0] * 3, [9.0, 9.0], 6, 3, [1.0] * 3, 2, None)
    gradient = torch.rand(2, 5, 6, 7)
    torch.library.opcheck(torch.ops.midgrain.slic_pictures, (images if with_images else None, gradient, *arguments))


IMAGES = np.zeros((2, 3, 8, 9), np.uint8)
GRADIENT = np.zeros((2, 8, 9), np.float32)


def bad(array, value):
    array = array.astype(np.float64)
    array.flat[-1] = value
    return array


CASES = {
    "nothing": (lambda: mg.ops.slic_pictures(None, 4), ValueError, "images: expected images, a gradient or both"),
    "list": (lambda: mg.ops.slic_pictures([[1]], 4), TypeError, "images: expected an array"),
    "3 axes": (lambda: mg.ops.slic_pictures(IMAGES[0], 4), ValueError, r"images: expected \[B, 3, "),
    "1 channel": (lambda: mg.ops.slic_pictures(IMAGES[:, :1], 4), ValueError, r"images: expected \[B, 3, "),
    "channels last": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, channel_axis=-1),
        ValueError,
        r"images: expected \[B, \(T,\) H, W, 3\]",
    ),
    "channel_axis": (lambda: mg.ops.slic_pictures(IMAGES, 4, channel_axis=2), ValueError, "channel_axis: expected 1"),
    "no pixels": (lambda: mg.ops.slic_pictures(IMAGES[..., :0], 4), ValueError, "images: expected no empty axis"),
    "int images": (lambda: mg.ops.slic_pictures(IMAGES.astype(int), 4), TypeError, "images: expected uint8 or floats"),
    "nan": (lambda: mg.ops.slic_pictures(bad(IMAGES, np.nan), 4), ValueError, "images: expected finite .* item 1"),
    "inf": (lambda: mg.ops.slic_pictures(bad(IMAGES, np.inf), 4), ValueError, "images: expected finite .* item 1"),
    "gradient shape": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, gradient=GRADIENT[:, :7]),
        ValueError,
        "gradient: expected shape",
    ),
    "gradient axes": (
        lambda: mg.ops.slic_pictures(None, 4, gradient=GRADIENT[0]),
        ValueError,
        r"gradient: expected \[B, H, W\]",
    ),
    "gradient nan": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, gradient=bad(GRADIENT, np.nan)),
        ValueError,
        "gradient: expected finite",
    ),
    "gradient inf float32": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, gradient=bad(GRADIENT, -np.inf).astype(np.float32)),
        ValueError,
        "gradient: expected finite .* item 1",
    ),
    "gradient complex": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, gradient=GRADIENT.astype(complex)),
        TypeError,
        "gradient: expected real numbers",
    ),
    "mixture": (
        lambda: mg.ops.slic_pictures(IMAGES, 4, gradient=torch.from_numpy(GRADIENT)),
        TypeError,
        "images, gradient: expected the same kind",
    ),
    "n_segments": (lambda: mg.ops.slic_pictures(IMAGES, 73), ValueError, r"n_segments: expected 1 \.\. 72"),
    "compactness": (lambda: mg.ops.slic_pictures(IMAGES, 4, compactness=0), ValueError, "compactness: expected"),
    "mean": (lambda: mg.ops.slic_pictures(IMAGES, 4, mean=[0.5]), ValueError, "mean: expected one number per channel"),
    "std": (lambda: mg.ops.slic_pictures(IMAGES, 4, std=[1, np.nan, 1]), ValueError, "std: expected finite numbers"),
    "std text": (lambda: mg.ops.slic_pictures(IMAGES, 4, std="1"), TypeError, "std: expected one number per channel"),
    "spacing": (lambda: mg.ops.slic_pictures(IMAGES, 4, spacing=(1, 1, 1)), ValueError, "spacing: expected one"),
    "sparse": (
        lambda: mg.ops.slic_pictures(torch.zeros(1, 3, 4, 4).to_sparse(), 4),
        TypeError,
        "images: expected a dense tensor",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, exception, message = CASES[case]
    with pytest.raises(exception, match=f"^{message}"):
        call()
