"""What layers gave and how the score depends on them, against plain autograd on networks split by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from midgrain import driver
from midgrain.network.affine import is_affine
from midgrain.network.capture import Capture, NoGradientError, Site, capture, run_from, run_until
from midgrain.network.layout import ChannelsFirst
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

FIRST = ChannelsFirst()
X = batch_for(dtype=torch.float64)


def site(model: nn.Module, name: str, call: int = 0, item: int = 0) -> Site:
    return Site(name, model.get_submodule(name), call, item, FIRST)


def captured(model: Any, sites: list[Site], x: Tensor = X, target: Any = None, **options: Any) -> Capture:
    with driver.preserved(model, x):
        return capture(model, x, target, sites, **options)


def reference(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], x: Tensor = X) -> list[Tensor]:
    """The activations and d score / d activations of a network cut in two."""
    with torch.no_grad():
        activations = before(x)
    leaf = activations.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(after(leaf.clone()).amax(1).sum(), leaf)
    return [activations, gradient]


def assert_equal(seen: Capture, expected: list[Tensor], number: int = 0, tolerance: float = 1e-6) -> None:
    assert relative_deviation(seen.activations[number], expected[0]) <= tolerance
    assert relative_deviation(seen.gradients[number], expected[1]) <= tolerance


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("cut", range(6))
def test_against_a_network_cut_in_two(dims: int, cut: int) -> None:
    """Cut 3 is followed by a ReLU in place."""
    model, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, dtype=torch.float64)
    seen = captured(model, [site(model, str(cut))], x)
    assert_equal(seen, reference(model[: cut + 1], model[cut + 1 :], x))
    assert torch.equal(seen.scores, model(x).amax(1))
    assert torch.equal(seen.result.target, model(x).argmax(1))
    assert seen.activations[0].dtype == seen.gradients[0].dtype == torch.float32


def test_several_layers_in_any_order() -> None:
    model = tiny_net(dtype=torch.float64)
    seen = captured(model, [site(model, "3"), site(model, "1"), site(model, "4")])
    for number, cut in enumerate((3, 1, 4)):
        assert_equal(seen, reference(model[: cut + 1], model[cut + 1 :]), number)


def test_activations_alone() -> None:
    model = tiny_net(dtype=torch.float64)
    seen = captured(model, [site(model, "3")], backward=False)
    assert relative_deviation(seen.activations[0], model[:4](X).detach()) <= 1e-6
    assert seen.gradients == ()


class Reused(nn.Module):
    """One convolution called three times, a ReLU in place after each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.relu(self.conv(x), inplace=True)
        return self.head(x.mean((2, 3)))


def test_a_layer_that_is_called_several_times() -> None:
    model = seeded(Reused).double()
    relu = nn.ReLU()
    for call in range(3):
        expected = reference(
            lambda x, call=call: (
                model.conv(x)
                if call == 0
                else model.conv(relu(model.conv(x)))
                if call == 1
                else model.conv(relu(model.conv(relu(model.conv(x)))))
            ),
            lambda a, call=call: model.head(_again(model.conv, relu(a), 2 - call).mean((2, 3))),
        )
        assert_equal(captured(model, [site(model, "conv", call)]), expected)


def _again(conv: nn.Module, x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.relu(conv(x))
    return x


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_layers_that_return_several_tensors(kind: str) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Any:
            a, b = x.argmax(1), self.conv(x)
            return {"tuple": (a, b), "list": [a, b], "dict": {"a": a, "b": b}}[kind]

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = Several(), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            out = self.trunk(x)
            return self.head((out["b"] if kind == "dict" else out[1]).square().mean((2, 3)))

    model = seeded(Whole).double()
    expected = reference(model.trunk.conv, lambda a: model.head(a.square().mean((2, 3))))
    assert_equal(captured(model, [site(model, "trunk", item=1)]), expected)


# --- networks that make it hard ---------------------------------------------------------------------------------


class Trunk(nn.Module):
    """A trunk of two convolutions, run in a way of its own, and a head."""

    def __init__(self, how: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]):
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.middle, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def trunk(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.how(self.trunk, x))

    def rest(self, x: Tensor) -> Tensor:
        return self.head(self.middle(x).relu().mean((2, 3)))


