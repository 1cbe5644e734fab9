"""Deletion and insertion: the oracle's values, RISE's recipe, fair ties, all baselines and targets, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from midgrain.baseline import make_baseline
from midgrain.measures.curves import Mixture
from midgrain.measures.order import schedule
from models_for_tests import batch_for, one_thread, tiny_net  # noqa: F401
from oracles.measures import area, curve, rise_blur, rise_metric, softmax_of

CLOSE = {"rtol": 0, "atol": 2e-6}
MEASURES = ("deletion", "insertion")


def measure(name, *arguments, **options):
    return getattr(mg.measures, name)(*arguments, **options)


def distinct_map(x, seed=0):
    """A heat map without two equal values."""
    shape = (x.shape[0], *x.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    flat = torch.stack([torch.randperm(x[0, 0].numel(), generator=generator) for _ in range(len(x))])
    return flat.reshape(shape).float() - 100.0


def ends(name, x, empty):
    return (x, empty) if name == "deletion" else (empty, x)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("levels", [None, 40, 3])
@pytest.mark.parametrize("steps", [1, 28, 31])
def test_the_oracle(name, dims, levels, steps) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    heatmap = distinct_map(x) if levels is None else (distinct_map(x) / x[0, 0].numel() * levels).round()
    result = measure(name, net, x, heatmap, target=[1, 3], steps=steps, baseline=0.25)
    assert result.curve.shape == (2, steps + 1)
    assert result.target.tolist() == [1, 3]
    assert result.auc.dtype == result.curve.dtype == torch.float32
    for index, target in enumerate((1, 3)):
        start, finish = ends(name, x[index].numpy(), np.full_like(x[index].numpy(), 0.25))
        expected = curve(softmax_of(net, target), start, finish, heatmap[index].numpy(), steps)
        np.testing.assert_allclose(result.curve[index], expected, **CLOSE)
        np.testing.assert_allclose(result.auc[index], area(expected), **CLOSE)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("step", [32, 96])
def test_rise_gets_the_same(name, step) -> None:
    net, x = tiny_net(), batch_for()
    heatmap = distinct_map(x)
    baseline = 0.0 if name == "deletion" else "blur"
    result = measure(name, net, x, heatmap, steps=x[0, 0].numel() // step, baseline=baseline)
    assert torch.equal(result.target, net(x).argmax(1))
    for index in range(len(x)):
        expected, auc = rise_metric(net, x[index : index + 1], heatmap[index].numpy(), name, step)
        np.testing.assert_allclose(result.curve[index], expected, **CLOSE)
        np.testing.assert_allclose(result.auc[index], auc, **CLOSE)


def test_combined_is_deletion_and_what_insertion_lacks() -> None:
    net, x = tiny_net(), batch_for()
    options = {"target": 2, "steps": 9, "baseline": "mean"}
    both = mg.measures.combined(net, x, distinct_map(x), **options)
    removed, restored = (measure(name, net, x, distinct_map(x), **options) for name in MEASURES)
    assert torch.equal(both.deletion.curve, removed.curve)
    assert torch.equal(both.insertion.curve, restored.curve)
    torch.testing.assert_close(both.score, removed.auc + 1 - restored.auc, rtol=0, atol=1e-6)


@given(
    values=st.lists(st.integers(0, 4), min_size=1, max_size=24),
    steps=st.integers(1, 24),
)
def test_steps_are_whole_groups_with_their_own_share(values, steps) -> None:
    n = len(values)
    steps = min(steps, n)
    plan = schedule(torch.tensor([values])[:, None], steps)
    assert sorted(plan.rank[0].tolist()) == list(range(n))
    counts = {0, n, *(sum(other >= value for other in values) for value in values)}
    for step in range(steps + 1):
        below, above, share = (int(plan.below[0, step]), int(plan.above[0, step]), float(plan.share[0, step]))
        assert {below, above} <= counts
        assert not any(below < count < above for count in counts)
        wanted = (2 * step * n + steps) // (2 * steps)
        assert below + share * (above - below) == pytest.approx(wanted, abs=1e-4)
    removed_first = [values[index] for index in plan.rank[0].argsort()]
    assert removed_first == sorted(values, reverse=True)


@pytest.mark.parametrize("name", MEASURES)
def test_superpixels_in_another_order_of_pixels_score_the_same(name) -> None:
    net = nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 4))  # blind to places
    x, heatmap = batch_for(), (distinct_map(batch_for()) / 100).round()
    flipped = measure(name, net, x.flip(2, 3), heatmap.flip(1, 2))
    torch.testing.assert_close(flipped.curve, measure(name, net, x, heatmap).curve, rtol=0, atol=1e-6)


def test_a_constant_map_is_a_straight_line() -> None:
    net, x = tiny_net(), batch_for()
    result = mg.measures.deletion(net, x, torch.zeros(2, 24, 32), steps=4)
    first, last = result.curve[:, :1], result.curve[:, -1:]
    torch.testing.assert_close(result.curve, first + (last - first) * torch.linspace(0, 1, 5), rtol=0, atol=1e-6)


def test_only_the_order_of_values_counts() -> None:
    net, x = tiny_net(), batch_for()
    heatmap = torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = mg.measures.deletion(net, x, heatmap).curve
    assert torch.equal(mg.measures.deletion(net, x, heatmap.exp() * 1e30 - 1e29).curve, expected)
    assert not torch.equal(mg.measures.deletion(net, x, -heatmap).curve, expected)
    whole = distinct_map(x).to(torch.int64)
    assert torch.equal(mg.measures.deletion(net, x, whole).curve, mg.measures.deletion(net, x, whole.float()).curve)


def test_random_ties_follow_the_seed_and_no_raster() -> None:
    x = torch.ones(1, 1, 8, 8)
    half = torch.zeros(1, 8, 8)
    half[0, 2] = 1.0

    def orders(seed):
        return schedule(half, 8, "random", seed).rank[0]

    assert torch.equal(orders(1), orders(1))
    assert not torch.equal(orders(1), orders(2))
    assert set(orders(3).reshape(8, 8)[2].tolist()) == set(range(8))
    # Over many seeds every place of the group comes at the middle of it on average.
    mean = torch.stack([orders(seed) for seed in range(400)]).float().mean(0).reshape(8, 8)
    assert (mean[2] - 3.5).abs().max() < 0.6
    assert (mean[3:] - 35.5).abs().max() < 4.0
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    distinct = distinct_map(x)
    assert torch.equal(
        mg.measures.deletion(net, x, distinct, ties="random", seed=5).curve,
        mg.measures.deletion(net, x, distinct).curve,
    )


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("dims", [2, 3])
def test_batches_change_nothing(name, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims, 3)
    heatmap = (distinct_map(x) / 20).round()
    for baseline in (0.0, "noise", "mean", "blur"):
        expected = measure(name, net, x, heatmap, baseline=baseline, seed=3).curve
        for size in (1, 5, 1000):
            found = measure(name, net, x, heatmap, baseline=baseline, seed=3, batch_size=size).curve
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        alone = [measure(name, net, x[i : i + 1], heatmap[i : i + 1], baseline=baseline, seed=3) for i in range(3)]
        torch.testing.assert_close(torch.cat([each.curve for each in alone]), expected, rtol=0, atol=2e-6)


def test_a_state_is_seen_once() -> None:
    seen = []

    def model(x):
        seen.append(len(x))
        return x.flatten(1)[:, :4]

    x = batch_for()
    heatmap = torch.zeros(2, 24, 32)
    heatmap[:, :, :16] = 1.0
    mg.measures.deletion(model, x, heatmap, steps=28)
    assert sum(seen) == 2 + 2 * 2  # as it is, which also gives the predicted class; half and all removed
    seen.clear()
    mg.measures.combined(model, x, heatmap, steps=28)
    assert sum(seen) == 2 + 2 * 3  # half restored too; nothing and all are known
    seen.clear()
    mg.measures.average_drop(model, x, heatmap)
    assert sum(seen) == 2 * 3  # as it is, behind the constant map, behind its own
    seen.clear()
    mg.measures.drop_increase(model, x, distinct_map(x))
    assert sum(seen) == 2 * 2
    seen.clear()
    mg.measures.aopc(model, x, distinct_map(x), steps=4)
    assert sum(seen) == 2 * 5


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30)
    | st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45]), min_size=1, max_size=30),
    st.booleans(),
)
def test_pixels_are_ordered_as_by_a_stable_sort(values, least_first) -> None:
    maps = torch.tensor(values).reshape(1, 1, -1).repeat(2, 1, 1)
    maps[1] = maps[1].flip(1)
    found = schedule(maps, 1, least_first=least_first).rank
    for row, own in zip(found, maps.flatten(1), strict=True):
        # Python's order has -0.0 equal to 0.0 and is stable, also backwards.
        order = sorted(range(len(values)), key=own.tolist().__getitem__, reverse=not least_first)
        assert row.argsort().tolist() == order


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pictures_are_mixed_as_where_does(dtype) -> None:
    """Also of the greatest numbers, whose difference is infinite, and where a batch takes in several samples."""
    most = torch.finfo(dtype).max
    before = torch.tensor([0.0, -0.0, most, -most, 1.5, torch.inf] * 4).to(dtype).reshape(2, 3, 2, 2)
    after = before.flip(2).neg()
    rank = torch.tensor([[2, 0, 1, 3], [3, 2, 1, 0]])
    samples, counts = [0, 0, 1, 1, 0], torch.tensor([0, 3, 4, 1, 2])
    expected = torch.where((rank[samples] < counts[:, None]).reshape(5, 1, 2, 2), after[samples], before[samples])
    found = Mixture(before, after, rank).of(samples, counts)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert torch.equal(found.signbit(), expected.signbit())


@pytest.mark.parametrize("dims", [2, 3])
def test_baselines(dims) -> None:
    x = batch_for(dims, 2)
    ones = [1] * (dims + 1)
    assert torch.equal(make_baseline(0.5, x), torch.full_like(x, 0.5))
    assert torch.equal(make_baseline(np.float32(2), x), torch.full_like(x, 2.0))
    torch.testing.assert_close(make_baseline("mean", x)[1, 2].unique(), x[1, 2].mean()[None])
    colour = torch.tensor([1.0, 2.0, 3.0]).reshape(3, *ones[1:])
    assert torch.equal(make_baseline(colour, x), colour.expand_as(x))
    assert torch.equal(make_baseline(lambda each: each.mul_(2), x.clone()), x * 2)
    noise = make_baseline("noise", x, 4)
    assert torch.equal(noise, make_baseline("noise", x, 4))
    assert torch.equal(noise[1:], make_baseline("noise", x[1:], 4))
    assert not torch.equal(noise, make_baseline("noise", x, 5))
    assert abs(float(noise.mean())) < 0.1
    assert abs(float(noise.std()) - 1) < 0.1
    frames = [x] if dims == 2 else list(x.unbind(2))
    expected = torch.stack([rise_blur(frame) for frame in frames], 2)
    found = make_baseline("blur", x)
    torch.testing.assert_close(found if dims == 3 else found[:, :, None], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_a_callable_gives_its_own_value_for_the_samples_in_order(name) -> None:
    net, x = tiny_net(), batch_for(batch=3)
    classes = torch.tensor([4, 0, 2])
    heatmap = (distinct_map(x) / 30).round()
    expected = measure(name, net, x, heatmap, classes).curve
    found = measure(name, net, x, heatmap, lambda out: out.softmax(1)[torch.arange(3), classes], batch_size=2)
    assert found.target is None
    torch.testing.assert_close(found.curve, expected, rtol=0, atol=2e-6)
    logits = measure(name, net, x, heatmap, lambda out: out[:, 1])
    whole = 0 if name == "deletion" else -1
    torch.testing.assert_close(logits.curve[:, whole], net(x)[:, 1].detach(), rtol=1e-5, atol=1e-5)
    wrapped = measure(name, lambda x: {"logits": net(x)}, x, heatmap, lambda out: out["logits"][:, 1])
    torch.testing.assert_close(wrapped.curve, logits.curve, rtol=0, atol=1e-6)


def test_targets_mean_the_same_in_every_form() -> None:
    net, x = tiny_net(), batch_for()
    heatmap = distinct_map(x)
    expected = mg.measures.deletion(net, x, heatmap, 3).curve
    for target in ([3, 3], torch.tensor([3, 3]), np.array([3, 3])):
        assert torch.equal(mg.measures.deletion(net, x, heatmap, target).curve, expected)
    predicted = mg.measures.deletion(net, x, heatmap)
    assert torch.equal(predicted.curve, mg.measures.deletion(net, x, heatmap, net(x).argmax(1)).curve)


def test_the_model_is_left_as_it_was() -> None:
    net, x = tiny_net().train(), batch_for()
    net[4].training = False
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flags = [module.training for module in net.modules()]
    torch.manual_seed(7)
    expected_draw = torch.rand(3)
    torch.manual_seed(7)
    copy = x.clone()
    mg.measures.combined(net, x, distinct_map(x), baseline="noise", ties="random")
    with pytest.raises(ValueError, match="target"):
        mg.measures.deletion(net, x, distinct_map(x), 99)
    assert torch.equal(torch.rand(3), expected_draw)
    assert [module.training for module in net.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(x, copy)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "frozen", "leaf"])
def test_gradient_modes_change_nothing(mode) -> None:
    net, x = tiny_net(), batch_for()
    expected = mg.measures.insertion(net, x, distinct_map(x)).curve
    if mode == "frozen":
        net.requires_grad_(False)
    if mode == "leaf":
        x = x.requires_grad_(True)
    if mode in ("frozen", "leaf"):
        found = mg.measures.insertion(net, x, distinct_map(x))
    else:
        with getattr(torch, mode)():
            found = mg.measures.insertion(net, x.clone(), distinct_map(x))
    assert not found.curve.requires_grad
    assert torch.equal(found.curve, expected)


def test_autocast_and_half_precision_come_close() -> None:
    net, x = tiny_net(), batch_for()
    expected = mg.measures.deletion(net, x, distinct_map(x), 1, baseline="blur").curve
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mg.measures.deletion(net, x, distinct_map(x), 1, baseline="blur").curve
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    double = mg.measures.deletion(net.double(), x.double(), distinct_map(x), 1, baseline="blur").curve
    torch.testing.assert_close(double, expected, rtol=0, atol=1e-5)


def test_a_model_that_writes_into_its_input() -> None:
    net, x = tiny_net(), batch_for()
    expected = mg.measures.deletion(net, x, distinct_map(x), 1).curve
    writes = nn.Sequential(nn.ReLU(inplace=True), net)
    separate = nn.Sequential(nn.ReLU(), net)
    found = mg.measures.deletion(writes, x, distinct_map(x), 1, batch_size=3).curve
    assert torch.equal(found, mg.measures.deletion(separate, x, distinct_map(x), 1, batch_size=3).curve)
    assert not torch.equal(found, expected)


@settings(max_examples=15)
@given(steps=st.integers(1, 40), seed=st.integers(0, 100))
def test_a_better_order_never_scores_worse_where_the_truth_is_known(steps, seed) -> None:
    """A linear network with non-negative inputs and weights: removing by contribution is the best order there is."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(40, generator=generator)

    def model(x):
        return torch.stack([x.flatten(1) @ weight, torch.zeros(len(x))], 1)

    x = torch.rand(1, 1, 5, 8, generator=generator)
    truth, other = (x.flatten(1) * weight).reshape(1, 5, 8), torch.rand(1, 5, 8, generator=generator)
    best, any_order = (mg.measures.combined(model, x, each, 0, steps) for each in (truth, other))
    assert best.deletion.auc <= any_order.deletion.auc + 1e-6
    assert best.insertion.auc >= any_order.insertion.auc - 1e-6


