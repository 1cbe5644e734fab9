"""Explaining failures against slow step-by-step versions, and on networks whose reasons are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from cam_nets import curved_net
from midgrain.failures import FilterStatistics, ThroughFilter
from midgrain.failures.suppression import REMOVALS
from models_for_tests import batch_for, one_thread, relative_deviation, seeded, tiny_net  # noqa: F401

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
PERCENTILES = {"low": 20, "high": 80}


class Shortcut(nn.Module):
    """A last block with a way around its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        y = self.stem(x)
        return self.head(torch.relu_(self.last(y) + y).mean((2, 3)))


def gradient_by_hand(net, upto, x, target, filter_):
    """|d sum(A g) / dx| with g held fixed, its maximum over the channels."""
    leaf = x.clone().requires_grad_(True)
    maps = net[:upto](leaf)
    held = maps.detach().requires_grad_(True)
    score = net[upto:](held)[torch.arange(len(x)), target].sum()
    (g,) = torch.autograd.grad(score, held)
    only = torch.zeros_like(g)
    for sample, number in enumerate(filter_):
        only[sample, number] = g[sample, number]
    (gradient,) = torch.autograd.grad(maps, leaf, only)
    return gradient.abs().amax(1)


@DIMS
def test_the_gradient_comes_through_one_filter_only(dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    stats = fitted(net, dims)
    upto = int(stats.layer) + 1
    filters = torch.tensor([1, 4, 1])
    expected = gradient_by_hand(net, upto, x, [0, 2, 1], filters.tolist())
    e = mg.SWAG(net, torch.arange(x[0, 0].numel()).reshape(x.shape[2:]), ThroughFilter(filters))(x, [0, 2, 1])
    assert relative_deviation(e.heatmap, expected.float()) < 1e-5
    assert torch.equal(e.target, torch.tensor([0, 2, 1]))
    every = sum(gradient_of_all(net, upto, x, number) for number in range(stats.n_filters))
    whole = torch.autograd.functional.jacobian(lambda v: net(v)[:, 0].sum(), x)
    assert torch.allclose(every, whole)


def gradient_of_all(net, upto, x, filter_):
    """Signed, of class 0."""
    leaf = x.clone().requires_grad_(True)
    maps = net[:upto](leaf)
    (g,) = torch.autograd.grad(net[upto:](maps)[:, 0].sum(), maps, retain_graph=True)
    only = torch.zeros_like(g)
    only[:, filter_] = g[:, filter_]
    return torch.autograd.grad(maps, leaf, only)[0]


def test_ways_around_the_layer_do_not_count() -> None:
    net, x = seeded(Shortcut).eval(), batch_for(2, 2)
    with torch.no_grad():
        net.last.weight[2] = 0.0  # This filter sees nothing, though its channel has a way around.
    scorer = ThroughFilter(2, "last")
    assert not mg.SWAG(net, "image", scorer, n_segments=5)(x, 1).heatmap.any()
    other = mg.SWAG(net, "image", ThroughFilter(3, "last"), n_segments=5)(x, 1).heatmap
    assert other.any()
    guided = mg.SWAG(net, "image", ThroughFilter(3, "last", guided=True), n_segments=5)(x, 1).heatmap
    assert not torch.equal(guided, other)


def fitted(net, dims=2, count=60, **options):
    """On noise, with every class."""
    x = batch_for(dims, count, dtype=next(net.parameters()).dtype, seed=5)
    y = torch.arange(count) % 5
    batches = list(zip(x.split(7), y.split(7), strict=True))
    return FilterStatistics.fit(net, batches, **options)


@DIMS
def test_surprise_is_its_definition(dims) -> None:
    net = curved_net(dims)
    stats = fitted(net, dims)
    x = 3 * batch_for(dims, 6, dtype=torch.float64, seed=9)
    labels = [0, 1, 2, 3, 4, 1]
    found = mg.failures.surprise(net, x, labels, stats, **PERCENTILES)
    scores = mg.failures.filter_scores(net, x, labels).double()
    kinds = set()
    for i, c in enumerate(labels):
        mu, sigma = stats.mean[c], stats.std[c]
        low, high = stats.percentile(20, c), stats.percentile(80, c)
        assert float(found.beta[i]) == pytest.approx(float((scores[i] - mu).mean()))
        assert torch.allclose(found.outputs[i], net(x[i : i + 1])[0].detach())
        rows = zip(scores[i].tolist(), mu.tolist(), sigma.tolist(), strict=True)
        expected = [0.0 if a == m else (a - m) / s if s else np.copysign(np.inf, a - m) for a, m, s in rows]
        assert np.allclose(found.deviation[i].numpy(), expected)
        for n in range(stats.n_filters):
            a = scores[i, n]
            assert bool(found.surprising[i, n]) == bool(a > high[n])
            assert bool(found.expected[i, n]) == bool(a < low[n] and mu[n] > mu.mean())
            assert bool(found.against[i, n]) == bool(a < low[n])
            kinds |= {(bool(found.surprising[i, n]), bool(found.expected[i, n]))}
    assert kinds == {(True, False), (False, True), (False, False)}


def test_rounding_surprises_nobody() -> None:
    """Training images themselves, in batches of another size, never exceed their own extremes."""
    net = tiny_net()
    stats = fitted(net)
    x = batch_for(2, 60, seed=5)
    for rows in torch.arange(60).split(1):
        found = mg.failures.surprise(net, x[rows], rows % 5, stats, few="extreme")
        assert not found.surprising.any()
        assert not found.against.any()


def wrong_labels(net, x):
    """The second best class of each sample."""
    with torch.no_grad():
        return net(x).topk(2, 1).indices[:, 1]


@DIMS
def test_explaining_puts_the_parts_together(dims) -> None:
    net = curved_net(dims)
    stats = fitted(net, dims, keep=4)
    x = 3 * batch_for(dims, 3, dtype=torch.float64, seed=9)
    labels = wrong_labels(net, x)
    training = batch_for(dims, 60, dtype=torch.float64, seed=5)
    failures = mg.failures.explain(
        net, x, labels, stats, images=training, n_filters=2, n_segments=6, search_segments=(6, 12), removals=(1, 3),
        **PERCENTILES,
    )  # fmt: skip
    found = mg.failures.surprise(net, x, labels, stats, **PERCENTILES)
    logits = net(x).detach()
    for i, failure in enumerate(failures):
        assert (failure.true_class, failure.predicted) == (int(labels[i]), int(logits[i].argmax()))
        assert not failure.correct
        assert failure.beta == float(found.beta[i])
        assert failure.logit == pytest.approx(float(logits[i, labels[i]]))
        assert failure.probability == pytest.approx(float(logits[i].softmax(0)[labels[i]]))
        assert (failure.n_surprising, failure.n_expected) == (
            int(found.surprising[i].sum()),
            int(found.expected[i].sum()),
        )
        for findings, flagged, sign in (
            (failure.surprising, found.surprising, 1),
            (failure.expected, found.expected, -1),
        ):
            numbers = flagged[i].nonzero()[:, 0].tolist()
            order = sorted(numbers, key=lambda n: -sign * float(found.deviation[i, n]))
            assert [finding.filter for finding in findings] == order[:2]
        for finding in failure.surprising:
            e = mg.SWAG(net, "image", ThroughFilter(finding.filter), n_segments=6)(x[i : i + 1], labels[i : i + 1])
            assert torch.equal(finding.heatmap, e.heatmap[0])
            assert torch.equal(finding.region, e.segments[0] == int(e.scores[0].nan_to_num(-1).argmax()))
            every = [(v, c, image) for c in range(5) for image, v in stats.top_images(c, finding.filter)]
            best = sorted(every, key=lambda each: -each[0])[:3]
            assert [(each.score, each.true_class, each.id) for each in finding.examples] == best
        for finding in failure.expected:
            assert finding.region is None
            top = stats.top_images(int(labels[i]), finding.filter, 3)
            assert [(each.id, each.score) for each in finding.examples] == top
            for example in finding.examples:
                assert torch.equal(example.input, training[example.id])
                maps = net[: int(stats.layer) + 1](example.input[None])[:, finding.filter].detach().float()
                resized = nn.functional.interpolate(
                    maps[None], example.input.shape[1:], mode="bilinear" if dims == 2 else "trilinear"
                )[0, 0]
                expected = (resized - resized.min()) / (resized.max() - resized.min())
                assert torch.allclose(example.mask, expected, atol=1e-5)
                assert torch.equal(example.masked, example.input * example.mask)
        plain = mg.failures.suppress(net, x[i : i + 1], labels[i : i + 1], n_segments=(6, 12), removals=(1, 3))
        assert torch.equal(failure.unfiltered_repair.grid, plain.grid)
        assert (failure.repair is None) == (not failure.surprising)


def suppressed_by_hand(net, x, label, counts, removals, filter_=None):
    """Removal by removal, one picture at a time: {(count, removal): (removed pixels, prediction, probability)}."""
    found = {}
    scorer = "vanilla" if filter_ is None else ThroughFilter(filter_)
    for count in counts:
        e = mg.SWAG(net, "image", scorer, n_segments=count)(x, label)
        segments = e.segments[0].numpy()
        means = e.scores[0, : int(e.counts)].numpy()
        order = np.argsort(-means, kind="stable")
        for removal in removals:
            if removal >= len(order):
                continue
            gone = np.isin(segments, order[:removal])
            changed = x.clone()
            changed[0][:, torch.from_numpy(gone)] = 0.0
            with torch.no_grad():
                logits = net(changed)[0]
            found[count, removal] = (gone, int(logits.argmax()), float(logits.softmax(0)[label]))
    return found


@DIMS
@pytest.mark.parametrize("filter_", [None, 2])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_suppression_step_by_step(dims, filter_, batch_size) -> None:
    net = tiny_net(dims, dtype=torch.float64)
    x = 4 * batch_for(dims, 60, dtype=torch.float64, seed=11)
    with torch.no_grad():
        gaps = -net(x).topk(2, 1).values.diff(dim=1)[:, 0]
    x = x[gaps.argsort()[[0, 1, 2, 3, 4, -1]]]  # Most of them are nearly right.
    labels = wrong_labels(net, x)
    counts, removals = (4, 9), (1, 2, 4, 20)
    found = mg.failures.suppress(net, x, labels, filter_, n_segments=counts, removals=removals, batch_size=batch_size)
    for i in range(len(x)):
        tried = suppressed_by_hand(net, x[i : i + 1], int(labels[i]), counts, removals, filter_)
        fixed = {key for key, (_, predicted, _) in tried.items() if predicted == int(labels[i])}
        assert {(counts[a], removals[b]) for a, b in found.grid[i].nonzero().tolist()} == fixed
        assert bool(found.fixed[i]) == bool(fixed)
        if fixed:
            best = min(sorted(fixed), key=lambda key: tried[key][0].mean())
            assert tuple(found.setting[i].tolist()) == best
            assert np.array_equal(found.mask[i].numpy(), tried[best][0])
            assert float(found.share[i]) == pytest.approx(tried[best][0].mean())
            assert float(found.probability[i]) == pytest.approx(tried[best][2], abs=1e-6)
        else:
            assert not found.mask[i].any()
            assert found.share[i].isnan()
    assert 0 < int(found.fixed.sum()) < len(x)


def test_everything_is_never_removed() -> None:
    class Darkness(nn.Module):
        """Class 1 is a picture of zeros."""

        def forward(self, x):
            light = x.abs().flatten(1).sum(1)
            return torch.stack([light, 1e-3 - light], 1)

    x = torch.rand(1, 3, 16, 16) + 0.1
    found = mg.failures.suppress(Darkness(), x, 1, n_segments=(4, 9), removals=REMOVALS)
    assert not found.fixed.any()


def bright_patch_net():
    """Filter 0 answers to strong red, filter 1 to green; class 0 is red's, class 1 green's."""
    net = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None])
        net[0].bias.fill_(-0.5)
        net[4].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    return net


