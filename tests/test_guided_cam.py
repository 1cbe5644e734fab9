"""Guided Grad-CAM and guided Act-Grad-CAM: equal to the product of their parts, from one forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import midgrain as mg
from cam_nets import CLASSES, Counting, curved_net, seen_at
from midgrain.cams import make_cam
from models_for_tests import CONV, SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import cams as oracle
from oracles.guided import guided_map

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
NAMES = {"guided-gradcam": "gradcam", "guided-act-gradcam": "act-gradcam"}
TARGETS = [3, 0, 1]


def check(actual, expected, tolerance=1e-5):
    assert expected.abs().max() > 0
    assert actual.shape == expected.shape
    assert relative_deviation(actual, expected) < tolerance


@DIMS
@pytest.mark.parametrize("layer", ["4", "5"])
@pytest.mark.parametrize("temporal", ["clip", "frame"])
@pytest.mark.parametrize("name", NAMES)
def test_by_definition(name, temporal, layer, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    guided = guided_map(net, x.clone(), TARGETS)
    for relu in (True, False):
        maps = [
            oracle.gradient_cam(NAMES[name], a, g, temporal, relu)
            for a, g in zip(*seen_at(net, layer, x, TARGETS), strict=True)
        ]
        resized = torch.stack([torch.tensor(oracle.resize(each, SPATIAL[dims])) for each in maps])
        made = mg.explainer(name, net, layer=layer, temporal=temporal, relu=relu)(x, TARGETS)
        check(made.heatmap, guided * resized)
        check(made.cam, torch.tensor(maps[0])[None].new_tensor([each.tolist() for each in maps]))
        assert made.target.tolist() == TARGETS


@DIMS
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_product_of_the_methods(name, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 3)
    product = mg.explainer("guided", net)(x, TARGETS).heatmap * mg.explainer(NAMES[name], net)(x, TARGETS).heatmap
    made = mg.explainer(name, net)(x, TARGETS)
    check(made.heatmap, product)
    check(made.outputs, net(x).detach())
    layers = ["0", "2", "4"]
    fused = mg.explainer(NAMES[name], net, layer=layers)(x, TARGETS).heatmap
    made = mg.explainer(name, net, layer=layers)(x, TARGETS)
    check(made.heatmap, mg.explainer("guided", net)(x, TARGETS).heatmap * fused)
    assert made.cam is None


@pytest.mark.parametrize("name", NAMES)
def test_mixed_targets_in_a_batch_equal_one_by_one(name) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    together = mg.explainer(name, net, layer="4", relu=False)(x, TARGETS).heatmap
    for i, target in enumerate(TARGETS):
        check(together[[i]], mg.explainer(name, net, layer="4", relu=False)(x[[i]], target).heatmap)


@pytest.mark.parametrize("name", NAMES)
def test_one_forward_pass(name) -> None:
    model, x = Counting(tiny_net()), batch_for()
    explain = mg.explainer(name, model)
    explain(x)
    model.passes = 0
    explain(x)
    assert model.passes == 1


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvision_networks(name) -> None:
    models = pytest.importorskip("torchvision").models
    net, x = seeded(lambda: models.get_model(name, weights=None)).eval().double(), batch_for(size=(64, 64)).double()
    product = guided_map(net, x, [3, 700]) * mg.explainer("gradcam", net)(x, [3, 700]).heatmap
    check(mg.explainer("guided-gradcam", net)(x, [3, 700]).heatmap, product)


@pytest.mark.parametrize("name", NAMES)
def test_networks_without_a_relu(name) -> None:
    net = nn.Sequential(
        CONV[2](3, 4, 3), nn.GELU(), CONV[2](4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )
    with pytest.raises(ValueError, match=f"'{name}': .* passed no ReLU or ReLU6, .*; use 'gradcam'"):
        mg.explainer(name, seeded(lambda: net).eval())(batch_for())


def test_a_layer_that_the_score_does_not_depend_on() -> None:
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.side = tiny_net(), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            self.side(x)
            return self.net(x)

    with pytest.raises(ValueError, match="layer: the explained score does not depend on side"):
        mg.explainer("guided-gradcam", seeded(Beside).eval(), layer="side")(batch_for())
    both = mg.explainer("guided-gradcam", seeded(Beside).eval(), layer=["side", "net.4"])(batch_for(), 1)
    assert both.heatmap.isfinite().all()


def test_there_are_no_maps_of_the_layer_to_add_up() -> None:
    with pytest.raises(ValueError, match="'guided-gradcam' is a product at the input's size"):
        make_cam("guided-gradcam").layer_maps(tiny_net(), batch_for(), None)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_keeps_small_gradients(name) -> None:
    net, x = tiny_net(), batch_for()
    with torch.no_grad():
        net[8].weight.mul_(0.05)
    expected = mg.explainer(name, net, relu=False)(x, 1).heatmap
    check(mg.explainer(name, net.half(), relu=False)(x.half(), 1).heatmap, expected, 0.05)


def test_nothing_stays_behind_when_the_target_fails() -> None:
    net, x = curved_net(), batch_for(dtype=torch.float64)

    def target(out):
        raise ArithmeticError("target fails")

    with pytest.raises(ArithmeticError, match="target fails"):
        mg.explainer("guided-gradcam", net, layer="5")(x, target)
    assert not any(module._forward_hooks for module in net.modules())
