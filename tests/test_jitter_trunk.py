"""Jitter-CAM with a shared trunk, and with some of the windows left out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from jitter_for_tests import curved_net, doubles, gap_net
from midgrain.cams.patch_maps import PatchGrid
from midgrain.cams.window_steps import interpolated_maps, offsets_at, windows_at
from models_for_tests import CONV, batch_for, relative_deviation, seeded
from models_for_tests import one_thread as one_thread

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
