"""Integrated gradients: by definition, beside captum and saliency, and complete."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from cam_nets import Counting, curved_net
from midgrain.scorers.integrated import RULES
from models_for_tests import SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import gradients as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)
KINETICS = torch.tensor([[0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]], dtype=torch.float64)


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("integrated-gradients", net, **options)(x, target)


def gradient_of(net, target):
    def gradient(sample):
        leaf = torch.tensor(sample)[None].requires_grad_(True)
        return torch.autograd.grad(net(leaf.clone())[0, target], leaf)[0][0].numpy()

    return gradient


def by_hand(net, x, starts, targets, rule, n, channels):
    maps = []
    for sample, start, target in zip(x.numpy(), starts.numpy(), targets, strict=True):
        values = oracle.integrated_gradients(sample, start, gradient_of(net, target), rule, n)
        maps.append(oracle.CHANNELS[channels](values))
    return torch.tensor(np.array(maps))


def grey(x, level):
    """What the network gets for a grey picture."""
    mean, std = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in (IMAGENET if x.ndim == 4 else KINETICS))
    return ((level - mean) / std).expand(x.shape)


@DIMS
@pytest.mark.parametrize("channels", ["max-abs", "max", "sum"])
@pytest.mark.parametrize("rule", RULES)
def test_by_definition(rule, channels, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, rule=rule, n_steps=7, channels=channels, baseline=0.0)
    expected = by_hand(net, x, torch.zeros_like(x), TARGETS, rule, 7, channels)
    assert made.heatmap.shape == (3, *SPATIAL[dims])
    assert relative_deviation(made.heatmap, expected) < 1e-6
    assert made.details["passes"].tolist() == [9, 9, 9]


@DIMS
@pytest.mark.parametrize(
    ("baseline", "start"),
    [
        ("black", lambda x: grey(x, 0.0)),
        ("white", lambda x: grey(x, 1.0)),
        ("mean", lambda x: x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).expand(x.shape)),
        (0.5, lambda x: torch.full_like(x, 0.5)),
        (torch.tensor(-1.0), lambda x: torch.full_like(x, -1.0)),
        (lambda x: -x, lambda x: -x),
    ],
    ids=["black", "white", "mean", "number", "tensor", "callable"],
)
def test_baselines(baseline, start, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, baseline=baseline, n_steps=4, channels="sum")
    expected = by_hand(net, x, start(x), TARGETS, "gauss-legendre", 4, "sum")
    assert relative_deviation(made.heatmap, expected) < 1e-5  # Greys are computed in single precision.


def test_the_normalisation_says_what_is_black() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    black = explained(net, x, n_steps=4, mean=[0.5] * 3, std=[0.25] * 3).heatmap
    assert torch.equal(black, explained(net, x, n_steps=4, baseline=-2.0).heatmap)
    assert not torch.equal(black, explained(net, x, n_steps=4).heatmap)
    # SWAG says its scorer what it was told.
    options = {"n_segments": 20, "mean": [0.5] * 3, "std": [0.25] * 3}
    expected = mg.SWAG(net, "image", mg.scorer("integrated-gradients", baseline=-2.0), **options)(x, 1)
    assert torch.equal(mg.SWAG(net, "image", "integrated-gradients", **options)(x, 1).heatmap, expected.heatmap)


@pytest.mark.parametrize("baseline", ["black+white", "black + white", ["black", "white"], ("black", "white")], ids=str)
def test_several_baselines_are_averaged(baseline) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    both = explained(net, x, baseline=baseline, n_steps=4, channels="sum")
    one, other = (explained(net, x, baseline=each, n_steps=4, channels="sum") for each in ("black", "white"))
    assert relative_deviation(both.heatmap, (one.heatmap + other.heatmap) / 2) < 1e-6
    deltas = [each.details["convergence_delta"] for each in (both, one, other)]
    assert torch.allclose(deltas[0], (deltas[1] + deltas[2]) / 2)
    assert both.details["passes"].tolist() == [11, 11, 11]


@pytest.mark.parametrize("rule", ["midpoint", "gauss-legendre"])
def test_beside_captum(rule) -> None:
    captum = pytest.importorskip("captum.attr")
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    method = {"midpoint": "riemann_middle", "gauss-legendre": "gausslegendre"}[rule]
    theirs, delta = captum.IntegratedGradients(net).attribute(
        x, 0.0, torch.tensor(TARGETS), n_steps=20, method=method, return_convergence_delta=True
    )
    made = explained(net, x, baseline=0, n_steps=20, rule=rule, channels="sum")
    assert relative_deviation(made.heatmap, theirs.sum(1).detach()) < 1e-6
    assert torch.allclose(made.details["convergence_delta"], delta, atol=1e-9)
    made = explained(net, x, baseline=0, n_steps=20, rule=rule)
    assert relative_deviation(made.heatmap, theirs.abs().amax(1).detach()) < 1e-6


def test_the_trapezium_rule_beside_captum() -> None:
    """Captum's weights are 1 / n for n points; these add up to (n - 1) / n, where those of the rule add up to 1."""
    captum = pytest.importorskip("captum.attr")
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    theirs = captum.IntegratedGradients(net).attribute(
        x, 0.0, torch.tensor(TARGETS), n_steps=20, method="riemann_trapezoid"
    )
    made = explained(net, x, baseline=0, n_steps=20, rule="trapezium", channels="sum")
    assert relative_deviation(made.heatmap, theirs.sum(1).detach() * 20 / 19) < 1e-6


