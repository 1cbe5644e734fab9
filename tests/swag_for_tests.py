"""SWAG done by hand, and what its explanations have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from models_for_tests import SPATIAL

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


# Superpixels that the user gives.


def quarters(dims):
    """Four regions [*S], numbered from 0."""
    labels = np.zeros(SPATIAL[dims], np.int64)
    labels[..., 5:, :] += 1
    labels[..., 20 - 8 * (dims == 3) :] += 2
    return labels
