"""Jitter-CAM against the thesis's recipe in loops, with every patch run alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import midgrain as mg
from jitter_for_tests import curved_net, doubles, gap_net
from midgrain.cams import make_cam
from models_for_tests import one_thread as one_thread
from models_for_tests import relative_deviation
from oracles.jitter import grad_cam, jitter_cam


def compare(net, x, target, increase, **options) -> None:
    """Heat map and raw map are the oracle's."""
    features, head = net
    e = mg.explainer("jittercam", net, **options)(x, target)
    wanted = jitter_cam(lambda patch, classes: grad_cam(features, head, patch, classes), x, e.target, increase)
    assert e.cam.shape == wanted.shape
    assert relative_deviation(e.cam, wanted) < 1e-6
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    heatmap = F.interpolate(wanted[:, None], x.shape[2:], mode=mode, align_corners=False)[:, 0]
    assert e.heatmap.dtype == torch.float32
    assert relative_deviation(e.heatmap, heatmap) < 1e-6


# Every patch alone.


@pytest.mark.parametrize("target", [None, 3, [1, 4]], ids=["predicted", "one", "each"])
@pytest.mark.parametrize("affine", [True, False])
def test_twice_the_cells_of_an_image(affine, target) -> None:
    compare(gap_net() if affine else curved_net(), doubles(), target, (6, 8), shared_trunk=False)


@pytest.mark.parametrize(
    ("options", "increase"),
    [
        ({"scale": 1.0}, (0, 0)),
        ({"scale": 1.5}, (3, 4)),
        ({"scale": 3}, (12, 16)),
        ({"map_size": 9}, (3, 1)),
        ({"map_size": (6, 11)}, (0, 3)),
        ({"scales": [1.5]}, (3, 4)),
    ],
    ids=str,
)
def test_other_sizes(options, increase) -> None:
    net = gap_net()
    compare(net, doubles(), None, increase, shared_trunk=False, **options)


@pytest.mark.parametrize(
    ("options", "increase"),
    [
        ({}, (0, 3, 4)),
        ({"temporal_scale": 2.0}, (1, 3, 4)),
        ({"scale": 1.0, "temporal_scale": 3}, (2, 0, 0)),
        ({"map_size": 5}, (0, 2, 1)),
        ({"map_size": (2, 3, 4)}, (1, 0, 0)),
    ],
    ids=str,
)
def test_clips(options, increase) -> None:
    net = gap_net(3)
    compare(net, doubles(3), [0, 2], increase, shared_trunk=False, **options)


def test_sizes_that_are_no_multiple_of_the_cells() -> None:
    net = gap_net()
    compare(net, doubles(size=(29, 19)), None, (8, 5), shared_trunk=False)


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_several_scales_are_enlarged_to_the_finest_and_averaged(shared_trunk) -> None:
    net, x = gap_net(), doubles()
    single = [
        mg.explainer("jittercam", net, scale=scale, shared_trunk=shared_trunk)(x).cam for scale in (1.0, 1.5, 2.0)
    ]
    resized = [F.interpolate(cam[:, None], (12, 16), mode="bilinear", align_corners=False)[:, 0] for cam in single]
    e = mg.explainer("jittercam", net, scales=(1, 1.5, 2), shared_trunk=shared_trunk)(x)
    torch.testing.assert_close(e.cam, torch.stack(resized).mean(0))


@pytest.mark.parametrize("inner", ["gradcam++", "xgradcam", "act-gradcam", "layercam", "hirescam", "eigencam"])
def test_any_inner_map_of_the_layer(inner) -> None:
    net, x = gap_net(), doubles()

    def alone(patch, classes):
        return mg.explainer(inner, net)(patch, classes).cam

    e = mg.explainer("jittercam", net, inner=inner, shared_trunk=False)(x, [1, 4])
    wanted = jitter_cam(lambda patch, classes: alone(patch, classes).double(), x, e.target, (6, 8))
    assert relative_deviation(e.cam, wanted) < 1e-5


def test_an_inner_map_that_reads_a_linear_layer() -> None:
    net, x = gap_net(), doubles()
    tubes = mg.explainer("jittercam", net, inner="saliency-tubes")(x)
    # One weight per channel, as Grad-CAM's but for the number of cells, which the mean divides by.
    signed = mg.explainer("jittercam", net, inner="gradcam", relu=False, shared_trunk=False)(x)
    assert relative_deviation(tubes.cam, signed.cam * 48) < 1e-5


def test_options_of_the_inner_map() -> None:
    net, x = gap_net(), doubles()
    by_name = mg.explainer("jittercam", net, inner="gradcam", relu=False, layer="0.3", shared_trunk=False)(x)
    inner = make_cam("gradcam", relu=False, layer=net[0][3])
    by_object = mg.explainer("jittercam", net, inner=inner, shared_trunk=False)(x)
    assert torch.equal(by_name.cam, by_object.cam)
    assert bool((by_name.cam < 0).any())


def test_a_callable_target_always_sees_the_whole_batch() -> None:
    net, x = gap_net(), doubles(batch=3)
    rows = []

    def mixed(outputs):
        rows.append(len(outputs))
        return outputs[torch.arange(3), torch.tensor([4, 0, 2])]

    for shared in (False, True):
        e = mg.explainer("jittercam", net, shared_trunk=shared)(x, mixed)
        wanted = mg.explainer("jittercam", net, shared_trunk=shared)(x, [4, 0, 2])
        assert relative_deviation(e.cam, wanted.cam) < 1e-6
    assert set(rows) == {3}


