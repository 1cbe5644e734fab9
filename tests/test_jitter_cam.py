"""Jitter-CAM against the thesis's recipe in loops, with every patch run alone and with a shared trunk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from midgrain.cams import make_cam
from midgrain.cams.patch_maps import PatchGrid
from midgrain.cams.window_steps import interpolated_maps, offsets_at, windows_at
from models_for_tests import CONV, batch_for, relative_deviation, seeded
from models_for_tests import one_thread as one_thread
from oracles.jitter import grad_cam, jitter_cam


def gap_net(dims: int = 2, *, padding: int = 1, classes: int = 5) -> nn.Module:
    """A trunk of stride 2, a last stage of stride 2, average pooling and a linear layer, in float64.

    Without padding in the trunk (kernels as large as the stride), windows of its map are maps of windows.
    """

    def build() -> nn.Module:
        kernel = 3 if padding else 2
        features = nn.Sequential(
            CONV[dims](3, 6, kernel, stride=2, padding=padding),
            nn.ReLU(),
            CONV[dims](6, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            CONV[dims](8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        pool = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool3d(1)
        return nn.Sequential(features, nn.Sequential(pool, nn.Flatten(), nn.Linear(8, classes))).double().eval()

    return seeded(build)


class Curved(nn.Module):
    """A head that is no affine function of the last map; no module of it returns a map."""

    def __init__(self, rest: nn.Module):
        super().__init__()
        self.rest = rest

    def forward(self, maps):
        return self.rest(F.gelu(maps))


def curved_net(*, padding: int = 1) -> nn.Module:
    """`gap_net` with such a head."""
    features, head = gap_net(padding=padding)
    return nn.Sequential(features, Curved(head)).eval()


def doubles(dims: int = 2, batch: int = 2, size: tuple[int, ...] | None = None) -> torch.Tensor:
    return batch_for(dims, batch, size=size, dtype=torch.float64)


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


# A shared trunk.


@pytest.mark.parametrize("dims", [2, 3])
def test_a_trunk_that_pads_nothing_is_shared_without_loss(dims) -> None:
    net, x = gap_net(dims, padding=0), doubles(dims, batch=2)
    options = {"temporal_scale": 2.0} if dims == 3 else {}
    exact = mg.explainer("jittercam", net, shared_trunk=False, **options)(x, [1, 4])
    shared = mg.explainer("jittercam", net, shared_trunk=True, **options)(x, [1, 4])
    assert relative_deviation(shared.cam, exact.cam) < 1e-6
    assert torch.equal(shared.outputs, exact.outputs)


def test_a_head_that_is_not_affine_is_differentiated_for_every_window() -> None:
    net, x = curved_net(padding=0), doubles()
    exact = mg.explainer("jittercam", net, shared_trunk=False)(x)
    shared = mg.explainer("jittercam", net, shared_trunk=True)(x)
    assert relative_deviation(shared.cam, exact.cam) < 1e-6


def test_padding_of_the_trunk_is_what_differs() -> None:
    net, x = gap_net(padding=1), doubles()
    exact = mg.explainer("jittercam", net, shared_trunk=False)(x)
    shared = mg.explainer("jittercam", net, shared_trunk=True)(x)
    assert 1e-4 < relative_deviation(shared.cam, exact.cam) < 0.5


class CountedConv(nn.Conv2d):
    """Counts the cells that it computes."""

    cells = 0

    def forward(self, x):
        out = super().forward(x)
        self.cells += out.shape[0] * out.shape[2] * out.shape[3]
        return out


def test_the_trunk_runs_once_and_the_rest_for_every_window() -> None:
    net = gap_net()
    net[0][0] = CountedConv(3, 6, 3, stride=2, padding=1).double()
    net[0][2] = CountedConv(6, 8, 3, stride=2, padding=1).double()
    explainer, x = mg.explainer("jittercam", net, shared_trunk=True), doubles(batch=1)
    explainer(x)
    net[0][0].cells = net[0][2].cells = 0
    explainer(x)
    assert net[0][0].cells == 12 * 16 + 24 * 32  # the input and the enlarged input
    assert net[0][2].cells == 6 * 8 * (1 + 7 * 9)  # the input and the windows


def test_an_explainer_follows_its_model_to_another_precision() -> None:
    net, x = gap_net(), doubles()
    explainer = mg.explainer("jittercam", net, shared_trunk=True)
    before = explainer(x).cam
    net.float()
    assert relative_deviation(explainer(x.float()).cam, before) < 1e-5


def test_threads_that_share_a_network_and_its_trunk() -> None:
    net = gap_net()
    explainer, inputs = mg.explainer("jittercam", net, shared_trunk=True), [doubles(batch=1) + i / 10 for i in range(6)]
    alone = [explainer(x).cam for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        for made in (explainer, *(mg.explainer("jittercam", net, shared_trunk=True) for _ in range(2))):
            together = list(pool.map(lambda x, made=made: made(x).cam, inputs * 3))
            assert all(relative_deviation(map_, alone[i % 6]) < 1e-6 for i, map_ in enumerate(together))
    assert all("forward" not in module.__dict__ and not module._forward_hooks for module in net.modules())


def test_several_scales_keep_their_trunks() -> None:
    explainer, x = mg.explainer("jittercam", gap_net(), scales=(1.5, 2.0), shared_trunk=True), doubles()
    explainer(x)
    trunks = list(explainer.scorer._trunks.values())
    explainer(x)
    assert [id(trunk) for trunk in explainer.scorer._trunks.values()] == [id(trunk) for trunk in trunks]
    assert len(trunks) == 2


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5", "regnet_x_400mf"])
def test_the_split_is_found(name) -> None:
    expected = {
        "resnet18": ("layer3", (4, 4)),
        "mobilenet_v2": ("features.14.conv.0", (4, 4)),
        "densenet121": ("features.transition3.conv", (4, 4)),
        "shufflenet_v2_x0_5": ("stage3", (4, 4)),
        "regnet_x_400mf": ("trunk_output.block3", (4, 4)),
    }
    net = seeded(lambda: getattr(torchvision.models, name)(weights=None)).eval()
    explainer = mg.explainer("jittercam", net, shared_trunk=True, scale=1.5)
    e = explainer(batch_for(batch=1, size=(64, 64)))
    (trunk,) = explainer.scorer._trunks.values()
    assert (trunk.site.name, trunk.cells) == expected[name]
    assert e.cam.shape == (1, 3, 3)


def test_a_given_split() -> None:
    net, x = gap_net(), doubles()
    found = mg.explainer("jittercam", net, shared_trunk=True)(x)
    for split in ("0.1", net[0][1]):
        assert torch.equal(mg.explainer("jittercam", net, split=split)(x).cam, found.cam)
    later = mg.explainer("jittercam", net, split="0.3")(x)
    assert relative_deviation(later.cam, found.cam) > 1e-4


class Fixed(nn.Module):
    """Takes one input size only."""

    def __init__(self) -> None:
        super().__init__()
        self.net = gap_net()

    def forward(self, x):
        if x.shape[2:] != (24, 32):
            raise ValueError("expected 24 x 32")
        return self.net(x)


class Bypass(nn.Module):
    """Its outputs also read the input, so no layer is all that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = gap_net()

    def forward(self, x):
        return self.net(x) + x.mean((1, 2, 3))[:, None]


