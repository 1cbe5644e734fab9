"""Compiled explainers: what is around the CUDA graph, with a recorder that runs the work again in its place.

Whether the work looks at values on its way, which no graph can hold, is found out on tensors without values.
"""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import midgrain as mg
from midgrain import driver
from midgrain.compiled import CompiledExplainer
from midgrain.ops.deferred import deferred_checks, static_sizes


class Rerunning:
    """As a CUDA graph: replays the work on the same memory and writes its results where the first ones lie."""

    def __init__(self, model, breaks=None):
        self.model, self.breaks = model, breaks
        self.records = self.replays = 0

    def problem(self, x):
        return None

    def record(self, work, x):
        self.records += 1
        if self.breaks is not None:
            self.breaks()
        explanation, checks = work()

        def replay():
            self.replays += 1
            with driver.preserved(self.model, x):
                new, new_checks = work()
            for name in ("heatmap", "segments", "scores", "counts", "target", "outputs", "image"):
                if getattr(explanation, name) is not None:
                    getattr(explanation, name).copy_(getattr(new, name))
            checks._gathered.copy_(new_checks._gathered)

        return replay, (explanation, checks)


def network(channels=3, dims=2):
    torch.manual_seed(0)
    conv, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dims == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    return nn.Sequential(
        conv(channels, 6, 3), nn.ReLU(), conv(6, 6, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()


def same(one, other):
    for name in ("heatmap", "segments", "scores", "counts", "target", "outputs", "image"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


def compiled_swag(target=None):
    swag = mg.SWAG(network(), n_segments=12)
    return CompiledExplainer(swag, X, target, Rerunning(swag.model))


X = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
OTHER = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("target", [None, 3, [1, 2], torch.tensor([4, 0]), lambda outputs: outputs[:, 2]])
@pytest.mark.parametrize("superpixels", ["image+gradient", "image", "gradient"])
def test_replays_equal_the_explainer(superpixels, target):
    swag = mg.SWAG(network(), superpixels, n_segments=12)
    recorder = Rerunning(swag.model)
    compiled = CompiledExplainer(swag, X, target, recorder)
    assert (compiled.captured, compiled.reason, recorder.records) == (True, None, 1)
    for x in (OTHER, X, OTHER):
        same(compiled(x, target), swag(x, target))
    assert (recorder.records, recorder.replays) == (1, 3)


def test_results_are_the_callers_own():
    compiled = compiled_swag()
    first = compiled(X)
    kept = first.heatmap.clone()
    compiled(OTHER)
    assert torch.equal(first.heatmap, kept)


def test_clips():
    swag = mg.SWAG(network(dims=3), n_segments=9)
    x = torch.rand(1, 3, 6, 16, 14)
    same(CompiledExplainer(swag, x, None, Rerunning(swag.model))(x), swag(x))


def test_another_kind_of_target_is_recorded_when_it_comes():
    swag = mg.SWAG(network(), n_segments=12)
    recorder = Rerunning(swag.model)
    compiled = CompiledExplainer(swag, X, None, recorder)
    same(compiled(X, 1), swag(X, 1))
    same(compiled(OTHER, [3, 4]), swag(OTHER, [3, 4]))
    assert recorder.records == 2

    def second(outputs):
        return outputs[:, 2]

    same(compiled(X, second), swag(X, second))
    assert recorder.records == 3


def test_a_new_callable_with_every_call_does_not_pile_up():
    swag = mg.SWAG(network(), n_segments=12)
    compiled = CompiledExplainer(swag, X, None, Rerunning(swag.model))
    for column in range(20):
        heatmap = compiled(X, lambda outputs, c=column % 5: outputs[:, c]).heatmap
        assert torch.equal(heatmap, swag(X, column % 5).heatmap)
    assert len(compiled._recordings) <= 8


def test_moved_weights_are_recorded_anew_and_changed_ones_are_not():
    model = network()
    swag = mg.SWAG(model, n_segments=12)
    recorder = Rerunning(swag.model)
    compiled = CompiledExplainer(swag, X, None, recorder)
    with torch.no_grad():
        model[0].weight.mul_(-1.5)
    same(compiled(X), swag(X))
    assert recorder.records == 1
    model[0].weight = nn.Parameter(model[0].weight.detach() * -1)
    same(compiled(X), swag(X))
    assert recorder.records == 2
    model[-1] = nn.Linear(6, 5)
    same(compiled(X), swag(X))
    assert recorder.records == 3
    model[0].weight.data = model[0].weight.data.clone()
    same(compiled(X), swag(X))
    assert recorder.records == 4


def test_the_model_stays_as_it_was():
    model = network().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = torch.get_rng_state()
    with torch.inference_mode():
        compiled = CompiledExplainer(mg.SWAG(model, n_segments=12), X, None, Rerunning(model))
        compiled(OTHER.clone())
    assert all(module.training for module in model.modules())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_recorded_runs_as_before():
    def breaks():
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        finally:
            raise ValueError("the end of a broken recording")

    swag = mg.SWAG(network(), n_segments=12)
    recorder = Rerunning(swag.model, breaks)
    with pytest.warns(RuntimeWarning, match=r"^swag-ig: not recorded as a CUDA graph, so it runs as without compile"):
        compiled = CompiledExplainer(swag, X, None, recorder)
    assert not compiled.captured
    assert compiled.reason == "RuntimeError: operation not permitted when stream is capturing"
    assert repr(compiled).endswith(f"not captured: {compiled.reason})")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(compiled(OTHER), swag(OTHER))
    assert recorder.records == 1


def test_on_the_cpu_the_explainer_answers():
    swag = mg.SWAG(network(), n_segments=12)
    compiled = swag.compile(X)
    assert compiled.reason == "the input lies on cpu; CUDA graphs are of work on a CUDA device"
    same(compiled(OTHER), swag(OTHER))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[:1], ValueError, r"x: expected shape \[2, 3, 24, 20\], torch.float32 on cpu, as the example of compile"),
        (X.double(), ValueError, r"x: expected shape .* got \[2, 3, 24, 20\], torch.float64 on cpu"),
        (X.numpy(), TypeError, "x: expected a torch tensor, got ndarray"),
        # On the CPU, whose kernels look at once, superpixels come before the check of the input.
        (torch.full_like(X, torch.nan), ValueError, "(x|images): expected finite values, got NaN or infinity"),
    ],
)
def test_bad_inputs(x, error, message):
    compiled = compiled_swag()
    with pytest.raises(error, match=f"^{message}"):
        compiled(x)
    same(compiled(X), mg.SWAG(network(), n_segments=12)(X))


