"""Measures of filters: the thesis's formulas, which layer is taken, batches, targets, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from cam_nets import TinyTransformer, curved_net, cut, seen_at
from midgrain.failures import FILTER_MEASURES, FilterScorer, filter_scores
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from oracles.filters import measure as oracle

MEASURED = [name for name in FILTER_MEASURES if name != "random"]
TARGETS = (1, 4, 0)


def loss_gradients(net, layer, x, classes):
    trunk, head = cut(net, layer)
    activations = trunk(x.clone()).detach().requires_grad_(True)
    loss = F.cross_entropy(head(activations.clone()), torch.tensor(classes), reduction="sum")
    return torch.autograd.grad(loss, activations)[0].double().numpy()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layer", [None, "5"])
def test_the_formulas(dims, layer) -> None:
    net, x = curved_net(dims), batch_for(dims, batch=3, dtype=torch.float64)
    place = layer or "3"
    activations, gradients = seen_at(net, place, x, TARGETS)
    losses = loss_gradients(net, place, x, TARGETS)
    scores = filter_scores(net, x, TARGETS, MEASURED, layer=layer)
    assert list(scores) == MEASURED
    for name in MEASURED:
        assert scores[name].dtype == torch.float32
        for index in range(3):
            expected = oracle(name, activations[index], gradients[index], losses[index])
            np.testing.assert_allclose(scores[name][index], expected, rtol=1e-4, atol=1e-5 * abs(expected).max())
        alone = filter_scores(net, x, TARGETS, name, layer=layer)
        torch.testing.assert_close(alone, scores[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["grad-amap", "l1"])
def test_after_the_norm(name) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    for layer in (None, "3"):
        found = FilterScorer(name, layer=layer, after_norm=True)(net, x, TARGETS)
        assert found.layer == "4"
        activations, gradients = seen_at(net, "4", x, TARGETS)
        expected = oracle(name, activations[0], gradients[0], gradients[0])
        np.testing.assert_allclose(found.scores[name][0], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found.scores[name], filter_scores(net, x, TARGETS, name))


def test_grad_amap_is_the_same_before_and_after_a_relu() -> None:
    # Where the ReLU is 0 the gradient before it is; where not, both are equal.
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    torch.testing.assert_close(
        filter_scores(net, x, TARGETS, layer="4"), filter_scores(net, x, TARGETS, layer="5"), rtol=1e-5, atol=1e-8
    )


def test_the_probability_instead_of_the_logit() -> None:
    net, x = curved_net(), batch_for(batch=2, dtype=torch.float64)
    trunk, head = cut(net, "3")
    activations = trunk(x).detach().requires_grad_(True)
    head(activations.clone()).softmax(1)[:, 2].sum().backward()
    expected = (activations * activations.grad).mean((2, 3)).float()
    found = filter_scores(net, x, 2, output="probability")
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", list(FILTER_MEASURES))
@pytest.mark.parametrize("dims", [2, 3])
def test_a_sample_does_not_depend_on_its_batch(name, dims) -> None:
    # In float64, for XGrad-CAM divides by sums that may be near 0.
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, batch=3, dtype=torch.float64)
    together = filter_scores(net, x, [0, 1, 2], name)
    for index in range(3):
        alone = filter_scores(net, x[index : index + 1], index, name)
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-7)
    assert torch.equal(filter_scores(net, x, [0, 1, 2], name), together)


def test_random_scores_are_drawn_from_the_seed_and_the_sample() -> None:
    net, x = tiny_net(), batch_for(batch=2)
    first, again, other = (filter_scores(net, x, measure="random", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    state = torch.get_rng_state()
    filter_scores(net, x, measure="random")
    assert torch.equal(state, torch.get_rng_state())


def test_targets() -> None:
    net, x = tiny_net(), batch_for(batch=2)
    predicted = net(x).argmax(1)
    expected = filter_scores(net, x, predicted)
    found = FilterScorer()(net, x)
    assert torch.equal(found.scores["grad-amap"], expected)
    assert torch.equal(found.target, predicted)
    torch.testing.assert_close(found.outputs, net(x).detach())
    picked = filter_scores(net, x, lambda outputs: outputs.gather(1, predicted[:, None])[:, 0])
    torch.testing.assert_close(picked, expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_model_stays_as_it_was(context) -> None:
    net, x = tiny_net().train(), batch_for()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with context():
        filter_scores(net, x, torch.tensor([0, 1]), list(FILTER_MEASURES))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


class Branches(nn.Module):
    """Two branches put side by side, a batch norm after the concatenation, then a classifier of 1 x 1 convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3)
        self.norm, self.classify = nn.BatchNorm2d(9), nn.Conv2d(9, 4, 1)

    def forward(self, x):
        features = F.relu(self.norm(torch.cat([self.first(x), self.second(x)], 1)))
        return self.classify(features).mean((2, 3))


