"""Ablation-CAM against passes with every channel set to 0 by hand, however it gets its differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from cam_nets import Counting, TinyTransformer, curved_net, cut, score_from, seen_at
from midgrain.cams import ablation
from midgrain.network.resume import CannotResume
from midgrain.progress import progress_bar
from models_for_tests import SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import cams as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("ablationcam", net, **options)(x, target)


def by_hand(net, layer, x, targets, divide_by="score", relu=True):
    activations, _ = seen_at(net, layer, x, targets)
    weights = [
        oracle.ablation_weights(a, score_from(net, layer, c), divide_by)
        for a, c in zip(activations, targets, strict=True)
    ]
    return np.array([oracle.weighted(w, a, relu) for w, a in zip(weights, activations, strict=True)])


def check(actual, expected, tolerance=1e-5):
    expected = expected if isinstance(expected, torch.Tensor) else torch.tensor(np.array(expected))
    assert expected.abs().max() > 0
    assert actual.shape == expected.shape
    assert relative_deviation(actual, expected) < tolerance


@pytest.fixture(params=["closed form", "resumed", "whole runs"])
def way(request, monkeypatch):
    """The three ways to the differences, the later ones also where an earlier one would do."""
    if request.param != "closed form":
        capture = ablation.capture
        monkeypatch.setattr(
            ablation, "capture", lambda *args, **options: dataclasses.replace(capture(*args, **options), affine=False)
        )
    if request.param == "whole runs":

        def refuse(*_):
            raise CannotResume

        monkeypatch.setattr(ablation, "Resume", refuse)
    return request.param


# By definition.


@DIMS
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", ["4", "5"])
def test_curved_networks(layer, relu, dims, way) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, layer=layer, relu=relu)
    expected = by_hand(net, layer, x, TARGETS, relu=relu)
    check(made.cam, expected)
    check(made.heatmap, [oracle.resize(each, SPATIAL[dims]) for each in expected])


@DIMS
def test_affine_networks(dims, way) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64)
    check(explained(net, x).cam, by_hand(net, "4", x, TARGETS))


def test_negative_scores_and_zero() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    with torch.no_grad():
        net[10].bias -= 3.0
        assert (net(x.clone()) < 0).all()
    kept, turned = explained(net, x, layer="5", divide_by="magnitude"), explained(net, x, layer="5")
    check(kept.cam, by_hand(net, "5", x, TARGETS, "magnitude"))
    check(turned.cam, by_hand(net, "5", x, TARGETS, "score"))
    signed = [explained(net, x, layer="5", relu=False, divide_by=by).cam for by in ("magnitude", "score")]
    assert torch.equal(signed[0], -signed[1])

    def less_its_own(out):
        return out[:, 1] - offset

    with torch.no_grad():
        offset = net(x[:1].clone())[0, 1]
    made = explained(net, x[:1], less_its_own, layer="5", relu=False)
    check(made.cam * float(offset.abs()) ** -1, -explained(net, x[:1], 1, layer="5", relu=False).cam)


def test_several_layers_are_rescaled_and_averaged(way) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    maps = [by_hand(net, layer, x, TARGETS) for layer in ("2", "5")]
    expected = [oracle.fused(pair, SPATIAL[2]) for pair in zip(*maps, strict=True)]
    check(explained(net, x, layer=["2", "5"]).heatmap, expected)


@pytest.mark.parametrize("layer", ["first", "second.norm1"])
def test_patches_of_tokens_are_set_to_zero_and_the_class_token_stays(layer, way) -> None:
    net = seeded(TinyTransformer).double().eval()
    x = batch_for(batch=2, dtype=torch.float64)
    tokens = []
    with net.get_submodule(layer).register_forward_hook(lambda module, args, output: tokens.append(output.detach())):
        net(x)
    (tokens,) = tokens

    def rest(values):
        if layer == "first":
            return net.rest(values)
        exchange = net.second.norm1.register_forward_hook(lambda *_: values)
        try:
            return net.rest(first)
        finally:
            exchange.remove()

    expected = []
    for sample, target in enumerate([3, 1]):
        with torch.no_grad():
            first = net.first(torch.cat([net.token, net.patches(x[[sample]]).flatten(2).transpose(1, 2)], 1))
            maps = tokens[sample, 1:].T.reshape(-1, 3, 4).numpy()
            score = float(rest(tokens[[sample]])[0, target])
            weights = []
            for k in range(len(maps)):
                ablated = tokens[[sample]].clone()
                ablated[:, 1:, k] = 0.0
                weights.append((score - float(rest(ablated)[0, target])) / abs(score))
        expected.append(oracle.weighted(weights, maps))
    check(explained(net, x, [3, 1], layer=layer).cam, expected)


def test_as_the_peer_has_it() -> None:
    peer = pytest.importorskip("pytorch_grad_cam")
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    targets = [peer.utils.model_targets.ClassifierOutputTarget(c) for c in TARGETS]
    theirs = peer.AblationCAM(model=net, target_layers=[net[5]], ablation_layer=peer.ablation_layer.AblationLayer())
    theirs.batch_size = 4
    expected = theirs(input_tensor=x, targets=targets)
    made = explained(curved_net(dtype=torch.float32), x, layer="5", divide_by="score").cam
    # The peer resizes with another library; what it resizes is compared where both have a cell's centre.
    for ours, their in zip(made.numpy(), expected, strict=True):
        resized = oracle.min_max(oracle.resize(oracle.min_max(ours), SPATIAL[2]))
        assert np.corrcoef(resized.ravel(), their.ravel())[0, 1] > 0.999


# How much is run.


def test_affine_scores_need_no_pass_but_the_first() -> None:
    model = Counting(tiny_net())
    explain = mg.explainer("ablationcam", model)
    explain(batch_for())
    model.passes = 0
    explain(batch_for())
    assert model.passes == 1


@pytest.mark.parametrize("layer", ["first", "second.norm1"])
def test_what_comes_before_the_layer_runs_once(layer) -> None:
    """Inside a transformer block too, which has a fast way around its own layers."""
    net, calls = seeded(TinyTransformer).eval(), []
    inner = net.patches.forward
    net.patches.forward = lambda x: calls.append(1) or inner(x)
    counts = []
    for batch_size in (1, 8):
        calls.clear()
        explained(net, batch_for(batch=1), 3, layer=layer, batch_size=batch_size)
        counts.append(len(calls))
    assert counts[0] == counts[1] < 8


def test_channels_that_are_zero_everywhere_need_no_pass(monkeypatch) -> None:
    net, x = curved_net(), batch_for(batch=2, dtype=torch.float64)
    with torch.no_grad():
        net[4].weight[:5] = 0.0
        net[4].bias[:5] = -1.0
    wanted = []
    scores = ablation.altered_scores
    monkeypatch.setattr(ablation, "altered_scores", lambda *args, **kw: wanted.append(args[1]) or scores(*args, **kw))
    made = explained(net, x, [3, 1], layer="5")
    assert wanted[0].sum(1).tolist() == [2, 2]
    check(made.cam, by_hand(net, "5", x, [3, 1]))


def test_batches_round_differently_but_runs_do_not(way) -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    base = explained(net, x, layer="5", relu=False).cam
    assert torch.equal(explained(net, x, layer="5", relu=False).cam, base)
    for batch_size in (1, 3, np.int64(100)):
        assert relative_deviation(explained(net, x, layer="5", relu=False, batch_size=batch_size).cam, base) < 1e-4
    for i, target in enumerate(TARGETS):
        assert relative_deviation(explained(net, x[[i]], target, layer="5", relu=False).cam, base[[i]]) < 1e-4


def test_channels_without_a_part_in_the_score_get_exactly_nothing() -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    with torch.no_grad():
        net[8].weight[:, :16] = 0.0  # Four channels, of four cells each.
    made = explained(net, x, layer="5", relu=False, batch_size=2).cam
    activations = cut(net, "5")[0](x.clone()).detach()
    blind = explained(net, x, lambda out: out[:, 1] * 0 + 1, layer="5", relu=False, batch_size=2).cam
    assert not blind.any()
    kept = np.linalg.lstsq(activations[0].flatten(1).T.double().numpy(), made[0].flatten().double().numpy(), rcond=None)
    assert np.allclose(kept[0][:4], 0.0, atol=1e-5 * np.abs(kept[0]).max())


# Callable targets.


class Output:
    """Something of a network's own."""

    def __init__(self, logits):
        self.logits = logits


