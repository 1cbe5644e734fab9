"""What is promised about a user's model: few passes through it, nothing altered in it, clear errors about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from midgrain.registry import method_options
from models_for_tests import MANY_PASSES, METHODS, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread

SWAGS = ("swag-i", "swag-ig", "swag-g")
# Class activation maps trace the network first, and must see its modules.
WITHOUT_LAYERS = tuple(name for name in METHODS if "layer" not in method_options(name))
GRADIENTS = ("vanilla", "guided", "input-x-gradient", *SWAGS)


# How many passes.


class CountedInput(torch.autograd.Function):
    """The identity; counts backward passes that reach it."""

    @staticmethod
    def forward(ctx, x, counts):
        ctx.counts = counts
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        ctx.counts["backward"] += 1
        return gradient, None


class Counted(nn.Module):
    """Counts the passes through a model, the backward ones in a custom function or a hook on the input."""

    def __init__(self, inner: nn.Module, by: str):
        super().__init__()
        self.inner, self.by = inner, by
        self.counts = {"forward": 0, "backward": 0}

    def forward(self, x):
        self.counts["forward"] += 1
        if self.by == "function":
            x = CountedInput.apply(x, self.counts)
        elif x.requires_grad:
            x.register_hook(self._count_backward)
        return self.inner(x)

    def _count_backward(self, gradient):
        self.counts["backward"] += 1


@pytest.mark.parametrize("by", ["function", "hook"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", [name for name in WITHOUT_LAYERS if name not in MANY_PASSES])
def test_one_forward_and_at_most_one_backward_pass_per_batch(name, batch, by) -> None:
    model = Counted(tiny_net(), by)
    mg.explainer(name, model)(batch_for(batch=batch))
    assert model.counts == {"forward": 1, "backward": int(name in GRADIENTS)}


# Nothing is altered.


class Fails(torch.autograd.Function):
    """The identity, until its backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ArithmeticError("backward fails")


class Delicate(nn.Module):
    """A model with something of everything that a careless explainer leaves changed.

    Modules in both modes, dropout, batch norms in train mode, a frozen parameter, gradients present and absent,
    hooks of all kinds, random numbers drawn in the forward pass, work in place on the input.
    """

    def __init__(self, failure: str = ""):
        super().__init__()
        self.body = tiny_net()
        self.noisy = nn.Dropout(0.5)
        self.head = seeded(lambda: nn.Linear(5, 5))
        self.failure = failure
        self.train()
        self.body[3].eval()
        self.head.eval()
        self.body[3].weight.requires_grad_(False)
        self.head.weight.grad = torch.full_like(self.head.weight, 0.25)
        self.body[0].register_forward_pre_hook(lambda module, inputs: None)
        self.body[0].register_forward_hook(lambda module, inputs, output: None)
        self.body[8].register_full_backward_hook(lambda module, ins, outs: None)
        self.body[0].weight.register_hook(lambda gradient: pytest.fail("parameters need no gradient"))

    def forward(self, x):
        torch.rand(3)
        if self.failure == "forward":
            raise ArithmeticError("forward fails")
        x.mul_(0.5).add_(0.1)
        logits = self.head(self.noisy(self.body(x)))
        return Fails.apply(logits) if self.failure == "backward" else logits


def copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def observed(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the process that an explanation could alter."""
    state = {f"state {name}": value.clone() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"requires_grad {name}"] = parameter.requires_grad
        state[f"grad {name}"] = copied(parameter.grad)
    for name, module in model.named_modules():
        state[f"training {name}"] = module.training
        state[f"attributes {name}"] = sorted(vars(module))
        for key, value in vars(module).items():
            if "hook" in key and isinstance(value, dict):
                state[f"{key} {name}"] = dict(value)
    return state | {
        "rng": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "stance": torch._dynamo.eval_frame._stance,
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
        return bool(a == b) and type(a) is type(b)

    return [key for key in before.keys() | after.keys() if not same(before.get(key), after.get(key))]


@contextmanager
def unaltered(model: nn.Module) -> Iterator[None]:
    before = observed(model)
    yield
    assert differences(before, observed(model)) == []


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_as_it_was(name) -> None:
    model = Delicate()
    with unaltered(model):
        quick_explainer(name, model)(batch_for())


def test_the_observer_sees_a_careless_explainer() -> None:
    model = Delicate()
    before = observed(model)
    model.body[0].weight._backward_hooks.clear()
    model(batch_for()).sum().backward()
    model.head.register_forward_hook(lambda *_: None)
    model.noisy.eval()
    changed = " ".join(differences(before, observed(model)))
    for what in ("body.1.running_mean", "grad body.0.weight", "grad head.weight", "_forward_hooks head", "rng"):
        assert what in changed
    assert "training noisy" in changed


def raising_scorer(model, x, target):
    model.eval()
    raise ArithmeticError("scorer fails")


def raising_target(outputs):
    raise ArithmeticError("target fails")


SETTINGS = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((name, place) for name in ("vanilla", "guided", "swag-ig") for place in ("forward", "target", "backward")),
        *(("sobel", place) for place in ("forward", "target")),
        ("swag", "scorer"),
    ],
)
def test_the_model_is_left_as_it_was_after_an_exception(name, place, settings) -> None:
    model = Delicate(place)
    explain = mg.SWAG(model, "image", raising_scorer) if place == "scorer" else mg.explainer(name, model)
    with SETTINGS[settings](), unaltered(model), pytest.raises(ArithmeticError, match=f"{place} fails"):
        explain(batch_for(), raising_target if place == "target" else None)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda x: x.repeat(1, 1, 2, 1)[:, :, ::2],
        lambda x: x[:1].expand(2, -1, -1, -1),
        lambda x: x.requires_grad_(True),
        lambda x: x.requires_grad_(True) * 2.0,
    ],
    ids=["plain", "transposed", "strided", "expanded", "leaf", "in a graph"],
)
def test_the_input_is_left_as_it_was(name, make) -> None:
    x = make(batch_for())
    before, version = x.detach().clone(), x._version
    explanation = quick_explainer(name, Delicate())(x, 1)
    assert torch.equal(x.detach(), before)
    assert x._version == version
    assert not x.is_leaf or x.grad is None
    assert not explanation.heatmap.requires_grad
    expected = quick_explainer(name, Delicate())(before, 1)
    assert torch.allclose(explanation.heatmap, expected.heatmap, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_input_may_be_an_inference_tensor(name) -> None:
    with torch.inference_mode():
        x = batch_for()
    assert torch.equal(
        quick_explainer(name, Delicate())(x).heatmap, quick_explainer(name, Delicate())(batch_for()).heatmap
    )


def test_evaluation_mode_is_used_and_random_layers_are_off() -> None:
    model = Delicate()
    first = mg.explainer("vanilla", model)(batch_for())
    assert torch.equal(mg.explainer("vanilla", model)(batch_for()).heatmap, first.heatmap)
    assert torch.equal(mg.explainer("vanilla", Delicate().eval())(batch_for()).heatmap, first.heatmap)


def test_train_and_eval_of_the_model_are_not_called() -> None:
    class Stubborn(nn.Sequential):
        def train(self, mode=True):
            pytest.fail("train() and eval() may do anything")

    model = Stubborn(*tiny_net().children())
    for module in model.modules():
        module.training = True
    mg.explainer("guided", model)(batch_for())
    assert all(module.training for module in model.modules())


def test_threads_together_leave_the_compiler_as_it_was() -> None:
    """The compiler's stance is global: whoever leaves last must put back what the first one found."""
    before = torch._dynamo.eval_frame._stance
    first_is_inside, second_is_inside, first_is_out = (threading.Event() for _ in range(3))
    net = tiny_net()

    def first(x):
        first_is_inside.set()
        assert second_is_inside.wait(30)
        return net(x)

    def second(x):
        second_is_inside.set()
        assert first_is_out.wait(30)
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"
        return net(x)

    results = []

    def explain(model: Callable[[Tensor], Tensor]) -> None:
        results.append(mg.explainer("vanilla", model)(batch_for()))

    one, two = (threading.Thread(target=explain, args=[model]) for model in (first, second))
    one.start()
    assert first_is_inside.wait(30)
    two.start()
    one.join(30)
    first_is_out.set()
    two.join(30)
    assert len(results) == 2
    assert torch._dynamo.eval_frame._stance == before


# Targets.


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (2, [2, 2]),
        (0, [0, 0]),
        (np.int64(2), [2, 2]),
        (np.uint8(4), [4, 4]),
        (torch.tensor(3), [3, 3]),
        (np.array(3), [3, 3]),
        ([4, 0], [4, 0]),
        ((4, 0), [4, 0]),
        (range(2), [0, 1]),
        ([np.int64(1), 2], [1, 2]),
        (np.array([1, 2], np.uint16), [1, 2]),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor([1, 2], dtype=torch.int32), [1, 2]),
        (torch.tensor([1, 2], dtype=torch.uint8), [1, 2]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["vanilla", "sobel"])
