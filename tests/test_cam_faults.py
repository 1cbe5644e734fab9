"""Faults of other libraries' class activation maps, each with a test that midgrain's do not have it.

Ours are compared with plain autograd. Where it is cheap the library named in a test is run too and must still be
wrong, so that the test says the truth about it; if a newer version is right, the test is skipped with a note.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import midgrain as mg
from midgrain.cams import CAMS
from models_for_tests import METHODS, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles.guided import guided_map

grad_cam = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam (extra 'peers')")
captum = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")
torchcam = pytest.importorskip("torchcam.methods", reason="needs torchcam (extra 'peers')")

TOLERANCE = 1e-5
CLASSES = [3, 0, 4]
#: Every class activation map that suits `tiny_net`.
NAMES = [name for name in METHODS if name in CAMS]
GRADIENT_NAMES = ["gradcam", "gradcam++", "xgradcam", "act-gradcam", "layercam", "hirescam"]

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor")


def mended_if(right: bool, what: str) -> None:
    """Skips, where a newer version of a library no longer has the fault that the test documents."""
    if right:
        pytest.skip(f"{what} has this fault no more; its half of the test may go")


def raises(call: Callable[[], Any]) -> bool:
    """Does it fail, in whatever way?"""
    try:
        call()
    except Exception:
        return True
    return False


def class_targets(classes: list[int] = CLASSES) -> list[Callable[[Tensor], Tensor]]:
    return [grad_cam.utils.model_targets.ClassifierOutputTarget(number) for number in classes]


def grad_cam_raw(model: Any, layer: nn.Module, x: Tensor, targets: list[Any] | None = None, kind: Any = None) -> Tensor:
    """grad-cam's map of the layer's size."""
    targets = class_targets() if targets is None else targets
    with (kind or grad_cam.GradCAM)(model, [layer]) as cam:
        cam(x, targets)
        seen = cam.activations_and_grads
        gradients = [gradient.numpy() for gradient in seen.gradients] or [None]
        raw = cam.get_cam_image(x, layer, targets, seen.activations[0].numpy(), gradients[0], False)
    return torch.from_numpy(raw).clamp(min=0)


def torchcam_raw(model: nn.Module, layer: nn.Module, x: Tensor, kind: Any = None) -> Tensor:
    with (kind or torchcam.GradCAM)(model, layer) as cam:
        (raw,) = cam(CLASSES, model(x), normalized=False)
    return raw


def by_autograd(trunk: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Grad-CAM by hand: the network in two parts, the layer's output a leaf that nothing changes."""
    leaf = trunk(x).detach().clone().requires_grad_(True)
    score = head(leaf.clone())[torch.arange(len(x)), CLASSES].sum()
    (gradient,) = torch.autograd.grad(score, leaf)
    spatial = tuple(range(2, leaf.ndim))
    return (gradient.mean(spatial, keepdim=True) * leaf.detach()).sum(1).clamp(min=0)


def is_right(actual: Tensor, expected: Tensor) -> bool:
    assert expected.abs().max() > 0
    return actual.shape == expected.shape and relative_deviation(actual, expected) <= TOLERANCE


def state(model: nn.Module) -> list[Any]:
    """Everything about a model that an explanation must leave alone, compared by identity where that is meant."""
    facts: list[Any] = []
    for name, module in model.named_modules(remove_duplicate=False):
        hooks = [len(value) for key, value in vars(module).items() if key.endswith("_hooks")]
        facts.append((name, id(module), module.training, hooks, "forward" in vars(module)))
    for name, parameter in model.named_parameters():
        gradient = None if parameter.grad is None else (id(parameter.grad), parameter.grad.clone().tolist())
        facts.append((name, id(parameter), parameter.requires_grad, parameter._version, gradient))
    return facts + [(name, buffer.clone().tolist()) for name, buffer in model.named_buffers()]


class RaisesLater(nn.Module):
    """`tiny_net`, which raises when it has been called too often."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()
        self.calls = 0
        self.allowed = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.allowed:
            raise RuntimeError("out of luck")
        return self.net(x)


def test_a_layer_followed_by_an_in_place_relu() -> None:
    """grad-cam and torchcam keep the layer's tensor itself, which the ReLU then overwrites."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = by_autograd(net[:4], net[4:], x)
    assert is_right(mg.explainer("gradcam", net, layer="3")(x, CLASSES).cam, expected)
    assert (net[:4](x) < 0).any()
    mended_if(is_right(grad_cam_raw(net, net[3], x), expected), "grad-cam")
    mended_if(is_right(torchcam_raw(net, net[3], x), expected), "torchcam")


