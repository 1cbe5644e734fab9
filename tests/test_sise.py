"""SISE against its definition, mask by mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from torch import nn

from cam_nets import Counting, TinyTransformer, curved_net, cut, seen_at
from midgrain.masking import SISE
from midgrain.masking.sise import _fused
from models_for_tests import CONV, POOL, SPATIAL, batch_for, relative_deviation, seeded
from models_for_tests import one_thread as one_thread
from oracles import sise as oracle
from oracles.cams import softmax

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]
# The layers before the two down-samplings of `curved_net`, each at another resolution, and what is found.
LAYERS = ("2", "5")


def score_function(net, target, output="probability"):
    def score_of(x):
        with torch.no_grad():
            logits = net(torch.tensor(x)[None])[0].numpy()
        return float(softmax(logits)[target] if output == "probability" else logits[target])

    return score_of


def gradients_of(net, layer, x, target, output):
    """Activations and gradients of one sample, [K, *m]; of the probability itself where that is explained."""
    if output == "logit":
        return tuple(each[0] for each in seen_at(net, layer, x[None], [target]))
    trunk, head = cut(net, layer)
    with torch.no_grad():
        activations = trunk(x[None].clone()).clone()
    activations.requires_grad_(True)
    probability = head(activations.clone()).softmax(1)[0, target]
    (gradients,) = torch.autograd.grad(probability, activations)
    return activations.detach()[0].numpy(), gradients[0].numpy()


def by_hand(net, x, targets, layers=LAYERS, mu=0.0, output="probability"):
    """Heat maps [B, *S] and numbers of masks [B, layers]."""
    heatmaps, numbers = [], []
    for sample, target in zip(x, targets, strict=True):
        maps, own = [], []
        for layer in layers:
            activations, gradients = gradients_of(net, layer, sample, target, output)
            masks = oracle.masks_of(activations, gradients, sample.shape[1:], mu)
            maps.append(oracle.layer_map(sample.numpy(), masks, score_function(net, target, output)))
            own.append(len(masks))
        heatmaps.append(oracle.fused(maps))
        numbers.append(own)
    return torch.tensor(np.array(heatmaps)), numbers


def check(explanation, expected, tolerance=1e-5) -> None:
    heatmaps, masks = expected
    assert explanation.details["masks"].tolist() == masks
    assert explanation.heatmap.shape == heatmaps.shape
    assert heatmaps.flatten(1).amax(1).min() > 0
    assert relative_deviation(explanation.heatmap, heatmaps) < tolerance


@DIMS
@pytest.mark.parametrize("mu", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_by_definition(output, mu, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    explain = SISE(net, mu=mu, output=output)
    explanation = explain(x, TARGETS)
    assert explain.layer_names(x) == LAYERS
    check(explanation, by_hand(net, x, TARGETS, mu=mu, output=output))
    assert explanation.details["passes"].tolist() == (2 + explanation.details["masks"].sum(1)).tolist()


def three_blocks(dims=2):
    """Poolings between blocks, biases of both signs."""

    def build():
        layers = []
        for inside, outside in ((3, 5), (5, 6), (6, 7)):
            layers += [CONV[dims](inside, outside, 3, padding=1), nn.ReLU(), getattr(nn, f"MaxPool{dims}d")(2)]
        return nn.Sequential(*layers[:-1], POOL[dims](1), nn.Flatten(), nn.Linear(7, 5)).double().eval()

    return seeded(build, 3)


@DIMS
def test_three_blocks(dims) -> None:
    size = (24, 32) if dims == 2 else (8, 12, 16)
    net, x = three_blocks(dims), batch_for(dims, 2, size=size, dtype=torch.float64)
    check(SISE(net)(x, [1, 4]), by_hand(net, x, [1, 4], ("1", "4", "7")))


def test_layers_that_the_user_names() -> None:
    net, x = curved_net(), batch_for(batch=2, dtype=torch.float64)
    expected = by_hand(net, x, [1, 2], ("1", "3", "5"))
    check(SISE(net, layer=["1", "3", "5"])(x, [1, 2]), expected)
    # In the order of the network, whatever the order of the names.
    shuffled = SISE(net, layer=[net[5], "1", "3"])
    assert shuffled.layer_names(x) == ("1", "3", "5")
    check(shuffled(x, [1, 2]), expected)
    check(SISE(net, layer="5")(x, [1, 2]), by_hand(net, x, [1, 2], ("5",)))


def test_reshape_goes_with_a_layer() -> None:
    net, x = seeded(TinyTransformer).eval(), batch_for()

    def patches(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 3, 4)

    named = SISE(net, layer="first")(x, 1)
    assert torch.equal(SISE(net, layer="first", reshape=patches)(x, 1).heatmap, named.heatmap)
    assert named.heatmap.max() > 0
    with pytest.raises(ValueError, match=r"layer: the network ends in tokens .*layer=\[\.\.\.\]"):
        SISE(net)(x)


# Shared passes.


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_several_targets_share_the_passes(output) -> None:
    net = curved_net()
    x, model = batch_for(batch=2, dtype=torch.float64), Counting(net)
    explain = SISE(model, output=output, batch_size=1)
    targets = [1, [0, 3], None]
    alone = [explain(x, target) for target in targets]
    model.samples = 0
    together = explain.several(x, targets)
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.outputs, other.outputs)
        assert torch.equal(one.details["masks"], other.details["masks"])
        assert relative_deviation(one.heatmap, other.heatmap) < 1e-9
    # Every map of which one of the targets makes a mask is asked about once; each target has its own gradients.
    passes = int(together[0].details["passes"].sum())
    assert model.samples == passes
    assert passes < sum(int(each.details["passes"].sum()) for each in alone) - 2 * (len(targets) - 1)


def test_several_callables_that_read_different_layers() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            self.a, self.b = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3)

        def forward(self, x):
            x = self.trunk(x)
            return {"a": self.a(x).relu().mean((2, 3)), "b": self.b(x).relu().mean((2, 3))}

    net, x = seeded(TwoHeads).eval(), batch_for()
    targets = [lambda out: out["a"][:, 0], lambda out: out["b"][:, 0]]
    explain = SISE(net)
    assert [explain.layer_names(x, target) for target in targets] == [("trunk.1", "a"), ("trunk.1", "b")]
    for one, target in zip(explain.several(x, targets), targets, strict=True):
        assert torch.equal(one.heatmap, explain(x, target).heatmap)


@pytest.mark.parametrize("form", ["tensor", "list"])
def test_callables_score_themselves(form) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    model = Counting(net)
    if form == "list":
        model.register_forward_hook(lambda module, args, output: list(output))

    def logit(out):
        logits = torch.stack(out) if isinstance(out, list) else out
        return logits[torch.arange(3), TARGETS]

    explanation = SISE(model)(x, logit)
    assert explanation.target is None
    check(explanation, by_hand(net, x, TARGETS, output="logit"))


def test_batches_round_differently_but_runs_do_not() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    base = SISE(net)(x, TARGETS).heatmap
    assert torch.equal(SISE(net)(x, TARGETS).heatmap, base)
    for batch_size in (1, 2, 100):
        assert relative_deviation(SISE(net, batch_size=batch_size)(x, TARGETS).heatmap, base) < 1e-9
    for i, target in enumerate(TARGETS):
        assert relative_deviation(SISE(net)(x[[i]], target).heatmap, base[[i]]) < 1e-9


def test_masks_are_never_all_in_memory(monkeypatch) -> None:
    from midgrain.masking import sise

    at_once = []
    original = sise.resize_maps

    def watched(maps, size):
        at_once.append(len(maps))
        return original(maps, size)

    monkeypatch.setattr(sise, "resize_maps", watched)
    explanation = SISE(curved_net(), batch_size=2)(batch_for(batch=3, dtype=torch.float64), TARGETS)
    assert max(at_once) == 2
    assert sum(at_once) == 2 * int(explanation.details["masks"].sum())


# What may go wrong.


def test_a_probability_near_one_still_tells_which_maps_raise_it() -> None:
    """Its own gradient is nothing but rounding there, or zero; a class's bias does not change which maps raise it."""
    net, x = curved_net(dtype=torch.float32), batch_for(batch=2)
    usual = SISE(net, mu=0.3)(x, 1)
    assert usual.details["masks"].min() > 0
    bias = net[10].bias[1].item()
    for shift in (40.0, 200.0, -40.0):
        with torch.no_grad():
            net[10].bias[1] = bias + shift
        sure = SISE(net, mu=0.3)(x, 1)
        assert torch.equal(sure.details["masks"], usual.details["masks"])
        assert sure.heatmap.flatten(1).amax(1).min() > 0


