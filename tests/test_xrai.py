"""XRAI against the `saliency` package and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from saliency.core import xrai as package
from torch import nn

import midgrain as mg
from midgrain.regions import XRAI
from midgrain.regions.overlapping import overlapping_regions
from midgrain.regions.region_growing import rank_regions
from midgrain.regions.segmentations import felzenszwalb_scales
from models_for_tests import SPATIAL, batch_for, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import xrai as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
MODES = pytest.mark.parametrize("mode", ["full", "fast"])
RADIUS = 5


def with_map(attribution):
    """A scorer that gives this map."""
    return lambda model, x, target: torch.as_tensor(attribution, dtype=torch.float32).expand(len(x), *x.shape[2:])


def attributions(size, seed=0):
    """Name -> float64 maps of one picture: noise, smooth with both signs, few values (many ties), one value."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.normal(size=(1, 1, 9, 9)))
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic")[0, 0].numpy()
    return {
        "noise": random.normal(size=size),
        "smooth": smooth,
        "few values": random.integers(-2, 3, size).astype(np.float64),
        "blocks": np.rint(smooth),
        "zero": np.zeros(size),
        "one value": np.full(size, -0.5),
    }


# Beside the package.


@pytest.fixture(scope="module")
def segmented(photos):
    """Per photograph its segmentations and the package's masks; smaller than usual, where the package is quicker."""
    found = {}
    for name, picture in photos.items():
        small = picture[20:164:, 30:222] / 255.0
        found[name] = (small, felzenszwalb_scales(small), package._get_segments_felzenszwalb(small))
    return found


@pytest.fixture(scope="module")
def photos():
    from skimage import data, transform

    shown = {name: getattr(data, name)() for name in ("chelsea", "coffee", "rocket")}
    return {name: transform.resize(image, (224, 224), anti_aliasing=True) * 255 for name, image in shown.items()}


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_the_packages_regions(name, segmented) -> None:
    _, segmentations, masks = segmented[name]
    regions = overlapping_regions(segmentations, [RADIUS] * len(segmentations))
    assert regions.count == len(masks)
    for region, mask in enumerate(masks):
        assert np.array_equal(np.isin(regions.cells, regions.cells_of(region)), mask)


@MODES
@pytest.mark.parametrize("name", ["chelsea", "rocket"])
@pytest.mark.parametrize("kind", attributions((8, 8)))
def test_the_packages_order_and_values(kind, name, mode, segmented) -> None:
    picture, segmentations, masks = segmented[name]
    attribution = attributions(picture.shape[:2])[kind]
    theirs = package.XRAI._xrai if mode == "full" else package.XRAI._xrai_fast
    heatmap, ranks = theirs(attribution, masks)
    regions = overlapping_regions(segmentations, [RADIUS] * len(segmentations))
    ranking = rank_regions(attribution, regions, mode=mode)
    assert np.array_equal(ranking.labels, ranks - 1)
    assert np.abs(ranking.gains[ranking.labels] - heatmap).max() <= 1e-10 * np.abs(attribution).max()


@pytest.mark.parametrize(("area_threshold", "min_pixel_diff"), [(0.3, 50), (0.0, 50), (1.0, 1), (0.7, 400)])
def test_the_packages_other_options(area_threshold, min_pixel_diff, segmented) -> None:
    picture, segmentations, masks = segmented["coffee"]
    attribution = attributions(picture.shape[:2])["smooth"]
    heatmap, ranks = package.XRAI._xrai(attribution, masks, area_perc_th=area_threshold, min_pixel_diff=min_pixel_diff)
    regions = overlapping_regions(segmentations, [RADIUS] * len(segmentations))
    ranking = rank_regions(attribution, regions, min_pixel_diff=min_pixel_diff, area_threshold=area_threshold)
    assert np.array_equal(ranking.labels, ranks - 1)
    assert np.allclose(ranking.gains[ranking.labels], heatmap, rtol=0, atol=1e-10)