def test_densenet_whose_features_a_function_overwrites() -> None:
    """The layer that everybody names, `features`, is followed by `F.relu(features, inplace=True)`."""
    models = pytest.importorskip("torchvision").models
    net = seeded(lambda: models.densenet121(weights=None, num_classes=5)).eval()
    x = batch_for(batch=3, size=(64, 64))

    def head(features: Tensor) -> Tensor:
        return net.classifier(F.relu(features).mean((2, 3)))

    expected = by_autograd(net.features, head, x)
    assert is_right(mg.explainer("gradcam", net, layer="features")(x, CLASSES).cam, expected)
    mended_if(is_right(grad_cam_raw(net, net.features, x), expected), "grad-cam")
    mended_if(is_right(torchcam_raw(net, net.features, x), expected), "torchcam")


def test_one_target_for_a_batch() -> None:
    """grad-cam pairs targets and samples with zip: of three samples two are explained by nothing."""
    net, x = tiny_net(), batch_for(batch=3)
    explainer = mg.explainer("gradcam", net, layer="4")
    one = explainer(x, 3)
    assert one.target.tolist() == [3, 3, 3]
    for i in range(3):
        assert is_right(one.cam[i], explainer(x[i : i + 1], 3).cam[0])
    with pytest.raises(ValueError, match=r"target: expected one class per sample \(\[3\]\), got shape \[1\]"):
        explainer(x, [3])
    with grad_cam.GradCAM(net, [net[4]]) as cam:
        maps = cam(x, class_targets([3]))
    mended_if(maps[0].any() and maps[1].any() and maps[2].any(), "grad-cam")


@pytest.mark.parametrize("name", NAMES)
def test_errors_reach_the_caller(name) -> None:
    """grad-cam's context manager swallows every IndexError in its block."""
    net, x = tiny_net(), batch_for(batch=3)

    def target(outputs: Tensor) -> Tensor:
        raise IndexError("of the user")

    with pytest.raises(IndexError, match="of the user"):
        mg.explainer(name, net, layer="4")(x, target)

    def theirs() -> None:
        with grad_cam.GradCAM(net, [net[4]]):
            target(x)

    mended_if(raises(theirs), "grad-cam")


