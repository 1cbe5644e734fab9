"""Measures beside the other libraries' on equal settings; where these are wrong, what they say and what ours do."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import midgrain as mg
from models_for_tests import batch_for, one_thread, tiny_net  # noqa: F401

CLOSE = {"rtol": 0, "atol": 2e-6}
TARGETS = [0, 2, 4]
PIXELS = 24 * 32
NET = tiny_net()


def needed(name: str) -> Any:
    """A module of a peer; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Packages that are there and do not work are as good as missing.
        return pytest.importorskip(name, exc_type=ImportError, reason=f"needs {name.partition('.')[0]}")


def distinct(x: Tensor, seed: int = 0) -> Tensor:
    """Heat maps in 0 .. 1 without two equal values, float32 [B, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.stack([torch.randperm(x[0, 0].numel(), generator=generator) for _ in range(len(x))])
    return flat.reshape(x.shape[0], *x.shape[2:]).float() / (x[0, 0].numel() - 1)


def average_drop(*arguments: Any, **options: Any) -> mg.measures.AverageDrop:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="average_drop: ")
        return mg.measures.average_drop(*arguments, **options)


class Given:
    """In torchcam an explainer hands the maps to the metric: one that hands out these."""

    def __init__(self, model: nn.Module, maps: Tensor):
        self.model, self.maps = model, maps

    def __call__(self, class_idx: Any = None, scores: Any = None, **_: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class HalfBrightness(nn.Module):
    """Two classes: how bright the upper half is, and how bright the lower one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([half.mean((1, 2, 3)) for half in x.chunk(2, 2)], 1)


@pytest.mark.parametrize("steps", [8, 32])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_torchcams_deletion_and_insertion(steps, baseline) -> None:
    peer = needed("torchcam.metrics")
    x = batch_for(batch=3)
    maps = distinct(x)
    for index, target in enumerate(TARGETS):
        part, own = x[index : index + 1], maps[index : index + 1]
        fill = torch.tensor(baseline)
        metric = peer.DeletionInsertionMetric(Given(NET, own), lambda z: z.softmax(1), steps=steps, baseline=fill)
        metric.update(part, target)
        theirs = metric.summary()
        ours = mg.measures.combined(NET, part, own, target, steps=steps, baseline=baseline)
        assert float(ours.deletion.auc) == pytest.approx(theirs["deletion_auc"], abs=2e-6)
        assert float(ours.insertion.auc) == pytest.approx(theirs["insertion_auc"], abs=2e-6)


def test_torchcams_own_gradcam() -> None:
    """Its map from its explainer, enlarged its way."""
    methods, peer = needed("torchcam.methods"), needed("torchcam.metrics")
    x = batch_for(batch=1)
    layer = next(name for name, module in NET.named_modules() if isinstance(module, nn.Conv2d))
    with methods.GradCAM(NET, layer) as extractor:
        metric = peer.DeletionInsertionMetric(extractor, lambda z: z.softmax(1), steps=16)
        metric.update(x, 1)
        scores = NET(x).softmax(1)  # It explains the probability, not the logit.
        maps = peer._resize_cam(extractor.fuse_cams(extractor(1, scores)), x.shape[2:])
    # Its zeros go in raster order there; here too, once every pixel has the value of its place.
    order = maps.detach().flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    ours = mg.measures.combined(NET, x, -order.reshape(maps.shape).float(), 1, steps=16)
    assert float(ours.deletion.auc) == pytest.approx(metric.summary()["deletion_auc"], abs=5e-6)
    assert float(ours.insertion.auc) == pytest.approx(metric.summary()["insertion_auc"], abs=5e-6)


