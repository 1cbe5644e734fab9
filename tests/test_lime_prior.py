"""LIME with a prior: against the regressions written out, and against what it promises of few passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch import nn

import midgrain as mg
from cam_nets import curved_net
from midgrain.models import load_model
from midgrain.randomness import seeded_by_content
from midgrain.regions.cell_regression import cell_coefficients, nearness
from models_for_tests import SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import cams
from oracles import switched as oracle

# Squares of much smaller ones are 0.
ORDINARY = st.floats(-2, 2).map(lambda value: round(value, 9))
DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
REACH, ALPHA, REMAINDER = 0.65, 1.0, 30.0


def pairs_of(sample, count, n_samples, seed=0):
    """All on, then copies each followed by its complement."""
    generator = seeded_by_content(sample.float().cpu(), seed)
    drawn = torch.randint(0, 2, (n_samples // 2, count), generator=generator, dtype=torch.uint8).numpy()
    rows = [np.ones(count, bool)]
    for row in drawn.astype(bool):
        rows += [row, ~row]
    return np.array(rows[:n_samples])


def copies_of(sample, labels, rows):
    empty = np.zeros(sample.shape)
    return torch.from_numpy(np.stack([oracle.switched(sample.numpy(), labels.numpy(), row, empty) for row in rows]))


def log_odds(logits, target):
    p = logits.double().softmax(1)[:, target]
    return torch.log(p / (1 - p))


def shares_by_hand(net, layer, copies, target):
    """Gradient of the log-odds times the activation, summed over channels, and the log-odds."""
    activations = net[: layer + 1](copies.clone()).detach().requires_grad_()
    score = log_odds(net[layer + 1 :](activations.clone()), target)
    (gradient,) = torch.autograd.grad(score.sum(), activations)
    return (activations * gradient).sum(1).detach().numpy(), score.detach().numpy()


def near_by_hand(labels, count, grid, reach):
    """Every pixel's Gaussian about every cell's centre, one by one."""
    near = np.zeros((*grid, count))
    for cell in np.ndindex(*grid):
        for pixel in np.ndindex(*labels.shape):
            away = [
                ((p + 0.5) / size * n - (c + 0.5)) / reach
                for p, size, n, c in zip(pixel, labels.shape, grid, cell, strict=True)
            ]
            near[(*cell, labels[pixel])] += np.exp(-sum(a * a for a in away) / 2)
    near = near.reshape(-1, count)
    return near / near.max(1, keepdims=True)


def coefficients_by_hand(rows, cells, scores, near, alpha):
    """Per cell the generalised ridge regression by its normal equations, then that of the remainder."""
    centred = rows - rows.mean(0)
    total = np.zeros(rows.shape[1])
    for share, v in zip((cells - cells.mean(0)).T, near, strict=True):
        total += np.linalg.solve(centred.T @ centred + np.diag(alpha / np.maximum(v, 1e-9)), centred.T @ share)
    left = scores - rows @ total
    return total + oracle.ridge(rows, left, np.ones(len(rows)), REMAINDER)[0]


@DIMS
@pytest.mark.parametrize("n_samples", [12, 25])
def test_by_definition(n_samples, dims) -> None:
    net, x, targets = curved_net(dims), batch_for(dims, 3, dtype=torch.float64), [3, 0, 1]
    e = mg.explainer("lime-prior", net, n_segments=14, n_samples=n_samples, layer="5", blend=0.4)(x, targets)
    assert e.target.tolist() == targets
    assert e.details["passes"].tolist() == [n_samples] * 3
    assert torch.equal(e.segments, mg.SWAG(net, "image", "vanilla", n_segments=14)(x).segments)
    for i, target in enumerate(targets):
        labels, count = e.segments[i], int(e.counts[i])
        rows = pairs_of(x[i], count, n_samples)
        cells, scores = shares_by_hand(net, 5, copies_of(x[i], labels, rows), target)
        near = near_by_hand(labels.numpy(), count, cells.shape[1:], REACH)
        found = coefficients_by_hand(rows.astype(float), cells.reshape(len(cells), -1), scores, near, ALPHA)
        expected = found / np.bincount(labels.flatten().numpy()) * labels.numel()
        assert relative_deviation(e.scores[i, :count], torch.from_numpy(expected)) < 1e-4
        painted = expected[labels.numpy()]
        blended = cams.resize(np.maximum(cells, 0.0).mean(0), SPATIAL[dims])
        blended = (blended - blended.mean()) * painted.std() / blended.std()
        assert relative_deviation(e.heatmap[i], torch.from_numpy(0.6 * painted + 0.4 * blended)) < 1e-4


@DIMS
@pytest.mark.parametrize("prior", ["gradcam", "vanilla"])
def test_a_map_as_prior_by_definition(prior, dims) -> None:
    net, x, targets = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64), [3, 0]
    e = mg.explainer("lime-prior", net, n_segments=14, prior=prior, n_samples=25, blend=0.0)(x, targets)
    maps = mg.explainer(prior, net)(x, targets).heatmap.double()
    for i, target in enumerate(targets):
        labels, count = e.segments[i].long(), int(e.counts[i])
        rows = pairs_of(x[i], count, 25).astype(float)
        with torch.no_grad():
            scores = log_odds(net(copies_of(x[i], labels, rows.astype(bool))), target).numpy()
        area = np.bincount(labels.flatten().numpy())
        mu = np.bincount(labels.flatten().numpy(), maps[i].flatten().numpy())
        slope = rows @ mu - (rows @ mu).mean()
        scale = max(0.0, slope @ scores / (slope @ slope)) if slope.any() else 0.0
        found = scale * mu + oracle.ridge(rows, scores - scale * rows @ mu, np.ones(25), 10.0)[0]
        assert relative_deviation(e.scores[i, :count], torch.from_numpy(found / area * labels.numel())) < 1e-4
        assert torch.equal(e.heatmap[i], e.scores[i][labels])


@pytest.mark.parametrize("prior", ["layercam", mg.scorer("gradcam", layer="3"), lambda model, x, target: x.sum(1)])
def test_any_prior(prior) -> None:
    net, x = tiny_net(), batch_for()
    e = mg.explainer("lime-prior", net, prior=prior)(x, [1, 2])
    assert e.heatmap.isfinite().all()
    assert (e.heatmap.flatten(1).std(1) > 0).all()


@settings(max_examples=40)
@given(st.data())
def test_cell_coefficients(data) -> None:
    n, k, cells = (data.draw(st.integers(1, most)) for most in (12, 8, 4))
    rows = data.draw(hnp.arrays(bool, (n, k)))
    shares = data.draw(hnp.arrays(np.float64, (n, cells), elements=ORDINARY))
    near = data.draw(hnp.arrays(np.float64, (cells, k), elements=st.floats(0.05, 1)))
    scores = data.draw(hnp.arrays(np.float64, n, elements=ORDINARY))
    alpha = data.draw(st.sampled_from([0.1, 1.0, 5.0]))
    expected = coefficients_by_hand(rows.astype(float), shares, scores, near, alpha)
    assert np.allclose(cell_coefficients(rows, shares, scores, near, alpha), expected, atol=1e-8)


@pytest.mark.parametrize(
    ("size", "grid"), [((12, 9), (3, 2)), ((4, 6, 6), (2, 3, 1)), ((5, 5), (7, 7)), ((1, 1), (1, 1))]
)
def test_nearness(size, grid) -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, size).astype(np.int32))
    labels.view(-1)[0] = 3
    assert np.allclose(nearness(labels, 4, grid, 0.65), near_by_hand(labels.numpy(), 4, grid, 0.65), atol=1e-8)


def additive():
    """Each 8 x 8 block of the picture feeds one cell, and the score adds up the cells."""

    def build():
        net = nn.Sequential(nn.Conv2d(1, 2, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
        return net.double().eval()

    return seeded(build)


def test_few_passes_find_what_lime_needs_many_for() -> None:
    """Blocks that feed one cell each: the true worth of each is known, and one pair of copies tells most of it."""
    net, x = additive(), batch_for(channels=1, size=(64, 64), dtype=torch.float64)
    labels = (torch.arange(64)[:, None] // 8 * 8 + torch.arange(64) // 8).int()
    options = {"superpixels": labels, "output": "logit", "seed": 1}
    with torch.no_grad():
        black = net[1](net[0](0 * x))
        parts = ((net[1](net[0](x)) - black) * net[4].weight[2][:, None, None]).sum(1).flatten(1) / 64
    few = mg.explainer("lime-prior", net, n_samples=25, blend=0.0, **options)(x, 2).scores.double()
    many = mg.explainer("lime", net, n_samples=100, alpha=1e-3, **options)(x, 2).scores.double()

    def correlation(found):
        return [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(found.numpy(), parts.numpy(), strict=True)]

    assert min(correlation(few)) > 0.9
    assert min(correlation(few)) > max(
        correlation(mg.explainer("lime", net, n_samples=25, **options)(x, 2).scores.double())
    )
    assert min(correlation(many)) > 0.9


@pytest.mark.parametrize("prior", ["cells", "gradcam"])
@pytest.mark.parametrize("stop_at", [None, 0.8])
def test_several_targets_are_each_as_on_their_own(prior, stop_at) -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(batch=3, dtype=torch.float64)
    made = mg.explainer("lime-prior", net, prior=prior, n_samples=81, n_segments=8, stop_at=stop_at)
    targets = [None, 2, [0, 1, 4], lambda out: out[:, 3]]
    for found, target in zip(made.several(x, targets), targets, strict=True):
        alone = made(x, target)
        assert torch.allclose(found.heatmap, alone.heatmap, rtol=1e-4, atol=1e-8)
        assert torch.equal(found.details["passes"], alone.details["passes"])


def test_a_callable_is_the_class_it_picks() -> None:
    net, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    expected = mg.explainer("lime-prior", net, output="logit")(x, [1, 2])
    e = mg.explainer("lime-prior", net)(x, lambda out: out[torch.arange(2), [1, 2]])
    assert torch.allclose(e.heatmap, expected.heatmap, atol=1e-9)
    assert e.target is None


@DIMS
@pytest.mark.parametrize("prior", ["cells", "gradcam"])
def test_a_sample_is_the_same_in_any_batch(prior, dims) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64)
    base = mg.explainer("lime-prior", net, prior=prior)(x, [1, 2, 0])
    assert torch.equal(mg.explainer("lime-prior", net, prior=prior)(x, [1, 2, 0]).heatmap, base.heatmap)
    for i, target in enumerate([1, 2, 0]):
        for batch_size in (1, 7):
            alone = mg.explainer("lime-prior", net, prior=prior, batch_size=batch_size)(x[[i]], target)
            assert torch.allclose(alone.heatmap, base.heatmap[[i]], rtol=1e-4, atol=1e-6)
    other = mg.explainer("lime-prior", net, prior=prior, seed=1)(x, [1, 2, 0])
    assert not torch.allclose(other.heatmap, base.heatmap, rtol=1e-3)


def test_it_stops_when_the_order_has_settled() -> None:
    made = mg.explainer("lime-prior", additive(), n_samples=400, stop_at=0.9, n_segments=16)
    e = made(batch_for(channels=1, size=(64, 64), dtype=torch.float64), 2)
    assert (e.details["passes"] < 100).all()
    assert (e.details["passes"] > 20).all()


@pytest.mark.parametrize("prior", ["cells", "gradcam"])
def test_a_constant_model_gives_a_flat_map(prior) -> None:
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return 0.0 * self.conv(x).flatten(1)[:, :3] + torch.tensor([1.0, 2.0, 0.5])

    e = mg.explainer("lime-prior", Constant(), prior=prior)(batch_for(), 1)
    assert not e.heatmap.any()


def test_certain_classes_have_finite_log_odds() -> None:
    net = tiny_net(classes=2, dtype=torch.float64)
    with torch.no_grad():
        net[-1].bias[0] = 1e4
    for prior in ("cells", "gradcam"):
        assert mg.explainer("lime-prior", net, prior=prior)(batch_for(dtype=torch.float64), 0).heatmap.isfinite().all()


@pytest.mark.parametrize("size", [(9, 9), (1, 40), (3, 3)], ids=str)
@pytest.mark.parametrize("n_samples", [2, 3])
def test_small_inputs_and_budgets(size, n_samples) -> None:
    e = mg.explainer("lime-prior", tiny_net(), n_samples=n_samples)(batch_for(size=size), 1)
    assert e.heatmap.shape == (2, *size)
    assert e.heatmap.isfinite().all()


@pytest.mark.slow
def test_it_is_better_than_lime_on_photographs(photos) -> None:
    """Both with the passes that the benchmark of few passes begins with."""
    loaded = load_model("demo")
    x = torch.cat([loaded.preprocess(Image.fromarray(photo)) for photo in photos.values()])
    scores = {}
    for name in ("lime-i", "lime-prior"):
        e = mg.explainer(name, loaded.model, n_samples=25)(x)
        scores[name] = mg.measures.combined(loaded.model, x, e.heatmap, e.target).score
    assert scores["lime-prior"].mean() < scores["lime-i"].mean() - 0.05


def test_layers_with_many_cells_are_taken_together() -> None:
    e = mg.explainer("lime-prior", tiny_net(), layer="0", n_segments=9)(batch_for(size=(40, 48)), 1)
    assert e.heatmap.isfinite().all()
    assert e.heatmap.std() > 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"prior": "gradcamm"}, ValueError, "prior: 'cells' or a scorer; scorer: expected one of"),
        ({"prior": 3}, TypeError, "prior: 'cells' or a scorer; .* got int"),
        ({"prior": "gradcam", "layer": "3"}, ValueError, "layer, reshape: they are of prior='cells'"),
        ({"alpha": 0}, ValueError, "alpha: expected a positive finite number, got 0"),
        ({"blend": 1.1}, ValueError, "blend: expected 0 .. 1, got 1.1"),
        ({"blend": -0.1}, ValueError, "blend: expected a non-negative finite number"),
        ({"output": "odds"}, ValueError, "output: expected one of probability, logit, log-odds, got 'odds'"),
        ({"n_samples": 1}, ValueError, "n_samples: expected 2 or more, got 1"),
        ({"layer": 3}, TypeError, "layer: expected None, a module"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("lime-prior", tiny_net(), **options)


def test_cells_need_a_network_with_layers() -> None:
    net = tiny_net()
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, whose layers can be watched"):
        mg.explainer("lime-prior", lambda x: net(x))(batch_for())
    with pytest.raises(ValueError, match="layer"):
        mg.explainer("lime-prior", nn.Sequential(nn.Flatten(), nn.Linear(24 * 32 * 3, 4)))(batch_for())
    e = mg.explainer("lime-prior", lambda x: net(x), prior="guided")(batch_for(), 1)
    expected = mg.explainer("lime-prior", net, prior="guided")(batch_for(), 1)
    assert torch.equal(e.heatmap, expected.heatmap)
