"""SmoothGrad: by definition, beside captum on the same noise, and the same in any batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from cam_nets import Counting, curved_net
from midgrain.scorers.smooth import noisy_copies
from midgrain.stability import rank_correlation
from models_for_tests import SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import gradients as oracle
from oracles.guided import guided_gradient

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("smoothgrad", net, **options)(x, target)


def plain_gradient(net, x, targets):
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(net(leaf.clone())[torch.arange(len(x)), targets].sum(), leaf)[0]


SIGNED = {
    "vanilla": plain_gradient,
    "guided": lambda net, x, targets: guided_gradient(net, x, targets)[0],
    "input-x-gradient": lambda net, x, targets: x * plain_gradient(net, x, targets),
}


def by_hand(net, x, of, average, channels, n=4, noise=0.15, seed=0):
    """Every copy on its own; NumPy for the averages."""
    make, maps = noisy_copies(x, noise, n, seed), []
    for i, target in enumerate(TARGETS):
        copies = [make([k], slice(i, i + 1))[0] for k in range(n)]
        values = [SIGNED[of](net, copy, [target])[0].numpy() for copy in copies]
        maps.append(oracle.CHANNELS[channels](oracle.AVERAGES[average](values)))
    return torch.tensor(np.array(maps))


@DIMS
@pytest.mark.parametrize("channels", ["max-abs", "sum"])
@pytest.mark.parametrize("average", ["mean", "squared", "variance"])
@pytest.mark.parametrize("of", SIGNED)
def test_by_definition(of, average, channels, dims) -> None:
    net, x = curved_net(dims), 3 * batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, n_samples=4, of=of, average=average, channels=channels, seed=5)
    assert made.heatmap.shape == (3, *SPATIAL[dims])
    assert made.details["passes"].tolist() == [5, 5, 5]
    assert relative_deviation(made.heatmap, by_hand(net, x, of, average, channels, seed=5)) < 1e-6


@DIMS
def test_the_noise_is_normal_and_as_wide_as_said(dims) -> None:
    x = torch.stack([batch_for(dims, 1)[0], 7 * batch_for(dims, 1)[0] + 3])
    copies = noisy_copies(x, 0.2, 40, 0)(range(40), slice(0, 2))
    assert copies.shape == (40, *x.shape)
    for i in range(2):
        noise = (copies[:, i] - x[i]) / (0.2 * (x[i].max() - x[i].min()))
        assert abs(float(noise.mean())) < 0.02
        assert abs(float(noise.std()) - 1) < 0.02
        assert abs(float((noise.abs() < 1).float().mean()) - 0.6827) < 0.01
    assert len({float(copy[0, 0].flatten()[0]) for copy in copies}) == 40


@settings(max_examples=25)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(0, 2), st.integers(1, 3))
def test_any_copies_are_made_alike_in_any_batch(numbers, first, width) -> None:
    x = batch_for(batch=3)
    samples = slice(first, min(first + width, 3))
    together = noisy_copies(x, 0.15, 8, 1)(range(8), slice(0, 3))
    assert torch.equal(noisy_copies(x, 0.15, 8, 1)(numbers, samples), together[numbers, samples])
    assert torch.equal(noisy_copies(x[samples], 0.15, 8, 1)(numbers, slice(0, 3)), together[numbers, samples])


@pytest.mark.parametrize(
    ("kind", "average"), [("smoothgrad", "mean"), ("smoothgrad_sq", "squared"), ("vargrad", "variance")]
)
def test_beside_captum_on_the_same_noise(kind, average, monkeypatch) -> None:
    captum = pytest.importorskip("captum.attr")
    net, x, n = curved_net(), batch_for(batch=3, dtype=torch.float64), 6
    noise = noisy_copies(x, 0.15, n, 0)(range(n), slice(0, 3)) - x
    monkeypatch.setattr(torch, "normal", lambda mean, deviation: noise.transpose(0, 1).reshape(-1, *x.shape[1:]))
    tunnel = captum.NoiseTunnel(captum.Saliency(net))
    theirs = tunnel.attribute(x, kind, nt_samples=n, target=torch.tensor(TARGETS), abs=False)
    made = explained(net, x, n_samples=n, average=average)
    assert relative_deviation(made.heatmap, theirs.abs().amax(1).detach()) < 1e-6


def test_without_noise_it_is_the_plain_gradient() -> None:
    net, x = tiny_net(), batch_for()
    for of in SIGNED:
        made = explained(net, x, [1, 2], n_samples=3, noise=0, of=of)
        assert relative_deviation(made.heatmap, mg.explainer(of, net)(x, [1, 2]).heatmap) < 1e-5
    assert explained(net, x, [1, 2], n_samples=3, noise=0, average="variance").heatmap.max() < 1e-12


@DIMS
@pytest.mark.parametrize("of", ["sobel", "scorer", "callable"])
def test_maps_of_any_scorer_are_averaged(of, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 3)
    layer = mg.scorer("layercam")
    given = {
        "sobel": "sobel",
        "scorer": layer,
        "callable": lambda model, x, target: x.amax(1) * target.reshape(-1, *[1] * dims),
    }[of]
    made = explained(net, x, of=given, n_samples=4)
    make = noisy_copies(x, 0.15, 4, 0)
    maps = []
    for k in range(4):
        copy = make([k], slice(0, 3))[0]
        if of == "callable":
            maps.append(given(net, copy, torch.tensor(TARGETS)))
        else:
            maps.append(mg.explainer("sobel" if of == "sobel" else "layercam", net)(copy, TARGETS).heatmap)
    assert relative_deviation(made.heatmap, torch.stack(maps).mean(0)) < 1e-5


def test_the_inner_scorer_is_told_the_normalisation() -> None:
    net, x = tiny_net(), batch_for()
    numbers = {"mean": [0.5] * 3, "std": [0.25] * 3}
    made = explained(net, x, 1, of="integrated-gradients", n_samples=1, noise=0, **numbers)
    expected = mg.explainer("integrated-gradients", net, baseline=-2.0)(x, 1).heatmap
    assert relative_deviation(made.heatmap, expected) < 1e-5


@pytest.mark.parametrize("of", ["vanilla", "guided", "sobel"])
@pytest.mark.parametrize("form", ["classes", "callable"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 1000])
def test_how_many_at_once_does_not_matter(batch_size, form, of) -> None:
    net, x = curved_net(dtype=torch.float32), batch_for(batch=3)
    model, sizes = Counting(net), set()

    def pick(out):
        sizes.add(len(out))
        return out[torch.arange(3), TARGETS]

    base = explained(net, x, n_samples=5, of=of)
    made = explained(model, x, TARGETS if form == "classes" else pick, n_samples=5, of=of, batch_size=batch_size)
    assert relative_deviation(made.heatmap, base.heatmap) < 1e-5
    assert model.samples == int(made.details["passes"].sum()) == 3 * 6
    assert sizes == ({3} if form == "callable" else set())
    for i, target in enumerate(TARGETS):
        alone = explained(net, x[[i]], target, n_samples=5, of=of)
        assert relative_deviation(alone.heatmap, base.heatmap[[i]]) < 1e-5


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
@pytest.mark.parametrize("of", ["vanilla", "sobel"])
def test_it_stops_for_each_sample_once_its_map_has_settled(of, batch_size) -> None:
    net, flat = curved_net(), torch.full((1, 3, 24, 32), 0.3, dtype=torch.float64)
    x = torch.cat([batch_for(batch=2, dtype=torch.float64), flat])
    options = {"of": of, "noise": 0.05}
    made = explained(net, x, stop_at=0.98, n_samples=100, batch_size=batch_size, **options)
    counts = (made.details["passes"] - 1).tolist()
    assert all(count % 5 == 0 for count in counts)
    assert counts[2] == 15  # Without noise all maps are the same: two agreements in a row.
    assert counts[2] < max(counts[:2]) < 100
    for i, count in enumerate(counts):
        expected = explained(net, x[[i]], TARGETS[i], n_samples=count, **options)
        assert torch.allclose(made.heatmap[[i]], expected.heatmap, rtol=1e-5, atol=1e-7)
    maps = [explained(net, x, n_samples=n, **options).heatmap[0] for n in range(5, counts[0] + 1, 5)]
    agree = [rank_correlation(a, b) >= 0.98 for a, b in itertools.pairwise(maps)]
    assert [agree[n - 1] and agree[n] for n in range(1, len(agree))] == [False] * (len(agree) - 2) + [True]


def test_runs_repeat_and_seeds_differ() -> None:
    net, x = tiny_net(), batch_for()
    base = explained(net, x, 1, n_samples=3)
    torch.rand(3)
    assert torch.equal(explained(net, x, 1, n_samples=3).heatmap, base.heatmap)
    assert not torch.equal(explained(net, x, 1, n_samples=3, seed=1).heatmap, base.heatmap)


def test_fewer_samples_are_the_first_of_more() -> None:
    x = batch_for()
    few, more = (noisy_copies(x, 0.15, n, 0)([0, 1, 2], slice(0, 2)) for n in (3, 9))
    assert torch.equal(few, more)


@DIMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_is_near_single(dtype, tolerance, dims) -> None:
    x = batch_for(dims).to(dtype)
    single = explained(tiny_net(dims), x.float(), 1, n_samples=6).heatmap
    half = explained(tiny_net(dims).to(dtype), x, 1, n_samples=6).heatmap
    assert (half - single).abs().mean() < tolerance * single.mean()


def test_a_constant_picture_has_no_range_for_noise() -> None:
    net, x = tiny_net(), torch.full((1, 3, 24, 32), 0.3)
    assert (
        relative_deviation(explained(net, x, 1, n_samples=3).heatmap, mg.explainer("vanilla", net)(x, 1).heatmap) < 1e-5
    )


@DIMS
def test_it_scores_pixels_for_superpixels(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    pixels = explained(net, x, 1, n_samples=4)
    regions = mg.SWAG(net, scorer=mg.scorer("smoothgrad", n_samples=4), n_segments=20)(x, 1)
    assert torch.equal(regions.heatmap, mg.SWAG(net, scorer=lambda *_: pixels.heatmap, n_segments=20)(x, 1).heatmap)


def test_a_network_without_relus_cannot_be_guided() -> None:
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ValueError, match=r"scorer 'smoothgrad' of 'guided': .* no ReLU .*'vanilla'"):
        explained(net, batch_for(), 1, of="guided", n_samples=2)


def test_gradients_that_are_nan() -> None:
    with pytest.raises(ValueError, match=r"NaN or infinity for sample\(s\) \[0, 1\]"):
        explained(lambda x: (x - x.detach()).flatten(1)[:, :3].sqrt() + 1.0, batch_for(), 1, n_samples=2)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    explained(tiny_net(), batch_for(), 1, n_samples=3)
    assert capfd.readouterr() == ("", "")
    explained(tiny_net(), batch_for(), 1, n_samples=3, progress=True)
    assert "smoothing" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_samples": 0}, ValueError, "n_samples: expected 1 or more, got 0"),
        ({"n_samples": True}, TypeError, "n_samples: expected an int, got bool"),
        ({"noise": -0.1}, ValueError, "noise: expected a non-negative finite number, got -0.1"),
        ({"noise": float("inf")}, ValueError, "noise: expected a non-negative finite number"),
        ({"of": "vanila"}, ValueError, "of: expected one of vanilla, .* or a callable, got 'vanila'"),
        ({"of": 3}, TypeError, "of: expected a name, a scorer or a callable .* got int"),
        ({"of": None}, TypeError, "of: expected a name, a scorer or a callable .* got NoneType"),
        ({"average": "median"}, ValueError, "average: expected one of mean, squared, variance, got 'median'"),
        ({"channels": "mean"}, ValueError, "channels: expected one of max-abs, max, sum, got 'mean'"),
        ({"channels": "sum", "of": "sobel"}, ValueError, "channels: they go with of=vanilla, guided, input-x-gradient"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more"),
        ({"stop_at": 1.5}, ValueError, "stop_at: expected None or a rank correlation in 0 .. 1, got 1.5"),
        ({"stop_at": -0.5}, ValueError, "stop_at: expected None or a rank correlation in 0 .. 1, got -0.5"),
        ({"stop_at": "0.9"}, TypeError, "stop_at: expected None or a rank correlation, got str"),
        ({"seed": 1.5}, TypeError, "seed: expected an int"),
        ({"progress": None}, TypeError, "progress: expected a bool"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("smoothgrad", tiny_net(), **options)
