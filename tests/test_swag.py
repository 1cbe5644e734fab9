"""SWAG and SWAG-V: equal to their parts done by hand, whatever superpixels and scorer they are given."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from skimage import segmentation

import midgrain as mg
from midgrain.cams import CAMS
from midgrain.regions.segmentations import SEGMENTATIONS
from midgrain.scorers import SCORERS
from models_for_tests import FAST_OPTIONS, METHODS, SPATIAL, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from swag_for_tests import (
    DIMS,
    VARIANTS,
    Pixelwise,
    by_hand,
    check_by_hand,
    check_regions,
    pictures_of,
    quarters,
)

# Equal to its parts.


@DIMS
@pytest.mark.parametrize("scorer", ["guided", "vanilla"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_its_parts_done_by_hand(variant, scorer, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims, batch=3)
    explanation = mg.explainer(variant, model, scorer=scorer, n_segments=40)(x, [1, 0, 4])
    pixels = mg.explainer(scorer, model)(x, [1, 0, 4])
    check_by_hand(explanation, by_hand(x, pixels.heatmap, variant, n_segments=40))
    check_regions(explanation)
    assert explanation.method == variant
    assert torch.equal(explanation.target, pixels.target)
    assert torch.equal(explanation.outputs, pixels.outputs)
    assert torch.equal(explanation.image, pixels.image)


@pytest.mark.parametrize(("dims", "size", "count"), [(2, (224, 224), 300), (3, (16, 112, 112), 120)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_defaults_are_the_published_weights_and_counts(variant, dims, size, count) -> None:
    model, x = tiny_net(dims), batch_for(dims, batch=1, size=size)
    explanation = mg.explainer(variant, model)(x)
    maps = mg.explainer("guided", model)(x).heatmap
    check_by_hand(explanation, by_hand(x, maps, variant))
    assert 0.4 * count < int(explanation.counts) < 1.3 * count


@DIMS
@pytest.mark.parametrize("reduce", mg.ops.REDUCTIONS)
def test_every_reduction(reduce, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    maps = mg.explainer("input-x-gradient", model)(x).heatmap
    explanation = mg.SWAG(model, "image", lambda *_: maps - maps.mean(), n_segments=30, reduce=reduce)(x)
    check_by_hand(explanation, by_hand(x, maps - maps.mean(), "swag-i", reduce, n_segments=30))


@DIMS
@pytest.mark.parametrize(
    "options",
    [
        {"compactness": 2.5},
        {"gradient_compactness": 50},
        {"max_num_iter": 1},
        {"min_size_factor": 0},
        {"spacing": (1.0, 3.0)},
        {"n_segments": 1},
        {"n_segments": 97},
    ],
    ids=str,
)
def test_options_reach_slic(options, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    if "spacing" in options:
        options = {"spacing": (2.0, 1.0, 3.0)[-dims:]}
    options = {"n_segments": 30} | options
    maps = mg.explainer("guided", model)(x).heatmap
    check_by_hand(mg.SWAG(model, **options)(x), by_hand(x, maps, "swag-ig", **options))


@DIMS
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_equals_one_by_one(variant, dims) -> None:
    model = seeded(lambda: Pixelwise(3, SPATIAL[dims])).double()
    x = batch_for(dims, batch=4, dtype=torch.float64)
    explain, targets = mg.explainer(variant, model, n_segments=50), [3, 0, 0, 2]
    together = explain(x, targets)
    for i, target in enumerate(targets):
        alone = explain(x[i : i + 1], target)
        count = int(alone.counts)
        assert count == int(together.counts[i])
        assert torch.equal(alone.segments[0], together.segments[i])
        assert torch.equal(alone.heatmap[0], together.heatmap[i])
        assert torch.equal(alone.scores[0], together.scores[i, :count])


FORMS = {
    "int64": lambda labels: labels,
    "int32": lambda labels: labels.astype(np.int32),
    "uint8": lambda labels: labels.astype(np.uint8),
    "from 1": lambda labels: labels + 1,
    "with gaps": lambda labels: np.array([0, 7, 100, 2**40])[labels],
    "negative": lambda labels: labels - 3,
    "Fortran order": np.asfortranarray,
}


@DIMS
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("form", FORMS)
def test_given_labels_in_any_form(form, library, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    expected = torch.from_numpy(quarters(dims)).int()
    maps = mg.explainer("guided", model)(x).heatmap
    for given in (FORMS[form](quarters(dims)), FORMS[form](np.stack([quarters(dims)] * 2))):
        explanation = mg.SWAG(model, library(given))(x)
        check_regions(explanation)
        assert explanation.method == "swag"
        assert torch.equal(explanation.segments, expected.expand(2, *expected.shape))
        for k in range(4):
            mean = torch.stack([maps[i][expected == k].double().mean() for i in range(2)])
            assert torch.allclose(explanation.scores[:, k].double(), mean, rtol=1e-5)


@DIMS
def test_given_labels_may_differ_between_samples(dims) -> None:
    one, two = quarters(dims), np.zeros(SPATIAL[dims], np.int64)
    explanation = mg.SWAG(tiny_net(dims), np.stack([one, two]))(batch_for(dims))
    check_regions(explanation)
    assert explanation.counts.tolist() == [4, 1]
    assert torch.equal(explanation.segments[0].long(), torch.from_numpy(one))
    assert (explanation.segments[1] == 0).all()


@pytest.mark.parametrize(
    "function",
    [
        partial(segmentation.felzenszwalb, scale=30, min_size=10),
        partial(segmentation.quickshift, kernel_size=2, max_dist=4),
        partial(segmentation.slic, n_segments=20, start_label=1),
    ],
    ids=["felzenszwalb", "quickshift", "slic"],
)
def test_scikit_image_segmentations(function) -> None:
    model, x = tiny_net(), batch_for()
    explanation = mg.SWAG(model, function)(x)
    check_regions(explanation)
    for i, picture in enumerate(pictures_of(x)):
        own = function(np.rint(picture * 255).astype(np.uint8))
        assert len(np.unique(own)) == int(explanation.counts[i]) > 1
        pairs = np.stack([own.ravel(), explanation.segments[i].numpy().ravel()], 1)
        assert len(np.unique(pairs, axis=0)) == int(explanation.counts[i])


@DIMS
def test_a_callable_gets_one_picture_at_a_time(dims) -> None:
    x, seen = batch_for(dims), []

    def one_region(picture):
        seen.append(picture.copy())
        picture[:] = 0
        return torch.full(SPATIAL[dims], 9)

    explanation = mg.SWAG(tiny_net(dims), one_region)(x)
    check_regions(explanation)
    assert explanation.counts.tolist() == [1, 1]
    assert [picture.dtype for picture in seen] == [np.uint8] * 2
    assert np.array_equal(np.stack(seen), np.rint(pictures_of(x) * 255))
    assert np.array_equal(np.stack(seen), explanation.image.numpy())


@pytest.mark.parametrize(
    ("superpixels", "error", "match"),
    [
        (
            "pictures",
            ValueError,
            r"superpixels: expected one of image, gradient, image\+gradient, quickshift, felzenszwalb, got 'pictures'",
        ),
        (None, TypeError, "superpixels: expected a name, labels or a callable, got NoneType"),
        ([[0, 1]], TypeError, "superpixels: .* got list"),
    ],
)
def test_unknown_superpixels(superpixels, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.SWAG(tiny_net(), superpixels)


@pytest.mark.parametrize(
    ("superpixels", "error", "match"),
    [
        (np.zeros((24, 32)), TypeError, "superpixels: expected integer labels as given, got dtype float64"),
        (torch.zeros(24, 32, dtype=torch.bool), TypeError, "got dtype bool"),
        (np.zeros((24, 31), int), ValueError, r"of shape \[24, 32\] or \[2, 24, 32\], got \[24, 31\]"),
        (np.zeros((3, 24, 32), int), ValueError, r"got \[3, 24, 32\]"),
        (lambda picture: np.zeros((24, 31), int), ValueError, r"\[24, 32\] from the callable, got \[24, 31\]"),
        (lambda picture: picture, ValueError, r"from the callable, got \[24, 32, 3\]"),
        (lambda picture: picture[..., 0] / 2, TypeError, "integer labels from the callable, got dtype float64"),
        (lambda picture: None, TypeError, "from the callable, got dtype object"),
    ],
)
def test_unfit_labels(superpixels, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.SWAG(tiny_net(), superpixels)(batch_for())


# Scorers that the user gives.


@DIMS
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_users_scorer(variant, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)

    def brightness(got_model, got_x, target):
        assert got_model is model
        return got_x.sum(1)

    explanation = mg.SWAG(model, VARIANTS[variant], brightness, n_segments=25)(x)
    check_by_hand(explanation, by_hand(x, x.sum(1), variant, n_segments=25))


@pytest.mark.parametrize(
    ("name", "canonical"), [("slic-i", "image"), ("slic-g", "gradient"), ("slic-ig", "image+gradient")]
)
def test_other_names_of_superpixels(name, canonical) -> None:
    net, x = tiny_net(), batch_for()
    one, other = (mg.SWAG(net, superpixels=each, n_segments=20)(x) for each in (name, canonical))
    assert torch.equal(one.segments, other.segments)
    assert one.method == other.method


@pytest.mark.parametrize("name", ["quickshift", "felzenszwalb"])
def test_segmentations_of_scikit_image(name) -> None:
    net, x = tiny_net(), batch_for(size=(48, 64))
    explained = mg.SWAG(net, superpixels=name)(x)
    labels = explained.segments[1].numpy()
    expected = SEGMENTATIONS[name](explained.image[1].numpy())
    assert len(np.unique(labels)) == len(np.unique(expected)) == int(explained.counts[1]) > 1
    assert len(np.unique(np.stack([labels, expected]).reshape(2, -1), axis=1).T) == int(explained.counts[1])
    with pytest.raises(ValueError, match=f"superpixels: '{name}' is of images; of clips use 'image'"):
        mg.SWAG(tiny_net(3), superpixels=name)(batch_for(3))


def test_a_scorer_with_options() -> None:
    net, x = tiny_net(), batch_for()
    by_name = mg.SWAG(net, scorer=mg.scorer("gradcam", layer="1", relu=False))(x)
    own = mg.SWAG(net, scorer=lambda m, x, t: mg.explainer("gradcam", m, layer="1", relu=False)(x, t).heatmap)(x)
    assert torch.equal(by_name.heatmap, own.heatmap)
    with pytest.raises(TypeError, match="'gradcam' has no option depth"):
        mg.scorer("gradcam", depth=3)
    with pytest.raises(ValueError, match=r"scorer: expected one of .*, got 'grad'"):
        mg.scorer("grad")


@pytest.mark.parametrize("name", [name for name in METHODS if name in CAMS or name in SCORERS])
@DIMS
def test_every_named_scorer(name, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    options = FAST_OPTIONS.get(name)
    explanation = mg.SWAG(model, "image", mg.scorer(name, **options) if options else name, n_segments=25)(x)
    maps = quick_explainer(name, model)(x).heatmap
    check_by_hand(explanation, by_hand(x, maps, "swag-i", n_segments=25))