@MODES
def test_the_whole_method_beside_the_package(mode, photos) -> None:
    """Segmentation, growing and ranking of a photograph, from the same attributions of a network."""
    picture = photos["chelsea"][10:150, 20:200] / 255.0
    x = (torch.from_numpy(picture).float().movedim(-1, 0)[None] - 0.5) / 0.25
    normalisation = {"mean": [0.5] * 3, "std": [0.25] * 3}
    net = tiny_net()
    signed = mg.scorer("integrated-gradients", n_steps=4, channels="max", baseline="black+white", **normalisation)
    explanation = XRAI(net, scorer=signed, mode=mode, **normalisation)(x, 3)
    pixels = mg.explainer(
        "integrated-gradients", net, n_steps=4, channels="max", baseline="black+white", **normalisation
    )
    attribution = pixels(x, 3).heatmap[0].double().numpy()
    seen = mg.SWAG(net, **normalisation).rgb(x)[0].movedim(0, -1).double().numpy()
    theirs = package.XRAI().GetMaskWithDetails(
        seen,
        None,
        base_attribution=np.repeat(attribution[..., None], 3, -1),
        extra_parameters=package.XRAIParameters(return_xrai_segments=True, algorithm=mode),
    )
    assert np.array_equal(explanation.segments[0].numpy(), theirs.segments - 1)
    assert np.allclose(explanation.heatmap[0], theirs.attribution_mask, rtol=1e-6, atol=1e-9)
    assert explanation.details["passes"].tolist() == [11]


# By definition.


@st.composite
def cases(draw):
    size = tuple(draw(st.lists(st.integers(1, 7), min_size=2, max_size=3)))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    segmentations = [random.integers(0, draw(st.integers(1, 70)), size) for _ in range(draw(st.integers(1, 3)))]
    values = draw(st.sampled_from([2, 1000]))
    attribution = random.integers(-values, values + 1, size) * draw(st.sampled_from([1.0, 2.0**-1060, 2.0**100]))
    return segmentations, [draw(st.integers(0, 3)) for _ in segmentations], attribution


@given(cases(), st.sampled_from(["full", "fast"]), st.integers(1, 6), st.sampled_from([1.0, 0.5]))
def test_by_definition(case, mode, min_pixel_diff, area_threshold) -> None:
    segmentations, radii, attribution = case
    masks = oracle.region_masks(segmentations, radii)
    regions = overlapping_regions(segmentations, radii)
    assert [int(regions.sizes[regions.cells_of(region)].sum()) for region in range(regions.count)] == [
        mask.sum() for mask in masks
    ]
    options = {"mode": mode, "min_pixel_diff": min_pixel_diff, "area_threshold": area_threshold}
    heatmap, labels = oracle.ranked(attribution, masks, **options)
    ranking = rank_regions(attribution, regions, **options)
    assert np.array_equal(ranking.labels, labels)
    assert np.allclose(ranking.gains[ranking.labels], heatmap, rtol=0, atol=1e-10 * np.abs(attribution).max())