@pytest.mark.parametrize("allowed", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_as_before_after_an_exception(name, allowed) -> None:
    """Whichever pass it is that fails."""
    model, x = RaisesLater().train(), batch_for(batch=3)
    explainer = mg.explainer(name, model, layer="net.4")
    before = state(model)
    model.allowed = allowed
    try:
        explainer(x, CLASSES)
    except RuntimeError as error:
        assert str(error) == "out of luck"  # noqa: PT017 - some methods need so few passes that none fails
    assert state(model) == before


def test_ablation_leaves_no_layer_behind() -> None:
    """grad-cam's AblationCAM puts its own layer into the model, and an exception leaves it there."""
    model, x = RaisesLater(), batch_for(batch=3)
    model.allowed = 3
    before = model.net[4]
    with grad_cam.AblationCAM(model, [model.net[4]]) as cam, pytest.raises(RuntimeError, match="out of luck"):
        cam(x, class_targets())
    mended_if(model.net[4] is before, "grad-cam")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_keep_their_grad(name) -> None:
    """grad-cam empties the `.grad` that a training step has gathered, and leaves its own."""
    net, x = tiny_net(), batch_for(batch=3)
    net(x).sum().backward()
    before = state(net)
    mg.explainer(name, net, layer="4")(x, CLASSES)
    assert state(net) == before
    net.zero_grad()
    before = state(net)
    mg.explainer(name, net, layer="4")(x, CLASSES)
    assert state(net) == before
    grad_cam_raw(net, net[4], x)
    mended_if(all(parameter.grad is None for parameter in net.parameters()), "grad-cam")


@pytest.mark.parametrize("name", NAMES)
def test_modes_are_kept(name) -> None:
    """grad-cam calls `model.eval()` in its constructor and never `train()` again."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    net.train()
    net[1].eval()
    before = state(net)
    actual = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    assert torch.equal(actual, expected)
    assert state(net) == before
    grad_cam.GradCAM(net, [net[4]])
    mended_if(net.training, "grad-cam")


@pytest.fixture
def new_tensors():
    """Counts the tensors that were made since the test began and are still there."""

    def count() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    gc.freeze()  # What is there already is not looked at: there is a lot of it.
    yield count
    gc.unfreeze()


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_outlives_its_explanation(name, new_tensors) -> None:
    """Extractors that keep activations, outputs and their graph between calls fill the memory of whoever keeps them."""
    net, x = tiny_net(), batch_for(batch=3)
    explainer = mg.explainer(name, net, layer="4")
    explainer(x, CLASSES)  # The layer is found once and remembered.
    before = new_tensors()
    explainer(x, CLASSES)
    assert new_tensors() == before
    with grad_cam.GradCAM(net, [net[4]]) as cam:
        cam(x, class_targets())
        net.zero_grad()
        mended_if(new_tensors() == before, "grad-cam")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(name, mode) -> None:
    """Where an application serves, gradients are off; grad-cam and torchcam fail there."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    with mode():
        assert torch.equal(mg.explainer(name, net, layer="4")(x.clone(), CLASSES).cam, expected)
        mended_if(not raises(lambda: grad_cam_raw(net, net[4], x)), "grad-cam")
        mended_if(not raises(lambda: torchcam_raw(net, net[4], x)), "torchcam")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters(name) -> None:
    """Grad-cam and torchcam need the input or a parameter before the layer to ask for gradients."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    net.requires_grad_(False)
    before = state(net)
    assert torch.equal(mg.explainer(name, net, layer="4")(x, CLASSES).cam, expected)
    assert state(net) == before
    mended_if(not raises(lambda: grad_cam_raw(net, net[4], x)), "grad-cam")
    mended_if(not raises(lambda: torchcam_raw(net, net[4], x)), "torchcam")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name) -> None:
    """NumPy has no bfloat16, so grad-cam fails with a TypeError."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    with torch.autocast("cpu", torch.bfloat16):
        actual = mg.explainer(name, net, layer="4")(x, CLASSES).cam
        broken = raises(lambda: grad_cam_raw(net, net[4], x))
    assert actual.dtype == torch.float32
    assert relative_deviation(actual, expected) < 0.1  # Eight bits, and sums of many signs.
    mended_if(not broken, "grad-cam")


@pytest.mark.parametrize("name", NAMES)
def test_compiled_models(name) -> None:
    """Hooks on the layers of a compiled model may come after what was compiled without them."""
    net, x = tiny_net(), batch_for(batch=3)
    expected = mg.explainer(name, net, layer="4")(x, CLASSES).cam
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(x)
    assert is_right(mg.explainer(name, compiled, layer="4")(x, CLASSES).cam, expected)
    assert is_right(mg.explainer(name, compiled, layer=net[4])(x, CLASSES).cam, expected)


@pytest.mark.parametrize("name", NAMES)
def test_clips(name) -> None:
    """grad-cam's ScoreCAM and AblationCAM crash on [B, 3, T, H, W]."""
    net, x = tiny_net(3), batch_for(3, batch=3)
    cam = mg.explainer(name, net, layer="4")(x, CLASSES)
    assert cam.cam.shape == ((3, 2, 12, 16) if name == "jittercam" else (3, 2, 6, 8))
    assert cam.heatmap.shape == (3, 4, 12, 16)
    peer = {"scorecam": grad_cam.ScoreCAM, "ablationcam": grad_cam.AblationCAM}.get(name)
    if peer is not None:
        mended_if(not raises(lambda: grad_cam_raw(net, net[4], x, kind=peer)), "grad-cam")


class Says(nn.Module):
    """A network that says ReLU in its own way."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.linear = nn.Linear(8, 5)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize("relu", [F.relu, torch.relu, F.relu6, nn.ReLU6(), nn.ReLU(inplace=True)])
def test_guided_backpropagation_meets_every_relu(relu) -> None:
    """Libraries that exchange or hook `nn.ReLU` miss functions and ReLU6, in silence: a plain gradient results."""
    model, x = seeded(lambda: Says(relu)).eval(), batch_for(batch=3)
    expected = guided_map(model, x, torch.tensor(CLASSES))
    before = state(model)
    assert is_right(mg.explainer("guided", model)(x, CLASSES).heatmap, expected)
    assert state(model) == before
    if "guided-gradcam" in mg.methods():
        cam = mg.explainer("gradcam", model, layer="second")(x, CLASSES).heatmap
        product = mg.explainer("guided-gradcam", model, layer="second")(x, CLASSES).heatmap
        assert is_right(product, expected * cam)

    def theirs() -> Tensor:
        return captum.GuidedBackprop(model).attribute(x, CLASSES).abs().amax(1)

    if not isinstance(relu, nn.ReLU):
        mended_if(not raises(theirs) and is_right(theirs(), expected), "captum")


def test_guided_backpropagation_exchanges_no_module() -> None:
    """grad-cam's leaves new ReLUs, no longer in place, in the model; after an exception its own."""
    net, x = tiny_net(), batch_for(batch=1)
    before = state(net)
    mg.explainer("guided", net)(x, 3)
    assert state(net) == before
    guided = grad_cam.GuidedBackpropReLUModel(net)
    guided(x.clone(), 3)
    mended_if(state(net) == before, "grad-cam")


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda outputs: outputs[torch.arange(3), CLASSES] * factor


@pytest.mark.parametrize("name", [name for name in GRADIENT_NAMES if name != "gradcam++"])
def test_small_gradients_give_the_same_map_but_smaller(name) -> None:
    """These are linear in the gradient, down to where floats end."""
    net, x = tiny_net(), batch_for(batch=3)
    explainer = mg.explainer(name, net, layer="4")
    large, small = explainer(x, scaled(1.0)).cam, explainer(x, scaled(2.0**-40)).cam
    assert is_right(small * 2.0**40, large)


def plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ as its paper has it, in double precision."""
    a, g = activations.double(), gradients.double()
    shares = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3)
    weights = (shares.where(g != 0, 0.0) * g.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weights * a).sum(1).clamp(min=0)


@pytest.mark.parametrize("factor", [1.0, 2.0**-10, 2.0**-40])
def test_grad_cam_plus_plus(factor) -> None:
    """Two faults: grad-cam adds 1e-6 to squares of gradients, torchcam's division is done on a copy and lost."""
    net, x = tiny_net(), batch_for(batch=3)
    activations = net[:5](x).detach()
    leaf = activations.clone().requires_grad_(True)
    (gradients,) = torch.autograd.grad(scaled(factor)(net[5:](leaf.clone())).sum(), leaf)
    expected = plus_plus(activations, gradients)
    assert is_right(mg.explainer("gradcam++", net, layer="4")(x, scaled(factor)).cam, expected)
    targets = [lambda outputs, number=number: outputs[number] * factor for number in CLASSES]
    theirs = grad_cam_raw(net, net[4], x, targets, grad_cam.GradCAMPlusPlus)
    mended_if(is_right(theirs, expected), "grad-cam")
    if factor == 1.0:
        mended_if(is_right(torchcam_raw(net, net[4], x, torchcam.GradCAMpp), expected), "torchcam")


def test_gradients_that_half_precision_does_not_have() -> None:
    """In float16 a gradient under 6e-8 is 0; the score is scaled before the backward pass, the map back after it."""
    net, x = tiny_net(), batch_for(batch=3).half()
    net[8].weight.data /= 65536
    net.half()
    leaf = net[:5](x).detach().requires_grad_(True)
    (plain,) = torch.autograd.grad(net[5:](leaf.clone())[torch.arange(3), CLASSES].sum(), leaf)
    ours = mg.explainer("gradcam", net, layer="4")(x, CLASSES).cam
    net.double()
    expected = by_autograd(net[:5], net[5:], x.double())
    lossy = (plain.double().mean((2, 3), keepdim=True) * leaf.detach().double()).sum(1).clamp(min=0)
    assert relative_deviation(ours, expected) < 0.02
    assert relative_deviation(lossy, expected) > 0.1


class Tuples(nn.Module):
    """Returns logits and something else, and so does one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Pair(tiny_net()[:5])
        self.head = tiny_net()[5:]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        label, maps = self.trunk(x)
        return self.head(maps), label


class Pair(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((1, 2, 3)), self.trunk(x)


@pytest.mark.parametrize("name", NAMES)
def test_tuples(name) -> None:
    """Outputs in tuples need a callable; of a layer's tuple the spatial tensor is taken. grad-cam fails with both."""
    model, x = Tuples().eval(), batch_for(batch=3)

    def pick(outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[0][torch.arange(len(outputs[0])), torch.tensor(CLASSES)[: len(outputs[0])]]

    # What lies beside the trunk depends on the input too, so that no trunk is all that counts.
    options = {"shared_trunk": False} if name == "jittercam" else {}
    expected = mg.explainer(name, tiny_net(), layer="4", **options)(x, lambda outputs: pick((outputs,))).cam
    before = state(model)
    for layer in ("trunk", "trunk.trunk"):
        assert is_right(mg.explainer(name, model, layer=layer, **options)(x, pick).cam, expected)
        mended_if(not raises(lambda: grad_cam_raw(model, model.get_submodule(layer), x)), "grad-cam")  # noqa: B023
    with pytest.raises(TypeError, match="pass target=, a callable"):
        mg.explainer(name, model, layer="trunk")(x)
    assert state(model) == before
