"""Score-CAM against one pass per channel by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import midgrain as mg
from cam_nets import Counting, curved_net, cut
from models_for_tests import SPATIAL, batch_for, check_maps, relative_deviation
from models_for_tests import one_thread as one_thread
from oracles import cams as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("scorecam", net, **options)(x, target)


def activations_of(net, layer, x):
    with torch.no_grad():
        return cut(net, layer)[0](x.clone()).numpy()


def by_hand(net, layer, x, targets, weights="softmax", n_channels=None, relu=True):
    def logits_of(sample):
        with torch.no_grad():
            return net(torch.tensor(sample)[None])[0].numpy()

    maps = []
    for sample, activations, target in zip(x.numpy(), activations_of(net, layer, x), targets, strict=True):
        found = oracle.score_weights(sample, activations, logits_of, target, weights, n_channels)
        maps.append(oracle.weighted(found, activations, relu))
    return np.array(maps)


@DIMS
@pytest.mark.parametrize("weights", ["softmax", "channel-softmax"])
@pytest.mark.parametrize("n_channels", [None, 3, 100])
@pytest.mark.parametrize("layer", ["4", "5"])
def test_by_definition(layer, n_channels, weights, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, layer=layer, weights=weights, n_channels=n_channels)
    expected = by_hand(net, layer, x, TARGETS, weights, n_channels)
    check_maps(made.cam, expected)
    check_maps(made.heatmap, [oracle.resize(each, SPATIAL[dims]) for each in expected])
    signed = explained(net, x, layer=layer, weights=weights, n_channels=n_channels, relu=False)
    check_maps(signed.cam, by_hand(net, layer, x, TARGETS, weights, n_channels, relu=False))


def test_several_layers_are_rescaled_and_averaged() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    maps = [by_hand(net, layer, x, TARGETS) for layer in ("2", "5")]
    check_maps(
        explained(net, x, layer=["2", "5"]).heatmap,
        [oracle.fused(pair, SPATIAL[2]) for pair in zip(*maps, strict=True)],
    )


def with_constant_channels(dims=2):
    """Layer "4": channels 0 and 1 are 0 everywhere, channels 2 and 3 are 0.7."""
    net = curved_net(dims)
    with torch.no_grad():
        net[4].weight[:4] = 0.0
        net[4].bias[:2] = 0.0
        net[4].bias[2:4] = 0.7
    return net


@pytest.mark.parametrize(("weights", "passes"), [("softmax", 4), ("channel-softmax", 4)])
@pytest.mark.parametrize("target", [TARGETS, lambda out: out[torch.arange(3), TARGETS]], ids=["classes", "callable"])
def test_constant_channels_share_one_pass(target, weights, passes) -> None:
    net, x = with_constant_channels(), batch_for(batch=3, dtype=torch.float64)
    model = Counting(net)
    explain = mg.explainer("scorecam", model, layer="inner.4", weights=weights, batch_size=1, relu=False)
    explain(x, target)
    model.samples = 0
    made = explain(x, target)
    # The first sees the layer; then three channels and one for all constant ones; one sample shows what is returned.
    assert model.samples == 3 * (1 + passes) + callable(target)
    if not callable(target) or weights == "channel-softmax":
        check_maps(made.cam, by_hand(net, "4", x, TARGETS, weights, relu=False))


def test_channels_of_nothing_but_zero_need_no_pass() -> None:
    net, x = with_constant_channels(), batch_for(batch=1, dtype=torch.float64)
    with torch.no_grad():
        net[4].bias[2:4] = 0.0
    model = Counting(net)
    explain = mg.explainer("scorecam", model, layer="inner.4", batch_size=1)
    explain(x, 3)
    model.samples = 0
    check_maps(explain(x, 3).cam, by_hand(net, "4", x, [3]))
    assert model.samples == 1 + 3


def test_fewer_channels_need_fewer_passes() -> None:
    model, x = Counting(curved_net()), batch_for(batch=2, dtype=torch.float64)
    explain = mg.explainer("scorecam", model, layer="inner.4", n_channels=2, batch_size=1)
    explain(x, 1)
    model.samples = 0
    explain(x, 1)
    assert model.samples == 2 + 2 * 2


def test_batches_round_differently_but_runs_do_not() -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    base = explained(net, x).cam
    assert torch.equal(explained(net, x).cam, base)
    for batch_size in (1, 2, 100):
        assert relative_deviation(explained(net, x, batch_size=batch_size).cam, base) < 1e-5
    for i, target in enumerate(TARGETS):
        assert relative_deviation(explained(net, x[[i]], target).cam, base[[i]]) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["tensor", "list"])
def test_callables_score_themselves(form, batch) -> None:
    net, x, sizes = curved_net(), batch_for(batch=batch, dtype=torch.float64), set()
    model = Counting(net)
    if form == "list":
        model.register_forward_hook(lambda module, args, output: list(output))

    def probability(out):
        logits = torch.stack(out) if isinstance(out, list) else out
        sizes.add(len(logits))
        return logits.softmax(1)[torch.arange(batch), TARGETS[:batch]]

    made = explained(model, x, probability, layer="inner.5")
    assert sizes == {batch}
    check_maps(made.cam, by_hand(net, "5", x, TARGETS[:batch]))


def test_gradients_are_not_needed_for_a_named_layer() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    model = Counting(net)
    model.forward = torch.no_grad()(model.forward)
    check_maps(explained(model, x, layer="inner.5").cam, by_hand(net, "5", x, TARGETS))


def test_it_scores_pixels_for_superpixels() -> None:
    net, x = curved_net(dtype=torch.float32), batch_for()
    pixels = explained(net, x, 1).heatmap
    by_name = mg.SWAG(net, scorer="scorecam", n_segments=20)(x, 1)
    assert torch.equal(by_name.heatmap, mg.SWAG(net, scorer=lambda *_: pixels, n_segments=20)(x, 1).heatmap)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    explained(net, x)
    assert capfd.readouterr() == ("", "")
    explained(net, x, progress=True)
    assert "masking with channels" in capfd.readouterr().err
