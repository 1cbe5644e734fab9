"""Extremal perturbation: its steps by definition, and what it finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import midgrain as mg
from cam_nets import Counting
from midgrain.masking.smooth_masks import SmoothMasks
from models_for_tests import batch_for, tiny_net
from models_for_tests import one_thread as one_thread

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
CPU = torch.device("cpu")
TARGETS = [3, 0]


def extremal(net, x, target=TARGETS, **options):
    options = {"n_iterations": 4, "areas": (0.1, 0.3)} | options
    return mg.explainer("extremal", net, **options)(x, target)


# A chessboard, which blurring wipes out.
BOARD = ((torch.arange(24)[:, None] + torch.arange(32)) % 2 * 2 - 1).float()


def sees_a_patch(x):
    """Class 0 is how much of the chessboard is left in a patch of 6 x 8 pixels, class 1 in the whole picture."""
    left = x[:, 0] * BOARD
    return 10 * torch.stack([left[:, 4:10, 18:26].mean((1, 2)), left.mean((1, 2))], 1)


# The search.


@pytest.mark.parametrize("variant", ["preserve", "delete", "hybrid"])
@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_steps_are_those_of_plain_gradient_descent(variant, jitter, output) -> None:
    """The search written out with torch's own optimiser and the sorted area term, for one sample and area."""
    net, x = tiny_net(), batch_for(batch=1)
    options = {"variant": variant, "jitter": jitter, "output": output, "perturbation": "fade", "learning_rate": 0.05}
    made = extremal(net, x, 2, areas=0.2, n_iterations=12, **options)
    smooth = SmoothMasks((24, 32), (1, 1), (3.0, 3.0), CPU)
    parameters = torch.ones(1, 24, 32, requires_grad=True)
    rate = 0.05 * 24 * 32 / 1024  # In proportion to the lattice.
    optimiser = torch.optim.SGD([parameters], lr=rate, momentum=0.9, dampening=0.9)

    def score(mask, flipped):
        inputs = x * mask[:, None]
        logits = net(inputs.flip(-1) if flipped else inputs)
        return (logits.softmax(1) if output == "probability" else logits)[0, 2]

    for iteration in range(12):
        mask = smooth(parameters)
        flipped = jitter and iteration % 2 == 0
        reward = 0.0
        if variant != "delete":
            reward = reward + score(mask, flipped)
        if variant != "preserve":
            reward = reward - score(1 - mask, flipped)
        ordered = mask.flatten().sort().values
        reference = torch.zeros(768)
        reference[768 - round(0.2 * 768) :] = 1.0
        # What equal values get is shared among them.
        for level in ordered.detach().unique():
            same = ordered.detach() == level
            reference[same] = reference[same].mean()
        loss = 300 * 1.0035**iteration * (ordered - reference).square().mean() - reward
        optimiser.zero_grad()
        loss.backward()
        parameters.grad /= smooth.weights
        optimiser.step()
        parameters.data.clamp_(0, 1)
    expected = smooth(parameters).detach()
    assert (expected - 1).abs().max() > 0.1
    assert (made.details["masks"][0] - expected).abs().max() < 1e-4
    net.zero_grad()


# Not deletion by blurring: the least blur wipes a chessboard out, and a mask of 0.3 is enough.
@pytest.mark.parametrize(
    ("variant", "perturbation"),
    [("preserve", "blur"), ("preserve", "fade"), ("delete", "fade"), ("hybrid", "blur"), ("hybrid", "fade")],
)
def test_it_finds_what_the_network_looks_at(variant, perturbation) -> None:
    options = {"variant": variant, "perturbation": perturbation, "step": 2, "sigma": 3.0, "learning_rate": 0.03}
    made = extremal(sees_a_patch, BOARD[None, None], 0, areas=(0.0625, 0.125), n_iterations=300, **options)
    for mask, area, score in zip(made.details["masks"][0], (0.0625, 0.125), made.details["scores"][0], strict=True):
        assert mask.mean().item() == pytest.approx(area, abs=0.06)
        assert mask[5:9, 19:25].min() > 0.85
        assert mask[:, :10].max() < 0.1
        assert mask[18:].max() < 0.1
        assert (score < 3.5) if variant == "delete" else (score > 6.0)  # Of 10.
    assert torch.equal(made.heatmap, made.details["masks"].sum(1))
    assert torch.allclose(made.details["areas"], made.details["masks"].mean((2, 3)))


def test_a_spot_is_found_in_its_frames() -> None:
    def model(x):
        late = x[:, 0, 3:, 2:6, 2:6].mean((1, 2, 3))
        return 10 * torch.stack([late, 0 * late], 1)

    options = {"perturbation": "fade", "sigma": (1.0, 1.5, 1.5), "learning_rate": 0.03}
    made = extremal(model, torch.ones(1, 1, 6, 12, 12), 0, areas=0.06, n_iterations=200, **options)
    mask = made.details["masks"][0, 0]
    assert mask[4, 3:5, 3:5].min() > 0.9
    assert mask[0].max() < 0.2
    assert mask[:, 9:].max() < 0.2
    assert mask.mean().item() == pytest.approx(0.06, abs=0.06)


