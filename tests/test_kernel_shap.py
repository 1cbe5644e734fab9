"""Kernel SHAP against Shapley values by their definition, and against captum run live."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from midgrain.regions.kernel_shap import KernelSHAP
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import switched as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])


def curved(classes=4):
    """Products of pixels: superpixels do not simply add up."""
    linear = seeded(lambda: nn.Sequential(nn.LazyLinear(12), nn.Tanh(), nn.Linear(12, classes)).double())
    return lambda x: linear(3.0 * x.flatten(1))


def value_of(net, sample, labels, empty, target, output="probability"):
    def value(on):
        made = oracle.switched(sample.numpy(), labels.numpy(), np.array(on), empty.numpy())
        with torch.no_grad():
            logits = net(torch.from_numpy(made)[None])
        return float((logits.softmax(1) if output == "probability" else logits)[0, target])

    return value


def stripes(count, size=(6, 12)):
    return (torch.arange(size[1]) * count // size[1]).expand(size)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("options", [{}, {"output": "logit", "baseline": 0.4}], ids=["usual", "other"])
def test_few_superpixels_get_exact_values(count, options) -> None:
    net, x = curved(), batch_for(size=(6, 12), dtype=torch.float64)
    labels = stripes(count)
    e = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=64, **options)(x, [1, 2])
    assert e.details["passes"].tolist() == [2**count] * 2
    assert e.details["exact"].tolist() == [1.0, 1.0]
    for i, target in enumerate([1, 2]):
        empty = torch.full_like(x[i], options.get("baseline", 0.0))
        value = value_of(net, x[i], labels, empty, target, options.get("output", "probability"))
        expected = oracle.shapley_values(value, count)
        assert relative_deviation(e.scores[i], torch.from_numpy(expected)) < 1e-5
        assert float(e.details["intercept"][i]) == pytest.approx(value([False] * count), rel=1e-6)
        assert torch.equal(e.heatmap[i], e.scores[i][labels])


@DIMS
def test_captum_on_the_same_superpixels(dims) -> None:
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)

    def probabilities(x):
        return net(x).softmax(1)

    e = mg.explainer("kernel-shap", net, n_segments=5, n_samples=1024)(x, [1, 2])
    for i, target in enumerate([1, 2]):
        mask = e.segments[i][None, None].long()
        theirs = captum.ShapleyValues(probabilities).attribute(x[[i]], target=target, feature_mask=mask)
        assert relative_deviation(e.heatmap[i], theirs[0, 0]) < 1e-4
        torch.manual_seed(0)
        sampled = captum.ShapleyValueSampling(probabilities).attribute(
            x[[i]], target=target, feature_mask=mask, n_samples=60
        )
        assert relative_deviation(e.heatmap[i], sampled[0, 0]) < 0.1
        near = captum.KernelShap(probabilities).attribute(x[[i]], target=target, feature_mask=mask, n_samples=400)
        assert relative_deviation(e.heatmap[i], near[0, 0]) < 0.1


@pytest.mark.parametrize("n_samples", [3, 20, 41, 60, 150])
def test_samples_come_near_the_exact_values(n_samples) -> None:
    net, x, labels = curved(), batch_for(size=(6, 12), dtype=torch.float64), stripes(9)
    exact = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=512)(x, [1, 2])
    assert exact.details["exact"].all()
    near = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=n_samples)(x, [1, 2])
    assert not near.details["exact"].any()
    assert (near.details["passes"] <= n_samples).all()
    with torch.no_grad():
        difference = (net(x).softmax(1) - net(0 * x).softmax(1))[torch.arange(2), [1, 2]]
    assert torch.allclose(near.scores.double().sum(1), difference, atol=1e-6)
    if n_samples >= 20:
        tolerance = {20: 0.35, 41: 0.25, 60: 0.2, 150: 0.1}[n_samples]
        assert relative_deviation(near.scores, exact.scores) < tolerance


def test_a_network_that_adds_up_its_superpixels_needs_few_samples() -> None:
    weights = seeded(lambda: torch.randn(2, 72, dtype=torch.float64))
    net = lambda x: x[:, 0].flatten(1) @ weights.T  # noqa: E731
    x, labels = batch_for(size=(6, 12), dtype=torch.float64), stripes(12)
    e = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=40, output="logit")(x, 1)
    parts = (x[:, 0].flatten(1) * weights[1]).reshape(2, 6, 12, 1)
    expected = torch.stack([parts[:, :, column].sum((1, 2)) for column in range(12)], 1)
    assert relative_deviation(e.scores, expected) < 1e-5


@given(st.integers(2, 14), st.integers(0, 400), st.integers(0, 10))
def test_designs(count, budget, seed) -> None:
    """Small and large sizes come whole, others beside their complements; weights are the kernel's, all in all."""
    explain = KernelSHAP(lambda x: x, n_samples=budget + 2)
    design = explain.design(count, torch.Generator().manual_seed(seed))
    table, weights = design.table, design.weights
    assert len(table) <= budget + 1
    assert not table[0].any()
    keys = {row.tobytes() for row in table}
    assert len(keys) == len(table)
    assert all((~row).tobytes() in keys for row in table[1:])
    assert np.ones(count, dtype=bool).tobytes() not in keys
    if design.exact:
        assert len(table) == 2**count - 1 <= budget + 1
        sizes = table[1:].sum(1)
        kernel = [(count - 1) / (math.comb(count, s) * s * (count - s)) for s in sizes]
        assert np.allclose(weights[1:], kernel)
    elif len(table) > 1:
        total = sum((count - 1) / (s * (count - s)) for s in range(1, count))
        whole = sum(weights)
        assert whole == pytest.approx(total, rel=1e-9)
        assert (weights[1:] > 0).all()


