"""Which modules a network calls, and how their outputs are found again."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from midgrain.network.modules import find_module, module_name, unwrapped
from midgrain.network.trace import hooked, replaced, tensors_of, trace
from models_for_tests import batch_for, tiny_net
from models_for_tests import one_thread as one_thread


class Twice(nn.Module):
    """One convolution called twice, one ReLU in place, one module never called, outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.keep = nn.Identity()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.act(self.conv(x))
        x = self.keep(self.conv(x))
        return {"maps": [x, x.mean((2, 3))], "size": x.shape[-1]}


def test_calls_in_the_order_of_their_return() -> None:
    model = Twice()
    calls = trace(model, batch_for())
    assert [(call.name, call.index) for call in calls.calls] == [
        ("conv", 0),
        ("act", 0),
        ("conv", 1),
        ("keep", 0),
        ("", 0),
    ]
    assert [call.index for call in calls.of(model.conv)] == [0, 1]
    assert calls.of(model.unused) == []
    assert calls.calls[0].shapes == ((2, 3, 24, 32),)
    assert calls.calls[-1].shapes == ((2, 3, 24, 32), (2, 3))
    assert calls.batch == 2


def test_parents_and_times() -> None:
    calls = trace(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()), batch_for())
    relu, inner, tanh, whole = calls.calls
    assert list(relu.ancestors) == [inner, whole]
    assert list(tanh.ancestors) == [whole]
    assert whole.begin < inner.begin < relu.begin < relu.end < inner.end < tanh.begin < tanh.end < whole.end


def test_who_made_a_tensor() -> None:
    """An identity hands on what it got; a ReLU in place makes a new tensor of the same object."""
    conv, act, again, keep, whole = trace(Twice(), batch_for()).calls
    assert conv.makers == ((conv, 0),)
    assert act.makers == ((act, 0),)
    assert keep.makers == ((again, 0),)
    assert whole.makers == ((again, 0), (whole, 1))


def test_a_trace_keeps_no_network_alive() -> None:
    model = tiny_net()
    calls = trace(model, batch_for())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError, match="the network of 0 is no more"):
        calls.calls[0].module  # noqa: B018


def test_a_module_that_raised_and_was_caught() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Fails(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.first(x)
            except RuntimeError:
                return self.second(x)

    model = Catches()
    assert [call.name for call in trace(model, batch_for()).calls] == ["second", ""]


def test_hooks_are_gone_after_an_exception() -> None:
    model = tiny_net()

    def fail(module: nn.Module, output: Any) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), hooked(list(model), after=fail):
        model(batch_for())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "output",
    [torch.zeros(2), (torch.zeros(2),), [1, torch.zeros(2)], {"a": torch.zeros(2)}, {"b": ("x", [torch.zeros(2)])}],
)
def test_replacing_what_a_module_returned(output: Any) -> None:
    ones = torch.ones(2)
    changed = replaced(output, 0, ones)
    assert type(changed) is type(output)
    assert tensors_of(changed)[0] is ones
    assert float(tensors_of(output)[0].sum()) == 0


def test_a_module_that_returns_no_tensor() -> None:
    assert tensors_of("text") == []
    assert tensors_of(None) == []


# --- modules --------------------------------------------------------------------------------------------------------


def test_the_network_behind_its_wrappers() -> None:
    model = tiny_net()
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model)) is model
    assert unwrapped(nn.DataParallel(torch.compile(model))) is model


@pytest.mark.parametrize("model", [lambda x: x, len, 3])
def test_a_model_without_layers(model: Any) -> None:
    with pytest.raises(TypeError, match="whose layers can be watched, got"):
        unwrapped(model)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program() -> None:
    with pytest.raises(TypeError, match="a TorchScript program hides its layers"):
        unwrapped(torch.jit.trace(tiny_net(), batch_for()))


def test_finding_modules() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.ReLU())
    assert find_module(model, "0.1") is model[0][1]
    assert find_module(model, model[1]) is model[1]
    assert module_name(model, model[0][1]) == "0.1"
    assert module_name(model, model) == "Sequential"


def test_names_within_wrappers() -> None:
    """A name is found whichever wrapper it was read from."""
    model = nn.Sequential()
    model.add_module("trunk", torch.compile(nn.Sequential(nn.ReLU(), nn.Tanh())))
    tanh = model.trunk._orig_mod[1]
    for name in ("trunk._orig_mod.1", "trunk.1", "module.trunk.1", "_orig_mod.trunk.1"):
        assert find_module(model, name) is tanh
    assert find_module(nn.Sequential(nn.ReLU()), "module.0").__class__ is nn.ReLU


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("layr1", ValueError, "layer: the model has no module 'layr1'; did you mean layer1?"),
        ("", ValueError, "layer: the model has no module ''"),
        ("zzzzzz", ValueError, r"model.named_modules\(\) lists their names"),
        (nn.ReLU(), ValueError, "layer: this ReLU is not part of the model"),
        (3, TypeError, "layer: expected a module or its dotted name, got int"),
    ],
)
def test_modules_that_are_not_there(layer: Any, error: type[Exception], message: str) -> None:
    model = nn.Sequential()
    model.add_module("layer1", nn.ReLU())
    with pytest.raises(error, match=message):
        find_module(model, layer)