def coloured(red, green, seed):
    """A grey noise picture with a red patch at the left and a green one at the right, of these strengths."""
    x = 0.02 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))
    x[0, 4:12, 4:12] += red
    x[1, 18:28, 18:28] += green
    return x


def test_what_is_known_to_mislead_is_found_and_removed() -> None:
    net = bright_patch_net()
    y = torch.arange(40) % 2
    x = torch.stack([coloured(1.0 - k, float(k), n) for n, k in enumerate(y.tolist())])
    stats = FilterStatistics.fit(net, [(x, y)])
    misled = coloured(1.0, 3.0, 99)[None]  # red, as class 0 has it, with a strange green patch
    assert int(net(misled).argmax()) == 1
    (failure,) = mg.failures.explain(net, misled, 0, stats, few="extreme", search_segments=(20, 40), images=x)
    assert failure.beta < 0
    # For class 0 green counts against: it is missed, so to say, as the opposite of a surprise.
    assert failure.n_surprising == 0
    (other,) = mg.failures.explain(net, misled, 1, stats, few="extreme", correct="explain", repair=False, images=x)
    (green,) = other.surprising
    assert green.filter == 1
    assert bool(green.region[19:27, 19:27].any())
    assert not green.region[:, :17].any()
    assert all(example.true_class == 1 for example in green.examples)
    assert float(green.examples[0].mask[20:26, 20:26].mean()) > 0.5
    # The plain gradient is as steep at the red patch; through green's filter nothing but what misleads is removed.
    found = mg.failures.suppress(net, misled, 0, 1, n_segments=(20, 40))
    assert bool(found.fixed)
    assert bool(found.mask[0, 19:27, 19:27].any())
    assert not found.mask[0, :, :17].any()
    assert float(found.share) < float(failure.unfiltered_repair.share)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"true_class": None}, TypeError, "true_class: expected a class"),
        ({"true_class": 7}, ValueError, "expected classes in 0 .. 4, got 7"),
        ({"true_class": [0]}, ValueError, r"expected one class per sample \(\[2\]\)"),
        ({"stats": 3}, TypeError, "stats: expected FilterStatistics, got int"),
        ({"low": 60, "high": 40}, ValueError, "low, high: expected 0 <= low < high <= 100"),
        ({"low": 0.1}, ValueError, "q: percentile 0.1 needs 1000 images of a class; there are 12 of class"),
        ({"few": "nan"}, ValueError, "few: expected 'error' or 'extreme'"),
        ({"correct": "yes"}, ValueError, "correct: expected 'error' or 'explain'"),
        ({"images": 3}, TypeError, "images: expected a data set or a callable"),
        ({"images": lambda each: 5}, TypeError, "images: expected an input of 3 axes for id"),
        ({"through": "expected"}, ValueError, "through: expected one of surprising, against"),
        ({"n_filters": 0}, ValueError, "n_filters: expected 1 or more"),
        ({"removals": (2, 1)}, ValueError, "removals: expected numbers in ascending order"),
        ({"search_segments": ()}, ValueError, "n_segments: expected numbers in ascending order"),
    ],
)
def test_bad_input(options, error, said) -> None:
    net = tiny_net()
    x = 3 * batch_for(2, 2, seed=9)
    arguments = {"true_class": wrong_labels(net, x), "stats": fitted(net), **PERCENTILES, "images": None} | options
    with pytest.raises(error, match=said):
        mg.failures.explain(net, x, arguments.pop("true_class"), arguments.pop("stats"), **arguments)