@DIMS
def test_a_sample_is_the_same_in_any_batch(dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64)
    options = {"n_samples": 60, "n_segments": 20}
    base = mg.explainer("kernel-shap", net, **options)(x, [1, 2, 0])
    assert torch.equal(mg.explainer("kernel-shap", net, **options)(x, [1, 2, 0]).heatmap, base.heatmap)
    for i, target in enumerate([1, 2, 0]):
        alone = mg.explainer("kernel-shap", net, batch_size=1, **options)(x[[i]], target)
        assert torch.allclose(alone.heatmap, base.heatmap[[i]], rtol=1e-5, atol=1e-9)
    other = mg.explainer("kernel-shap", net, seed=1, **options)(x, [1, 2, 0])
    assert not torch.allclose(other.heatmap, base.heatmap, rtol=1e-3)


@pytest.mark.parametrize("stop_at", [None, 0.7])
def test_several_targets_share_the_passes(stop_at) -> None:
    net, x = tiny_net(), batch_for()
    seen = []

    def run(x):
        seen.append(len(x))
        return net(x)

    made = mg.explainer("kernel-shap", run, n_samples=220, n_segments=12, stop_at=stop_at)
    targets = [None, 2, lambda out: out.softmax(1)[:, 3]]
    found = made.several(x, targets)
    if stop_at is None:
        assert sum(seen) <= 2 * 220 + 1  # One sample more shows what the network returns.
    for each, target in zip(found, targets, strict=True):
        alone = made(x, target)
        assert torch.allclose(each.heatmap, alone.heatmap, rtol=1e-3, atol=1e-6)
        assert torch.equal(each.details["passes"], alone.details["passes"])


def test_exact_designs_may_stop_early_too() -> None:
    net, x, labels = curved(), batch_for(size=(6, 12), dtype=torch.float64), stripes(9)
    full = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=512)(x, 1)
    e = mg.explainer("kernel-shap", net, superpixels=labels, n_samples=512, stop_at=0.9)(x, 1)
    assert (e.details["passes"] < 512).any()
    assert (e.details["exact"] == (e.details["passes"] == 512)).all()
    assert relative_deviation(e.scores, full.scores) < 0.3


def test_a_constant_model_gives_nothing_but_zeros() -> None:
    def model(x):
        return torch.tensor([[1.0, 2.0, 0.5]]).expand(len(x), 3) + 0 * x.sum()

    for n_segments in (4, 40):
        e = mg.explainer("kernel-shap", model, n_samples=60, n_segments=n_segments)(batch_for(), 1)
        assert not e.heatmap.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_tiny_inputs_and_budgets(size, n_samples) -> None:
    linear = seeded(lambda: nn.Linear(3, 4))
    net = lambda x: linear(x.flatten(2).mean(2))  # noqa: E731
    x = batch_for(len(size), size=size)
    e = mg.explainer("kernel-shap", net, n_samples=n_samples, output="logit")(x, 1)
    assert e.heatmap.isfinite().all()
    with torch.no_grad():
        assert torch.allclose(e.scores.nansum(1), net(x)[:, 1] - net(0 * x)[:, 1], atol=1e-5)