def test_targets(name, target, expected) -> None:
    explanation = mg.explainer(name, tiny_net())(batch_for(), target)
    assert explanation.target.dtype == torch.int64
    assert explanation.target.tolist() == expected


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        (5, ValueError, r"target: expected classes in 0 \.\. 4, got 5"),
        (-1, ValueError, r"target: expected classes in 0 \.\. 4, got -1"),
        (2**70, ValueError, r"target: expected classes in 0 \.\. 4, got 1180591620717411303424"),
        ([0, 5], ValueError, r"target: expected classes in 0 \.\. 4, got 5"),
        (torch.tensor([-2, 0]), ValueError, r"target: expected classes in 0 \.\. 4, got -2"),
        ([0], ValueError, r"target: expected one class per sample \(\[2\]\), got shape \[1\]"),
        ([], ValueError, r"got shape \[0\]"),
        ([0, 1, 2], ValueError, r"got shape \[3\]"),
        ([[0, 1]], ValueError, r"got shape \[1, 2\]"),
        (1.0, TypeError, "target: expected integers, got dtype torch.float32"),
        ([1.0, 2.0], TypeError, "target: expected integers, got dtype torch.float32"),
        (torch.tensor([1j, 0]), TypeError, "target: expected integers, got dtype torch.complex64"),
        (True, TypeError, "target: expected integers, got dtype torch.bool"),
        (np.bool_(True), TypeError, "target: expected integers, got dtype torch.bool"),
        ([True, False], TypeError, "target: expected integers, got dtype torch.bool"),
        ("cat", TypeError, "target: expected a class, one per sample or a callable, got str"),
        (np.array(["a", "b"]), TypeError, "target: .* got ndarray"),
        ({0: 1}, TypeError, "target: .* got dict"),
        ([None, 1], TypeError, "target: .* got list"),
        (..., TypeError, "target: .* got ellipsis"),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, type) else value.__name__,
)
@pytest.mark.parametrize("name", ["vanilla", "sobel"])
def test_bad_targets(name, target, error, match) -> None:
    model = Delicate()
    with unaltered(model), pytest.raises(error, match=match):
        mg.explainer(name, model)(batch_for(), target)


