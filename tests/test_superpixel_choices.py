"""Superpixels by name, as labels and from callables, through SWAG and through LIME."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import segmentation

import midgrain as mg
from midgrain.regions.segmentations import SEGMENTATIONS
from midgrain.regions.superpixels import SlicOptions
from models_for_tests import SPATIAL, batch_for, tiny_net
from models_for_tests import one_thread as one_thread

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
EXPECTED = {
    "quickshift": lambda rgb: segmentation.quickshift(rgb, kernel_size=4, max_dist=200, ratio=0.2, rng=0),
    "felzenszwalb": lambda rgb: segmentation.felzenszwalb(rgb, scale=100, sigma=0.8, min_size=150),
}
OTHER_NAMES = {"slic-i": "image", "slic-g": "gradient", "slic-ig": "image+gradient"}


def explain(method, superpixels, x, **options):
    net = tiny_net(x.ndim - 2, x.shape[1])
    if method == "swag":
        return mg.SWAG(net, superpixels, **options)(x, 1)
    return mg.explainer(method, net, superpixels=superpixels, n_samples=6, **options)(x, 1)


METHODS = pytest.mark.parametrize("method", ["swag", "lime", "kernel-shap", "lime-prior"])


def test_every_segmentation_is_tested() -> None:
    assert SEGMENTATIONS.keys() == EXPECTED.keys()


@METHODS
@pytest.mark.parametrize("name", EXPECTED)
def test_segmentations_by_name(name, method) -> None:
    x = batch_for(size=(60, 80))
    e = explain(method, name, x)
    for picture, labels, count in zip(e.image.numpy(), e.segments.numpy(), e.counts.tolist(), strict=True):
        expected = EXPECTED[name](picture)
        assert count == labels.max() + 1 == len(np.unique(expected)) > 1
        # One number of ours for each of theirs.
        assert len(np.unique(labels * (expected.max() + 1) + expected)) == count
    assert torch.equal(explain(method, SEGMENTATIONS[name], x).segments, e.segments)


@METHODS
@pytest.mark.parametrize("name", EXPECTED)
def test_segmentations_are_of_images(name, method) -> None:
    with pytest.raises(ValueError, match=f"superpixels: '{name}' is of images; of clips use 'image'"):
        explain(method, name, batch_for(3))


@METHODS
@pytest.mark.parametrize("name", OTHER_NAMES)
@DIMS
def test_slic_has_two_names(name, method, dims) -> None:
    x = batch_for(dims)
    e = explain(method, name, x, n_segments=12)
    assert torch.equal(e.segments, explain(method, OTHER_NAMES[name], x, n_segments=12).segments)
    assert torch.equal(e.segments, mg.SWAG(tiny_net(dims), OTHER_NAMES[name], n_segments=12)(x, 1).segments)


@METHODS
@DIMS
@pytest.mark.parametrize("kind", ["array", "tensor", "per sample", "callable"])
def test_given_labels(kind, method, dims) -> None:
    """Any integers, with gaps; they are numbered from 0 on in their order."""
    size, x = SPATIAL[dims], batch_for(dims)
    labels = np.where(np.arange(size[-1]) < 5, -3, np.where(np.arange(size[-1]) < 9, 40, 7)) * np.ones(size, int)
    given = {
        "array": labels,
        "tensor": torch.from_numpy(labels),
        "per sample": np.stack([labels, labels]),
        "callable": lambda picture: labels,
    }[kind]
    e = explain(method, given, x)
    expected = np.searchsorted([-3, 7, 40], labels)
    assert all(np.array_equal(own, expected) for own in e.segments.numpy())
    assert e.counts.tolist() == [3, 3]
    assert e.scores.shape == (2, 3)


@METHODS
def test_pictures_of_one_channel(method) -> None:
    for name in ("image", "quickshift"):
        e = explain(method, name, batch_for(channels=1))
        assert e.heatmap.isfinite().all()


@METHODS
def test_inputs_of_no_picture(method) -> None:
    x = batch_for(channels=2)
    for name in ("image", "quickshift", lambda picture: picture):
        with pytest.raises(
            ValueError, match="x: expected 1 or 3 channels for superpixels made from the picture, got 2"
        ):
            explain(method, name, x)
    assert explain(method, "gradient", x, n_segments=6).heatmap.isfinite().all()


@METHODS
@pytest.mark.parametrize(
    ("superpixels", "error", "match"),
    [
        (np.zeros((24, 31), int), ValueError, r"superpixels: expected labels of shape \[24, 32\] or"),
        (np.zeros((24, 32)), TypeError, "superpixels: expected integer labels as given, got dtype float64"),
        (lambda picture: None, TypeError, "superpixels: expected integer labels from the callable"),
        (
            lambda picture: np.zeros((3, 3), int),
            ValueError,
            r"labels of shape \[24, 32\] from the callable, got \[3, 3\]",
        ),
        ("slic", ValueError, "superpixels: expected one of image, gradient, .* got 'slic'"),
    ],
)
def test_bad_superpixels(superpixels, error, match, method) -> None:
    with pytest.raises(error, match=match):
        explain(method, superpixels, batch_for())


def test_the_usual_number_may_be_another() -> None:
    assert SlicOptions(default_count=50).n_segments is None
    x = batch_for(size=(80, 80))
    assert torch.equal(explain("lime", "image", x).segments, explain("swag", "image", x, n_segments=50).segments)
    assert torch.equal(explain("swag", "image", x).segments, explain("swag", "image", x, n_segments=300).segments)