def block_net(dtype=torch.float64):
    """Two blocks of two channels each, with weights by hand: which maps raise the score is plain."""
    net = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).to(dtype)
    with torch.no_grad():
        net[0].weight[0, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0])
        net[0].weight[1, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
        net[2].weight[:, :, 0, 0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        net[5].weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, -0.5]]))
        for module in (net[0], net[2], net[5]):
            module.bias.zero_()
    return net.eval()


def test_mu_compares_with_the_largest() -> None:
    net, x = block_net(), batch_for(batch=1, dtype=torch.float64)
    for mu, masks in ((0.0, [2, 2]), (0.49, [2, 2]), (0.51, [1, 1])):
        assert SISE(net, mu=mu, output="logit")(x, 0).details["masks"].tolist() == [masks]


def test_blocks_of_which_no_map_raises_the_score_are_left_out() -> None:
    net, x = block_net(), batch_for(batch=1, dtype=torch.float64)
    nothing = SISE(net, output="logit")(x, 1)
    assert nothing.details["masks"].tolist() == [[0, 0]]
    assert nothing.details["passes"].tolist() == [2]
    assert not nothing.heatmap.any()
    with torch.no_grad():
        net[2].weight[0, 0, 0, 0] = -1.0  # The first block's first map now raises the second class's score.
    one = SISE(net, output="logit")(x, 1)
    assert one.details["masks"].tolist() == [[1, 0]]
    check(one, by_hand(net, x, [1], ("0", "2"), output="logit"))