@DIMS
@pytest.mark.parametrize("target", [TARGETS, lambda out: out[torch.arange(2), TARGETS]], ids=["classes", "callable"])
def test_samples_and_areas_are_searched_on_their_own(target, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    together = extremal(net, x, target)
    for i in range(2):
        alone = extremal(net, x[[i]], TARGETS[i])
        assert (alone.heatmap - together.heatmap[[i]]).abs().max() < 1e-4
        assert torch.allclose(alone.details["scores"], together.details["scores"][[i]], atol=1e-4)
        one_area = extremal(net, x[[i]], TARGETS[i], areas=0.3)
        assert (one_area.heatmap[0] - together.details["masks"][i, 1]).abs().max() < 1e-4


@pytest.mark.parametrize("variant", ["preserve", "hybrid"])
def test_batches_round_differently_but_runs_do_not(variant) -> None:
    net, x = tiny_net(), batch_for(batch=3)
    options = {"variant": variant, "areas": (0.1, 0.2, 0.5)}
    base = extremal(net, x, 1, **options)
    assert torch.equal(extremal(net, x, 1, **options).heatmap, base.heatmap)
    for batch_size in (1, 2, 4, 100):
        other = extremal(net, x, 1, batch_size=batch_size, **options)
        assert (other.heatmap - base.heatmap).abs().max() < 1e-4


@pytest.mark.parametrize(("variant", "sides"), [("preserve", 1), ("delete", 1), ("hybrid", 2)])
def test_passes_are_counted(variant, sides) -> None:
    model, x = Counting(tiny_net()), batch_for()
    made = extremal(model, x, 1, variant=variant)
    # The first finds the classes; one behind each mask at the end.
    assert made.details["passes"].tolist() == [1 + 4 * 2 * sides + 2] * 2
    assert model.samples == int(made.details["passes"].sum())
    assert made.details["iterations"].tolist() == [4, 4]


def test_several_targets() -> None:
    net, x = tiny_net(), batch_for()
    explain = mg.explainer("extremal", net, n_iterations=3, areas=0.2)
    targets = [1, [3, 0], None, lambda out: out[:, 4]]
    for target, explanation in zip(targets, explain.several(x, targets), strict=True):
        alone = explain(x, target)
        assert (explanation.heatmap - alone.heatmap).abs().max() < 1e-4
        assert torch.allclose(explanation.details["scores"], alone.details["scores"], atol=1e-4)
        assert torch.equal(explanation.outputs, alone.outputs)


def test_scores_are_those_behind_the_masks() -> None:
    net, x = tiny_net(), batch_for()
    for variant in ("preserve", "delete"):
        made = extremal(net, x, variant=variant, perturbation="fade", baseline="mean", output="probability")
        masks = made.details["masks"] if variant == "preserve" else 1 - made.details["masks"]
        hidden = x.mean((2, 3), keepdim=True)
        for area in range(2):
            inputs = hidden + masks[:, [area]] * (x - hidden)
            expected = net(inputs).softmax(1)[torch.arange(2), TARGETS]
            assert torch.allclose(made.details["scores"][:, area], expected.detach(), atol=1e-6)


@pytest.mark.parametrize("target", [0, lambda out: out[:, 0]], ids=["class", "callable"])
def test_a_sample_stops_once_its_map_has_settled(target) -> None:
    x = torch.stack([BOARD[None], 0.05 * BOARD[None].roll(1, 2)])
    options = {"areas": 0.1, "perturbation": "fade", "step": 4, "sigma": 4.0}
    made = extremal(sees_a_patch, x, target, n_iterations=400, stop_at=0.99, **options)
    used = made.details["iterations"].tolist()
    assert all(count % 50 == 0 and count >= 150 for count in used)
    assert min(used) < 400
    assert len(set(used)) == 2
    for i, count in enumerate(used):
        exact = extremal(sees_a_patch, x[[i]], 0, n_iterations=count, **options)
        assert (made.heatmap[[i]] - exact.heatmap).abs().max() < 1e-4
        assert made.details["passes"][i] == count + 2


# Nothing is altered.


def test_parameters_keep_their_gradients_and_may_be_frozen() -> None:
    net, x = tiny_net(), batch_for()
    base = extremal(net, x)
    assert all(parameter.grad is None for parameter in net.parameters())
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net.requires_grad_(False)
    with torch.no_grad():
        frozen = extremal(net, x)
    assert torch.equal(frozen.heatmap, base.heatmap)
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(context) -> None:
    net = tiny_net()
    base = extremal(net, batch_for())
    with context():
        assert torch.equal(extremal(net, batch_for()).heatmap, base.heatmap)


def test_masks_are_searched_in_single_precision_under_autocast() -> None:
    options = {"areas": 0.1, "n_iterations": 30, "step": 2, "sigma": 3.0, "learning_rate": 0.03}
    base = extremal(sees_a_patch, BOARD[None, None], 0, **options)
    with torch.autocast("cpu", torch.bfloat16):
        made = extremal(sees_a_patch, BOARD[None, None], 0, **options)
    assert (made.heatmap - base.heatmap).abs().max() < 1e-5


def test_several_passes_are_no_reason_to_leave_the_training_mode() -> None:
    net = tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    extremal(net, batch_for())
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# What cannot be.


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda x: torch.ones(len(x), 2), "model: its output cannot be differentiated"),
        (lambda x: x.detach().mean((2, 3)), "model: its output cannot be differentiated"),
        (lambda x: nn.Parameter(torch.ones(len(x), 2)), "model: the explained score does not depend on the input"),
        (lambda x: x.mean((2, 3)) / 0, "model: the explained score is NaN or infinite"),
    ],
)
def test_models_without_a_gradient(model, match) -> None:
    with pytest.raises(ValueError, match=match):
        extremal(model, batch_for(), 0)


