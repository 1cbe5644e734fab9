"""Gradient weighted superpixels: equal to their parts done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import segmentation

import midgrain as mg
from models_for_tests import SPATIAL, batch_for, tiny_net
from models_for_tests import one_thread as one_thread

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])


def check(explanation, labels, maps):
    """Scores are sums of magnitudes over the labels, and painted."""
    for i, own in enumerate(labels):
        regions = np.unique(own)
        expected = np.array([np.abs(maps[i][own == region].astype(np.float64)).sum() for region in regions])
        assert int(explanation.counts[i]) == len(regions) > 1
        assert np.allclose(explanation.scores[i, : len(regions)].numpy(), expected, rtol=1e-5)
        assert np.array_equal(explanation.segments[i].numpy(), np.searchsorted(regions, own))
        assert torch.equal(explanation.heatmap[i], explanation.scores[i][explanation.segments[i].long()])


@pytest.mark.parametrize("scorer", ["guided", "act-gradcam", "vanilla"])
def test_images_by_hand(scorer, photos) -> None:
    pictures = np.stack([photos["chelsea"][60:140, 60:150], photos["coffee"][:80, :90]])
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (torch.tensor(pictures).movedim(-1, 1) / 255 - mean) / std
    net = tiny_net()
    explanation = mg.explainer("gws", net, scorer=scorer)(x, [1, 0])
    maps = mg.explainer(scorer, net)(x, [1, 0]).heatmap.numpy()
    labels = [segmentation.quickshift(each, kernel_size=4, max_dist=200, ratio=0.2, rng=0) for each in pictures]
    check(explanation, labels, maps)
    assert explanation.method == "gws"
    assert explanation.target.tolist() == [1, 0]


def test_clips_have_slics_superpixels() -> None:
    net, x = tiny_net(3), batch_for(3)
    explanation = mg.explainer("gws", net, n_segments=20, compactness=10)(x, [1, 0])
    swag = mg.SWAG(net, "image", n_segments=20, compactness=10)(x, [1, 0])
    assert torch.equal(explanation.segments, swag.segments)
    check(explanation, explanation.segments.numpy(), mg.explainer("guided", net)(x, [1, 0]).heatmap.numpy())


@DIMS
def test_scores_with_signs_count_by_their_magnitude(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    maps = torch.randn(2, *SPATIAL[dims], generator=torch.Generator().manual_seed(0))
    labels = torch.arange(maps[0].numel()).reshape(SPATIAL[dims]) // 50
    explanation = mg.explainer("gws", net, superpixels=labels, scorer=lambda *_: maps)(x)
    check(explanation, [labels.numpy()] * 2, maps.numpy())


def test_it_tells_its_scorer_the_normalisation_and_passes_its_details_on() -> None:
    net, x = tiny_net(), batch_for()
    options = {"mean": [0.5] * 3, "std": [0.25] * 3, "superpixels": "image", "n_segments": 20}
    black = mg.explainer("gws", net, scorer="integrated-gradients", **options)(x, 1)
    number = mg.explainer("gws", net, scorer=mg.scorer("integrated-gradients", baseline=-2.0), **options)(x, 1)
    assert torch.equal(black.heatmap, number.heatmap)
    assert black.details["passes"].tolist() == [52, 52]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"reduce": "mean"}, TypeError, "'gws' has no option reduce"),
        ({"superpixels": "quick"}, ValueError, "superpixels: expected one of"),
        ({"scorer": "guide"}, ValueError, "scorer: expected one of"),
        ({"n_segments": 0}, ValueError, "n_segments: expected 1 or more"),
        ({"compactness": 0}, ValueError, "compactness: expected a positive"),
        ({"mean": [0.5]}, ValueError, "mean, std: expected both or neither"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("gws", tiny_net(), **options)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"superpixels: 'quickshift' is of images"):
        mg.explainer("gws", tiny_net(3), superpixels="quickshift")(batch_for(3))
    with pytest.raises(ValueError, match="expected 1 or 3 channels for superpixels"):
        mg.explainer("gws", tiny_net(channels=4))(batch_for(channels=4))
