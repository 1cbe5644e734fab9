"""`midgrain.compat.skimage.slic` against scikit-image's, which runs live: documented behaviour, case by case.

The cases that have one right answer run on both: only the function differs.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import slic as theirs

import midgrain as mg
from midgrain.compat.skimage import slic as ours

both = pytest.mark.parametrize("slic", [theirs, ours], ids=["scikit-image", "midgrain"])


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(one)) == len(np.unique(other)) == pairs.shape[1]


def quadrants(shape: tuple[int, ...]) -> np.ndarray:
    """Which half along each axis, as one number."""
    places = np.indices(shape)
    return sum((place >= size // 2) * 2**axis for axis, (place, size) in enumerate(zip(places, shape, strict=True)))


def coloured(shape: tuple[int, ...], channels: int = 3, noise: float = 0.01) -> np.ndarray:
    """Halves and quarters of plain colours with a little noise, in 0 .. 1."""
    rng = np.random.default_rng(0)
    colours = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], float)
    image = colours[quadrants(shape)][..., :channels] + noise * rng.standard_normal((*shape, channels))
    return image.clip(0, 1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels in the largest common part of each segment of `one` with one of `other`."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one.ravel(), other.ravel()), 1)
    return table.max(1).sum() / one.size


def components_of_each(labels: np.ndarray) -> int:
    return max(ndimage.label(labels == number)[1] for number in np.unique(labels))


def test_signature() -> None:
    here, there = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    assert list(here) == list(there)
    assert [p.default for p in here.values()] == [p.default for p in there.values()]
    assert [p.kind for p in here.values()] == [p.kind for p in there.values()]


@both
@pytest.mark.parametrize("start_label", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_colour(slic, start_label, dtype) -> None:
    image = coloured((20, 22))
    image = np.uint8(255 * image) if dtype is np.uint8 else image.astype(dtype)
    before = image.copy()
    labels = slic(image, n_segments=4, sigma=0, enforce_connectivity=False, start_label=start_label)
    assert same_partition(labels, quadrants((20, 22)))
    assert (labels.min(), labels.max()) == (start_label, start_label + 3)
    assert labels.dtype == np.int64
    assert np.array_equal(image, before)


@both
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channel_axis(slic, axis) -> None:
    image = np.moveaxis(coloured((20, 22)), -1, axis)
    assert same_partition(slic(image, n_segments=4, channel_axis=axis), quadrants((20, 22)))


@both
@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels(slic, channels) -> None:
    image = np.zeros((20, 22, channels))
    image[:10] = 0.33
    image[10:, :11] = 0.67
    image[10:, 11:] = 1.0
    labels = slic(image, n_segments=3 if channels > 1 else 4, compactness=0.01)
    for part in (np.s_[10:, :11], np.s_[10:, 11:]):
        assert len(np.unique(labels[part])) == 1


@both
def test_grey(slic) -> None:
    image = np.array([0.0, 0.33, 0.67, 1.0])[quadrants((20, 21))]
    labels = slic(image, n_segments=4, compactness=0.3, channel_axis=None)
    assert same_partition(labels, quadrants((20, 21)))


@both
def test_volumes(slic) -> None:
    image = coloured((20, 21, 22))
    assert same_partition(slic(image, n_segments=8), quadrants((20, 21, 22)))
    grey = np.linspace(0, 1, 8)[quadrants((20, 21, 22))]
    assert same_partition(slic(grey, n_segments=8, compactness=0.2, channel_axis=None), quadrants((20, 21, 22)))


@both
def test_an_axis_of_three_is_no_colour_without_channels(slic) -> None:
    image = np.random.default_rng(0).random((12, 14, 3))
    assert slic(image, n_segments=4, channel_axis=None).shape == (12, 14, 3)
    assert slic(image, n_segments=4).shape == (12, 14)


@both
def test_spacing(slic) -> None:
    """A line that is long in pixels and short in space is cut where the other axis counts."""
    image = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], float)
    spaced = [
        slic(image, n_segments=2, sigma=0, compactness=2.0, spacing=s, channel_axis=None) for s in ([1, 1], [5, 1])
    ]
    assert spaced[0].shape == spaced[1].shape == image.shape
    assert len(np.unique(spaced[1])) == 2


@both
def test_smoothing_runs_along_each_axis(slic) -> None:
    rng = np.random.default_rng(0)
    image = coloured((24, 30)) + 0.3 * rng.standard_normal((24, 30, 3))
    sharp = slic(image, n_segments=4, sigma=0, compactness=10)
    smooth = slic(image, n_segments=4, sigma=2, compactness=10)
    assert not np.array_equal(sharp, smooth)
    assert np.array_equal(smooth, slic(image, n_segments=4, sigma=[2, 2], compactness=10))
    assert np.array_equal(smooth, slic(image, n_segments=4, sigma=[2.0, 2.0], spacing=[1, 1], compactness=10))


@both
def test_scalar_sigma_is_divided_by_spacing(slic) -> None:
    image = coloured((24, 30), noise=0.2)
    options = {"n_segments": 6, "spacing": [2, 1]}
    assert np.array_equal(slic(image, sigma=2, **options), slic(image, sigma=[1, 2], **options))


@both
def test_scale_does_not_matter(slic) -> None:
    """The image is rescaled to 0 .. 1 over all its channels."""
    image = coloured((20, 22))
    assert same_partition(slic(image, n_segments=4), slic(40 + 1000 * image, n_segments=4))


@both
@pytest.mark.parametrize("start_label", [0, 1])
def test_mask(slic, start_label) -> None:
    image = coloured((20, 22))
    mask = np.zeros((20, 22), bool)
    mask[3:17, 2:20] = True
    image[~mask] = np.nan  # Nobody looks there.
    labels = slic(image, n_segments=4, mask=mask, start_label=start_label, enforce_connectivity=False)
    assert (labels[~mask] == start_label - 1).all()
    assert same_partition(labels[3:17, 2:20], quadrants((20, 22))[3:17, 2:20])


@both
def test_mask_of_a_volume(slic) -> None:
    image = np.linspace(0, 1, 8)[quadrants((20, 21, 22))]
    mask = np.zeros(image.shape, bool)
    mask[3:17, 4:18, 5:19] = True
    labels = slic(image, n_segments=8, mask=mask, compactness=0.2, channel_axis=None)
    assert (labels[~mask] == 0).all()
    assert len(np.unique(labels[mask])) >= 7


@both
def test_more_superpixels_than_pixels(slic) -> None:
    image = np.random.default_rng(0).random((10, 11))
    labels = slic(image, n_segments=500, compactness=1, channel_axis=None, convert2lab=False, start_label=0)
    assert np.array_equal(labels.ravel(), np.arange(110))


@both
def test_a_flat_picture(slic) -> None:
    labels = slic(np.full((40, 60, 3), 0.5), n_segments=6)
    assert len(np.unique(labels)) == 6
    assert slic is theirs or set(np.bincount(labels.ravel())[1:]) == {400}


@both
@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"start_label": 2}),
        (ValueError, {"convert2lab": True}),
        (ValueError, {"spacing": [1, 1, 1, 1]}),
        (ValueError, {"mask": np.ones((3, 3), bool)}),
        ((ValueError, TypeError), {"spacing": 2}),
    ],
)
def test_refused_by_both(slic, error, options) -> None:
    with pytest.raises(error):
        slic(np.random.default_rng(0).random((20, 22, 2)), **options)


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number(slic, value) -> None:
    image = np.random.default_rng(0).random((20, 22, 3))
    image[5, 5, 1] = value
    with pytest.raises(ValueError), np.errstate(all="ignore"):  # noqa: PT011 - the texts differ
        slic(image, n_segments=4)
    mask = np.ones((20, 22), bool)
    mask[5, 5] = False
    with np.errstate(all="ignore"):
        assert slic(image, n_segments=4, mask=mask)[5, 5] == 0


@both
def test_two_axes_have_no_channels(slic) -> None:
    with pytest.raises(ValueError, match="channel_axis"):
        slic(np.zeros((20, 22)))


def test_refused_here() -> None:
    image = np.zeros((20, 22, 3))
    with pytest.raises(ValueError, match="slic_zero: expected False"):
        ours(image, slic_zero=True)
    with pytest.raises(ValueError, match="mask: expected at least one pixel inside"):
        ours(image, mask=np.zeros((20, 22)))
    with pytest.raises(ValueError, match=r"mask: expected the image's shape \(20, 22\), got \(3, 3\)"):
        ours(image, mask=np.ones((3, 3)))
    with pytest.raises(ValueError, match="one per spatial axis"):
        ours(image, sigma=[1, 1, 1])
    with pytest.raises(ValueError, match="sigma: expected no negative width"):
        ours(image, sigma=-1)
    with pytest.raises(TypeError, match="image: expected real numbers"):
        ours(image.astype(complex))
    with pytest.raises(ValueError, match="max_size_factor"):
        ours(image, max_size_factor=0)


def test_photographs(photo) -> None:
    """About as many superpixels, and as faithful to the picture as theirs: their mean colours explain as much."""
    for options in ({"n_segments": 100}, {"n_segments": 200, "sigma": 1}):
        left = []
        for slic in (ours, theirs):
            labels = slic(photo, start_label=0, **options)
            means = mg.paint(
                mg.pool(photo.astype(np.float32).transpose(2, 0, 1), labels.astype(np.int32)), labels.astype(np.int32)
            )
            left.append(((photo.transpose(2, 0, 1) - means) ** 2).mean())
            assert components_of_each(labels) == 1
            assert 0.5 <= (labels.max() + 1) / options["n_segments"] <= 1.2
        assert left[0] <= 1.15 * left[1]


def test_plain_calls_are_those_of_midgrain(photo) -> None:
    """A picture that uses 0 .. 255 needs no rescaling, and then nothing but the kernels' SLIC is left."""
    photo = photo.copy()
    photo[0, 0], photo[-1, -1] = 0, 255
    labels = ours(photo, n_segments=50, start_label=0, max_size_factor=100)
    plain = mg.slic(photo, n_segments=50)
    assert overlap(labels, plain) > 0.97


