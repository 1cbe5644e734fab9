"""DeepMaps by definition, and the layers that it finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from cam_nets import Counting, curved_net, seen_at
from midgrain.network.narrows import narrows
from midgrain.network.trace import hooked, replaced
from models_for_tests import CONV, SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import gradients as oracle
from oracles.cams import resize

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("deepmaps", net, **options)(x, target)


def names_of(net, x, target=None, **options):
    return mg.scorer("deepmaps", **options).layer_names(net, x, target)


def by_hand(net, layers, x, targets):
    seen = [seen_at(net, layer, x, targets) for layer in layers]
    maps = [oracle.deepmaps([(a[i], g[i]) for a, g in seen], x.shape[2:]) for i in range(len(x))]
    sums = [[(a[i] * g[i]).sum() for a, g in seen] for i in range(len(x))]
    return torch.tensor(np.array(maps)), torch.tensor(np.array(sums))


@DIMS
@pytest.mark.parametrize("layers", [None, "4", ["2", "5"], ["5", "4", "1"]], ids=str)
def test_by_definition(layers, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, layer=layers)
    wanted = ["2", "5"] if layers is None else [layers] if isinstance(layers, str) else layers
    maps, sums = by_hand(net, wanted, x, TARGETS)
    assert made.heatmap.shape == (3, *SPATIAL[dims])
    assert relative_deviation(made.heatmap, maps) < 1e-5
    assert relative_deviation(made.details["layer_sums"], sums) < 1e-5
    assert names_of(net, x, layer=layers) == tuple(wanted)


@DIMS
def test_all_layers_of_a_network_without_biases_add_up_to_the_score(dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for norm in (net[1], net[4]):
            norm.running_mean.zero_()
    made = explained(net, x)
    scores = made.outputs[torch.arange(3), TARGETS]
    assert torch.allclose(made.details["layer_sums"], scores[:, None].float().expand(3, 2), rtol=1e-4)


def test_of_one_layer_the_cam_is_the_magnitude() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    made = explained(net, x, layer="4")
    a, g = seen_at(net, "4", x, TARGETS)
    expected = np.abs((a * g).sum(1))
    assert relative_deviation(made.cam, torch.tensor(expected)) < 1e-5
    rescaled = (expected[0] - expected[0].min()) / np.ptp(expected[0])
    assert np.allclose(made.heatmap[0].numpy(), resize(rescaled, SPATIAL[2]), atol=1e-5)
    assert explained(net, x).cam is None


# Layers.


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("resnet18", 9, ("relu", "layer1.0.relu", "layer4.1.relu")),
        ("resnet50", 17, ("relu", "layer1.0.relu", "layer3.5.relu", "layer4.2.relu")),
        ("densenet121", 8, ("features.relu0", "features.denseblock1", "features.transition3.relu")),
        ("mobilenet_v2", 25, ("features.0.2", "features.3", "features.18.2")),
        ("convnext_tiny", 18, ("features.1.0", "features.5.8", "features.7.2")),
        pytest.param("vgg16", 13, ("features.1", "features.29"), marks=pytest.mark.slow),
        pytest.param("vit_b_16", 12, ("encoder.layers.encoder_layer_0",), marks=pytest.mark.slow),
        pytest.param("inception_v3", 16, ("Conv2d_1a_3x3", "Mixed_5b", "Mixed_7c"), marks=pytest.mark.slow),
    ],
)
def test_layers_of_torchvisions_networks(name, count, some) -> None:
    models = pytest.importorskip("torchvision").models
    options = {"init_weights": False} if name in ("vgg16", "inception_v3") else {}
    net = seeded(lambda: models.get_model(name, weights=None, **options)).eval()
    side = {"vit_b_16": 224, "inception_v3": 171}.get(name, 64)
    found = names_of(net, batch_for(batch=1, size=(side, side)))
    assert len(found) == count
    assert [layer for layer in found if layer in some] == list(some)
    assert found[0] == some[0]


def test_every_relu_of_vgg16s_convolutions_is_a_layer() -> None:
    vgg = pytest.importorskip("torchvision").models.vgg
    pooled = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2048, 16), nn.ReLU(), nn.Linear(16, 5)
    net = seeded(lambda: nn.Sequential(vgg.make_layers(vgg.cfgs["D"]), *pooled)).eval()
    relus = [f"0.{i}" for i, layer in enumerate(net[0]) if isinstance(layer, nn.ReLU)]
    assert len(relus) == 13
    assert names_of(net, batch_for(batch=1, size=(64, 64))) == tuple(relus)


def test_layers_of_a_video_network() -> None:
    models = pytest.importorskip("torchvision").models
    net = seeded(lambda: models.video.r3d_18(weights=None)).eval()
    x = batch_for(3, batch=2, size=(8, 32, 32))
    found = names_of(net, x)
    assert len(found) == 9
    made = explained(net, x, [3, 7])
    assert made.heatmap.shape == (2, 8, 32, 32)
    assert made.details["layer_sums"].shape == (2, 9)


class Routes(nn.Module):
    """A stem, a block with a shortcut, a join of two branches; functional ReLUs."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.last = (nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(4))
        self.block = Block()
        self.join = Join(self.left, self.right)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.join(self.block(F.relu(self.stem(x)))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.act(self.inner(x))


class Join(nn.Module):
    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x):
        return torch.cat([F.relu(self.left(x)), self.right(x)], 1)


def test_what_a_shortcut_passes_by_is_no_layer() -> None:
    net, x = seeded(Routes), batch_for()
    # The stem's ReLU is a function of the network's own: no module returns it.
    assert names_of(net, x) == ("block", "join")
    assert explained(net, x, [1, 2]).details["layer_sums"].shape == (2, 2)


