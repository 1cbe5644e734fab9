"""SWAG and SWAG-V: equal to their parts done by hand, whatever superpixels, scorer and input they are given."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from skimage import segmentation
from torch import nn

import midgrain as mg
from midgrain.cams import CAMS
from midgrain.regions import REGIONS
from midgrain.scorers import SCORERS
from models_for_tests import FAST_OPTIONS, METHODS, SPATIAL, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
VARIANTS = {"swag-i": "image", "swag-ig": "image+gradient", "swag-g": "gradient"}
NORMALISATION = {
    2: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    3: ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}
REDUCTIONS = {
    "mean": np.mean,
    "sum": np.sum,
    "abs-sum": lambda v: np.abs(v).sum(),
    "l1": lambda v: np.abs(v).sum(),
    "l2": np.linalg.norm,
    "max": np.max,
    "min": np.min,
    "var": np.var,
    "std": np.std,
    "median": np.median,
}


class Pixelwise(nn.Module):
    """Its gradient at a pixel depends on that pixel alone, so it is the same number in any batch."""

    def __init__(self, channels, spatial, classes=4):
        super().__init__()
        self.first = nn.Parameter(torch.randn(channels, *spatial))
        self.second = nn.Parameter(torch.randn(classes, channels, *spatial))

    def forward(self, x):
        return (torch.relu(x * self.first)[:, None] * self.second).flatten(2).sum(2)


def pictures_of(x):
    """What x shows, float32 [B, *S, 3] in 0 .. 1."""
    offset, scale = (torch.tensor(values).reshape(-1, *[1] * (x.ndim - 2)) for values in NORMALISATION[x.ndim - 2])
    return (x.float() * scale + offset).clamp(0, 1).movedim(1, -1).numpy()


def by_hand(x, maps, variant, reduce="mean", **options):
    """SWAG of each sample: midgrain.slic on its picture and map, NumPy for the regions' scores."""
    options = {"n_segments": 300 if x.ndim == 4 else 120, "compactness": 20.0, "gradient_compactness": 9.0} | options
    for picture, scores_of_pixels in zip(pictures_of(x), maps.numpy(), strict=True):
        labels = mg.slic(
            picture if "i" in variant[5:] else None,
            gradient=scores_of_pixels if "g" in variant[5:] else None,
            **options,
        )
        values = scores_of_pixels.astype(np.float64)
        yield labels, np.array([REDUCTIONS[reduce](values[labels == k]) for k in range(labels.max() + 1)])


def check_by_hand(explanation, expected):
    for i, (labels, scores) in enumerate(expected):
        count = len(scores)
        assert int(explanation.counts[i]) == count
        assert np.array_equal(explanation.segments[i].numpy(), labels)
        assert np.allclose(explanation.scores[i, :count].numpy(), scores, rtol=1e-5, atol=1e-6 * np.abs(scores).max())
        assert explanation.scores[i, count:].isnan().all()
        assert torch.equal(explanation.heatmap[i], explanation.scores[i][explanation.segments[i].long()])


def check_regions(explanation):
    """Regions are numbered without gaps and the heat map is their scores, painted."""
    assert explanation.heatmap.dtype == explanation.scores.dtype == torch.float32
    assert explanation.segments.dtype == explanation.counts.dtype == torch.int32
    assert explanation.segments.shape == explanation.heatmap.shape
    assert explanation.scores.shape == (len(explanation), int(explanation.counts.max()))
    for i in range(len(explanation)):
        count = int(explanation.counts[i])
        assert explanation.segments[i].unique().tolist() == list(range(count))
        assert explanation.scores[i, :count].isfinite().all()
        assert explanation.scores[i, count:].isnan().all()
        assert torch.equal(explanation.heatmap[i], explanation.scores[i][explanation.segments[i].long()])


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


# Superpixels that the user gives.


def quarters(dims):
    """Four regions [*S], numbered from 0."""
    labels = np.zeros(SPATIAL[dims], np.int64)
    labels[..., 5:, :] += 1
    labels[..., 20 - 8 * (dims == 3) :] += 2
    return labels


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


@pytest.mark.parametrize("name", [name for name in METHODS if name in CAMS or name in SCORERS])
@DIMS
def test_every_named_scorer(name, dims) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    options = FAST_OPTIONS.get(name)
    explanation = mg.SWAG(model, "image", mg.scorer(name, **options) if options else name, n_segments=25)(x)
    maps = quick_explainer(name, model)(x).heatmap
    check_by_hand(explanation, by_hand(x, maps, "swag-i", n_segments=25))


