"""LIME against its definition, and against the `lime` package run live on the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp, softmax
from torch import nn

import midgrain as mg
from midgrain.baseline import make_baseline
from midgrain.network.altered import log_odds
from midgrain.randomness import seeded_by_content
from midgrain.regions.lime import LIME, cosine_weights
from midgrain.regions.ridge import weighted_ridge
from midgrain.regions.segmentations import quickshift
from models_for_tests import SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import switched as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
# Squares of much smaller ones are 0.
ORDINARY = st.floats(-2, 2).map(lambda value: round(value, 9))
VARIANTS = {"lime-i": "image", "lime-ig": "image+gradient", "lime-g": "gradient"}


def rows_of(sample, count, n_samples, seed=0):
    """The copies as the method draws them: the input itself first."""
    generator = seeded_by_content(sample.float().cpu(), seed)
    drawn = torch.randint(0, 2, (n_samples - 1, count), generator=generator, dtype=torch.uint8)
    return np.concatenate([np.ones((1, count)), drawn.numpy()]).astype(bool)


def probabilities_of(net, sample, labels, rows, empty, target, output="probability"):
    made = np.stack([oracle.switched(sample.numpy(), labels.numpy(), row, empty.numpy()) for row in rows])
    with torch.no_grad():
        logits = net(torch.from_numpy(made))
    return (logits.softmax(1) if output == "probability" else logits)[:, target].double().numpy()


def counted(model):
    """The model, and how many samples went through it."""
    seen = []

    def run(x):
        seen.append(len(x))
        return model(x)

    return run, seen


@DIMS
@pytest.mark.parametrize("name", [*VARIANTS, "lime"])
@pytest.mark.parametrize(
    "options", [{}, {"output": "logit", "kernel_width": 1.0, "alpha": 0.3}], ids=["usual", "other"]
)
def test_by_definition(name, options, dims) -> None:
    net, x, targets = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64), [3, 0, 1]
    segments = {} if name == "lime" else {"n_segments": 9}
    e = mg.explainer(name, net, n_samples=40, **segments, **options)(x, targets)
    assert e.target.tolist() == targets
    assert e.details["passes"].tolist() == [40, 40, 40]
    for i, target in enumerate(targets):
        count = int(e.counts[i])
        rows = rows_of(x[i], count, 40)
        scores = probabilities_of(
            net, x[i], e.segments[i], rows, torch.zeros_like(x[i]), target, options.get("output", "probability")
        )
        weights = oracle.lime_weights(rows, options.get("kernel_width", 0.25))
        coefficients, intercept, r2 = oracle.ridge(rows, scores, weights, options.get("alpha", 1.0))
        assert relative_deviation(e.scores[i, :count], torch.from_numpy(coefficients)) < 1e-5
        assert torch.isnan(e.scores[i, count:]).all()
        assert float(e.details["intercept"][i]) == pytest.approx(intercept, rel=1e-5)
        assert float(e.details["r2"][i]) == pytest.approx(r2, abs=1e-6)
        assert torch.equal(e.heatmap[i], e.scores[i][e.segments[i].long()])


@DIMS
def test_superpixels_are_those_of_the_name(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    for name, superpixels in VARIANTS.items():
        e = mg.explainer(name, net, n_samples=5, n_segments=12)(x, 1)
        expected = mg.SWAG(net, superpixels, n_segments=12)(x, 1)
        assert torch.equal(e.segments, expected.segments)
        assert torch.equal(e.counts, expected.counts)
        assert e.method == name == LIME(net, superpixels, n_samples=5).name
    e = mg.explainer("lime", net, n_samples=5, n_segments=12)(x, 1)
    if dims == 3:
        assert torch.equal(e.segments, mg.SWAG(net, "image", n_segments=12)(x, 1).segments)
    else:
        for picture, labels in zip(e.image.numpy(), e.segments.numpy(), strict=True):
            assert np.array_equal(labels, quickshift(picture))


def test_fifty_superpixels_by_default_and_fewer_of_small_inputs() -> None:
    net = lambda x: x.flatten(2).mean(2)  # noqa: E731
    for size, expected in (((64, 64), 50), ((12, 16), 12), ((1, 1), 1), ((3, 5), 1)):
        e = mg.explainer("lime-i", net, n_samples=4)(batch_for(size=size), 1)
        wanted = mg.SWAG(net, "image", "sobel", n_segments=expected)(batch_for(size=size), 1)
        assert torch.equal(e.segments, wanted.segments)


@pytest.mark.parametrize(
    "scorer", ["vanilla", "gradcam", lambda model, x, target: x.sum(1)], ids=["vanilla", "gradcam", "callable"]
)
def test_superpixels_from_any_scorer(scorer) -> None:
    net, x = tiny_net(), batch_for()
    e = mg.explainer("lime-g", net, scorer=scorer, n_samples=4, n_segments=12)(x, [1, 4])
    assert torch.equal(e.segments, mg.SWAG(net, "gradient", scorer, n_segments=12)(x, [1, 4]).segments)


@pytest.mark.parametrize("hide_color", [0, None], ids=["black", "own mean"])
def test_the_lime_package_on_the_same_samples(photos, hide_color) -> None:
    """Its own loop over pictures and its own regression; only its random numbers are ours."""
    lime_image = pytest.importorskip("lime.lime_image", reason="needs lime (extra 'peers')")
    picture = photos["chelsea"][::4, ::4]
    net = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 6))
    )

    def x_of(pictures):
        return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).double() / 255.0

    x = x_of([picture])
    net = net.double().eval()
    ours = mg.explainer("lime", net, mean=(0, 0, 0), std=(1, 1, 1), n_samples=200, seed=3,
                        baseline=0.0 if hide_color == 0 else "segment-mean")(x, 2)  # fmt: skip
    rows = rows_of(x[0], int(ours.counts), 200, seed=3).astype(int)

    class Ours(np.random.RandomState):
        def randint(self, low, high=None, size=None, *args, **kwargs):
            return rows.reshape(-1) if size == rows.size else super().randint(low, high, size, *args, **kwargs)

    def classifier(pictures):
        with torch.no_grad():
            return net(x_of(pictures)).softmax(1).numpy()

    theirs = lime_image.LimeImageExplainer(random_state=Ours(0)).explain_instance(
        picture.astype(np.float64),
        classifier,
        labels=(2,),
        top_labels=None,
        hide_color=hide_color,
        num_samples=200,
        segmentation_fn=lambda _: ours.segments[0].numpy(),
    )
    expected = np.zeros(int(ours.counts))
    for region, coefficient in theirs.local_exp[2]:
        expected[region] = coefficient
    assert np.abs(expected).max() > 1e-5
    assert relative_deviation(ours.scores[0], torch.from_numpy(expected)) < 1e-5
    assert float(ours.details["intercept"]) == pytest.approx(theirs.intercept[2], rel=1e-6)
    assert float(ours.details["r2"]) == pytest.approx(theirs.score, abs=1e-6)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 5)), elements=st.floats(-200, 200)))
def test_log_odds(logits) -> None:
    others = [np.delete(logits, column, 1) for column in range(logits.shape[1])]
    expected = logits - np.stack([logsumexp(each, axis=1) for each in others], 1)
    assert np.allclose(log_odds(torch.from_numpy(logits)).numpy(), expected, rtol=1e-12, atol=1e-12)
    given = torch.from_numpy(logits).requires_grad_()
    (gradient,) = torch.autograd.grad(log_odds(given).sum(), given)
    shares = [softmax(each, axis=1) for each in others]
    by_hand = np.ones_like(logits)
    for column, share in enumerate(shares):
        by_hand[:, np.arange(logits.shape[1]) != column] -= share
    assert np.allclose(gradient.numpy(), by_hand, rtol=1e-9, atol=1e-12)


def test_log_odds_of_what_is_certain() -> None:
    found = log_odds(torch.tensor([[1e4, 0.0], [0.0, 30.0]]))
    assert torch.equal(found, torch.tensor([[1e4, -1e4], [-30.0, 30.0]], dtype=torch.float64))


@pytest.mark.parametrize("output", ["probability", "log-odds"])
def test_one_class_has_no_probability_to_explain(output) -> None:
    with pytest.raises(ValueError, match="output: expected 'logit' for a network of one class"):
        mg.explainer("lime-i", tiny_net(classes=1), n_samples=8, output=output)(batch_for(), 0)
    assert mg.explainer("lime-i", tiny_net(classes=1), n_samples=8, output="logit")(batch_for(), 0).heatmap.any()


def test_log_odds_are_read_too() -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    e = mg.explainer("lime-i", net, n_samples=30, output="log-odds")(x, 1)
    expected = mg.explainer("lime-i", net, n_samples=30)(
        x, lambda out: torch.log(out.softmax(1)[:, 1] / (1 - out.softmax(1)[:, 1]))
    )
    assert torch.allclose(e.heatmap, expected.heatmap, rtol=1e-5, atol=1e-9)


@DIMS
@pytest.mark.parametrize("baseline", [0.7, "mean", "median", "blur", "noise", "black", "white", "segment-mean"])
def test_baselines(baseline, dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)
    e = mg.explainer("lime-i", net, n_samples=12, n_segments=4, baseline=baseline, seed=2)(x, 1)
    for i in range(2):
        labels = e.segments[i].long()
        if baseline == "segment-mean":
            empty = torch.empty_like(x[i])
            for region in range(int(e.counts[i])):
                empty[:, labels == region] = x[i][:, labels == region].mean(1, keepdim=True)
        elif baseline == "median":
            empty = torch.from_numpy(np.median(x[i].flatten(1).numpy(), axis=1)).reshape(3, *[1] * dims).expand_as(x[i])
        else:
            empty = make_baseline(baseline, x, 2, LIME(net)._normalisation)[i]
        count = int(e.counts[i])
        rows = rows_of(x[i], count, 12, seed=2)
        scores = probabilities_of(net, x[i], labels, rows, empty, 1)
        expected = oracle.ridge(rows, scores, oracle.lime_weights(rows, 0.25), 1.0)[0]
        assert relative_deviation(e.scores[i, :count], torch.from_numpy(expected)) < 1e-5


@pytest.mark.parametrize("name", ["lime-i", "lime-ig"])
@pytest.mark.parametrize("stop_at", [None, 0.6])
def test_several_targets_are_each_as_on_their_own(name, stop_at) -> None:
    net, x = tiny_net(), batch_for(batch=3)
    targets = [None, 2, [0, 1, 4], lambda out: out.softmax(1)[:, 3]]
    made = mg.explainer(name, net, n_samples=160, n_segments=6, stop_at=stop_at)
    for found, target in zip(made.several(x, targets), targets, strict=True):
        alone = made(x, target)
        assert torch.allclose(found.heatmap, alone.heatmap, rtol=1e-3, atol=1e-6)
        assert torch.equal(found.details["passes"], alone.details["passes"])
        assert (found.target is None) == callable(target)


def test_several_targets_share_the_passes() -> None:
    run, seen = counted(tiny_net())
    mg.explainer("lime-i", run, n_samples=30).several(batch_for(), [0, 1, 2])
    assert sum(seen) == 2 * 30


def test_a_callable_is_the_class_it_picks() -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    explain = mg.explainer("lime-i", net, n_samples=30)
    expected = explain(x, [1, 2])
    for model, pick in (
        (net, lambda out: out.softmax(1)[torch.arange(2), [1, 2]]),
        (lambda x: {"out": [net(x)]}, lambda out: out["out"][0].softmax(1)[torch.arange(2), [1, 2]]),
    ):
        e = mg.explainer("lime-i", model, n_samples=30)(x, pick)
        assert torch.allclose(e.heatmap, expected.heatmap, atol=1e-9)
        assert e.target is None


@DIMS
@pytest.mark.parametrize("name", ["lime", "lime-ig"])
def test_a_sample_is_the_same_in_any_batch(name, dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64)
    base = mg.explainer(name, net, n_samples=40)(x, [1, 2, 0])
    assert torch.equal(mg.explainer(name, net, n_samples=40)(x, [1, 2, 0]).heatmap, base.heatmap)
    for i, target in enumerate([1, 2, 0]):
        for batch_size in (1, 7, 100):
            alone = mg.explainer(name, net, n_samples=40, batch_size=batch_size)(x[[i]], target)
            assert torch.allclose(alone.heatmap, base.heatmap[[i]], rtol=1e-6, atol=1e-10)
    other = mg.explainer(name, net, n_samples=40, seed=1)(x, [1, 2, 0])
    assert not torch.allclose(other.heatmap, base.heatmap, rtol=1e-3)


def test_the_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    mg.explainer("lime-i", tiny_net(), n_samples=20)(batch_for())
    after = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert after == (torch.rand(1), np.random.rand())  # noqa: NPY002


def test_it_stops_when_the_order_has_settled() -> None:
    """A network that adds up its superpixels settles soon; each sample of a batch on its own."""
    x = batch_for(batch=2, size=(20, 20))
    weights = torch.zeros(20, 20)
    for i in range(16):
        weights[5 * (i // 4) : 5 * (i // 4) + 5, 5 * (i % 4) : 5 * (i % 4) + 5] = i + 1.0
    labels = (weights - 1).long()
    noise = seeded(lambda: torch.randn(3, 20, 20))
    x = x.abs() + 1.0

    def model(x):
        clean = (x[:, 0] * weights).sum((1, 2)) / 1000.0
        return torch.stack([clean, torch.sin(1e3 * (x * noise).sum((1, 2, 3)))], 1)

    options = {"superpixels": labels, "n_samples": 1000, "output": "logit"}
    full = mg.explainer("lime", model, **options)(x, [0, 1])
    assert full.details["passes"].tolist() == [1000, 1000]
    early = mg.explainer("lime", model, stop_at=0.98, **options)(x, [0, 1])
    assert early.details["passes"][0] < 400
    assert early.details["passes"][1] > early.details["passes"][0]
    alone = mg.explainer("lime", model, stop_at=0.98, **options)(x[:1], 0)
    assert torch.allclose(alone.heatmap[0], early.heatmap[0], rtol=1e-4)
    assert int(alone.details["passes"]) == int(early.details["passes"][0])
    run, seen = counted(model)
    mg.explainer("lime", run, stop_at=0.98, **options)(x, [0, 1])
    assert sum(seen) == int(early.details["passes"].sum())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (1, 1, 1), (2, 1, 9)], ids=str)
@pytest.mark.parametrize("name", ["lime", *VARIANTS])
def test_tiny_inputs(name, size) -> None:
    linear = seeded(lambda: nn.Linear(3, 4))
    net = lambda x: linear(x.flatten(2).mean(2))  # noqa: E731
    e = mg.explainer(name, net, scorer="vanilla", n_samples=20)(batch_for(len(size), size=size), [1, 2])
    assert e.heatmap.shape == (2, *size)
    assert e.heatmap.isfinite().all()
    assert e.heatmap.abs().max() > 0


def test_one_superpixel_and_given_labels() -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    e = mg.explainer("lime", net, superpixels=torch.full((24, 32), 7), n_samples=30)(x, 1)
    assert e.counts.tolist() == [1, 1]
    rows = rows_of(x[0], 1, 30)
    scores = probabilities_of(net, x[0], e.segments[0], rows, 0 * x[0], 1)
    expected = oracle.ridge(rows, scores, oracle.lime_weights(rows, 0.25), 1.0)[0]
    assert float(e.scores[0, 0]) == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("kernel_width", [1e-3, 0.25])
def test_a_constant_model_gives_nothing_but_zeros(alpha, kernel_width) -> None:
    def model(x):
        return torch.tensor([[1.0, 2.0, 0.5]]).expand(len(x), 3) + 0 * x.sum()

    e = mg.explainer("lime-i", model, n_samples=30, alpha=alpha, kernel_width=kernel_width)(batch_for(), 1)
    assert not e.heatmap.any()
    assert e.details["r2"].tolist() == [1.0, 1.0]


def test_fewer_samples_than_superpixels() -> None:
    for alpha in (0.0, 1e-9, 1.0):
        e = mg.explainer("lime-i", tiny_net(), n_samples=2, alpha=alpha)(batch_for(), 1)
        assert e.scores.nan_to_num().isfinite().all()
        assert e.heatmap.isfinite().all()


def test_inputs_of_other_channels_need_labels() -> None:
    net, x = tiny_net(channels=5), batch_for(channels=5)
    with pytest.raises(ValueError, match="x: expected 1 or 3 channels for superpixels made from the picture, got 5"):
        mg.explainer("lime", net)(x)
    labels = torch.arange(24 * 32).reshape(24, 32) // 128
    e = mg.explainer("lime", net, superpixels=labels, n_samples=10)(x)
    assert e.counts.tolist() == [6, 6]
    assert e.image is None
    assert mg.explainer("lime-g", net, n_samples=10)(x).heatmap.isfinite().all()


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    mg.explainer("lime-i", tiny_net(), n_samples=10)(batch_for())
    assert capfd.readouterr() == ("", "")
    mg.explainer("lime-i", tiny_net(), n_samples=10, progress=True)(batch_for())
    assert "switching superpixels off" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["lime-i", "kernel-shap"])
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_samples": 1}, ValueError, "n_samples: expected 2 or more, got 1"),
        ({"n_samples": 10.0}, TypeError, "n_samples: expected an int, got float"),
        ({"n_segments": 0}, ValueError, "n_segments: expected 1 or more, got 0"),
        ({"output": "softmax"}, ValueError, "output: expected one of probability, logit, log-odds, got 'softmax'"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"seed": -1}, ValueError, "seed: expected 0 .. "),
        ({"seed": None}, TypeError, "seed: expected an int, got NoneType"),
        ({"progress": 1}, TypeError, "progress: expected a bool, got int"),
        ({"stop_at": 1.5}, ValueError, "stop_at: expected None or a rank correlation in 0 .. 1, got 1.5"),
        ({"stop_at": -0.5}, ValueError, "stop_at: expected None or a rank correlation in 0 .. 1, got -0.5"),
        ({"stop_at": "soon"}, TypeError, "stop_at: expected None or a rank correlation, got str"),
        ({"scorer": "gradcamm"}, ValueError, "scorer: expected one of"),
        ({"compactness": 0}, ValueError, "compactness: expected a positive"),
    ],
)
def test_bad_options(name, options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, tiny_net(), **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kernel_width": 0}, ValueError, "kernel_width: expected a positive finite number, got 0"),
        ({"kernel_width": "wide"}, TypeError, "kernel_width: expected a number, got str"),
        ({"alpha": -1}, ValueError, "alpha: expected a non-negative finite number, got -1"),
        ({"superpixels": "slic"}, ValueError, "superpixels: expected one of image, .* got 'slic'"),
        ({"superpixels": 3}, TypeError, "superpixels: expected a name, labels or a callable, got int"),
    ],
)
def test_bad_options_of_lime(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("lime", tiny_net(), **options)


@pytest.mark.parametrize(
    ("baseline", "error", "match"),
    [
        ("grey", ValueError, r"baseline: expected a number, mean, blur, .* got 'grey' \(or 'segment-mean'\)"),
        (None, TypeError, "baseline: expected a number, a name"),
        (torch.nan, ValueError, "baseline: .* got NaN or infinity"),
        (torch.zeros(5), ValueError, "baseline: expected a shape that broadcasts"),
    ],
)
def test_bad_baselines(baseline, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("lime-i", tiny_net(), n_samples=4, baseline=baseline)(batch_for())


def test_more_segments_than_pixels_and_bad_targets() -> None:
    explain = mg.explainer("lime-i", tiny_net(), n_samples=4, n_segments=24 * 32 + 1)
    with pytest.raises(ValueError, match=r"n_segments: expected 1 .. 768, got 769"):
        explain(batch_for())
    with pytest.raises(ValueError, match=r"target: expected classes in 0 .. 4, got 5"):
        mg.explainer("lime-i", tiny_net(), n_samples=4)(batch_for(), 5)
    with pytest.raises(ValueError, match="targets: expected at least one target"):
        mg.explainer("lime-i", tiny_net(), n_samples=4).several(batch_for(), [])


# The regression by itself.


@settings(max_examples=50)
@given(st.data())
def test_ridge_is_the_solution_of_its_normal_equations(data) -> None:
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    rows = data.draw(hnp.arrays(bool, (n, k)))
    scores = data.draw(hnp.arrays(np.float64, n, elements=ORDINARY))
    weights = data.draw(hnp.arrays(np.float64, n, elements=st.floats(0.01, 1)))
    alpha = data.draw(st.sampled_from([0.1, 1.0, 7.0]))
    fit = weighted_ridge(rows, scores, weights, alpha)
    coefficients, intercept, r2 = oracle.ridge(rows, scores, weights, alpha)
    if np.ptp(scores) > 1e-3 or np.ptp(scores) == 0:
        assert fit.r2 == pytest.approx(r2, abs=1e-6)
    assert np.allclose(fit.coefficients, coefficients, atol=1e-9)
    assert fit.intercept == pytest.approx(intercept, abs=1e-9)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 7))), st.sampled_from([0.05, 0.25, 2.0]))
def test_weights_fall_with_the_cosine_distance(rows, kernel_width) -> None:
    found = cosine_weights(rows, kernel_width)
    assert np.allclose(found, oracle.lime_weights(rows, kernel_width), atol=1e-12)
    order = np.argsort(rows.sum(1))
    assert (np.diff(found[order]) >= -1e-15).all()


def test_spatial_shapes_are_those_of_the_input() -> None:
    for dims in (2, 3):
        e = mg.explainer("lime", tiny_net(dims), n_samples=4)(batch_for(dims))
        assert e.heatmap.shape == e.segments.shape == (2, *SPATIAL[dims])