class Residual(nn.Module):
    """Norms before the convolutions: what follows the last convolution is an addition, then a norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm, self.head = (
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Linear(6, 4),
        )

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(self.norm(x + self.conv(F.relu(x)))).mean((2, 3)))


def test_maps_of_the_classes_are_no_filters_and_branches_count_one_by_one() -> None:
    net, x = seeded(lambda: Branches().eval()), batch_for()
    found = FilterScorer()(net, x)
    assert (found.layer, found.scores["grad-amap"].shape) == ("second", (2, 5))
    assert filter_scores(net, x, layer="norm").shape == (2, 9)
    with pytest.raises(ValueError, match="after_norm: no norm follows second directly"):
        filter_scores(net, x, after_norm=True)


def test_a_norm_after_an_addition_does_not_follow_the_convolution() -> None:
    net, x = seeded(lambda: Residual().eval()), batch_for()
    assert FilterScorer()(net, x).layer == "conv"
    with pytest.raises(ValueError, match="after_norm: no norm follows conv directly"):
        filter_scores(net, x, after_norm=True)


def test_networks_without_a_last_convolution() -> None:
    x = batch_for()
    with pytest.raises(ValueError, match=r"layer: the network ends in tokens .* name the layer"):
        filter_scores(seeded(lambda: TinyTransformer().eval()), x)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 4)).eval()
    with pytest.raises(ValueError, match="layer: no convolution of the network gives a map"):
        filter_scores(flat, x)
    named = filter_scores(seeded(lambda: TinyTransformer().eval()), x, layer="first")
    assert named.shape == (2, 8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"measure": "grad"}, ValueError, "measure: expected some of grad-amap, .*, got 'grad'"),
        ({"measure": []}, ValueError, "measure: expected some of .*, got none"),
        ({"measure": 3}, TypeError, "measure: expected a name"),
        ({"target": 5}, ValueError, "target: expected classes in 0 .. 4, got 5"),
        ({"target": [0]}, ValueError, "target: expected one class per sample"),
        ({"target": lambda outputs: outputs[:, 0], "measure": "taylor"}, ValueError, "target: expected classes"),
        ({"layer": "9x"}, ValueError, "layer: the model has no module '9x'"),
        ({"layer": ["0"]}, TypeError, "layer: expected None, a module or its dotted name, got list"),
        ({"after_norm": 1}, TypeError, "after_norm: expected a bool"),
        ({"output": "log"}, ValueError, "output: expected one of"),
        ({"seed": -1}, ValueError, "seed: expected"),
        ({"x": torch.zeros(3, 8, 8)}, ValueError, "x: expected"),
        ({"x": torch.full((1, 3, 8, 8), torch.nan)}, ValueError, "x: expected finite"),
        ({"model": "net"}, TypeError, "model: expected"),
        ({"model": lambda x: x.mean((2, 3))}, TypeError, "model: expected a torch.nn.Module"),
    ],
)
def test_refusals(options, error, message) -> None:
    with pytest.raises(error, match=message):
        filter_scores(**({"model": tiny_net(), "x": batch_for()} | options))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.5, 2.0, 8.0]))
def test_a_filter_that_is_scaled_and_whose_reader_is_scaled_back_keeps_its_grad_amap(seed, factor) -> None:
    net, x = curved_net(), batch_for(batch=1, dtype=torch.float64, seed=seed)
    first = filter_scores(net, x, 1, "grad-amap")
    with torch.no_grad():
        net[3].weight[2] *= factor
        net[3].bias[2] *= factor
        net[4].running_mean[2] *= factor
        net[4].running_var[2] = (net[4].running_var[2] + net[4].eps) * factor**2 - net[4].eps
    torch.testing.assert_close(filter_scores(net, x, 1, "grad-amap"), first, rtol=1e-4, atol=1e-7)


def test_it_is_public() -> None:
    assert mg.failures.filter_scores is filter_scores