@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("affine", [True, False])
def test_batches_of_patches_change_nothing(affine, shared_trunk) -> None:
    net, x, options = gap_net() if affine else curved_net(), doubles(batch=3), {"shared_trunk": shared_trunk}
    one = mg.explainer("jittercam", net, batch_size=1, **options)(x)
    assert torch.equal(one.cam, mg.explainer("jittercam", net, batch_size=1, **options)(x).cam)
    for batch_size in (None, 2, 7, 1000):
        other = mg.explainer("jittercam", net, batch_size=batch_size, **options)(x)
        assert relative_deviation(other.cam, one.cam) < 1e-6
    for i in range(3):
        alone = mg.explainer("jittercam", net, **options)(x[i : i + 1])
        assert relative_deviation(alone.cam, one.cam[i : i + 1]) < 1e-6


# What users meet.


def test_progress_goes_to_the_standard_error(capsys) -> None:
    mg.explainer("jittercam", gap_net(), progress=True)(doubles())
    captured = capsys.readouterr()
    assert captured.out == ""
    mg.explainer("jittercam", gap_net())(doubles())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_the_model_is_left_as_it_was_when_a_patch_fails(shared_trunk) -> None:
    class Failing(nn.Module):
        """Raises at its fourth call."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.left = gap_net().train(), 10**9

        def forward(self, x):
            self.left -= 1
            if self.left < 0:
                raise KeyError("no more")
            return self.net(x)

    model, x = Failing(), doubles()
    explainer = mg.explainer("jittercam", model, shared_trunk=shared_trunk)
    explainer(x)
    model.left = 4
    with pytest.raises(KeyError, match="no more"):
        explainer(x)
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in module.__dict__
    assert all(parameter.grad is None for parameter in model.parameters())
    model.left = 10**9
    explainer(x)


def test_a_jittered_map_weighs_superpixels() -> None:
    net, x = gap_net(), doubles()
    e = mg.SWAG(net, "image", scorer="jittercam", n_segments=20)(x)
    heatmap = mg.explainer("jittercam", net)(x).heatmap
    for i in range(2):
        means = mg.pool(heatmap[i], e.segments[i])
        torch.testing.assert_close(e.scores[i][: e.counts[i]], means)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"scale": 0.5}, ValueError, "scale: expected 1 or more, got 0.5"),
        ({"scale": "2"}, TypeError, "scale: expected"),
        ({"scale": float("nan")}, ValueError, "scale: expected"),
        ({"scales": []}, ValueError, "scales: expected at least one"),
        ({"scales": 2}, TypeError, "scales: expected a sequence"),
        ({"scales": [1, 0.9]}, ValueError, "scales: expected 1 or more, got 0.9"),
        ({"scales": [1, 2], "scale": 3}, ValueError, "scales: expected without scale"),
        ({"scales": [1], "map_size": 12}, ValueError, "map_size: expected without"),
        ({"temporal_scale": 0}, ValueError, "temporal_scale: expected"),
        ({"shared_trunk": 1}, TypeError, "shared_trunk: expected True, False or None, got int"),
        ({"split": "0.1", "shared_trunk": False}, ValueError, "split: it goes with shared_trunk=True"),
        ({"window_step": 0}, ValueError, "window_step: expected 1 or more, got 0"),
        ({"window_step": 2, "inner": "layercam"}, ValueError, "window_step: expected 1 without a shared trunk"),
        ({"window_step": 2, "shared_trunk": False}, ValueError, "window_step: expected 1 without a shared trunk"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"inner": "nonsense"}, ValueError, "name: expected one of gradcam"),
        ({"inner": 3}, TypeError, "inner: expected a method's name or a CAM, got int"),
        ({"inner": make_cam("gradcam"), "relu": False}, TypeError, "inner: a CAM has its own options, got relu too"),
        ({"inner": "saliency-tubes", "shared_trunk": True}, ValueError, "shared_trunk: SaliencyTubes .*=False"),
        ({"inner": "scorecam", "split": "0.1"}, ValueError, "shared_trunk: ScoreCAM .*=False"),
        ({"inner": "guided-gradcam"}, ValueError, "inner: expected a map at its layer's resolution, got GuidedGradCAM"),
        ({"inner": "jittercam"}, ValueError, "inner: expected a map at its layer's resolution, got JitterCAM"),
        ({"layer": ["0.1", "0.3"]}, ValueError, "layer: expected one layer for 'jittercam'"),
        ({"nonsense": 3}, TypeError, "'gradcam' has no option nonsense"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("jittercam", gap_net(), **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"map_size": 5}, ValueError, r"map_size: expected at least the inner map's \[6, 8\], got \[5, 5\]"),
        ({"map_size": (12, 16, 2)}, ValueError, "map_size"),
        ({"map_size": "12"}, TypeError, "map_size"),
        ({"split": "0.9"}, ValueError, "split: layer: the model has no module '0.9'"),
        ({"split": "1"}, ValueError, "split: layer: the output of 1 is not spatial"),
        ({"split": 7}, TypeError, "split: layer: expected a module or its dotted name, got int"),
        ({"split": "0.5", "layer": "0.1"}, ValueError, "0.1 lies before 0.5"),
        ({"layer": "1"}, ValueError, "layer: the output of 1 is not spatial"),
        (
            {"scale": 1e6},
            ValueError,
            r"scale: expected an enlarged input of fewer than 2\^31 pixels, got \[24000000, 32000000\]",
        ),
    ],
    ids=str,
)
def test_bad_options_for_this_network(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("jittercam", gap_net(), **options)(doubles())
