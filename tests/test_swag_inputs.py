"""SWAG and SWAG-V: inputs of every kind, the picture behind them, options and names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from midgrain.regions import REGIONS
from models_for_tests import METHODS, SPATIAL, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from swag_for_tests import (
    DIMS,
    NORMALISATION,
    VARIANTS,
    Pixelwise,
    by_hand,
    check_by_hand,
    check_regions,
    quarters,
)

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