def test_maps_that_are_the_same_everywhere_are_left_out() -> None:
    net, x = block_net(), batch_for(batch=1, dtype=torch.float64)
    with torch.no_grad():
        net[0].weight[0] = 0.0
        net[0].bias[0] = 0.7
    explanation = SISE(net, output="logit")(x, 0)
    assert explanation.details["masks"].tolist() == [[1, 1]]
    check(explanation, by_hand(net, x, [0], ("0", "2"), output="logit"))
    blank = SISE(net, output="logit")(torch.zeros_like(x), 0)
    assert blank.details["masks"].tolist() == [[0, 0]]
    assert not blank.heatmap.any()


def test_a_network_of_one_block() -> None:
    net = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    ).double()
    x = batch_for(batch=2, dtype=torch.float64)
    check(SISE(net)(x, [0, 4]), by_hand(net, x, [0, 4], ("1",)))


def test_a_network_of_one_class() -> None:
    net = nn.Sequential(*list(curved_net().children())[:-1], nn.Linear(9, 1).double())
    x = batch_for(dtype=torch.float64)
    with pytest.raises(ValueError, match="output: expected 'logit' for a network of one class"):
        SISE(net)(x)
    assert SISE(net, output="logit")(x).heatmap.shape == (2, *SPATIAL[2])


def test_a_network_without_maps() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 5))
    with pytest.raises(ValueError, match="layer: no layer of the network has a spatial output"):
        SISE(net)(batch_for())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"mu": -0.1}, ValueError, "mu: expected a non-negative finite number, got -0.1"),
        ({"mu": 1.0}, ValueError, "mu: expected 0 or more and less than 1, .* got 1.0"),
        ({"mu": "0.3"}, TypeError, "mu: expected a number, got str"),
        ({"output": "score"}, ValueError, "output: expected one of probability, logit, got 'score'"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"progress": "yes"}, TypeError, "progress: expected a bool, got str"),
        ({"layer": []}, ValueError, "layer: expected at least one layer, got an empty sequence"),
        ({"layer": 3}, TypeError, "layer: expected None, a module, its dotted name or several, got int"),
        ({"layer": "2.relu"}, ValueError, "layer: the model has no module '2.relu'"),
        ({"layer": ["2", "10"]}, ValueError, "layer: the output of 10 is not spatial"),
        ({"reshape": lambda y: y}, ValueError, "reshape: it goes with a layer"),
        ({"std": [1.0] * 3}, ValueError, "mean, std: expected both or neither"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        SISE(curved_net(), **options)(batch_for(dtype=torch.float64))


@pytest.mark.parametrize(("targets", "error"), [([], ValueError), (3, TypeError), ([9], ValueError)])
def test_bad_targets(targets, error) -> None:
    with pytest.raises(error, match="target"):
        SISE(curved_net()).several(batch_for(dtype=torch.float64), targets)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    net, x = curved_net(), batch_for(batch=1, dtype=torch.float64)
    SISE(net)(x)
    assert capfd.readouterr() == ("", "")
    SISE(net, progress=True)(x)
    assert "masking with feature maps" in capfd.readouterr().err


# Fusion alone.


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1.0, 1e-30, 1e30]), st.booleans())
def test_fusion(seed, layers, scale, constant) -> None:
    random = np.random.default_rng(seed)
    maps = [scale * random.random((9, 11)) ** random.integers(1, 5) for _ in range(layers)]
    if constant:
        maps[random.integers(layers)][:] = 0.3
    actual = _fused([torch.from_numpy(each)[None] for each in maps])[0].numpy()
    assert np.allclose(actual, oracle.fused(maps), atol=1e-6)
    assert actual.min() >= 0
    if len([each for each in maps if np.ptp(each) > 0]) > 1:
        assert 0 < (actual == 0).sum() < actual.size


@given(st.integers(0, 10**6))
def test_the_oracles_threshold_is_scikit_images(seed) -> None:
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(0, 1, 200), random.normal(random.uniform(0, 5), 0.5, 100)])
    assert oracle.otsu(values) == pytest.approx(threshold_otsu(values), abs=1e-9)