def _no_grad(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return part(x)


def _inference(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.inference_mode():
        return part(x)


def _checkpointed(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(part, x, use_reentrant=False)


@pytest.mark.parametrize("layer", ["first", "second", "middle"])
@pytest.mark.parametrize("how", [_no_grad, _checkpointed], ids=lambda how: how.__name__)
def test_trunks_that_run_in_a_way_of_their_own(how: Any, layer: str) -> None:
    model = seeded(lambda: Trunk(how)).double()
    before, after = {
        "first": (model.first, lambda a: model.rest(model.second(a.relu()).relu())),
        "second": (lambda x: model.second(model.first(x).relu()), lambda a: model.rest(a.relu())),
        "middle": (lambda x: model.middle(model.trunk(x)), lambda a: model.head(a.relu().mean((2, 3)))),
    }[layer]
    assert_equal(captured(model, [site(model, layer)]), reference(before, after))


def test_a_trunk_under_inference_mode() -> None:
    """After it everything works; inside it no gradients can be had."""
    model = seeded(lambda: Trunk(_inference)).double()
    plain = Trunk(lambda part, x: part(x)).double()
    plain.load_state_dict(model.state_dict())
    expected = captured(plain, [site(plain, "middle")])
    seen = captured(model, [site(model, "middle")])
    assert_equal(seen, [expected.activations[0], expected.gradients[0]])
    with pytest.raises(ValueError, match="model: its weights were created, or some of its layers run, under"):
        captured(model, [site(model, "first")])


@pytest.mark.parametrize("layer", ["first", "middle"])
def test_reentrant_checkpoints(layer: str) -> None:
    """Within one there is no gradient; after it there is."""
    model = seeded(lambda: Trunk(lambda part, x: checkpoint(part, x.requires_grad_(True), use_reentrant=True))).double()
    if layer == "middle":
        expected = reference(lambda x: model.middle(model.trunk(x)), lambda a: model.head(a.relu().mean((2, 3))))
        assert_equal(captured(model, [site(model, layer)]), expected)
    else:
        with pytest.raises(ValueError, match="the explained score does not depend on first"):
            captured(model, [site(model, layer)])


def test_a_layer_before_a_reentrant_checkpoint() -> None:
    class Late(Trunk):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.rest, self.trunk(x), use_reentrant=True)

    model = seeded(lambda: Late(_no_grad)).double()
    with pytest.raises(ValueError, match="use_reentrant=False"):
        captured(model, [site(model, "second")])


def test_weights_made_under_inference_mode() -> None:
    with torch.inference_mode():
        model = tiny_net(dtype=torch.float64)
    with pytest.raises(ValueError, match="model: its weights were created, or some"):
        captured(model, [site(model, "3")])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
def test_without_gradients_around(mode: Any, frozen: bool) -> None:
    model = tiny_net(dtype=torch.float64).requires_grad_(not frozen)
    expected = reference(model[:4], model[4:])
    with mode():
        seen = captured(model, [site(model, "3")])
    assert_equal(seen, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_that_do_not_depend_on_each_other() -> None:
    """Two branches without parameters: neither has a graph to the other."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.AvgPool2d(2), nn.AvgPool2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).square().mean((2, 3)) + self.b(x).pow(3).mean((2, 3))

    model = Branches()
    seen = captured(model, [site(model, "b"), site(model, "a")])
    assert_equal(seen, reference(model.b, lambda a: a.pow(3).mean((2, 3)) + model.a(X).square().mean((2, 3))), 0)
    assert_equal(seen, reference(model.a, lambda a: a.square().mean((2, 3)) + model.b(X).pow(3).mean((2, 3))), 1)


def test_half_precision() -> None:
    """Gradients near the smallest number of float16 keep their digits; bfloat16 moves a few ReLUs."""
    model, x = tiny_net(), batch_for()
    with torch.no_grad():
        model[8].weight.mul_(1e-3)
    (expected,) = captured(model, [site(model, "4")], x).gradients
    assert 0 < float(expected.abs().max()) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = captured(model, [site(model, "4")], x).gradients
    assert relative_deviation(gradient, expected) < 0.01
    (gradient,) = captured(model.half(), [site(model, "4")], x.half()).gradients
    assert relative_deviation(gradient, expected) < 0.01


# --- what cannot be had -----------------------------------------------------------------------------------------


def test_a_layer_that_is_not_reached() -> None:
    model = tiny_net()
    model.add_module("unused", nn.ReLU())
    model.forward = lambda x: model[8](
        model[7](model[6](model[5](model[4](model[3](model[2](model[1](model[0](x))))))))
    )
    with pytest.raises(ValueError, match="layer: the network did not run unused"):
        captured(model, [site(model, "unused")], batch_for())
    with pytest.raises(ValueError, match="layer: the network did not run 3"):
        captured(model, [site(model, "3", call=1)], batch_for())


def test_a_layer_that_the_score_does_not_depend_on() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aside, self.main = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.main(x).mean((2, 3))

    model = Aside().double()
    with pytest.raises(NoGradientError, match="layer: the explained score does not depend on aside"):
        captured(model, [site(model, "aside")])
    seen = captured(model, [site(model, "main"), site(model, "aside")])
    assert float(seen.gradients[1].abs().max()) == 0


def test_a_network_that_detaches() -> None:
    model = tiny_net()
    with pytest.raises(NoGradientError, match="does it detach it, run under no_grad, or return a constant"):
        captured(lambda x: model(x).detach(), [site(model, "3")], batch_for())


def _state(model: nn.Module) -> Any:
    return [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__), module.training)
        for name, module in model.named_modules()
    ]


def _fail(*_: Any) -> Any:
    raise KeyError("stop")


@pytest.mark.parametrize("where", ["forward", "target", "layout", "until", "from"])
def test_the_network_is_left_alone_after_exceptions(where: str) -> None:
    model, x = tiny_net().train(), batch_for()
    if where == "forward":
        model[5].register_forward_hook(_fail)
    before, layer = _state(model), site(model, "3")
    if where == "layout":
        layer.layout = type("Fails", (), {"maps": _fail})()
    wanted = _fail if where == "target" else None
    act: Callable[[], Any] = {
        "until": lambda: run_until(_fail, x, layer),
        "from": lambda: run_from(lambda x: _fail(model(x)), x, layer, model[:4](x)),
    }.get(where, lambda: capture(model, x, wanted, [layer]))
    with driver.preserved(model, x), torch.no_grad(), pytest.raises(KeyError, match="stop"):
        act()
    assert _state(model) == before
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


# --- parts of a pass --------------------------------------------------------------------------------------------


def test_running_until_a_layer() -> None:
    model = tiny_net()
    ran = []
    model[5].register_forward_hook(lambda *_: ran.append(True))
    assert torch.equal(run_until(model, batch_for(), site(model, "3")), model[:4](batch_for()))
    assert not ran
    with pytest.raises(ValueError, match="layer: the network did not run 3"):
        run_until(model, batch_for(), site(model, "3", call=1))


def test_the_end_of_a_pass_is_not_swallowed() -> None:
    model = tiny_net()

    def run(x: Tensor) -> Tensor:
        try:
            return model(x)
        except Exception:
            return x

    assert torch.equal(run_until(run, batch_for(), site(model, "3")), model[:4](batch_for()))


def test_exchanging_a_layers_output() -> None:
    model = tiny_net()
    values = torch.randn(2, 8, 12, 16)
    kept = values.clone()
    assert torch.equal(run_from(model, batch_for(), site(model, "3"), values), model[4:](kept.clone()))
    assert torch.equal(values, kept)  # A ReLU in place follows.
    with pytest.raises(ValueError, match="layer: the network did not run 3"):
        run_from(model, batch_for(), site(model, "3", call=1), values)


# --- affine or not ----------------------------------------------------------------------------------------------


class Head(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear, self.pointwise = nn.Linear(4, 5), nn.Conv2d(4, 5, 1)
        self.norm, self.layer_norm, self.dropout = nn.BatchNorm2d(4), nn.LayerNorm(4), nn.Dropout(0.5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.conv(x))


AFFINE: dict[str, Any] = {
    "flatten": lambda m, a: m.linear(m.pool(a).flatten(1)),
    "mean": lambda m, a: m.linear(a.mean((2, 3))),
    "mean twice": lambda m, a: m.linear(a.mean(3).mean(2)),
    "view": lambda m, a: m.linear(m.pool(a).view(a.shape[0], -1)),
    "reshape": lambda m, a: m.linear(m.pool(a).reshape(a.shape[0], 4)),
    "squeeze": lambda m, a: m.linear(m.pool(a).squeeze(-1).squeeze(-1)),
    "index": lambda m, a: m.linear(m.pool(a)[:, :, 0, 0]),
    "sum over a number": lambda m, a: m.linear(a.sum((2, 3)) / 660),
    "average pooling": lambda m, a: m.linear(F.avg_pool2d(a, a.shape[-2:]).flatten(1)),
    "1 x 1 convolution": lambda m, a: m.pool(m.pointwise(a)).flatten(1),
    "dropout": lambda m, a: m.linear(m.dropout(m.pool(a).flatten(1))),
    "matrix product": lambda m, a: a.mean((2, 3)) @ m.linear.weight.T + m.linear.bias,
    "scaled": lambda m, a: 2 * m.linear(a.mean((2, 3))) - 1,
    "two ways": lambda m, a: m.linear(a.mean((2, 3))) + m.pointwise(a).mean((2, 3)),
    "crop": lambda m, a: m.linear(a[:, :, 1:-1, 1:-1].mean((2, 3))),
    "einsum": lambda m, a: torch.einsum("bchw,kc->bk", a, m.linear.weight),
    "channels last": lambda m, a: m.linear(a.permute(0, 2, 3, 1)).mean((1, 2)),
    "enlarged": lambda m, a: m.pointwise(F.interpolate(a, scale_factor=2, mode="bilinear")).mean((2, 3)),
}
NOT_AFFINE: dict[str, Any] = {
    "relu": lambda m, a: m.linear(a.relu().mean((2, 3))),
    "relu in place": lambda m, a: m.linear(a.relu_().mean((2, 3))),
    "batch norm": lambda m, a: m.linear(m.norm(a).mean((2, 3))),
    "softmax": lambda m, a: m.linear(a.mean((2, 3))).softmax(1),
    "log-softmax": lambda m, a: m.linear(a.mean((2, 3))).log_softmax(1),
    "gelu": lambda m, a: m.linear(F.gelu(a.mean((2, 3)))),
    "silu": lambda m, a: m.linear(F.silu(a).mean((2, 3))),
    "layer norm": lambda m, a: m.linear(m.layer_norm(a.mean((2, 3)))),
    "gated": lambda m, a: m.linear((a * a.sigmoid()).mean((2, 3))),
    "squared": lambda m, a: m.linear((a * a).mean((2, 3))),
    "product": lambda m, a: m.linear(a.mean((2, 3))) * m.pointwise(a).mean((2, 3)),
    "maximum": lambda m, a: m.linear(a.amax((2, 3))),
    "max pooling": lambda m, a: m.linear(F.max_pool2d(a, 2).mean((2, 3))),
    "one over": lambda m, a: m.linear(a.mean((2, 3))) + 1 / (3 + m.pointwise(a).mean((2, 3))),
    "normalised": lambda m, a: m.linear(F.normalize(a.mean((2, 3)))),
    "attention": lambda m, a: m.linear(F.scaled_dot_product_attention(*[a.flatten(2).transpose(1, 2)] * 3).mean(1)),
}


@pytest.mark.parametrize("name", [*AFFINE, *NOT_AFFINE])
def test_affine_heads(name: str) -> None:
    """Where a head is called affine, the gradient at another activation is the same; a doubled one doubles the rest."""
    model = seeded(lambda: Head({**AFFINE, **NOT_AFFINE}[name])).double().eval()
    seen = captured(model, [site(model, "conv")], target=2)
    assert seen.affine is (name in AFFINE)
    if seen.affine:
        a, b = torch.randn(2, 2, 4, 22, 30, dtype=torch.float64)
        head = lambda a: model.function(model, a)[:, 2]  # noqa: E731
        assert torch.allclose(head(a) + head(b), head(a + b) + head(torch.zeros_like(a)))


def test_affine_of_what_does_not_depend() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    other = torch.randn(2, requires_grad=True)
    assert not is_affine(other * 2, x)
    assert not is_affine(torch.zeros(2), x)
    assert is_affine(x.sum(1), x)
    inner = x.exp()
    assert is_affine(inner.sum(1), inner)
    assert not is_affine(inner.sum(1), x)
    assert is_affine(torch.stack(inner.unbind(1)[:2]).sum(0), inner)


def test_hooks_of_the_users_own_come_first() -> None:
    """What they make of a layer's output is what the layer returned."""
    model = tiny_net(dtype=torch.float64)
    model[3].register_forward_hook(lambda module, args, output: output.sin())
    plain = tiny_net(dtype=torch.float64)
    assert_equal(captured(model, [site(model, "3")]), reference(lambda x: plain[:4](x).sin(), plain[4:]))
    assert len(model[3]._forward_hooks) == 1