class Excited(nn.Module):
    """Multiplies channels by what it knows of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.net = gap_net()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        first = self.net[0][0](x)
        return self.net[1](self.net[0][1:](first * self.pool(first).sigmoid()))


def is_shared(model, x, **options) -> bool:
    explainer = mg.explainer("jittercam", model, **options)
    explainer(x)
    shared = mg.explainer("jittercam", model, shared_trunk=True, **options)(x)
    exact = mg.explainer("jittercam", model, shared_trunk=False, **options)(x)
    chosen = explainer(x)
    assert not torch.equal(shared.cam, exact.cam)
    assert torch.equal(chosen.cam, shared.cam) != torch.equal(chosen.cam, exact.cam)
    return torch.equal(chosen.cam, shared.cam)


def test_none_shares_where_the_head_is_affine_and_the_trunk_local() -> None:
    x = doubles()
    assert is_shared(gap_net(), x)
    assert not is_shared(curved_net(), x)
    assert not is_shared(Excited(), x)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Fixed, r"does not take the enlarged input \[48, 64\] .*use shared_trunk=False"),
        (Bypass, "that everything later depends on alone .*use shared_trunk=False"),
    ],
)
def test_networks_without_a_trunk_to_share(model, match) -> None:
    net, x = model(), doubles()
    with pytest.raises(ValueError, match=match):
        mg.explainer("jittercam", net, shared_trunk=True)(x)
    exact = mg.explainer("jittercam", net, shared_trunk=False)(x)
    assert torch.equal(mg.explainer("jittercam", net)(x).cam, exact.cam)


@given(st.integers(1, 3), st.integers(17, 40), st.integers(17, 40), st.floats(1.0, 2.6))
def test_windows_of_a_trunk_without_padding_for_any_size(batch, height, width, scale) -> None:
    # Cells of exactly four pixels, so that windows begin where patches do.
    size = (4 * (height // 4), 4 * (width // 4))
    net, x = gap_net(padding=0), doubles(batch=batch, size=size)
    options = {"scale": scale, "relu": False}  # with signs, so that no map is blank
    exact = mg.explainer("jittercam", net, shared_trunk=False, batch_size=16, **options)(x)
    shared = mg.explainer("jittercam", net, shared_trunk=True, **options)(x)
    assert relative_deviation(shared.cam, exact.cam) < 1e-6


# Some of the windows.


def patch_net(dims: int) -> nn.Module:
    """Kernels as large as their strides: nothing is padded, so windows are parts of the whole map."""
    return seeded(
        lambda: nn.Sequential(
            nn.Sequential(CONV[dims](3, 6, 2, stride=2), nn.ReLU(), CONV[dims](6, 8, 2, stride=2), nn.ReLU()),
            nn.Sequential(nn.Flatten(2), Mean(), nn.Linear(8, 5)),
        )
    ).double()


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(2)


@pytest.mark.parametrize("step", [2, 3, 100])
@pytest.mark.parametrize(("dims", "relu"), [(2, True), (2, False), (3, True)])
def test_without_padding_the_windows_left_out_are_known_exactly(dims, relu, step) -> None:
    net, x = patch_net(dims), doubles(dims)
    options = {"relu": relu, "temporal_scale": 3.0} if dims == 3 else {"relu": relu}
    every = mg.explainer("jittercam", net, shared_trunk=True, **options)(x, [1, 4])
    some = mg.explainer("jittercam", net, window_step=step, **options)(x, [1, 4])
    assert relative_deviation(some.cam, every.cam) < 1e-6


def test_windows_left_out_are_interpolated() -> None:
    net, x = gap_net(), doubles()
    every = mg.explainer("jittercam", net, shared_trunk=True)(x).cam
    deviations = [
        relative_deviation(mg.explainer("jittercam", net, window_step=step)(x).cam, every) for step in (1, 2, 4)
    ]
    assert deviations[0] == 0
    assert 1e-6 < deviations[1] < deviations[2] < 0.5


@pytest.mark.parametrize(
    ("count", "step", "offsets"), [(8, 1, list(range(8))), (8, 2, [0, 2, 4, 6, 7]), (7, 3, [0, 3, 6]), (1, 5, [0])]
)
def test_offsets_of_the_windows(count, step, offsets) -> None:
    assert offsets_at(count, step) == offsets
    assert windows_at(PatchGrid((2, 2), (2, count), (8, 8)), step) == [*offsets, *(count + i for i in offsets)]


def test_the_effect_of_padding_is_interpolated_linearly_at_each_place_of_the_window() -> None:
    random = torch.Generator().manual_seed(0)
    whole = torch.randn(1, 6, generator=random)  # 4 windows of 3 cells
    at_ends = torch.randn(1, 2, 3, generator=random)
    maps = interpolated_maps(at_ends, whole, PatchGrid((3,), (4,), (12,)), 3)
    for window in range(4):
        for place in range(3):
            first, last = at_ends[0, 0, place] - whole[0, place], at_ends[0, 1, place] - whole[0, 3 + place]
            wanted = whole[0, window + place] + first * (3 - window) / 3 + last * window / 3
            torch.testing.assert_close(maps[0, window, place], wanted)


def test_a_window_step_needs_gradients_that_are_the_same_for_every_window() -> None:
    with pytest.raises(ValueError, match="window_step: expected 1 for a network whose score is no affine"):
        mg.explainer("jittercam", curved_net(), window_step=2)(doubles())


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
