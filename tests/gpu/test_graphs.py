"""CUDA graphs: raw captures of the operations, and compiled explainers. Replays see other pictures, never old ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import midgrain as mg
from gpu_for_tests import (
    as_tuple,
    assert_equal_explanations,
    assert_same,
    channels_first,
    clips,
    pictures,
    put,
    record,
    slopes,
)
from models_for_tests import batch_for, one_thread, tiny_net

__all__ = ["one_thread"]  # a fixture for the whole file

REPLAYS = 5
#: One pass forward and back, or forward alone, so that a graph has a fixed shape.
COMPILED = ["swag-i", "swag-ig", "swag-g", "gws", "guided", "vanilla", "gradcam", "input-x-gradient"]


def replayed(call, inputs: list[list[np.ndarray]], device: torch.device) -> None:
    """Captures `call` on the first inputs; every replay on others gives what they give without a graph."""
    static = [put(array, device) for array in inputs[0]]
    with mg.ops.deferred_checks() as checks:
        captured, replay = record(lambda: call(*static), device)
    for arrays in inputs * 2:
        for target, array in zip(static, arrays, strict=True):
            target.copy_(torch.from_numpy(np.array(array)))
        replay()
        checks.raise_if_bad()
        wanted = as_tuple(call(*(torch.from_numpy(np.array(array)) for array in arrays)))
        for result, expected in zip(as_tuple(captured), wanted, strict=True):
            assert_same(result, expected.numpy(), device)


def test_pictures_and_gradients(device):
    inputs = [[images, slopes(images)] for images in np.split(pictures(2 * REPLAYS, 120, 104), REPLAYS)]
    replayed(lambda x, g: mg.ops.slic_pictures(x, 90, gradient=g, channel_axis=-1), inputs, device)


def test_clips(device):
    inputs = [[each] for each in np.split(clips(3, 8, 56, 60), 3)]
    replayed(lambda x: mg.ops.slic_pictures(x, 50, channel_axis=-1), inputs, device)


def test_one_picture_after_the_other_with_much_and_little_to_do(device):
    """How many rounds and pieces there are is known to the device alone: noise, a photograph, one colour."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 90, 100, 3)).astype(np.uint8)
    inputs = [[pictures(1, 90, 100)], [noise], [np.full((1, 90, 100, 3), 40, np.uint8)], [noise[:, ::-1]]]
    replayed(lambda x: mg.ops.slic_pictures(x, 300, channel_axis=-1), inputs, device)


def test_a_chain_of_operations(device):
    parts = np.split(pictures(2 * REPLAYS, 80, 96), REPLAYS)
    inputs = [[channels_first(images), slopes(images)] for images in parts]

    def chain(x, maps):
        labels, counts = mg.ops.slic(mg.ops.rgb_to_lab(x), [10.0] * 3, 60, ranges=mg.ops.LAB_RANGES)
        scores = mg.pool(maps, labels, n=100, spatial_dims=2)
        every = [mg.pool(maps, labels, r, n=100, spatial_dims=2) for r in ("max", "median", "std")]
        patches = mg.ops.extract_patches(maps[:, None], (4, 6), (2, 3))
        means = mg.ops.aggregate_patches(patches[:, :, 0, ::20, ::16], (2, 3), size=(80, 96))
        return labels, counts, scores, mg.paint(scores, labels, spatial_dims=2), *every, patches, means

    replayed(chain, inputs, device)


def test_bad_values_are_seen_after_a_replay(device):
    good = channels_first(pictures(1, 40, 50)).astype(np.float32)
    bad = good.copy()
    bad[0, 1, 20, 20] = np.nan
    if device.type == "cpu":
        with mg.ops.deferred_checks(), pytest.raises(ValueError, match="NaN"):
            mg.ops.slic(put(bad, device), [9.0] * 3, 20)
        return
    static = put(good, device)
    with mg.ops.deferred_checks() as checks:
        captured, replay = record(lambda: mg.ops.slic(static, [9.0] * 3, 20), device)
    static.copy_(put(bad, device))
    replay()
    with pytest.raises(ValueError, match="NaN"):
        checks.raise_if_bad()
    static.copy_(put(good, device))
    replay()
    checks.raise_if_bad()
    assert_same(captured[0], mg.ops.slic(good, [9.0] * 3, 20)[0], device)


@pytest.mark.filterwarnings("ignore:.*not recorded as a CUDA graph:RuntimeWarning")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_explainers(device, name, dims):
    model = tiny_net(dims).to(device)
    before = copy.deepcopy(model.state_dict())
    explainer = mg.explainer(name, model, **({"n_segments": 12} if "swag" in name or name == "gws" else {}))
    batches = [batch_for(dims, 3, seed=seed).to(device) for seed in range(REPLAYS)]
    compiled = explainer.compile(batches[0])
    assert compiled.captured == (compiled.reason is None)
    if device.type == "cpu":
        assert not compiled.captured
        assert "CPU" in compiled.reason or "CUDA" in compiled.reason
    for x in batches + batches[:2]:
        assert_equal_explanations(compiled(x), explainer(x))
        assert_equal_explanations(compiled(x, target=2), explainer(x, target=2))
        targets = torch.arange(3, device=device)
        assert_equal_explanations(compiled(x, target=targets), explainer(x, target=targets))
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_results_of_a_compiled_explainer_are_kept(device):
    """The next call does not overwrite what the one before returned."""
    explainer = mg.explainer("swag-ig", tiny_net().to(device), n_segments=12)
    one, two = (batch_for(seed=seed).to(device) for seed in (1, 2))
    compiled = explainer.compile(one)
    first = compiled(one)
    kept = copy.deepcopy(first)
    compiled(two)
    assert_equal_explanations(first, kept)


def test_compiled_swag_is_captured(device):
    """SWAG of a plain network of ReLUs is what graphs are made for: on a GPU there is no excuse."""
    explainer = mg.explainer("swag-ig", tiny_net().to(device), n_segments=12)
    compiled = explainer.compile(batch_for().to(device))
    assert compiled.captured == (device.type == "cuda"), compiled.reason


def test_inputs_of_another_shape_are_refused(device):
    """Another shape than the example's is no input of a graph."""
    explainer = mg.explainer("swag-ig", tiny_net().to(device), n_segments=12)
    compiled = explainer.compile(batch_for(batch=2).to(device))
    with pytest.raises(ValueError, match="expected"):
        compiled(batch_for(batch=3).to(device))