@given(cases())
def test_cells_are_what_regions_consist_of(case) -> None:
    segmentations, radii, _ = case
    regions = overlapping_regions(segmentations, radii)
    masks = np.array(oracle.region_masks(segmentations, radii)).reshape(regions.count, -1)
    flat = regions.cells.ravel()
    columns, first, inverse, sizes = np.unique(
        masks, axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    assert len(regions.sizes) == columns.shape[1]
    assert np.array_equal(flat[first][inverse.ravel()], flat)
    assert np.array_equal(regions.sizes[flat[first]], sizes)
    assert np.array_equal(np.unique(flat, return_index=True)[1], np.sort(first))  # Numbered by their first pixels.


# As an explainer.


def by_hand(x, attribution, segmentations, radii, **options):
    """Heat maps and labels, float64 and int [B, *S]."""
    found = [
        oracle.ranked(np.asarray(attribution[i], dtype=np.float64), oracle.region_masks(own, radii), **options)
        for i, own in enumerate(segmentations)
    ]
    return [np.stack(parts) for parts in zip(*found, strict=True)]


@DIMS
@MODES
def test_labels_that_the_user_gives(mode, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 2)
    random = np.random.default_rng(0)
    shared = random.integers(3, 9, SPATIAL[dims]) * 10
    own = torch.from_numpy(random.integers(0, 5, (2, *SPATIAL[dims])))
    attribution = mg.explainer("vanilla", net)(x, 2).heatmap
    explanation = XRAI(net, [shared, own], "vanilla", mode=mode, min_pixel_diff=20)(x, 2)
    segmentations = [[shared // 10 - 3, own[i].numpy()] for i in range(2)]
    heatmap, labels = by_hand(x, attribution, segmentations, [0, 0], mode=mode, min_pixel_diff=20)
    assert np.array_equal(explanation.segments, labels)
    assert np.allclose(explanation.heatmap, heatmap, rtol=1e-6)
    assert explanation.details["candidates"].tolist() == [11, 11]
    grown = XRAI(net, shared, "vanilla", mode=mode, dilation=1)(x, 2)
    heatmap, labels = by_hand(x, attribution, [[shared // 10 - 3]] * 2, [1], mode=mode)
    assert np.array_equal(grown.segments, labels)
    assert np.allclose(grown.heatmap, heatmap, rtol=1e-6)


def check(explanation) -> None:
    """What holds for every XRAI explanation: labels without gaps, scores of the pixels, sorted but for the rest."""
    segments, scores, counts = explanation.segments, explanation.scores, explanation.counts
    assert segments.dtype == torch.int32
    for i, count in enumerate(counts.tolist()):
        assert segments[i].unique().tolist() == list(range(count))
        assert torch.equal(explanation.heatmap[i], scores[i][segments[i].long()])
        assert scores[i, count:].isnan().all()
        assert (scores[i, : count - 1].diff() <= 0).all()
    assert scores.shape == (len(segments), counts.max())


@DIMS
@MODES
@pytest.mark.parametrize("superpixels", [None, "image", "image+gradient", ["gradient", "image"]], ids=str)
def test_every_choice_of_superpixels(superpixels, mode, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 2)
    explanation = XRAI(net, superpixels, "input-x-gradient", mode=mode)(x, [1, 4])
    check(explanation)
    assert explanation.heatmap.flatten(1).amax(1).min() > 0
    # The means of the regions add up to what the pixels add up to.
    pixels = mg.explainer("input-x-gradient", net)(x, [1, 4])
    assert torch.allclose(explanation.heatmap.flatten(1).sum(1), pixels.heatmap.flatten(1).sum(1), rtol=1e-5)
    assert torch.equal(explanation.target, pixels.target)
    assert torch.equal(explanation.outputs, pixels.outputs)


def test_of_clips_volumes_from_fine_to_coarse() -> None:
    net, x = tiny_net(3), batch_for(3, 2, size=(6, 20, 24))
    volumes = [mg.SWAG(net, "image", "vanilla", n)(x).segments.numpy() for n in (100, 50, 33, 20, 10, 4)]
    explanation = XRAI(net, scorer="vanilla", n_segments=100)(x, 1)
    given = XRAI(net, volumes, "vanilla", dilation=5)(x, 1)
    assert torch.equal(explanation.segments, given.segments)
    assert torch.equal(explanation.heatmap, given.heatmap)
    assert explanation.details["candidates"].tolist() == [sum(int(v[i].max()) + 1 for v in volumes) for i in range(2)]
    check(explanation)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 9), (1, 8, 8), (3, 5, 2), (8, 20, 20)])
def test_sizes_of_every_kind(size) -> None:
    for x in (batch_for(len(size), 2, size=size), torch.zeros(1, 3, *size)):
        scorer = with_map(np.random.default_rng(0).normal(size=size))
        check(XRAI(lambda x: x.flatten(1), scorer=scorer)(x, 0))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    explain = XRAI(net, scorer="input-x-gradient")
    whole = explain(x, [0, 1, 2])
    for i in range(3):
        alone = explain(x[[i]], i)
        assert torch.equal(alone.segments[0], whole.segments[i])
        assert torch.allclose(alone.heatmap[0], whole.heatmap[i], rtol=1e-5, atol=1e-7)


@DIMS
def test_by_default_integrated_gradients_from_black_and_from_white(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 1)
    explanation = XRAI(net, "image")(x, 1)
    assert explanation.details["passes"].tolist() == [1 + 2 * (100 + 1)]
    pixels = mg.explainer("integrated-gradients", net, baseline="black+white", n_steps=100, channels="max")(x, 1)
    assert pixels.heatmap.min() < 0
    given = XRAI(net, "image", with_map(pixels.heatmap[0]))(x, 1)
    assert torch.equal(explanation.heatmap, given.heatmap)
    assert torch.allclose(explanation.details["convergence_delta"], pixels.details["convergence_delta"])


def test_normalisation_reaches_the_scorer() -> None:
    net, x = tiny_net(), batch_for(batch=1)
    grey = {"mean": [0.5] * 3, "std": [0.5] * 3}
    steps = {"baseline": "black+white", "n_steps": 100, "channels": "max"}
    pixels = mg.explainer("integrated-gradients", net, **steps, **grey)(x, 1).heatmap
    explanation = XRAI(net, "image", **grey)(x, 1)
    assert torch.equal(explanation.heatmap, XRAI(net, "image", with_map(pixels[0]), **grey)(x, 1).heatmap)


def test_class_activation_maps_score_too() -> None:
    net, x = tiny_net(), batch_for()
    pixels = mg.explainer("gradcam", net)(x, 2).heatmap
    explanation = XRAI(net, "image", mg.scorer("gradcam", layer="2"))(x, 2)
    assert not torch.equal(explanation.heatmap, XRAI(net, "image", "gradcam")(x, 2).heatmap)
    expected = XRAI(net, "image", lambda *_: pixels)(x, 2)
    assert torch.equal(XRAI(net, "image", "gradcam")(x, 2).heatmap, expected.heatmap)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    net, x = tiny_net(), batch_for(batch=1)
    XRAI(net, "image")(x)
    assert capfd.readouterr() == ("", "")
    XRAI(net, "image", progress=True)(x)
    assert "integrating gradients" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"mode": "slow"}, ValueError, "mode: expected one of full, fast, got 'slow'"),
        ({"mode": ["full"]}, ValueError, "mode: expected one of full, fast, got"),
        ({"min_pixel_diff": 0}, ValueError, "min_pixel_diff: expected 1 or more, got 0"),
        ({"min_pixel_diff": 2.5}, TypeError, "min_pixel_diff: expected an int, got float"),
        ({"area_threshold": 1.5}, ValueError, "area_threshold: expected 0 .. 1, got 1.5"),
        ({"area_threshold": -0.1}, ValueError, "area_threshold: expected a non-negative finite number"),
        ({"dilation": -1}, ValueError, "dilation: expected 0 or more, got -1"),
        ({"dilation": "5"}, TypeError, "dilation: expected an int, got str"),
        ({"superpixels": []}, ValueError, "superpixels: expected at least one segmentation, got none"),
        ({"superpixels": "watershed"}, ValueError, "superpixels: expected one of image, .*'watershed'"),
        (
            {"superpixels": ["image", None]},
            TypeError,
            "superpixels: expected a name, labels or a callable, got NoneType",
        ),
        ({"superpixels": np.zeros((3, 4), int)}, ValueError, r"superpixels: expected labels of shape \[24, 32\]"),
        ({"superpixels": [np.zeros((24, 32))]}, TypeError, "superpixels: expected integer labels as given"),
        ({"superpixels": "image", "n_segments": 10**6}, ValueError, "n_segments: expected 1 .. 768, got 1000000"),
        ({"n_segments": 0}, ValueError, "n_segments: expected 1 or more, got 0"),
        ({"scorer": "guide"}, ValueError, "scorer: expected one of .*'guide'"),
        ({"scorer": "vanilla", "progress": True}, TypeError, "scorer 'vanilla' has no option progress"),
        ({"progress": 1}, TypeError, "progress: expected a bool, got int"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"mean": [0.5] * 3}, ValueError, "mean, std: expected both or neither"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        XRAI(tiny_net(), **options)(batch_for())


@DIMS
def test_no_picture_to_segment(dims) -> None:
    net, x = tiny_net(dims, channels=4), batch_for(dims, channels=4)
    with pytest.raises(ValueError, match="x: expected 1 or 3 channels for superpixels made from the picture, got 4"):
        XRAI(net, scorer="vanilla")(x)
    for superpixels in ("gradient", np.arange(np.prod(SPATIAL[dims])).reshape(SPATIAL[dims]) // 100):
        check(XRAI(net, superpixels, "vanilla")(x))


def test_attributions_that_are_nan() -> None:
    nan = with_map(np.full(SPATIAL[2], np.nan))
    with pytest.raises(ValueError, match=r"NaN or infinity for sample\(s\) \[0, 1\]"):
        XRAI(tiny_net(), scorer=nan)(batch_for())