def test_torchcam_favours_the_top_of_the_picture() -> None:
    """A constant map says nothing of where the class is; there it is good for what is above, bad for what is below."""
    peer = needed("torchcam.metrics")
    model, x, flat = HalfBrightness(), torch.full((1, 3, 24, 32), 5.0), torch.ones(1, 24, 32)
    theirs, ours = [], []
    for target in (0, 1):
        metric = peer.DeletionInsertionMetric(Given(model, flat), lambda z: z.softmax(1), steps=24)
        metric.update(x, target)
        theirs.append(metric.summary()["deletion_auc"])
        ours.append(float(mg.measures.deletion(model, x, flat, target, steps=24).auc))
    assert theirs[1] - theirs[0] > 0.5
    assert ours[0] == pytest.approx(ours[1], abs=1e-6) == 0.5


def quantus_metric(family: str, name: str, **options: Any) -> Any:
    """A metric of Quantus that changes nothing of the maps."""
    needed("quantus")
    module = importlib.import_module(f"quantus.metrics.{family}")
    return getattr(module, name)(**{"normalise": False, "abs": False, "disable_warnings": True} | options)


def quantus_scores(metric: Any, x: Tensor, maps: Tensor, masks: Tensor | None = None, **options: Any) -> np.ndarray:
    given = {} if masks is None else {"s_batch": masks[:, None].numpy()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric(
            model=NET,
            x_batch=x.numpy(),
            y_batch=np.array((TARGETS * len(x))[: len(x)]),
            a_batch=maps[:, None].numpy(),
            device="cpu",
            **given,
            **options,
        )
    return np.array(found, dtype=np.float64)


@pytest.mark.parametrize("steps", [12, 48])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_quantus_pixel_flipping(steps, baseline) -> None:
    """A pixel is three values there; it does not look at the picture as it is, nor has it an area from 0 to 1."""
    x = batch_for(batch=3)
    maps = distinct(x)
    metric = quantus_metric(
        "faithfulness", "PixelFlipping", features_in_step=3 * PIXELS // steps, perturb_baseline=baseline
    )
    theirs = quantus_scores(metric, x, maps)
    ours = mg.measures.deletion(NET, x, maps, TARGETS, steps=steps, baseline=baseline)
    np.testing.assert_allclose(ours.curve[:, 1:], theirs, **CLOSE)


def test_quantus_black_is_the_least_value_of_the_picture() -> None:
    """So it is another colour for every picture, and after normalisation never black."""
    x = batch_for(batch=3)
    maps = distinct(x)
    metric = quantus_metric(
        "faithfulness", "PixelFlipping", features_in_step=3 * PIXELS // 12, perturb_baseline="black"
    )
    theirs = quantus_scores(metric, x, maps)
    least = x.amin((1, 2, 3), keepdim=True)
    assert len(least.unique()) == 3
    like_it = mg.measures.deletion(NET, x, maps, TARGETS, steps=12, baseline=least)
    np.testing.assert_allclose(like_it.curve[:, 1:], theirs, **CLOSE)
    black = (0.0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    ours = mg.measures.deletion(NET, x, maps, TARGETS, steps=12, baseline=black[:, None, None])
    assert np.abs(ours.curve[:, 1:].numpy() - theirs).max() > 0.01


def test_torchcams_average_drop_and_increase() -> None:
    peer = needed("torchcam.metrics")
    x = batch_for(batch=6)
    maps = distinct(x)
    targets = TARGETS * 2
    metric = peer.ClassificationMetric(Given(NET, maps), lambda z: z.softmax(1))
    metric.update(x, targets)
    ours = average_drop(NET, x, maps, targets)
    assert float(ours.drop.mean()) == pytest.approx(metric.summary()["avg_drop"], abs=1e-5)
    assert float(ours.increase.float().mean()) == pytest.approx(metric.summary()["conf_increase"])
    assert 0 < metric.summary()["conf_increase"] < 1


def test_torchcams_average_drop_of_logits() -> None:
    """Unless told to take probabilities it divides by logits, and the drop of a negative one is negative."""
    peer = needed("torchcam.metrics")
    model, x = HalfBrightness(), -torch.ones(1, 3, 24, 32)
    maps = torch.full((1, 24, 32), 2.0)
    maps[:, 12:] = 0.0
    metric = peer.ClassificationMetric(Given(model, maps))
    metric.update(x, 0)
    assert metric.summary()["avg_drop"] < -0.5
    assert 0 <= float(average_drop(model, x, maps, 0).drop) <= 1


def test_gradcams_drop_is_not_a_share() -> None:
    """Chattopadhay et al. divide by the probability before; its increase is the same."""
    peer = needed("pytorch_grad_cam.metrics.cam_mult_image")
    targets_of = needed("pytorch_grad_cam.utils.model_targets")
    x = batch_for(batch=3)
    maps = distinct(x)
    targets = [targets_of.ClassifierOutputSoftmaxTarget(category) for category in TARGETS]
    ours = average_drop(NET, x, maps, TARGETS)
    drop = peer.DropInConfidence()(x, maps.numpy(), targets, NET)
    np.testing.assert_allclose(ours.drop * ours.before, drop, **CLOSE)
    assert np.abs(ours.drop.numpy() - drop).max() > 0.01
    increase = peer.IncreaseInConfidence()(x, maps.numpy(), targets, NET)
    np.testing.assert_array_equal(ours.increase, increase.astype(bool))


def test_gradcam_removes_more_than_it_was_asked_to() -> None:
    """Of a map with few values (superpixels) all pixels at its quantile go, of a constant one all there are."""
    peer = needed("pytorch_grad_cam.metrics.perturbation_confidence")
    model, x = HalfBrightness(), torch.full((1, 3, 24, 32), 5.0)
    halves = torch.zeros(1, 24, 32)
    halves[:, :12] = 1.0
    kept = {}
    for name, maps in (("halves", halves[0]), ("constant", torch.ones(24, 32))):
        kept[name] = float(peer.RemoveMostRelevantFirst(80, lambda _, mask: mask)(x[0], maps).mean())
    assert kept == {"halves": 0.5, "constant": 0.0}  # And 0.8 was asked for.
    # Ours takes the share of the group that is asked for.
    one, five = (mg.measures.aopc(model, x, halves, 0, steps=1, share=share) for share in (0.1, 0.5))
    first, whole = one.curve[0, 1] - one.curve[0, 0], five.curve[0, 1] - five.curve[0, 0]
    assert float(first) == pytest.approx(0.2 * float(whole), rel=1e-2)


def box_mask(top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 24, 32, dtype=torch.bool)
    mask[:, top : top + height, left : left + width] = True
    return mask


@settings(max_examples=200)
@given(
    st.tuples(st.integers(0, 20), st.integers(0, 28), st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 23), st.integers(0, 31)),
    st.integers(1, 20),
)
def test_torchrays_pointing_game(box, point, tolerance) -> None:
    peer = needed("torchray.benchmark.pointing_game")
    mask, heatmap = box_mask(*box), torch.zeros(1, 24, 32)
    heatmap[0, point[0], point[1]] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its meshgrid does not say which index comes first.
        theirs = peer.PointingGame(1, tolerance).evaluate(mask[0], (point[1], point[0]))
    # There the distance must be below the tolerance, not at most that.
    assert bool(mg.measures.pointing_game(heatmap, mask, tolerance - 1e-6)) == (theirs == 1)


def test_torchray_without_tolerance_never_hits() -> None:
    peer = needed("torchray.benchmark.pointing_game")
    mask, heatmap = box_mask(4, 4, 8, 8), torch.zeros(1, 24, 32)
    heatmap[0, 6, 6] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert peer.PointingGame(1, 0).evaluate(mask[0], (6, 6)) == -1
    assert mg.measures.pointing_game(heatmap, mask, 0)


def masks_for(x: Tensor) -> Tensor:
    return torch.cat([box_mask(2 + index, 3 * index + 1, 7, 9 + index) for index in range(len(x))])


def test_quantus_pointing_game() -> None:
    x = batch_for(batch=12)
    maps, masks = distinct(x), torch.cat([box_mask(0, 0, 12, 32)] * 12)
    theirs = quantus_scores(quantus_metric("localisation", "PointingGame"), x, maps, masks)
    ours = mg.measures.pointing_game(maps, masks, 0)
    np.testing.assert_array_equal(ours, theirs.astype(bool))
    assert 0 < ours.sum() < 12


def test_quantus_lets_one_lucky_pixel_and_even_nothing_hit() -> None:
    """A map of one value (but for a pixel) hits every object, and any map an object that is not there."""
    x, flat = batch_for(batch=1), torch.ones(1, 24, 32)
    flat[:, 12, 16] = 0.5
    corner = box_mask(0, 0, 1, 1)
    metric = quantus_metric("localisation", "PointingGame")
    assert quantus_scores(metric, x, flat, corner)[0] == 1
    assert not mg.measures.pointing_game(flat, corner, 0)
    nothing = torch.zeros(1, 24, 32, dtype=torch.bool)
    assert np.all(metric.evaluate_batch(a_batch=distinct(x).numpy(), s_batch=nothing.numpy()))
    with pytest.raises(ValueError, match=r"^mask: expected an object in every image"):
        mg.measures.pointing_game(distinct(x), nothing)


def test_quantus_relevance_mass_is_the_energy() -> None:
    x = batch_for(batch=4)
    maps, masks = distinct(x) ** 3, masks_for(x)
    ours = mg.measures.energy_pointing_game(maps, masks)
    theirs = quantus_scores(quantus_metric("localisation", "RelevanceMassAccuracy"), x, maps, masks)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    signed = maps - 0.1
    positive = quantus_metric("localisation", "AttributionLocalisation", positive_attributions=True)
    np.testing.assert_allclose(
        mg.measures.energy_pointing_game(signed, masks), quantus_scores(positive, x, signed, masks), rtol=1e-5
    )


def test_quantus_relevance_mass_of_signed_maps_is_no_share() -> None:
    """Negative values count against the total, so that what is on the object can be many times all there is."""
    x, mask = batch_for(batch=1), box_mask(4, 4, 8, 8)
    signed = torch.full((1, 24, 32), -0.1)
    signed[mask] = 1.2
    theirs = quantus_scores(quantus_metric("localisation", "RelevanceMassAccuracy"), x, signed, mask)
    assert theirs[0] > 5
    assert float(mg.measures.energy_pointing_game(signed, mask)) == 1.0


def test_quantus_weighted_localisation_depends_on_the_batch() -> None:
    """It divides by the number of values in the batch's samples from the third on."""
    x = batch_for(batch=4)
    maps, masks = distinct(x), masks_for(x)
    metric = quantus_metric("localisation", "AttributionLocalisation", weighted=True, positive_attributions=True)
    four, three = (quantus_scores(metric, x[:n], maps[:n], masks[:n]) for n in (4, 3))
    assert four[0] == pytest.approx(three[0] / 2)
    ours = [mg.measures.energy_pointing_game(maps[:n], masks[:n])[0] for n in (4, 3)]
    assert ours[0] == ours[1]


def test_quantus_ranks_are_the_bbox_score_and_the_overlap() -> None:
    x = batch_for(batch=4)
    maps, masks = distinct(x), masks_for(x)
    ranks = quantus_scores(quantus_metric("localisation", "RelevanceRankAccuracy"), x, maps, masks)
    np.testing.assert_allclose(mg.measures.bbox_score(maps, masks), ranks, rtol=1e-6)
    k = round(0.2 * PIXELS)
    inside = k * quantus_scores(quantus_metric("localisation", "TopKIntersection", k=k), x, maps, masks)
    union = k + masks.flatten(1).sum(1).numpy() - inside
    np.testing.assert_allclose(mg.measures.mask_iou(maps, masks, 0.2), inside / union, rtol=1e-6)