class Returns(nn.Module):
    """Logits and features in some form."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = curved_net(), form

    def forward(self, x):
        features = self.net[5](self.net[4](self.net[3](self.net[2](self.net[1](self.net[0](x))))))
        return self.form(self.net[6:](features), features)


FORMS = {
    "tensor": (lambda logits, _: logits, lambda out: out),
    "tuple": (lambda logits, features: (logits, features), lambda out: out[0]),
    "dictionary": (lambda logits, features: {"out": logits, "step": 3}, lambda out: out["out"]),
    "with a loss": (lambda logits, features: (logits, features.mean()), lambda out: out[0]),
    "list per sample": (lambda logits, _: list(logits), lambda out: torch.stack(out)),
    "an object": (lambda logits, _: Output(logits), lambda out: out.logits),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_callables_always_get_the_original_batch(form, batch, way) -> None:
    make, logits_of = FORMS[form]
    net, x, sizes = Returns(make).eval(), batch_for(batch=batch, dtype=torch.float64), set()

    def target(out):
        logits = logits_of(out)
        sizes.add(len(logits))
        return logits[torch.arange(batch), TARGETS[:batch]]

    made = explained(net, x, target, layer="net.5")
    assert sizes == {batch}
    assert made.target is None
    check(made.cam, by_hand(net.net, "5", x, TARGETS[:batch]))


def test_callables_with_more_samples_than_are_kept(monkeypatch) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    monkeypatch.setattr(ablation, "_KEPT_SAMPLES", 2)
    made = explained(net, x, lambda out: out[torch.arange(3), TARGETS], layer="5", batch_size=3)
    check(made.cam, by_hand(net, "5", x, TARGETS))


def test_callables_may_compute() -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    made = explained(net, x, lambda out: out.softmax(1)[:, 2])
    expected = []
    for sample in cut(net, "4")[0](x.clone()).detach().numpy():
        logits = cut(net, "4")[1]
        weights = oracle.ablation_weights(
            sample, lambda a, head=logits: head(torch.tensor(a)[None]).softmax(1)[0, 2].item()
        )
        expected.append(oracle.weighted(weights, sample))
    check(made.cam, expected)


# Layers' layouts and networks that are difficult.


def test_reshape_may_move_values_and_not_compute_with_them() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    moved = explained(net, x, layer="5", reshape=lambda values: values.flip(-1).contiguous())
    check(moved.cam, by_hand(net, "5", x, TARGETS)[..., ::-1].copy())
    for compute in (
        lambda values: values * 2,
        lambda values: values - values.mean(),
        lambda values: values.relu() + 0.5,
    ):
        with pytest.raises(ValueError, match=r"reshape: 'ablationcam' sets channels of 5 to 0 .* may only move values"):
            explained(net, x, layer="5", reshape=compute)


def test_networks_that_allow_no_gradients() -> None:
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = curved_net()

        @torch.no_grad()
        def forward(self, x):
            return self.net(x)

    net, x = Frozen().eval(), batch_for(batch=3, dtype=torch.float64)
    check(explained(net, x, layer="net.5").cam, by_hand(net.net, "5", x, TARGETS))


def test_a_layer_that_the_score_does_not_depend_on() -> None:
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.side = curved_net(dtype=torch.float32), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            self.side(x)
            return self.net(x)

    with pytest.raises(ValueError, match=r"layer: the explained score does not depend on side|cannot be differ"):
        explained(seeded(Beside).eval(), batch_for(), [0, 1], layer="side")


def test_the_network_is_left_as_it_was_when_a_target_fails_on_the_way() -> None:
    net, x, calls = curved_net(), batch_for(dtype=torch.float64), []
    before = net(x.clone())

    def target(out):
        calls.append(1)
        if len(calls) == 4:
            raise ArithmeticError("target fails")
        return out[:, 0]

    hooks = [(len(module._forward_hooks), "forward" in vars(module)) for module in net.modules()]
    with pytest.raises(ArithmeticError, match="target fails"):
        explained(net, x, target, layer="5")
    assert [(len(module._forward_hooks), "forward" in vars(module)) for module in net.modules()] == hooks
    assert torch.equal(net(x.clone()), before)


def test_it_scores_pixels_for_superpixels() -> None:
    net, x = curved_net(dtype=torch.float32), batch_for()
    by_name = mg.SWAG(net, scorer="ablationcam", n_segments=20)(x, 1)
    pixels = explained(net, x, 1).heatmap
    assert torch.equal(by_name.heatmap, mg.SWAG(net, scorer=lambda *_: pixels, n_segments=20)(x, 1).heatmap)


# Progress.


@pytest.mark.parametrize("target", [TARGETS, lambda out: out[:, 1]], ids=["classes", "callable"])
def test_a_bar_on_the_terminal_alone(target, capfd, monkeypatch) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    explained(net, x, target, layer="5", progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    explained(net, x, target, layer="5")
    assert capfd.readouterr() == ("", "")
    explained(net, x, target, layer="5", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "ablating channels" in err


def test_the_bar_goes_away_after_an_exception(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def fails():
        with progress_bar("working", 3, shown=True) as advance:
            advance(2)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fails()
    with progress_bar("working", 3, shown=True) as advance:
        advance(3)
    assert "working" in capfd.readouterr().err