def test_correct_predictions_are_told() -> None:
    net, x = tiny_net(), batch_for(2, 3)
    labels = wrong_labels(net, x)
    labels[1] = net(x)[1].argmax()
    with pytest.raises(ValueError, match=r"x: expected wrong predictions, got sample\(s\) \[1\] predicted rightly"):
        mg.failures.explain(net, x, labels, fitted(net), **PERCENTILES)
    failures = mg.failures.explain(net, x, labels, fitted(net), correct="explain", repair=False, **PERCENTILES)
    assert [failure.correct for failure in failures] == [False, True, False]


def test_statistics_of_another_network_are_refused() -> None:
    net, x = tiny_net(), batch_for(2, 1)
    with pytest.raises(ValueError, match="stats: these statistics are of another network"):
        mg.failures.explain(tiny_net(classes=4), x, 0, fitted(net), **PERCENTILES)
    few = FilterStatistics.fit(net, [(batch_for(2, 8), torch.arange(8) % 4)])
    with pytest.raises(ValueError, match="class: the statistics hold no image of class 4"):
        mg.failures.surprise(net, x, 4, few, **PERCENTILES)
    for bad in (-1, 8):
        with pytest.raises(ValueError, match=r"filters: expected 0 \.\. 7"):
            mg.SWAG(net, "image", ThroughFilter(bad), n_segments=4)(x, 0)
    with pytest.raises(ValueError, match="filters: expected one for each of 1 samples, got 2"):
        mg.SWAG(net, "image", ThroughFilter(torch.tensor([0, 1])), n_segments=4)(x, 0)
    with pytest.raises(TypeError, match="filters: expected an integer"):
        ThroughFilter(0.5)


def test_the_network_stays_as_it_was() -> None:
    net, x = tiny_net().train(), batch_for(2, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    stats = fitted(net)
    with torch.no_grad():
        mg.failures.explain(
            net, x, [0, 1], stats, correct="explain", search_segments=(4,), removals=(1,), **PERCENTILES
        )
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