def test_an_appended_gradient_changes_no_colours(photos) -> None:
    """As a fourth channel it is rescaled with the colours in scikit-image, which then count for less."""
    photo = photos["coffee"][::2, ::2] / 255
    flat = np.full((*photo.shape[:2], 1), 100.0)
    alone, with_flat = (mg.slic(photo, n_segments=40, gradient=each) for each in (None, flat[..., 0]))
    assert np.array_equal(alone, with_flat)
    appended = theirs(np.concatenate([photo, flat], -1), n_segments=40)
    if overlap(theirs(photo, n_segments=40), appended) > 0.99:
        pytest.skip("scikit-image has this fault no more; its half of the test may go")


def test_max_size(photo) -> None:
    unlimited = ours(photo, n_segments=50, max_size_factor=100, compactness=1)
    limited = ours(photo, n_segments=50, max_size_factor=1.5, compactness=1)
    largest = [np.bincount(labels.ravel()).max() for labels in (unlimited, limited)]
    assert largest[1] < largest[0]
    assert largest[1] <= 1.5 * photo[..., 0].size / 50
    assert components_of_each(limited) == 1
    # Only the large ones were cut.
    pairs = np.unique(np.stack([unlimited.ravel(), limited.ravel()]), axis=1)
    assert len(np.unique(pairs[1])) == pairs.shape[1]


@settings(max_examples=40)
@given(
    st.integers(8, 30),
    st.integers(8, 30),
    st.integers(1, 40),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 0.3, 0.8]),
)
def test_masks_of_any_shape(height, width, n_segments, seed, share) -> None:
    """Inside is covered, outside is not; every superpixel is one piece; only islands are smaller than the smallest."""
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    mask = mask > np.quantile(mask, 1 - share)
    if not mask.any():
        mask[height // 2, width // 2] = True
    image = rng.random((height, width, 3))
    labels = ours(image, n_segments=n_segments, mask=mask)
    assert np.array_equal(labels > 0, mask)
    assert np.array_equal(np.unique(labels[mask]), np.arange(1, labels.max() + 1))
    islands, _ = ndimage.label(mask)
    smallest = max(1, np.ceil(0.5 * mask.sum() / n_segments))
    for number in range(1, labels.max() + 1):
        own = labels == number
        assert ndimage.label(own)[1] == 1
        island = islands == islands[own][0]
        assert own.sum() >= smallest or np.array_equal(own, island)
