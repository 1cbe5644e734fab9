"""Pixel scorers: gradients against direct autograd, baselines against their definitions, users' own callables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import midgrain as mg
from midgrain.scorers import SCORERS, make_scorer
from models_for_tests import METHODS, SPATIAL, batch_for, quick_explainer, relative_deviation, tiny_net
from models_for_tests import one_thread as one_thread

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
BASELINES = ("sobel", "noise", "centre", "random-point", "constant")
SEEDED = ("noise", "random-point")


def heatmap(name, x, model=None, target=None, **options):
    model = model or tiny_net(x.ndim - 2, dtype=x.dtype)
    return quick_explainer(name, model, **options)(x, target).heatmap


def direct_gradient(model, x, target):
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf)
    return torch.autograd.grad(logits[torch.arange(len(x)), target].sum(), leaf)[0]


# Gradients.


@DIMS
@pytest.mark.parametrize("target", [[0, 3], [4, 4]])
def test_gradients_equal_direct_autograd(dims, target) -> None:
    model, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)
    gradient = direct_gradient(model, x, target)
    assert relative_deviation(heatmap("vanilla", x, model, target), gradient.abs().amax(1)) < 1e-7
    assert relative_deviation(heatmap("input-x-gradient", x, model, target), (x * gradient).abs().amax(1)) < 1e-7


@DIMS
def test_the_default_target_is_each_samples_predicted_class(dims) -> None:
    model, x = tiny_net(dims), 5 * batch_for(dims, batch=6)
    predicted = model(x).argmax(1)
    assert len(predicted.unique()) > 1
    explanation = mg.explainer("vanilla", model)(x)
    assert torch.equal(explanation.target, predicted)
    assert torch.equal(explanation.heatmap, heatmap("vanilla", x, model, predicted))
    assert torch.equal(explanation.outputs, model(x).detach())
    assert not explanation.outputs.requires_grad


@DIMS
@pytest.mark.parametrize("name", ["vanilla", "guided", "input-x-gradient"])
def test_mixed_targets_in_a_batch_equal_one_by_one(name, dims) -> None:
    model, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, batch=4, dtype=torch.float64)
    targets = [3, 0, 3, 1]
    together = heatmap(name, x, model, targets)
    for i, target in enumerate(targets):
        alone = heatmap(name, x[i : i + 1], model, target)
        assert alone.max() > 0
        assert relative_deviation(together[i : i + 1], alone) < 1e-6


# Baselines.


@DIMS
@pytest.mark.parametrize("channels", [1, 3])
def test_sobel_equals_scipy(dims, channels) -> None:
    x = batch_for(dims, channels=channels)
    frames = x.double().mean(1).reshape(-1, *SPATIAL[dims][-2:]).numpy()
    expected = [np.hypot(*(ndimage.sobel(frame, axis, mode="nearest") for axis in (0, 1))) for frame in frames]
    actual = heatmap("sobel", x, tiny_net(dims, channels))
    assert relative_deviation(actual.reshape(frames.shape), torch.tensor(np.array(expected))) < 1e-6


@DIMS
def test_centre_is_minus_the_distance_to_the_middle(dims) -> None:
    maps = heatmap("centre", batch_for(dims))
    height, width = SPATIAL[dims][-2:]
    rows, columns = np.mgrid[:height, :width]
    expected = -np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    assert np.allclose(maps.numpy(), np.broadcast_to(expected, maps.shape), atol=1e-5)


@DIMS
def test_random_point_is_minus_the_distance_to_one_pixel_in_every_frame(dims) -> None:
    for one in heatmap("random-point", batch_for(dims, batch=4)).reshape(4, -1, *SPATIAL[dims][-2:]):
        y, x = divmod(int(one[0].argmax()), one.shape[-1])
        rows, columns = np.mgrid[: one.shape[-2], : one.shape[-1]]
        assert np.allclose(one.numpy(), np.broadcast_to(-np.hypot(rows - y, columns - x), one.shape), atol=1e-5)


@DIMS
def test_noise_is_uniform(dims) -> None:
    maps = heatmap("noise", batch_for(dims, batch=3))
    assert maps.min() >= 0
    assert maps.max() < 1
    assert abs(float(maps.mean()) - 0.5) < 0.03
    assert abs(float(maps.var()) - 1 / 12) < 0.01


@DIMS
def test_constant_differs_at_two_pixels_only(dims) -> None:
    maps = heatmap("constant", batch_for(dims)).flatten(1)
    assert maps[:, 0].tolist() == [1.0, 1.0]
    assert maps[:, -1].tolist() == [0.0, 0.0]
    assert (maps[:, 1:-1] == 0.9).all()


@DIMS
@pytest.mark.parametrize("name", SEEDED)
def test_random_baselines_depend_on_picture_and_seed_alone(name, dims) -> None:
    x = batch_for(dims, batch=3)
    together = heatmap(name, x)
    torch.rand(3)
    assert torch.equal(heatmap(name, x), together)
    assert torch.equal(heatmap(name, x, seed=np.int64(0)), together)
    for i in range(3):
        assert torch.equal(heatmap(name, x[i : i + 1]), together[i : i + 1])
    assert torch.equal(heatmap(name, x.flip(0)), together.flip(0))
    assert not torch.equal(together[0], together[1])
    seeds = [heatmap(name, x, seed=seed) for seed in (0, 1, -1)]
    assert not any(torch.equal(seeds[a], seeds[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_do_not_look_at_the_network(name) -> None:
    x = batch_for()
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 7))
    assert torch.equal(heatmap(name, x), heatmap(name, x, other, target=6))


# All of them, everywhere.


def plain(model, x):
    return model, x


def half(dtype):
    return lambda model, x: (model.to(dtype), x.to(dtype))


def frozen(model, x):
    return model.requires_grad_(False), x


SETTINGS = {
    "plain": (plain, None),
    "no_grad": (plain, torch.no_grad),
    "inference_mode": (plain, torch.inference_mode),
    "autocast": (plain, lambda: torch.autocast("cpu", torch.bfloat16)),
    "frozen": (frozen, None),
    "float64": (half(torch.float64), None),
    "bfloat16": (half(torch.bfloat16), None),
    "float16": (half(torch.float16), None),
    "channels last": (lambda model, x: (model, x.transpose(1, -1).contiguous().transpose(1, -1)), None),
}


@DIMS
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_in_every_setting(name, setting, dims) -> None:
    prepare, context = SETTINGS[setting]
    model, x = prepare(tiny_net(dims), batch_for(dims))
    explain = quick_explainer(name, model)
    if context is None:
        explanation = explain(x, [1, 2])
    else:
        with context():
            explanation = explain(x, [1, 2])
    assert explanation.heatmap.dtype == torch.float32
    assert explanation.heatmap.shape == (2, *SPATIAL[dims])
    assert explanation.heatmap.isfinite().all()
    assert not explanation.heatmap.requires_grad
    assert explanation.method == name
    assert explanation.target.tolist() == [1, 2]
    assert explanation.outputs.shape == (2, 5)


@DIMS
@pytest.mark.parametrize("name", ["vanilla", "guided", "input-x-gradient", "sobel"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_is_near_single(name, dims, dtype, tolerance) -> None:
    x = batch_for(dims).to(dtype)
    single = heatmap(name, x.float(), tiny_net(dims), target=1)
    actual = heatmap(name, x, tiny_net(dims).to(dtype), target=1)
    # On average: a ReLU near zero may switch, which alters single pixels by much.
    assert (actual - single).abs().mean() < tolerance * single.mean()


def test_half_precision_that_overflows_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 5)).half()
    nn.init.constant_(model[1].weight, 6e4)
    with pytest.raises(ValueError, match=r"NaN or infini.*half precision"):
        mg.explainer("vanilla", model)(torch.full((1, 3, 24, 32), 2.0).half())


@pytest.mark.parametrize("name", METHODS)
def test_another_default_dtype_changes_nothing(name) -> None:
    model, x = tiny_net(), batch_for()
    expected = heatmap(name, x, model)
    torch.set_default_dtype(torch.float64)
    try:
        actual = heatmap(name, x, model)
    finally:
        torch.set_default_dtype(torch.float32)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


# Users' own.


@DIMS
@pytest.mark.parametrize("target", [None, 2, [0, 3]])
def test_a_callable_gets_model_input_and_classes(dims, target) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    seen = []

    def scorer(got_model, got_x, got_target):
        seen.append((got_model, got_x.clone(), got_target.tolist()))
        return got_x.abs().sum(1)

    score = make_scorer(scorer).score(model, x, target)
    assert torch.equal(score.map, x.abs().sum(1))
    expected = model(x).argmax(1).tolist() if target is None else torch.tensor(target).expand(2).tolist()
    assert seen[0][0] is model
    assert torch.equal(seen[0][1], x)
    assert seen[0][2] == expected == score.result.target.tolist()


def test_a_callable_target_reaches_the_scorer_as_it_is() -> None:
    def pick(outputs):
        return outputs[:, 2]

    seen = []
    mg.SWAG(tiny_net(), scorer=lambda model, x, target: seen.append(target) or x.sum(1))(batch_for(), pick)
    assert seen == [pick]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_callable_may_differentiate_and_spoil_its_input(context) -> None:
    model = tiny_net()

    def scorer(model, x, target):
        x.requires_grad_(True)
        gradient = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0]
        x.detach().zero_()
        return gradient.abs().amax(1)

    with context():
        x = batch_for()
        before = x.clone()
        actual = mg.SWAG(model, "image", scorer)(x).heatmap
        assert torch.equal(x, before)
        assert torch.equal(actual, mg.SWAG(model, "image", "vanilla")(x).heatmap)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32, torch.bool])
def test_a_callables_map_becomes_single_precision(dtype) -> None:
    score = make_scorer(lambda model, x, target: (x[:, 0] > 0).to(dtype)).score(tiny_net(), batch_for(), None)
    assert score.map.dtype == torch.float32
    assert torch.equal(score.map, (batch_for()[:, 0] > 0).float())


def test_an_object_with_a_score_method_is_a_scorer() -> None:
    scorer = make_scorer("vanilla")
    assert make_scorer(scorer) is scorer


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        (np.zeros((2, 24, 32)), TypeError, "scorer: expected it to return a tensor, got ndarray"),
        (None, TypeError, "got NoneType"),
        (torch.zeros(2, 3, 24, 32), ValueError, r"scorer: expected it to return shape \[2, 24, 32\]"),
        (torch.zeros(24, 32), ValueError, r"got \[24, 32\]"),
        (torch.full((2, 24, 32), torch.nan), ValueError, r"NaN or infinity for sample\(s\) \[0, 1\]"),
    ],
)
def test_what_a_callable_must_not_return(returned, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.SWAG(tiny_net(), scorer=lambda *_: returned)(batch_for())


# Names and options.


def test_every_scorer_is_a_method() -> None:
    assert set(SCORERS) < set(mg.methods())
    assert all(isinstance(line, str) and line for line in mg.methods().values())


@pytest.mark.parametrize(
    ("scorer", "options", "error", "match"),
    [
        ("vanila", {}, ValueError, "scorer: expected one of vanilla, guided, .* or a callable, got 'vanila'"),
        (3, {}, TypeError, "scorer: expected a name or a callable"),
        (None, {}, TypeError, "scorer: expected a name or a callable"),
        (SCORERS["vanilla"][0], {}, TypeError, "scorer: expected a name or a callable"),
        ("vanilla", {"seed": 1}, TypeError, "scorer 'vanilla' has no option seed"),
        ("noise", {"sed": 1, "also": 2}, TypeError, "scorer 'noise' has no option also, sed"),
        ("noise", {"seed": 1.5}, TypeError, "seed: expected an int, got float"),
        ("noise", {"seed": True}, TypeError, "seed: expected an int, got bool"),
        (lambda *_: None, {"seed": 1}, TypeError, "scorer: options seed go with a scorer's name only"),
    ],
)
def test_unknown_scorers_and_options(scorer, options, error, match) -> None:
    with pytest.raises(error, match=match):
        make_scorer(scorer, **options)
