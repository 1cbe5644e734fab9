"""sRGB to CIELAB: the standard, scikit-image, and the forms of input."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

import midgrain as mg
from oracles.color import rgb_to_lab as oracle


def to_lab(pixels, **options):
    """Lab [..., 3] of one picture [..., 3]."""
    return np.moveaxis(mg.ops.rgb_to_lab(pixels[None], channel_axis=-1, **options)[0], 0, -1)


@pytest.fixture(scope="module")
def cube():
    """A grid of the RGB cube, [41, 41, 41, 3]; its steps fall between those of the kernel's table."""
    return np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 3, indexing="ij"), -1)


def test_equals_the_standard(cube):
    np.testing.assert_allclose(to_lab(cube), oracle(cube), rtol=0, atol=3e-4)


def test_dark_colours_equal_the_standard(cube):
    # Around the ends of the straight pieces of both curves.
    np.testing.assert_allclose(to_lab(cube * 0.12), oracle(cube * 0.12), rtol=0, atol=3e-4)


def test_equals_scikit_image_on_the_cube(cube):
    np.testing.assert_allclose(to_lab(cube), rgb2lab(cube), rtol=0, atol=0.01)


def test_equals_scikit_image_on_photographs(photo):
    np.testing.assert_allclose(to_lab(photo), rgb2lab(photo), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_known_colours(rgb, lab):
    np.testing.assert_allclose(to_lab(np.array([[rgb]], np.uint8))[0, 0], lab, atol=0.006)


def test_black_and_white_are_exact():
    assert to_lab(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).tolist() == [[[0, 0, 0], [100, 0, 0]]]


def test_greys_have_no_colour_and_grow_lighter():
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    light, a, b = np.moveaxis(to_lab(greys)[0], -1, 0)
    assert np.abs([a, b]).max() < 1e-4
    assert (np.diff(light) > 0).all()


def test_stays_within_the_published_ranges():
    bytes_ = np.arange(0, 256, 3, dtype=np.uint8)
    lab = to_lab(np.stack(np.meshgrid(bytes_, bytes_, bytes_, indexing="ij"), -1))
    low, high = np.array(mg.ops.LAB_RANGES).T
    assert (lab >= low).all()
    assert (lab <= high).all()
    # The ranges are rounded outwards, not wide.
    np.testing.assert_allclose(lab.min((0, 1, 2)), low, atol=1)
    np.testing.assert_allclose(lab.max((0, 1, 2)), high, atol=1)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_bytes_equal_their_fractions(photo, num_threads):
    bytes_ = to_lab(photo, num_threads=num_threads)
    np.testing.assert_array_equal(bytes_, to_lab(photo / np.float32(255), num_threads=1))
    assert bytes_.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 7), (2, 7, 9), (2, 3, 7, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_channels_first_equals_channels_last(shape, dtype):
    pixels = np.random.default_rng(0).random((*shape, 3))
    pixels = (255 * pixels).astype(dtype) if dtype == np.uint8 else pixels.astype(dtype)
    last = mg.ops.rgb_to_lab(pixels, channel_axis=-1)
    np.testing.assert_array_equal(mg.ops.rgb_to_lab(np.moveaxis(pixels, -1, 1)), last)
    np.testing.assert_array_equal(mg.ops.rgb_to_lab(pixels, channel_axis=pixels.ndim - 1), last)
    assert last.shape == (shape[0], 3, *shape[1:])


def test_values_outside_the_cube_are_clamped():
    outside = np.array([[[-0.5, 0.5, 1.5], [3.0, -1e30, 1e30]]])
    np.testing.assert_array_equal(to_lab(outside), to_lab(outside.clip(0, 1)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_gives_the_same(photo, dtype):
    tensor = torch.from_numpy(photo).movedim(-1, 0)[None]
    tensor = tensor if dtype == torch.uint8 else (tensor / 255).to(dtype)
    lab = mg.ops.rgb_to_lab(tensor)
    assert isinstance(lab, torch.Tensor)
    assert lab.dtype == torch.float32
    same = tensor.numpy() if dtype == torch.uint8 else tensor.float().numpy()
    np.testing.assert_array_equal(lab.numpy(), mg.ops.rgb_to_lab(same))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_nan_and_infinity_are_refused(bad, channel_axis):
    pixels = np.zeros((2, 3, 50, 3))
    pixels[1, 1, 49, 2] = bad
    with pytest.raises(ValueError, match="rgb: expected finite values"):
        mg.ops.rgb_to_lab(pixels, channel_axis=channel_axis)