def test_beside_saliency_with_xrais_own_reduction() -> None:
    """Its 100 steps hold both ends with full weight; what is compared has the ends' halves taken away."""
    saliency = pytest.importorskip("saliency.core")
    net, x, n = curved_net(), batch_for(batch=1, dtype=torch.float64), 10
    gradient = gradient_of(net, 3)

    def call(inputs, call_model_args=None, expected_keys=None):
        found = np.stack([gradient(each.transpose(2, 0, 1)).transpose(1, 2, 0) for each in inputs])
        return {saliency.INPUT_OUTPUT_GRADIENTS: found}

    sample = x[0].numpy().transpose(1, 2, 0)
    theirs = saliency.IntegratedGradients().GetMask(sample, call, x_baseline=np.zeros_like(sample), x_steps=n)
    ends = sum(gradient(place * x[0].numpy()) for place in (0, 1)).transpose(1, 2, 0) * sample / 2
    expected = (theirs * n - ends) / (n - 1)
    made = explained(net, x, [3], baseline=0, n_steps=n, rule="trapezium", channels="max")
    assert relative_deviation(made.heatmap[0], torch.tensor(expected.max(-1))) < 1e-5


@DIMS
def test_complete_where_the_integral_is_exact(dims) -> None:
    """Along a path through a network without kinks Gauss and Legendre's rule converges at once."""
    net = curved_net(dims)
    smooth = nn.Sequential(*(nn.Softplus(beta=0.5) if isinstance(part, nn.ReLU) else part for part in net))
    x = batch_for(dims, 3, dtype=torch.float64)
    made = explained(smooth, x, baseline=-1.0, rule="gauss-legendre", n_steps=24, channels="sum")
    with torch.no_grad():
        change = (smooth(x.clone()) - smooth(torch.full_like(x, -1.0)))[torch.arange(3), TARGETS]
    assert made.details["convergence_delta"].abs().max() < 1e-9
    assert torch.allclose(made.heatmap.double().flatten(1).sum(1), change, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 40), st.sampled_from(["midpoint", "gauss-legendre", "trapezium"]), st.integers(0, 99))
def test_a_linear_network_is_explained_exactly_by_any_rule(n, rule, seed) -> None:
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).double(), seed)
    x = batch_for(batch=2, size=(8, 8), dtype=torch.float64, seed=seed)
    n = max(n, 2) if rule == "trapezium" else n
    made = explained(net, x, 2, baseline=0.25, n_steps=n, rule=rule, channels="sum")
    expected = ((x - 0.25).flatten(1) * net[1].weight[2].detach()).reshape(x.shape).sum(1)
    assert relative_deviation(made.heatmap, expected) < 1e-6
    assert made.details["convergence_delta"].abs().max() < 1e-9


def test_the_delta_shrinks_with_more_steps() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    few, many = (explained(net, x, n_steps=n).details["convergence_delta"].abs().max() for n in (4, 400))
    assert few > 10 * many
    assert many > 0


def test_the_predicted_class_stays_that_of_the_input() -> None:
    net, x = tiny_net(), 5 * batch_for(batch=6)
    predicted, start = net(x).argmax(1), x.flip(0)
    assert (net(start).argmax(1) != predicted).any()
    made = explained(net, x, None, baseline=start, n_steps=3)
    assert torch.equal(made.target, predicted)
    assert torch.equal(made.heatmap, explained(net, x, predicted, baseline=start, n_steps=3).heatmap)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 1000])