def test_a_module_used_twice_is_two_layers() -> None:
    relu = nn.ReLU(inplace=True)
    net = seeded(
        lambda: nn.Sequential(CONV[2](3, 4, 3), relu, CONV[2](4, 4, 3), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    x = batch_for()
    assert names_of(net, x) == ("1", "1")
    maps, sums = by_hand_twice(net, x)
    made = explained(net, x, [1, 2])
    assert relative_deviation(made.heatmap, maps) < 1e-5
    assert relative_deviation(made.details["layer_sums"], sums) < 1e-5


def by_hand_twice(net, x):
    apart = nn.Sequential(net[0], nn.ReLU(), net[2], nn.ReLU(), *net[4:]).double()
    found = by_hand(apart, ["1", "3"], x.double(), [1, 2])
    net.float()
    return found


def test_without_such_layers_the_last_spatial_one_is_taken() -> None:
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = seeded(lambda: nn.Sequential(CONV[2](3, 4, 3), CONV[2](4, 6, 3), *pooled, nn.Linear(6, 5)))
    assert names_of(net, batch_for()) == ("1",)


def test_gradients_that_start_inside_the_network() -> None:
    """A frozen trunk under no_grad: nothing leads to the input, and the last spatial layer is taken."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_net()

        def forward(self, x):
            with torch.no_grad():
                hidden = self.net[:3](x)
            return self.net[3:](hidden)

    net = Frozen()
    assert names_of(net, batch_for()) == ("net.4",)


def test_a_callable_may_look_at_another_part_of_the_network() -> None:
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = (nn.Sequential(nn.Conv2d(c, 4, 3), nn.ReLU()) for c in (3, 4, 4))

        def forward(self, x):
            x = self.stem(x)
            return {"a": self.a(x).mean((2, 3)), "b": self.b(x).mean((2, 3))}

    net, x = seeded(Heads), batch_for()
    for key in "ab":

        def pick(outputs, key=key):
            return outputs[key][:, 1]

        assert names_of(net, x, pick) == ("stem.1", f"{key}.1")
        assert explained(net, x, pick).heatmap.max() > 0


STEPS = ("relu", "add", "cat", "roll", "in place")


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["relu", "add", "cat", "conv", "in place"]), st.integers(0, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_narrow_places_are_those_without_which_nothing_depends_on_the_input(steps) -> None:
    """Random networks of steps that each may reach back; a place is narrow if detaching it cuts off the input."""

    class Step(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, x, earlier):
            if self.kind == "relu":
                return F.relu(x)
            if self.kind == "in place":
                return F.relu_(x * 1.5)
            if self.kind == "roll":
                return x.roll(1, 3) * 0.7
            return x + earlier if self.kind == "add" else torch.cat([x, earlier], 1)[:, ::2][:, :3]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.ModuleList(Step(kind) for kind, _ in steps)

        def forward(self, x):
            made = [x]
            for step, (_, back) in zip(self.steps, steps, strict=True):
                made.append(step(made[-1], made[max(0, len(made) - 1 - back)]))
            return made[-1].mean((2, 3))

    net, x = Net(), batch_for(batch=1, size=(4, 6))
    found = {narrow.module for narrow in narrows(net, x, 1)}
    leaf = x.clone().requires_grad_(True)
    for step in net.steps:
        with hooked([step], after=lambda module, output: replaced(output, 0, output.detach())):
            cut_off = not net(leaf.clone()).requires_grad
        assert (step in found) == cut_off


def test_the_score_of_narrow_places_needs_no_gradient_of_weights() -> None:
    net, x = tiny_net().requires_grad_(False), batch_for()
    assert [type(narrow.module).__name__ for narrow in narrows(net, x, 1) if narrow.activation] == ["ReLU", "ReLU"]
    assert not any(narrow.merge for narrow in narrows(net, x, 1))


def test_layers_are_looked_for_once() -> None:
    model, x = Counting(tiny_net()), batch_for()
    explain = mg.explainer("deepmaps", model)
    explain(x)
    model.passes = 0
    explain(x)
    assert model.passes == 1


@DIMS
def test_it_scores_pixels_for_superpixels(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    pixels = explained(net, x, 1)
    regions = mg.SWAG(net, scorer="deepmaps", n_segments=20)(x, 1)
    assert torch.equal(regions.heatmap, mg.SWAG(net, scorer=lambda *_: pixels.heatmap, n_segments=20)(x, 1).heatmap)
    smooth = mg.explainer("smoothgrad", net, of=mg.scorer("deepmaps"), n_samples=2, noise=0)(x, 1)
    assert relative_deviation(smooth.heatmap, pixels.heatmap) < 1e-5


@pytest.mark.parametrize("form", [lambda out: out.detach(), lambda out: torch.ones(2, 5)], ids=["detached", "constant"])
def test_networks_that_do_not_depend_on_their_input(form) -> None:
    net = tiny_net()

    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return form(self.net(x))[: len(x)]

    with pytest.raises(ValueError, match="depends on no layer with a spatial output, as far as gradients tell"):
        explained(Returns(), batch_for(), 1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": 3}, TypeError, "layer: expected None, a module, its dotted name or several, got int"),
        ({"layer": []}, ValueError, "layer: expected at least one layer"),
        ({"reshape": abs}, ValueError, "reshape: it goes with a layer"),
        ({"temporal": "frame"}, TypeError, "'deepmaps' has no option temporal"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("deepmaps", tiny_net(), **options)


def test_bad_inputs_of_layer_names() -> None:
    with pytest.raises(TypeError, match="x: expected a torch tensor"):
        names_of(tiny_net(), None)
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        names_of(lambda x: x, batch_for())
