"""Occlusion against captum, which runs live, and window by window by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import midgrain as mg
from cam_nets import Counting
from midgrain.baseline import make_baseline
from midgrain.masking.windows import Windows
from models_for_tests import SPATIAL, batch_for, relative_deviation, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import masking as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0]
CPU = torch.device("cpu")


def occlusion(net, x, target=TARGETS, **options):
    return mg.explainer("occlusion", net, **options)(x, target)


@pytest.mark.parametrize(
    ("window", "stride"),
    [
        ((5, 6), (3, 4)),
        ((5, 5), (5, 5)),
        ((7, 4), (2, 1)),
        ((24, 32), (24, 32)),
        ((24, 3), (100, 3)),
        ((10, 10), (9, 10)),
    ],
    ids=str,
)
def test_it_is_captums_on_images(window, stride) -> None:
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    options = {"sliding_window_shapes": (3, *window), "strides": (3, *stride)}
    theirs = captum.Occlusion(net).attribute(x, target=torch.tensor(TARGETS), **options)[:, 0]
    ours = occlusion(net, x, window=window, stride=stride, output="logit")
    assert relative_deviation(ours.heatmap, theirs) < 1e-6
    counts = [math.ceil((n - w) / s) + 1 for n, w, s in zip(SPATIAL[2], window, stride, strict=True)]
    assert list(ours.details["drops"].shape) == [2, *counts]
    assert ours.details["passes"].tolist() == [math.prod(counts) + 1] * 2


def test_it_is_captums_on_clips() -> None:
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")
    net, x = tiny_net(3, dtype=torch.float64), batch_for(3, dtype=torch.float64)
    peer = captum.Occlusion(lambda x: net(x).softmax(1))
    theirs = peer.attribute(
        x, baselines=0.5, target=1, sliding_window_shapes=(3, 3, 5, 4), strides=(3, 2, 3, 4), perturbations_per_eval=5
    )[:, 0]
    ours = occlusion(net, x, 1, window=(3, 5, 4), stride=(2, 3, 4), baseline=0.5)
    assert relative_deviation(ours.heatmap, theirs) < 1e-6


@DIMS
@pytest.mark.parametrize("baseline", [0.0, "mean", "noise", "black"])
def test_by_definition(baseline, dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)
    explain = mg.explainer("occlusion", net, baseline=baseline, seed=5, window=5, stride=3, output="logit")
    made = explain(x, TARGETS)
    # By default a quarter of the frames, and half of that from one to the next.
    window, stride = (1, 5, 5), (1, 3, 3)
    hidden = make_baseline(baseline, x, 5, explain._normalisation).numpy()
    for i, target in enumerate(TARGETS):

        def score(sample, target=target):
            with torch.no_grad():
                return float(net(torch.tensor(sample)[None])[0, target])

        found = oracle.occlusion_map(score, x[i].numpy(), hidden[i], window[-dims:], stride[-dims:])
        assert relative_deviation(made.heatmap[i], torch.tensor(found)) < 1e-6


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [
        ((224, 224), (28, 28), (14, 14)),
        ((24, 32), (3, 3), (1, 1)),
        ((100, 30), (4, 4), (2, 2)),
        ((16, 112, 112), (4, 14, 14), (2, 7, 7)),
        ((1, 1), (1, 1), (1, 1)),
        ((1, 3, 2), (1, 1, 1), (1, 1, 1)),
    ],
    ids=str,
)
def test_windows_by_default(size, window, stride) -> None:
    x = torch.zeros(1, 3, *size)
    windows = mg.explainer("occlusion", tiny_net())._windows_of(x)
    assert windows.counts == Windows(size, window, stride, CPU).counts
    first = windows.masks([0])[0]
    assert first.nonzero().amax(0).tolist() == [n - 1 for n in window]


@given(
    axes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3),
)
def test_windows_cover_every_pixel_and_average(axes) -> None:
    size = [n for n, _, _ in axes]
    window = [min(w, n) for n, w, _ in axes]
    stride = [min(s, w) for w, (_, _, s) in zip(window, axes, strict=True)]
    windows = Windows(size, window, stride, CPU)
    masks = windows.masks(range(len(windows)))
    assert masks.shape == (len(windows), *size)
    assert masks.any(0).all()
    assert masks.flatten(1).any(1).all()
    values = torch.rand(2, len(windows), dtype=torch.float64, generator=torch.Generator().manual_seed(len(windows)))
    weights = masks.double()
    expected = torch.einsum("bn,n...->b...", values, weights) / weights.sum(0)
    assert torch.allclose(windows.mean(values), expected)


def test_what_speaks_against_a_class_is_negative() -> None:
    def model(x):
        left, right = x[:, 0, :, :4].sum((1, 2)), x[:, 0, :, 4:].sum((1, 2))
        return torch.stack([left - right, right], 1)

    heat = occlusion(model, torch.ones(1, 1, 8, 8), 0, window=(8, 4), stride=4, output="logit").heatmap[0]
    assert heat[:, :4].tolist() == [[32.0] * 4] * 8
    assert heat[:, 4:].tolist() == [[-32.0] * 4] * 8


def test_batches_and_targets_share_passes() -> None:
    model, x = Counting(tiny_net()), batch_for(batch=3)
    explain = mg.explainer("occlusion", model, window=6, stride=6)
    together = explain.several(x, [1, [3, 0, 2], None])
    assert model.samples == 3 * (4 * 6 + 1)
    base = explain(x, 1)
    assert torch.equal(together[0].heatmap, base.heatmap)
    assert torch.equal(explain(x, 1).heatmap, base.heatmap)
    for batch_size in (1, 5, 1000):
        other = mg.explainer("occlusion", model, window=6, stride=6, batch_size=batch_size)(x, 1)
        assert (other.heatmap - base.heatmap).abs().max() < 1e-6
    for i in range(3):
        assert (explain(x[[i]], 1).heatmap - base.heatmap[[i]]).abs().max() < 1e-6
    picked = explain(x, lambda out: out.softmax(1)[:, 1])
    assert (picked.heatmap - base.heatmap).abs().max() < 1e-6


def test_a_model_that_says_the_same_of_everything() -> None:
    constant = torch.tensor([[1.0, 2.0, 0.5]])
    assert occlusion(lambda x: constant.expand(len(x), -1), batch_for(), 1).heatmap.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"window": 0}, ValueError, "window: expected 1 or more, got 0"),
        ({"window": 2.5}, TypeError, "window: expected an int, got float"),
        ({"window": (3,)}, ValueError, r"window: expected an int, \(rows, columns\) or \(frames, rows, columns\)"),
        ({"window": (3, 2.0)}, TypeError, "window: expected an int, got float"),
        ({"stride": 0}, ValueError, "stride: expected 1 or more, got 0"),
        ({"stride": "half"}, TypeError, "stride: expected an int, got str"),
        ({"output": "score"}, ValueError, "output: expected one of probability, logit, got 'score'"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"seed": True}, TypeError, "seed: expected an int, got bool"),
        ({"progress": None}, TypeError, "progress: expected a bool, got NoneType"),
        ({"n_samples": 5}, TypeError, "'occlusion' has no option n_samples"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("occlusion", tiny_net(), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": 25}, r"window: expected 1 \.\. 24 rows for x \[2, 3, 24, 32\], got 25"),
        ({"window": (24, 33)}, r"window: expected 1 \.\. 32 columns for x \[2, 3, 24, 32\], got 33"),
        ({"window": (2, 4, 4)}, r"window: expected one int per spatial axis \(2\), got 3"),
        ({"window": 4, "stride": 5}, "stride: expected at most the window's 4 rows, got 5"),
        ({"window": (4, 4), "stride": (4, 5)}, "stride: expected at most the window's 4 columns, got 5"),
        (
            {"baseline": torch.zeros(5)},
            r"baseline: expected a shape that broadcasts to x's \[2, 3, 24, 32\], got \[5\]",
        ),
    ],
)
def test_what_does_not_fit_the_input(options, match) -> None:
    with pytest.raises(ValueError, match=match):
        occlusion(tiny_net(), batch_for(), **options)


def test_numbers_may_be_numpys() -> None:
    net, x = tiny_net(), batch_for()
    base = occlusion(net, x, window=(6, 8), stride=3).heatmap
    assert torch.equal(occlusion(net, x, window=np.array([6, 8]), stride=np.int64(3)).heatmap, base)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    occlusion(tiny_net(), batch_for(), window=8)
    assert capfd.readouterr() == ("", "")
    occlusion(tiny_net(), batch_for(), window=8, progress=True)
    assert "occluding" in capfd.readouterr().err