class Returns(nn.Module):
    """A network whose logits [B, 5] and feature map [B, 8, H, W] are returned in some form."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.net, self.form = tiny_net(), form

    def forward(self, x):
        features = self.net[:3](x)
        return self.form(self.net[3:](features), features)


@pytest.mark.parametrize(
    ("form", "target"),
    [
        (lambda logits, features: (logits, features), lambda out: out[0][:, 3]),
        (lambda logits, features: {"out": logits}, lambda out: out["out"][:, 3]),
        (lambda logits, features: logits, lambda out: out[:, 3]),
    ],
    ids=["tuple", "dict", "tensor"],
)
# Score-CAM takes a class's probability, of a callable what it returns.
@pytest.mark.parametrize("name", [name for name in METHODS if name != "scorecam"])
def test_callable_targets_pick_from_any_output(name, form, target) -> None:
    options = {"output": "logit"} if "output" in method_options(name) else {}
    explanation = quick_explainer(name, Returns(form), **options)(batch_for(), target)
    assert explanation.target is None
    expected = quick_explainer(name, tiny_net(), **options)(batch_for(), 3)
    assert torch.equal(explanation.heatmap, expected.heatmap)


def test_callable_targets_explain_a_segmentation() -> None:
    """Of a map [B, C, H, W], the score of one class at one pixel depends on the pixels around it alone."""
    explanation = mg.explainer("vanilla", tiny_net()[:1])(batch_for(), lambda out: out[:, 4, 10, 20])
    assert explanation.outputs is None
    seen = explanation.heatmap[0] > 0
    assert seen[9:12, 19:22].all()
    assert int(seen.sum()) == 9


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        (lambda out: out, ValueError, r"target: expected the callable to return shape \[2\], got \[2, 5\]"),
        (lambda out: out[:, :1], ValueError, r"got \[2, 1\]"),
        (lambda out: out[:, 0].sum(), ValueError, r"got \[\]"),
        (lambda out: None, TypeError, "target: expected the callable to return a tensor .* got NoneType"),
        (lambda out: 1.0, TypeError, "got float"),
        (lambda out: out[:, 0].detach().numpy(), TypeError, "got ndarray"),
        (lambda out: out[:, 0] * 1j, TypeError, "real numbers, got dtype torch.complex64"),
        (lambda out: out[:, 0].log() * torch.nan, ValueError, r"NaN or infinite for sample\(s\) \[0, 1\]"),
        (lambda out: out.argmax(1), ValueError, "cannot be differentiated"),
        (lambda out: out[:, 0].detach(), ValueError, "cannot be differentiated"),
        (lambda out: nn.Parameter(torch.ones(2)), ValueError, "does not depend on the input"),
    ],
)
@pytest.mark.parametrize("name", ["vanilla", "guided", "swag-ig"])
def test_bad_callable_targets(name, target, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, tiny_net())(batch_for(), target)


# Models that cannot be explained.


@pytest.mark.parametrize(
    ("form", "error", "match"),
    [
        (lambda logits, _: (logits,), TypeError, r"model: expected it to return .* got tuple; pass target="),
        (lambda logits, _: {"out": logits}, TypeError, r"got dict; pass target="),
        (lambda logits, _: None, TypeError, r"got NoneType; pass target="),
        (lambda logits, features: features, ValueError, r"expected real logits of shape \[2, classes\].*pass target="),
        (lambda logits, _: logits[:, 0], ValueError, r"got \[2\] of torch.float32; pass target="),
        (lambda logits, _: logits[:1], ValueError, r"got \[1, 5\]"),
        (lambda logits, _: logits[:, :0], ValueError, r"got \[2, 0\]"),
        (lambda logits, _: logits * 1j, ValueError, "of torch.complex64"),
        (lambda logits, _: logits * torch.nan, ValueError, r"NaN or infinite for sample\(s\) \[0, 1\]"),
        (lambda logits, _: logits / torch.tensor([[0.0], [1.0]]), ValueError, r"NaN or infinite for sample\(s\) \[0\]"),
    ],
)
@pytest.mark.parametrize("name", ["vanilla", "guided", "sobel", "swag-ig"])
def test_models_with_unfit_outputs(name, form, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, Returns(form))(batch_for())


@pytest.mark.parametrize(
    ("form", "match"),
    [
        (lambda logits, _: logits.detach(), "cannot be differentiated .* detach"),
        (lambda logits, _: torch.ones(2, 5), "cannot be differentiated"),
        (lambda logits, _: nn.Parameter(torch.ones(2, 5)), "does not depend on the input"),
        (lambda logits, _: torch.tensor(logits.tolist()), "cannot be differentiated"),
    ],
    ids=["detached", "constant", "parameter", "rebuilt"],
)
@pytest.mark.parametrize("name", GRADIENTS)
def test_models_without_a_gradient(name, form, match) -> None:
    with pytest.raises(ValueError, match=match):
        mg.explainer(name, Returns(form))(batch_for())


@pytest.mark.parametrize("guard", [torch.no_grad(), torch.inference_mode()], ids=["no_grad", "inference_mode"])
def test_models_that_forbid_gradients(guard) -> None:
    model = tiny_net()
    with pytest.raises(ValueError, match=r"cannot be differentiated .* no_grad"):
        mg.explainer("vanilla", guard(lambda x: model(x)))(batch_for())


def test_a_gradient_that_is_nan() -> None:
    def model(x):
        return (x - x.detach()).flatten(1)[:, :3].sqrt() + 1.0

    with pytest.raises(ValueError, match=r"NaN or infinity for sample\(s\) \[0, 1\]"):
        mg.explainer("vanilla", model)(batch_for())


@pytest.mark.parametrize("model", [None, "resnet18", 3, torch.zeros(2)], ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("name", METHODS)
def test_models_that_cannot_be_called(name, model) -> None:
    with pytest.raises(TypeError, match=f"model: expected a torch.nn.Module .* got {type(model).__name__}"):
        mg.explainer(name, model)


@pytest.mark.parametrize("name", WITHOUT_LAYERS)
def test_any_callable_is_a_model(name) -> None:
    net = tiny_net()
    assert torch.equal(
        quick_explainer(name, lambda x: net(x))(batch_for()).heatmap, quick_explainer(name, net)(batch_for()).heatmap
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(backend) -> None:
    torch._dynamo.reset()
    model, x = Delicate(), batch_for()
    compiled = torch.compile(model, backend=backend)
    with unaltered(model):
        for name in ("vanilla", "swag-ig", "centre"):
            actual, expected = mg.explainer(name, compiled)(x), mg.explainer(name, model)(x)
            assert torch.equal(actual.heatmap, expected.heatmap)
            assert torch.equal(actual.outputs, expected.outputs)


# Inputs.


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), TypeError, "x: expected a torch tensor .* got ndarray"),
        (None, TypeError, "got NoneType"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "x: expected floats, .* got dtype torch.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "got dtype torch.complex64"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), TypeError, "x: expected a dense tensor"),
        (torch.zeros(3, 8, 8), ValueError, r"got shape \[3, 8, 8\]; add the batch axis with x\[None\]"),
        (torch.zeros(8, 8), ValueError, r"got shape \[8, 8\]"),
        (torch.zeros(1, 1, 3, 4, 8, 8), ValueError, r"got shape \[1, 1, 3, 4, 8, 8\]"),
        (torch.zeros(0, 3, 8, 8), ValueError, "x: expected no empty axis"),
        (torch.zeros(1, 3, 0, 8), ValueError, "x: expected no empty axis"),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, "x: expected finite values"),
        (torch.full((1, 3, 8, 8), torch.inf), ValueError, "x: expected finite values"),
    ],
)
@pytest.mark.parametrize("name", ["vanilla", "sobel", "swag-ig"])
def test_bad_inputs(name, x, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer(name, tiny_net())(x)