@pytest.mark.parametrize("target", [5, [0, -1], torch.tensor([7, 0])])
def test_bad_classes(target):
    compiled = compiled_swag(1)
    with pytest.raises(ValueError, match=r"^target: expected classes in 0 .. 4, got"):
        compiled(X, target)


def test_bad_examples_raise_at_once():
    with pytest.raises(ValueError, match=r"^x: expected finite values"):
        mg.SWAG(network()).compile(torch.full_like(X, torch.inf))
    with pytest.raises(ValueError, match=r"^target: expected classes in 0 .. 4, got 9"):
        mg.SWAG(network()).compile(X, 9)


def test_weights_that_turn_bad_are_told():
    model = network()
    compiled = CompiledExplainer(mg.SWAG(model, n_segments=12), X, None, Rerunning(model))
    with torch.no_grad():
        model[-1].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^model: the explained score is NaN or infinite for sample\(s\) \[0, 1\]"):
        compiled(X)


def test_threads_get_their_own_results():
    swag = mg.SWAG(network(), n_segments=12)
    compiled = CompiledExplainer(swag, X, None, Rerunning(swag.model))
    inputs = [torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    expected = [swag(x) for x in inputs]
    results = [None] * len(inputs)

    def work(i):
        results[i] = compiled(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(results, expected, strict=True):
        same(one, other)


# A graph can hold these; of the others, `reason` says why not.
CAPTURABLE = ("swag-i", "swag-ig", "swag-g", "vanilla", "guided", "input-x-gradient", "sobel")


def without_values(explainer, x, target):
    """Runs an explainer's work on tensors that have no values."""
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        fake_target = mode.from_tensor(target) if isinstance(target, torch.Tensor) else target
        model = explainer.model
        parameters = {name: mode.from_tensor(value) for name, value in [*model.named_parameters()]}
        call = lambda inputs: torch.func.functional_call(model, parameters, (inputs,))  # noqa: E731
        explainer.model = call
        try:
            with driver.preserved(model, x), static_sizes(), deferred_checks() as checks:
                explanation = explainer._explain(driver.check_input(fake), fake_target)
                checks.gather()
        finally:
            explainer.model = model
    return explanation


@pytest.mark.parametrize("target", [None, torch.tensor([1, 2])], ids=["predicted", "classes"])
@pytest.mark.parametrize("name", CAPTURABLE)
def test_no_value_is_looked_at_on_the_way(name, target):
    explanation = without_values(mg.explainer(name, network()), X, target)
    assert list(explanation.heatmap.shape) == [2, 24, 20]


def test_looking_at_a_value_is_found_out():
    class Looks(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))

    with pytest.raises(DataDependentOutputException):
        without_values(mg.explainer("vanilla", Looks()), X, None)