# Inputs of every kind.


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((8, 8), 4),
        ((1, 1), 1),
        ((1, 40), 2),
        ((3, 5), 1),
        ((40, 9), 22),
        ((17, 64), 68),
        ((1, 8, 8), 4),
        ((3, 5, 2), 1),
    ],
    ids=str,
)
def test_small_and_oblong_inputs(variant, size, count) -> None:
    dims = len(size)
    model, x = seeded(lambda: Pixelwise(3, size)), batch_for(dims, size=size)
    explanation = mg.explainer(variant, model)(x, 1)
    check_regions(explanation)
    maps = mg.explainer("guided", model)(x, 1).heatmap
    check_by_hand(explanation, by_hand(x, maps, variant, n_segments=count))


@DIMS
@pytest.mark.parametrize("variant", VARIANTS)
def test_flat_pictures_and_maps(variant, dims) -> None:
    x = torch.zeros(2, 3, *SPATIAL[dims])
    explanation = mg.SWAG(tiny_net(dims), VARIANTS[variant], "sobel", n_segments=12)(x)
    check_regions(explanation)
    assert (explanation.heatmap == 0).all()
    assert (explanation.normalised() == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@DIMS
def test_other_precisions(dims, dtype, variant) -> None:
    model, x = tiny_net(dims).to(dtype), batch_for(dims).to(dtype)
    explanation = mg.explainer(variant, model, n_segments=30)(x)
    check_regions(explanation)
    maps = mg.explainer("guided", model)(x).heatmap
    check_by_hand(explanation, by_hand(x, maps, variant, n_segments=30))


@DIMS
@pytest.mark.parametrize("variant", VARIANTS)
def test_grey_inputs(variant, dims) -> None:
    x = batch_for(dims, channels=1).sigmoid()
    explanation = mg.explainer(variant, tiny_net(dims, channels=1), n_segments=30)(x)
    check_regions(explanation)
    assert torch.equal(explanation.image, (x * 255).round().byte().expand(-1, 3, *x.shape[2:]).movedim(1, -1))


@DIMS
@pytest.mark.parametrize("channels", [2, 4])
def test_inputs_that_are_no_pictures(channels, dims) -> None:
    model, x = tiny_net(dims, channels), batch_for(dims, channels=channels)
    for superpixels in ("image", "image+gradient", lambda picture: picture):
        with pytest.raises(
            ValueError, match=rf"expected 1 or 3 channels .* got {channels}; use superpixels='gradient'"
        ):
            mg.SWAG(model, superpixels)(x)
    for superpixels in ("gradient", quarters(dims)):
        explanation = mg.SWAG(model, superpixels)(x)
        check_regions(explanation)
        assert explanation.image is None


# The picture behind the input.


@DIMS
def test_mean_and_std_give_the_picture_back(dims) -> None:
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *SPATIAL[dims], 3), np.uint8))
    unit = picture.movedim(-1, 1) / 255
    model = tiny_net(dims)
    mean, std = (torch.tensor(values).reshape(-1, *[1] * dims) for values in NORMALISATION[dims])
    assert torch.equal(mg.SWAG(model)((unit - mean) / std).image, picture)
    assert torch.equal(mg.SWAG(model, mean=[0.5] * 3, std=[0.25] * 3)((unit - 0.5) / 0.25).image, picture)
    assert torch.equal(mg.SWAG(model, mean=[0.5], std=(0.25,))((unit - 0.5) / 0.25).image, picture)
    assert torch.equal(mg.explainer("vanilla", model, mean=np.zeros(3), std=np.ones(3))(unit).image, picture)