NET, X = tiny_net(), batch_for()
MAP = distinct_map(X)
NAN_MAP = MAP.clone()
NAN_MAP[1, 0, 0] = float("nan")


@pytest.mark.parametrize("name", [*MEASURES, "combined"])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, X, MAP), {}, TypeError, "^model: "),
        ((NET, X[0], MAP), {}, ValueError, "^x: "),
        ((NET, X * float("nan"), MAP), {}, ValueError, "^x: "),
        ((NET, X, MAP.numpy()), {}, TypeError, "^heatmap: expected a torch tensor .*ndarray"),
        ((NET, X, MAP[:1]), {}, ValueError, r"^heatmap: expected shape \[2, 24, 32\].*got \[1, 24, 32\]"),
        ((NET, X, MAP[:, None]), {}, ValueError, r"^heatmap: expected shape \[2, 24, 32\]"),
        ((NET, X, MAP > 0), {}, TypeError, "^heatmap: .*bool"),
        ((NET, X, MAP.to(torch.complex64)), {}, TypeError, "^heatmap: .*complex"),
        ((NET, X, NAN_MAP), {}, ValueError, r"^heatmap: expected finite values, .* sample\(s\) \[1\]"),
        ((NET, X, MAP, 5), {}, ValueError, "^target: expected classes in 0 .. 4, got 5"),
        ((NET, X, MAP, [1]), {}, ValueError, "^target: "),
        ((NET, X, MAP, 1.5), {}, TypeError, "^target: "),
        ((NET, X, MAP, lambda out: out), {}, ValueError, "^target: expected the callable to return shape"),
        ((NET, X, MAP, lambda out: out[:, 0] * float("nan")), {}, ValueError, "NaN"),
        ((NET, X, MAP), {"steps": 0}, ValueError, "^steps: expected 1 .. 768, got 0"),
        ((NET, X, MAP), {"steps": 769}, ValueError, "^steps: expected 1 .. 768, got 769"),
        ((NET, X, MAP), {"steps": 2.0}, TypeError, "^steps: "),
        ((NET, X, MAP), {"ties": "raster"}, ValueError, "^ties: expected 'together' or 'random', got 'raster'"),
        ((NET, X, MAP), {"ties": None}, TypeError, "^ties: "),
        ((NET, X, MAP), {"batch_size": 0}, ValueError, "^batch_size: expected 1 or more, got 0"),
        ((NET, X, MAP), {"batch_size": "big"}, TypeError, "^batch_size: "),
        ((NET, X, MAP), {"seed": -1}, ValueError, "^seed: "),
        ((NET, X, MAP), {"seed": 0.5}, TypeError, "^seed: "),
        ((NET, X, MAP), {"baseline": "black"}, ValueError, "^baseline: expected a number, mean, blur, noise"),
        ((NET, X, MAP), {"baseline": float("inf")}, ValueError, "^baseline: "),
        ((NET, X, MAP), {"baseline": 1e300}, ValueError, "^baseline: expected values that are finite in torch.float32"),
        ((NET, X, MAP), {"baseline": None}, TypeError, "^baseline: .*NoneType"),
        ((NET, X, MAP), {"baseline": True}, TypeError, "^baseline: .*bool"),
        ((NET, X, MAP), {"baseline": torch.zeros(7)}, ValueError, r"^baseline: .* broadcasts .*\[7\]"),
        ((NET, X, MAP), {"baseline": X > 0}, TypeError, "^baseline: .*bool"),
        ((NET, X, MAP), {"baseline": X * float("nan")}, ValueError, "^baseline: "),
        ((NET, X, MAP), {"baseline": lambda x: 1}, TypeError, "^baseline: expected the callable to return a tensor"),
    ],
)
def test_bad_input(name, arguments, options, error, message) -> None:
    with pytest.raises(error, match=message):
        measure(name, *arguments, **options)


def test_a_network_that_fails_on_removed_pixels() -> None:
    def breaks(x):
        return NET(x) / (x[1:2] if len(x) == 1 else x).flatten(1).any(1).float()[:, None]

    with pytest.raises(ValueError, match=r"^model: its outputs hold NaN or infinity for sample\(s\) \[0, 1\]"):
        mg.measures.deletion(breaks, X, MAP, 1, steps=2, batch_size=6)

    def fixed(x):
        return NET(x)[:2]

    with pytest.raises(ValueError, match=r"^model: expected logits \[4, classes\] .* set batch_size"):
        mg.measures.deletion(fixed, X, MAP, 1, batch_size=4)
