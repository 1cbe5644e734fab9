"""Boxes around thresholded maps, top pixels on the object, agreement of explanations: oracles and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import midgrain as mg
from midgrain.measures.boxes import THRESHOLDINGS
from models_for_tests import seeded
from oracles.measures import box_iou, kept_pixels, threshold_box, top_pixels

BOX = torch.tensor([[2, 1, 7, 5]])


def blob_map(shape, seed=0, levels=None):
    maps = seeded(lambda: torch.rand(shape, dtype=torch.float64), seed)
    return maps if levels is None else (maps * levels).floor()


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("thresholding", THRESHOLDINGS)
def test_weak_localisation_of_images(thresholding, levels) -> None:
    maps = blob_map((4, 8, 11), levels=levels).square() - 0.3
    truths = torch.tensor([[0, 0, 11, 8], [1, 2, 5, 6], [3.5, 0.5, 10, 7.5], [10, 7, 11, 8]])
    result = mg.measures.weak_localisation(maps, truths, thresholding)
    assert result.thresholds == THRESHOLDINGS[thresholding]
    for index, own in enumerate(maps.numpy()):
        scaled = (own - own.min()) / (own.max() - own.min())
        for place, threshold in enumerate(result.thresholds):
            box = threshold_box(scaled, kept_pixels(scaled, thresholding, threshold))
            assert tuple(result.boxes[index, place].tolist()) == box, (index, threshold)
            expected = box_iou(box, tuple(truths[index].tolist()))
            assert float(result.iou[index, place]) == pytest.approx(expected, abs=1e-6)


def test_the_thresholds_of_the_thesis() -> None:
    np.testing.assert_allclose(THRESHOLDINGS["value"], np.arange(0, 0.951, 0.05))
    np.testing.assert_allclose(THRESHOLDINGS["mean"], np.arange(0, 10.1, 0.5))
    np.testing.assert_allclose(THRESHOLDINGS["energy"], np.arange(0, 0.951, 0.05))


def test_weak_localisation_of_clips_is_the_mean_over_frames() -> None:
    maps = blob_map((2, 3, 8, 11))
    truths = torch.tensor([[[0, 0, 6, 4], [1, 1, 7, 5], [2, 2, 8, 6]]]).expand(2, -1, -1)
    result = mg.measures.weak_localisation(maps, truths, "mean")
    assert result.boxes.shape == (2, 3, 21, 4)
    for index, clip in enumerate(maps.numpy()):
        scaled = (clip - clip.min()) / (clip.max() - clip.min())
        for place, threshold in enumerate(result.thresholds):
            kept = kept_pixels(scaled, "mean", threshold)
            ious = [box_iou(threshold_box(scaled[t], kept[t]), tuple(truths[index, t].tolist())) for t in range(3)]
            assert float(result.iou[index, place]) == pytest.approx(np.mean(ious), abs=1e-6)


def test_of_several_objects_the_best_fitting_one_counts() -> None:
    maps = torch.zeros(1, 8, 11)
    maps[0, 1:5, 2:7] = 1.0
    both = mg.measures.weak_localisation(maps, [torch.cat([torch.tensor([[0, 6, 2, 8]]), BOX])])
    assert float(both.iou[0, 10]) == 1.0
    assert torch.equal(both.iou, mg.measures.weak_localisation(maps, BOX).iou)


def test_frames_without_the_object_do_not_count() -> None:
    maps = blob_map((1, 3, 8, 11))
    boxes = torch.tensor([[[0.0, 1, 4, 6], [2, 2, 9, 7], [1, 0, 5, 5]]])
    absent = boxes.clone()
    absent[0, 1] = torch.nan
    alone = mg.measures.weak_localisation(maps, absent).iou
    assert torch.equal(alone, mg.measures.weak_localisation(maps, [torch.cat([absent, absent])]).iou)
    # Thresholds are of the whole clip; the frames' overlaps are then averaged.
    every = []
    for frame in range(3):
        one = torch.full_like(boxes, torch.nan)
        one[0, frame] = boxes[0, frame]
        every.append(mg.measures.weak_localisation(maps, one).iou)
    assert torch.allclose(alone, (every[0] + every[2]) / 2)
    assert torch.allclose(mg.measures.weak_localisation(maps, boxes).iou, sum(every) / 3)
    partly, nowhere = boxes.clone(), torch.full_like(boxes, torch.nan)
    partly[0, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="inside an image of 11 x 8 for sample 0"):
        mg.measures.weak_localisation(maps, partly)
    with pytest.raises(ValueError, match="boxes: expected one in at least one frame for sample 0"):
        mg.measures.weak_localisation(maps, nowhere)


def test_a_constant_map_is_the_whole_picture_or_nothing() -> None:
    result = mg.measures.weak_localisation(torch.full((1, 8, 11), 4.0), BOX)
    assert result.boxes[0, 0].tolist() == [0, 0, 11, 8]
    assert not result.boxes[0, 1:].any()
    assert not result.iou[0, 1:].any()


def test_error_is_that_of_the_best_threshold() -> None:
    iou = torch.tensor([[0.5, 0.51, 0.1], [0.9, 0.51, 0.1], [0.2, 0.51, 0.6], [0.2, 0.2, 0.2]])
    assert mg.measures.localisation_error(iou) == 0.25
    assert mg.measures.localisation_error(iou, overlap=0.55) == 0.75


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6), st.data())
@settings(max_examples=60)
def test_top_pixels_share_ties(values, on_object, data) -> None:
    on_object[data.draw(st.integers(0, 5))] = True
    heatmap = torch.tensor(values, dtype=torch.float32).reshape(1, 2, 3)
    mask = torch.tensor(on_object).reshape(1, 2, 3)
    size = sum(on_object)
    inside = top_pixels(heatmap[0].numpy(), mask[0].numpy(), size)
    assert float(mg.measures.bbox_score(heatmap, mask)) == pytest.approx(inside / size)
    share = data.draw(st.sampled_from([0.1, 0.34, 0.5, 1.0]))
    wanted = max(1, round(share * 6))
    inside = top_pixels(heatmap[0].numpy(), mask[0].numpy(), wanted)
    expected = inside / (wanted + size - inside)
    assert float(mg.measures.mask_iou(heatmap, mask, share)) == pytest.approx(expected)


def test_clips_are_judged_frame_by_frame() -> None:
    maps, mask = blob_map((2, 3, 8, 11)), blob_map((2, 3, 8, 11), 1) > 0.6
    for measure in (mg.measures.mask_iou, mg.measures.bbox_score):
        whole = measure(maps, mask)
        assert whole.shape == (2, 3)
        assert torch.equal(whole, measure(maps.flatten(0, 1), mask.flatten(0, 1)).reshape(2, 3))


def test_difficult_images() -> None:
    mask = torch.zeros(4, 8, 8, dtype=torch.bool)
    mask[:2, :2, :7] = True  # 14 of 64
    mask[2:, :2, :8] = True  # a quarter
    assert mg.measures.is_difficult(mask, torch.tensor([True, False, True, False])).tolist() == [True] + [False] * 3


def test_top_k_agreement() -> None:
    nan = torch.nan
    scores = torch.tensor([[0.2, 0.9, 0.1, nan], [0.5, 0.5, 0.1, 0.0], [1.0, 2.0, 3.0, 4.0]])
    reference = torch.tensor([[0.3, 0.2, 0.1, nan], [0.9, 0.1, 0.2, 0.3], [1.0, 1.0, 1.0, 1.0]])
    found = mg.measures.top_k_agreement(scores, reference, k=(1, 2, 4, 9))
    assert found.tolist() == [[0, 1, 1, 1], [0.5, 0.5, 1, 1], [1, 1, 1, 1]]
    assert torch.equal(mg.measures.top_k_agreement(scores, reference, k=2), found[:, 1])


def test_model_contrast() -> None:
    first, second, mask = blob_map((2, 8, 11)), blob_map((2, 8, 11), 1), blob_map((2, 8, 11), 2) > 0.5
    raw = mg.measures.model_contrast(first, second, mask, normalise=False)
    scaled = mg.measures.model_contrast(first * 100 - 7, second, mask)
    for index in range(2):
        a, b, inside = first[index].numpy(), second[index].numpy(), mask[index].numpy()
        assert float(raw[index]) == pytest.approx(a[inside].mean() - b[inside].mean())
        a, b = ((each - each.min()) / (each.max() - each.min()) for each in (a, b))
        assert float(scaled[index]) == pytest.approx(a[inside].mean() - b[inside].mean())


@pytest.mark.parametrize(
    ("boxes", "error", "match"),
    [
        (torch.zeros(2, 4), ValueError, r"boxes: expected shape \[1, 4\], got \[2, 4\]"),
        (torch.tensor([[2, 1, 12, 5]]), ValueError, "inside an image of 11 x 8 for sample 0"),
        (torch.tensor([[-1, 1, 7, 5]]), ValueError, "inside an image of 11 x 8 for sample 0"),
        (torch.tensor([[2.0, torch.nan, 7, 5]]), ValueError, "inside an image of 11 x 8 for sample 0"),
        (torch.tensor([[7, 1, 2, 5]]), ValueError, "expected x0 < x1 and y0 < y1 for sample 0"),
        ([BOX, BOX], ValueError, "boxes: expected a tensor for each of 1 samples, got 2"),
        ([BOX[:0]], ValueError, r"boxes: expected shape \[n, 4\] for sample 0, got \[0, 4\]"),
        ([[2, 1, 7, 5]], TypeError, "boxes: expected a tensor or a list of tensors, got list"),
        (None, TypeError, "boxes: expected a tensor or a list of tensors, got NoneType"),
    ],
)
def test_bad_boxes(boxes, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.measures.weak_localisation(torch.zeros(1, 8, 11), boxes)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m, k: mg.measures.weak_localisation(m, BOX, "mode"), ValueError, "thresholding: expected one of value"),
        (lambda m, k: mg.measures.weak_localisation(m, BOX, 3), TypeError, "thresholding: expected one of value"),
        (lambda m, k: mg.measures.mask_iou(m, k, share=0), ValueError, "share: expected above 0 and up to 1, got 0"),
        (lambda m, k: mg.measures.bbox_score(m, k.float()), TypeError, "mask: expected dtype torch.bool"),
        (lambda m, k: mg.measures.bbox_score(m, ~k), ValueError, "mask: expected an object in every image"),
        (lambda m, k: mg.measures.localisation_error(m[0]), TypeError, "iou: expected a tensor of floats"),
        (lambda m, k: mg.measures.localisation_error(torch.rand(0, 3)), ValueError, "iou: expected shape"),
        (lambda m, k: mg.measures.is_difficult(k, [True]), TypeError, "others: expected a bool tensor, got list"),
        (lambda m, k: mg.measures.is_difficult(k, torch.tensor([True] * 2)), ValueError, "others: expected one for"),
        (lambda m, k: mg.measures.model_contrast(m, m[:, :4], k), ValueError, "scene_heatmap: expected shape"),
        (lambda m, k: mg.measures.model_contrast(m, m, ~k), ValueError, "mask: expected an object in every sample"),
        (
            lambda m, k: mg.measures.top_k_agreement(torch.rand(2, 3), torch.rand(2, 4)),
            ValueError,
            r"two tensors \[B, superpixels\] of one shape, got \[2, 3\] and \[2, 4\]",
        ),
        (
            lambda m, k: mg.measures.top_k_agreement(torch.full((1, 3), torch.nan), torch.rand(1, 3)),
            ValueError,
            "NaN at the same places",
        ),
        (
            lambda m, k: mg.measures.top_k_agreement(torch.rand(1, 3), torch.rand(1, 3), k=0),
            ValueError,
            "k: expected 1",
        ),
    ],
)
def test_bad_arguments(call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(torch.zeros(1, 8, 11, dtype=torch.int64), torch.ones(1, 8, 11, dtype=torch.bool))