def test_a_score_without_preferences_still_gives_the_area() -> None:
    options = {"areas": 0.25, "step": 2, "sigma": 3.0, "n_iterations": 150, "learning_rate": 0.1}
    made = extremal(lambda x: 0.0 * x.mean((2, 3)), batch_for(batch=1), 0, **options)
    assert made.details["areas"].item() == pytest.approx(0.25, abs=0.05)
    assert made.heatmap.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2)], ids=str)
@pytest.mark.parametrize("perturbation", ["blur", "fade"])
def test_small_pictures(perturbation, size) -> None:
    heat = extremal(lambda x: x.flatten(2).mean(2), batch_for(size=size), 1, perturbation=perturbation).heatmap
    assert heat.shape == (2, *size)
    assert heat.isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"areas": 0.0}, ValueError, "areas: expected a positive finite number, got 0.0"),
        ({"areas": [0.1, 1.0]}, ValueError, r"areas: expected shares of the input between 0 and 1, got \[0.1, 1.0\]"),
        ({"areas": []}, ValueError, r"areas: expected shares of the input between 0 and 1, got \[\]"),
        ({"areas": "small"}, TypeError, "areas: expected a number, got str"),
        ({"variant": "keep"}, ValueError, "variant: expected one of preserve, delete, hybrid, got 'keep'"),
        ({"perturbation": "noise"}, ValueError, "perturbation: expected 'blur' or 'fade', got 'noise'"),
        ({"max_blur": 0}, ValueError, "max_blur: expected a positive finite number, got 0"),
        ({"n_iterations": 0}, ValueError, "n_iterations: expected 1 or more, got 0"),
        ({"step": 0}, ValueError, "step: expected 1 or more, got 0"),
        ({"step": 1.5}, TypeError, "step: expected an int, got float"),
        ({"sigma": -1.0}, ValueError, "sigma: expected a positive finite number, got -1.0"),
        ({"sigma": (2.0, 0.0)}, ValueError, "sigma: expected a positive finite number, got 0.0"),
        ({"area_weight": 0}, ValueError, "area_weight: expected a positive finite number, got 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate: expected a positive finite number, got nan"),
        ({"jitter": 1}, TypeError, "jitter: expected a bool, got int"),
        ({"output": "score"}, ValueError, "output: expected one of probability, logit, got 'score'"),
        ({"stop_at": -0.1}, ValueError, "stop_at: expected None or a rank correlation"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"progress": 0}, TypeError, "progress: expected a bool, got int"),
    ],
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("extremal", tiny_net(), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step": (1, 2, 2)}, r"step: expected one int per spatial axis \(2\), got 3"),
        ({"sigma": (1.0, 2.0, 2.0)}, r"sigma: expected a number or one per axis of x \[2, 3, 24, 32\], got"),
        (
            {"perturbation": "fade", "baseline": "dark"},
            "baseline: expected a number, mean, blur, noise, median, black, white",
        ),
    ],
)
def test_what_does_not_fit_the_input(options, match) -> None:
    with pytest.raises(ValueError, match=match):
        extremal(tiny_net(), batch_for(), **options)


def test_the_papers_numbers_are_the_defaults() -> None:
    explain = mg.explainer("extremal", tiny_net())
    game = explain.game
    assert (game.areas, game.variant, game.n_iterations) == ((0.025, 0.05, 0.1, 0.2), "preserve", 800)
    assert (game.area_weight, game.learning_rate, explain.perturbation) == (300.0, 0.01, "blur")
    smooth = explain._masks_of(torch.zeros(1, 3, 224, 224))
    assert (smooth.step, smooth.lattice) == ((7, 7), (32, 32))
    assert explain._masks_of(torch.zeros(1, 3, 16, 112, 112)).lattice == (8, 28, 28)


def test_a_bar(capfd, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    extremal(tiny_net(), batch_for())
    assert capfd.readouterr() == ("", "")
    extremal(tiny_net(), batch_for(), progress=True)
    assert "searching masks" in capfd.readouterr().err