@pytest.mark.parametrize("form", ["classes", "callable"])
def test_how_many_at_once_does_not_matter(batch_size, form) -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    model, sizes = Counting(net), set()

    def pick(out):
        sizes.add(len(out))
        return out[torch.arange(3), TARGETS]

    base = explained(net, x, n_steps=6)
    made = explained(model, x, TARGETS if form == "classes" else pick, n_steps=6, batch_size=batch_size)
    assert relative_deviation(made.heatmap, base.heatmap) < 1e-5
    assert model.samples == 3 * 8 == int(made.details["passes"].sum())
    assert sizes == ({3} if form == "callable" else set())
    together = max(1, batch_size // 3)
    passes = -(-6 // together) * (1 if form == "callable" else -(-3 // min(3, batch_size)))
    assert model.passes == 2 + passes
    for i, target in enumerate(TARGETS):
        assert relative_deviation(explained(net, x[[i]], target, n_steps=6).heatmap, base.heatmap[[i]]) < 1e-5


def test_a_callable_whose_outputs_do_not_tell_the_copies_apart() -> None:
    net, x, sizes = curved_net(), batch_for(batch=3, dtype=torch.float64), set()

    class Turned(nn.Module):
        def forward(self, x):
            return net(x).T

    def pick(out):
        sizes.add(tuple(out.shape))
        return out[TARGETS, torch.arange(3)]

    made = explained(Turned(), x, pick, n_steps=5, batch_size=100)
    assert sizes == {(5, 3)}
    assert relative_deviation(made.heatmap, explained(net, x, n_steps=5).heatmap) < 1e-6


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_network_that_takes_one_batch_size_only(batch_size) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    program = torch.export.export(net, (x,)).module()
    made = explained(program, x, n_steps=5, batch_size=batch_size)
    assert relative_deviation(made.heatmap, explained(net, x, n_steps=5).heatmap) < 1e-6


def test_noise_is_seeded_by_content() -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    base = explained(net, x, baseline="noise", n_steps=3)
    torch.rand(3)
    assert torch.equal(explained(net, x, baseline="noise", n_steps=3).heatmap, base.heatmap)
    alone = explained(net, x[[1]], 0, baseline="noise", n_steps=3)
    assert relative_deviation(alone.heatmap, base.heatmap[[1]]) < 1e-5
    other = explained(net, x, baseline="noise", n_steps=3, seed=1)
    assert relative_deviation(other.heatmap, base.heatmap) > 0.01


@DIMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_is_near_single(dtype, tolerance, dims) -> None:
    x = batch_for(dims).to(dtype)
    single = explained(tiny_net(dims), x.float(), 1, baseline=0, n_steps=8).heatmap
    half = explained(tiny_net(dims).to(dtype), x, 1, baseline=0, n_steps=8).heatmap
    assert (half - single).abs().mean() < tolerance * single.mean()
    with torch.autocast("cpu", dtype):
        half = explained(tiny_net(dims), x.float(), 1, baseline=0, n_steps=8).heatmap
    assert (half - single).abs().mean() < tolerance * single.mean()


def test_it_scores_pixels_for_superpixels() -> None:
    net, x = tiny_net(), batch_for()
    pixels = explained(net, x, 1, n_steps=4)
    regions = mg.SWAG(net, scorer=mg.scorer("integrated-gradients", n_steps=4), n_segments=20)(x, 1)
    assert torch.equal(regions.heatmap, mg.SWAG(net, scorer=lambda *_: pixels.heatmap, n_segments=20)(x, 1).heatmap)
    assert torch.equal(regions.details["convergence_delta"], pixels.details["convergence_delta"])


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    net, x = tiny_net(), batch_for()
    explained(net, x, 1, n_steps=3)
    assert capfd.readouterr() == ("", "")
    explained(net, x, 1, n_steps=3, progress=True)
    assert "integrating gradients" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_steps": 0}, ValueError, "n_steps: expected 1 or more, got 0"),
        ({"n_steps": 2.5}, TypeError, "n_steps: expected an int, got float"),
        ({"n_steps": 1, "rule": "trapezium"}, ValueError, "n_steps: expected 2 or more with rule='trapezium', got 1"),
        ({"rule": "simpson"}, ValueError, "rule: expected one of gauss-legendre, midpoint, trapezium, got 'simpson'"),
        ({"channels": "mean"}, ValueError, "channels: expected one of max-abs, max, sum, got 'mean'"),
        ({"channels": None}, ValueError, "channels: expected one of max-abs, max, sum, got None"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"seed": -1}, ValueError, "seed: expected 0"),
        ({"progress": 1}, TypeError, "progress: expected a bool, got int"),
        ({"baseline": []}, ValueError, "baseline: expected at least one, got none"),
        ({"mean": [0.5] * 3}, ValueError, "mean, std: expected both or neither"),
        ({"steps": 5}, TypeError, "scorer 'integrated-gradients' has no option steps"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("integrated-gradients", tiny_net(), **options)


@pytest.mark.parametrize(
    ("baseline", "error", "match"),
    [
        (
            "grey",
            ValueError,
            "baseline: expected a number, mean, blur, noise, median, black, white or a tensor, got 'grey'",
        ),
        ("black+grey", ValueError, "got 'grey'"),
        (None, TypeError, "baseline: expected a number, a name, a tensor or a callable, got NoneType"),
        (["black", None], TypeError, "got NoneType"),
        (torch.zeros(5), ValueError, r"baseline: expected a shape that broadcasts to x's \[2, 3, 24, 32\], got \[5\]"),
        (float("nan"), ValueError, "baseline: expected values that are finite"),
    ],
    ids=str,
)
def test_bad_baselines(baseline, error, match) -> None:
    with pytest.raises(error, match=match):
        explained(tiny_net(), batch_for(), 1, baseline=baseline)


def test_inputs_that_are_no_pictures_have_no_black() -> None:
    net, x = tiny_net(channels=4), batch_for(channels=4)
    with pytest.raises(
        ValueError, match="'black' and 'white' are of pictures of 1 or 3 channels, got 4; pass a number"
    ):
        explained(net, x, 1)
    assert explained(net, x, 1, baseline=0).heatmap.max() > 0


def test_a_network_whose_output_does_not_depend_on_its_input() -> None:
    with pytest.raises(ValueError, match="cannot be differentiated"):
        explained(lambda x: torch.ones(len(x), 5), batch_for(), 1)