def test_a_grey_inputs_mean_and_std() -> None:
    x = batch_for(channels=1)
    explanation = mg.SWAG(tiny_net(channels=1), mean=[0.5], std=[0.2])(x)
    assert torch.equal(explanation.image[..., 2], ((x[:, 0] * 0.2 + 0.5).clamp(0, 1) * 255).round().byte())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"mean": [0.5] * 3}, ValueError, "mean, std: expected both or neither"),
        ({"std": [0.5] * 3}, ValueError, "mean, std: expected both or neither"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}, ValueError, "std: expected positive numbers"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.5, -1]}, ValueError, "std: expected positive numbers"),
        ({"mean": [np.nan] * 3, "std": [0.5] * 3}, ValueError, "mean: expected finite numbers"),
        ({"mean": [0.5] * 3, "std": [np.inf] * 3}, ValueError, "std: expected finite numbers"),
        ({"mean": [], "std": []}, ValueError, "mean: expected finite numbers"),
        ({"mean": 0.5, "std": [0.5] * 3}, TypeError, "mean: expected one number per channel, got 0.5"),
        ({"mean": "abc", "std": [0.5] * 3}, TypeError, "mean: expected one number per channel, got 'abc'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["swag-ig", "vanilla"])
def test_bad_mean_and_std(name, options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, tiny_net(), **options)


@pytest.mark.parametrize("numbers", [2, 4])
@pytest.mark.parametrize("name", ["swag-ig", "vanilla"])
def test_mean_and_std_of_the_wrong_length(name, numbers) -> None:
    explain = mg.explainer(name, tiny_net(), mean=[0.5] * numbers, std=[0.5] * numbers)
    with pytest.raises(ValueError, match="mean, std: expected 3 numbers for x with 3 channels"):
        explain(batch_for())


# Options.


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_segments": 0}, ValueError, r"n_segments: expected 1 or more, got 0"),
        ({"n_segments": 2.5}, TypeError, "n_segments: expected an int, got float"),
        ({"n_segments": True}, TypeError, "n_segments: expected an int, got bool"),
        ({"compactness": 0}, ValueError, "compactness: expected a positive finite number"),
        ({"compactness": np.nan}, ValueError, "compactness: expected a positive finite number"),
        ({"compactness": "20"}, TypeError, "compactness: expected a number, got str"),
        ({"gradient_compactness": -1.0}, ValueError, "gradient_compactness: expected a positive finite number"),
        ({"max_num_iter": 0}, ValueError, "max_num_iter: expected 1 or more"),
        ({"min_size_factor": -0.5}, ValueError, "min_size_factor: expected a non-negative finite number"),
        ({"reduce": "average"}, ValueError, "reduce: expected one of mean, .* got 'average'"),
        ({"scorer": "guide"}, ValueError, "scorer: expected one of vanilla"),
        ({"scorer": 1}, TypeError, "scorer: expected a name or a callable"),
        ({"segments": 300}, TypeError, "unexpected keyword argument 'segments'"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.SWAG(tiny_net(), **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_segments": 24 * 32 + 1}, ValueError, r"n_segments: expected 1 \.\. 768, got 769"),
        ({"spacing": (1, 1, 1)}, ValueError, "spacing: "),
        ({"spacing": (1, 0)}, ValueError, "spacing: "),
        ({"spacing": 2}, TypeError, "spacing: "),
    ],
    ids=str,
)
def test_options_that_do_not_fit_the_input(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.SWAG(tiny_net(), **options)(batch_for())


def test_every_pixel_may_be_a_superpixel() -> None:
    explanation = mg.SWAG(tiny_net(), "image", "vanilla", n_segments=8 * 8, min_size_factor=0)(batch_for(size=(8, 8)))
    check_regions(explanation)


# By name.


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_made_by_name(name) -> None:
    explanation = quick_explainer(name, tiny_net())(batch_for())
    assert explanation.method == name
    assert (explanation.segments is not None) == (name in REGIONS)
    assert (explanation.scores is None) == (explanation.counts is None) == (explanation.segments is None)


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("swag", {}, ValueError, "name: expected one of swag-i, swag-ig, swag-g, .* got 'swag'"),
        ("", {}, ValueError, "name: expected one of"),
        (None, {}, TypeError, "name: expected a method's name, got NoneType"),
        (["swag-i"], {}, TypeError, "name: expected a method's name, got list"),
        ("swag-i", {"superpixels": "gradient"}, TypeError, "superpixels: the name 'swag-i' says it already"),
        ("swag-i", {"seed": 1}, TypeError, "'swag-i' has no option seed"),
        ("vanilla", {"n_segments": 10}, TypeError, "scorer 'vanilla' has no option n_segments"),
    ],
)
def test_unknown_methods_and_options(name, options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, tiny_net(), **options)


@pytest.mark.parametrize("name", ["compactness", "gradient_compactness"])
def test_a_compactness_too_small_names_itself(name) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected 0\.0001 or more, got 1e-06"):
        mg.SWAG(nn.Identity(), **{name: 1e-6})
