"""AIC and SIC: the `saliency` package gives the same; what is excluded and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data, transform
from torch import nn

import midgrain as mg
from midgrain.measures import information
from midgrain.normalisation import Normalisation
from models_for_tests import one_thread, seeded  # noqa: F401

SIDE = 40
MEASURES = {"sic": mg.measures.sic, "aic": mg.measures.aic}


class Sharpness(nn.Module):
    """Two classes: sharp and blurred, by how much neighbouring pixels differ."""

    def __init__(self, middle: float, slope: float = 12.0):
        super().__init__()
        self.middle, self.slope = middle, slope

    def forward(self, x):
        strength = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) + (x[..., 1:, :] - x[..., :-1, :]).abs().mean(
            (1, 2, 3)
        )
        return torch.stack([self.slope * (strength - self.middle), torch.zeros_like(strength)], 1)


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    """Inputs of two photographs, normalised as ImageNet's, [2, 3, 40, 40]."""
    pictures = [transform.resize(each, (SIDE, SIDE), anti_aliasing=True) for each in (data.chelsea(), data.coffee())]
    rgb = torch.from_numpy((np.stack(pictures) * 255).round() / 255).movedim(-1, 1).float()
    return Normalisation().inputs(rgb, rgb[0])


@pytest.fixture(scope="module")
def heatmap() -> torch.Tensor:
    return seeded(lambda: torch.rand(2, SIDE, SIDE, dtype=torch.float64))


@pytest.mark.parametrize("monotonous", [True, False])
@pytest.mark.parametrize("name", MEASURES)
def test_the_saliency_package_gets_the_same(name, monotonous, photographs, heatmap, monkeypatch) -> None:
    pic = pytest.importorskip("saliency.metrics.pic", reason="needs saliency (extra 'peers')")
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # gone from newer NumPy
    net = Sharpness(0.3)
    result = MEASURES[name](net, photographs, heatmap, 0, monotonous=monotonous, least_probability=0.5, seed=3)
    assert not result.excluded.any()
    rgb = Normalisation().rgb(photographs)
    for index in range(2):
        picture = (rgb[index].movedim(0, -1) * 255).round().to(torch.uint8).numpy()

        def predict(pictures):
            values = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
            probability = net(Normalisation().inputs(values, photographs[0])).softmax(1)[:, 0]
            return (probability if name == "sic" else (probability > 0.5).float()).numpy()

        known = information._drawn(photographs[index], 0.01, 3)
        expected = pic.compute_pic_metric(
            picture,
            heatmap[index].numpy(),
            known,
            predict,
            information.THRESHOLDS,
            min_pred_value=0.5,
            keep_monotonous=monotonous,
        )
        np.testing.assert_allclose(result.curve[index], expected.curve_y, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.auc[index], expected.auc, rtol=0, atol=1e-5)


def test_a_good_order_beats_a_bad_one(photographs) -> None:
    """Most of the picture's contrast first, and last."""
    net = Sharpness(0.3)
    contrast = (photographs[:, :, 1:, 1:] - photographs[:, :, :-1, :-1]).abs().mean(1)
    contrast = nn.functional.pad(contrast, (1, 0, 1, 0))
    good, bad = (mg.measures.sic(net, photographs, sign * contrast, 0, least_probability=0).auc for sign in (1, -1))
    assert (good > bad).all()


def test_pictures_that_say_nothing_are_excluded(photographs, heatmap) -> None:
    improbable = mg.measures.sic(Sharpness(5.0), photographs, heatmap, 0)
    indifferent = mg.measures.sic(Sharpness(0.0, slope=0.0), photographs, heatmap, 0, least_probability=0)
    flat = mg.measures.sic(Sharpness(0.0), torch.zeros(2, 3, SIDE, SIDE), heatmap, 0, least_probability=0)
    other = mg.measures.aic(Sharpness(5.0), photographs, heatmap, 0)
    for result in (improbable, indifferent, flat, other):
        assert result.excluded.all()
        assert result.auc.isnan().all()


@pytest.mark.parametrize("name", MEASURES)
def test_seeds_batches_and_neighbours(name, photographs, heatmap) -> None:
    def run(x=photographs, maps=heatmap, **options):
        return MEASURES[name](Sharpness(0.3), x, maps, 0, least_probability=0.5, **options).curve

    assert torch.equal(run(), run())
    assert not torch.equal(run(), run(seed=1))
    torch.testing.assert_close(run(batch_size=1), run())
    torch.testing.assert_close(run(photographs[1:], heatmap[1:]), run()[1:])


def test_grey_pictures(photographs, heatmap) -> None:
    grey = photographs[:, :1].abs().clamp(max=1)
    assert mg.measures.sic(Sharpness(0.1), grey, heatmap, 0, least_probability=0).curve.shape == (2, 1001)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"thresholds": [0.5, 0.2]}, ValueError, "thresholds: expected ascending shares"),
        ({"thresholds": []}, TypeError, "thresholds: expected a list of shares"),
        ({"thresholds": [0.0, 0.2]}, ValueError, "thresholds: expected above 0 and up to 1, got 0"),
        ({"target": lambda outputs: outputs[:, 0]}, TypeError, "target: expected a class or one per sample"),
        ({"x": torch.rand(2, 3, 2, SIDE, SIDE)}, ValueError, "x: expected images"),
        ({"x": torch.rand(2, 4, SIDE, SIDE)}, ValueError, "x: expected pictures of 1 or 3 channels, got 4"),
        ({"start": 0}, ValueError, "start: expected above 0"),
        ({"heatmap": torch.rand(2, 3, 3)}, ValueError, "heatmap: expected shape"),
        ({"mean": [0.5]}, ValueError, "mean, std: expected both or neither"),
    ],
)
def test_bad_arguments(change, error, match, photographs, heatmap) -> None:
    arguments = {"x": photographs, "heatmap": heatmap, "target": 0, "least_probability": 0.0} | change
    with pytest.raises(error, match=match):
        mg.measures.sic(Sharpness(0.1), **arguments)


def test_an_image_of_one_row_has_no_triangles() -> None:
    def brightness(x):
        return torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)

    with pytest.raises(ValueError, match="expected images of 2 x 2 pixels or more, got 9 x 1"):
        mg.measures.sic(brightness, torch.rand(2, 3, 1, 9), torch.rand(2, 1, 9), 0, least_probability=0)
