"""Class activation maps against pytorch-grad-cam, captum and torchcam, which run live, where those are right.

Compared are maps of the layer's size, before any resizing and rescaling, to 1e-5 of the largest value. Where a peer
adds a small number to a denominator, the definition is written out here once: ours must be it without the small number,
the peer's with it. What the peers get wrong is in `test_cam_faults.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from models_for_tests import CONV, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

grad_cam = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam (extra 'peers')")
captum = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")
torchcam = pytest.importorskip("torchcam.methods", reason="needs torchcam (extra 'peers')")
torchvision = pytest.importorskip("torchvision")

TOLERANCE = 1e-5
# Ablation-CAM's weights are differences of nearly equal scores, which grad-cam takes in single precision.
ABLATION_TOLERANCE = 1e-4
CLASSES = [3, 17, 8]

#: Network -> a layer of it whose output nothing that follows changes in place, so that the peers see it too.
LAYERS = {
    "resnet18": "layer4",
    "vgg11_bn": "features.27",
    "mobilenet_v2": "features.18",
    "densenet121": "features.denseblock4",
}
GRAD_CAM = {
    "gradcam": grad_cam.GradCAM,
    "gradcam++": grad_cam.GradCAMPlusPlus,
    "xgradcam": grad_cam.XGradCAM,
    "layercam": grad_cam.LayerCAM,
    "hirescam": grad_cam.HiResCAM,
    "eigencam": grad_cam.EigenCAM,
}
TORCHCAM = {"gradcam": torchcam.GradCAM, "xgradcam": torchcam.XGradCAM, "layercam": torchcam.LayerCAM}
PERTURBING = {"ablationcam": grad_cam.AblationCAM, "scorecam": grad_cam.ScoreCAM}
# What the peers add to denominators.
GRAD_CAM_EPSILON = {"gradcam++": 1e-6, "xgradcam": 1e-7}
TORCHCAM_EPSILON = {"xgradcam": 1e-8}


@dataclass(frozen=True)
class Case:
    """A network, a layer of it and inputs."""

    model: nn.Module
    layer: str
    x: Tensor

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.layer)


def network(name: str) -> nn.Module:
    """Random weights; batch norms know the statistics of random pictures, so that activations have their usual size."""

    def build() -> nn.Module:
        model = torchvision.models.get_model(name, weights=None, num_classes=20)
        if name == "vgg11_bn":  # A hundred million weights would only take time.
            model.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 20))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # The mean of all batches seen.
        with torch.no_grad():
            model.train()(batch_for(batch=8, size=(96, 96), seed=2))
        return model.eval()

    return seeded(build)


@pytest.fixture(scope="module", params=LAYERS)
def case(request: pytest.FixtureRequest) -> Case:
    """Each network in turn, a batch of three."""
    return Case(network(request.param), LAYERS[request.param], batch_for(batch=3, size=(96, 96)))


def needs(method: str) -> pytest.MarkDecorator:
    """For tests of methods that come later."""
    return pytest.mark.skipif(method not in mg.methods(), reason=f"needs {method}")


def class_targets(classes: list[int] = CLASSES) -> list[Callable[[Tensor], Tensor]]:
    """One callable per sample, as grad-cam has them."""
    return [grad_cam.utils.model_targets.ClassifierOutputTarget(number) for number in classes]


@dataclass(frozen=True)
class FromGradCam:
    """What grad-cam made."""

    raw: Tensor  # the layer's map, before its ReLU
    heatmap: Tensor  # what it returns: resized, in 0 .. 1
    activations: Tensor
    gradients: Tensor | None


def from_grad_cam(
    method: str, model: nn.Module, layer: nn.Module, x: Tensor, targets: list[Any] | None = None, **options: Any
) -> FromGradCam:
    targets = class_targets() if targets is None else targets
    with (GRAD_CAM | PERTURBING)[method](model, [layer], **options) as cam:
        heatmap = cam(x, targets)
        seen = cam.activations_and_grads
        activations, gradients = seen.activations[0], (seen.gradients or [None])[0]
        arrays = (activations.numpy(), None if gradients is None else gradients.numpy())
        raw = cam.get_cam_image(x, layer, targets, *arrays, False)
    return FromGradCam(torch.from_numpy(raw), torch.from_numpy(heatmap), activations, gradients)


def from_torchcam(method: str, model: nn.Module, layer: str, x: Tensor) -> Tensor:
    with TORCHCAM[method](model, layer) as cam:
        (raw,) = cam(CLASSES, model(x), normalized=False)
    return raw


def definition(method: str, activations: Tensor, gradients: Tensor, epsilon: float) -> Tensor:
    """The map with a small number in its denominator, from the equations as they stand, in double precision."""
    a, g = activations.double(), gradients.double()
    axes = tuple(range(2, a.ndim))
    total = a.sum(axes, keepdim=True)
    if method == "gradcam++":
        shares = g**2 / (2 * g**2 + total * g**3 + epsilon)
        weights = (torch.where(g != 0, shares, 0.0) * g.clamp(min=0)).sum(axes, keepdim=True)
    else:
        weights = (a * g / (total + epsilon).where(a.abs().amax(axes, keepdim=True) > 0, 1.0)).sum(axes, keepdim=True)
    return (weights * a).sum(1).clamp(min=0)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0
    assert relative_deviation(ours, theirs) <= tolerance


def tolerance_for(case: Case, method: str) -> float:
    """Dense blocks give positive and negative numbers, whose sums, XGrad-CAM's denominators, nearly cancel."""
    return 1e-4 if (case.layer, method) == ("features.denseblock4", "xgradcam") else TOLERANCE


@pytest.mark.parametrize("method", ["gradcam", "layercam", "hirescam"])
def test_grad_cam(case: Case, method: str) -> None:
    theirs = from_grad_cam(method, case.model, case.module, case.x)
    ours = mg.explainer(method, case.model, layer=case.layer)(case.x, CLASSES)
    assert_same(ours.cam, theirs.raw.clamp(min=0))
    # And what it returns: resized, then rescaled.
    assert ours.normalised() == pytest.approx(theirs.heatmap.numpy(), abs=TOLERANCE)


@pytest.mark.parametrize("method", ["gradcam++", "xgradcam"])
def test_grad_cam_with_a_small_number_in_the_denominator(case: Case, method: str) -> None:
    theirs = from_grad_cam(method, case.model, case.module, case.x)
    ours = mg.explainer(method, case.model, layer=case.layer)(case.x, CLASSES)
    tolerance = tolerance_for(case, method)
    assert_same(ours.cam, definition(method, theirs.activations, theirs.gradients, 0.0), tolerance)
    small = definition(method, theirs.activations, theirs.gradients, GRAD_CAM_EPSILON[method])
    assert_same(small, theirs.raw.clamp(min=0), tolerance)


def test_grad_cam_plus_plus_of_large_gradients(case: Case) -> None:
    """Beside a score ten million times as large the small number is nothing, and the two agree directly."""

    def large(number: int) -> Callable[[Tensor], Tensor]:
        return lambda outputs: 1e7 * outputs[number]

    theirs = from_grad_cam("gradcam++", case.model, case.module, case.x, [large(number) for number in CLASSES])
    explainer = mg.explainer("gradcam++", case.model, layer=case.layer)
    ours = explainer(case.x, lambda outputs: 1e7 * outputs[torch.arange(3), CLASSES])
    assert_same(ours.cam, theirs.raw.clamp(min=0))


def test_grad_cam_eigencam(case: Case) -> None:
    """A principal component has no sign; ours is chosen, theirs is the solver's."""
    theirs = from_grad_cam("eigencam", case.model, case.module, case.x).raw
    ours = mg.explainer("eigencam", case.model, layer=case.layer)(case.x).cam
    sign = (theirs * ours).sum((1, 2), keepdim=True).sign()
    assert_same(ours, sign * theirs)


@pytest.mark.parametrize("method", TORCHCAM)
def test_torchcam(case: Case, method: str) -> None:
    theirs = from_torchcam(method, case.model, case.layer, case.x)
    if method in TORCHCAM_EPSILON:
        seen = from_grad_cam(method, case.model, case.module, case.x)
        small = definition(method, seen.activations, seen.gradients, TORCHCAM_EPSILON[method])
        assert_same(small, theirs, tolerance_for(case, method))
    else:
        assert_same(mg.explainer(method, case.model, layer=case.layer)(case.x, CLASSES).cam, theirs)


def test_captum(case: Case) -> None:
    theirs = captum.LayerGradCam(case.model, case.module).attribute(case.x, CLASSES, relu_attributions=True)
    ours = mg.explainer("gradcam", case.model, layer=case.layer)(case.x, CLASSES)
    assert_same(ours.cam, theirs.detach()[:, 0])
    theirs = captum.LayerGradCam(case.model, case.module).attribute(case.x, CLASSES)
    ours = mg.explainer("gradcam", case.model, layer=case.layer, relu=False)(case.x, CLASSES)
    assert_same(ours.cam, theirs.detach()[:, 0])


@pytest.mark.parametrize("method", GRAD_CAM)
def test_clips(method: str) -> None:
    """The peers average over frames and positions together, as ours do with temporal="clip"."""
    model, x = tiny_net(3, classes=20), batch_for(3, batch=3)
    model[4] = nn.ReLU()
    theirs = from_grad_cam(method, model, model[4], x)
    ours = mg.explainer(method, model, layer="4")(x, CLASSES).cam
    if method == "eigencam":
        assert_same(ours, theirs.raw * (theirs.raw * ours).sum((1, 2, 3), keepdim=True).sign())
    elif method in GRAD_CAM_EPSILON:
        assert_same(ours, definition(method, theirs.activations, theirs.gradients, 0.0))
    else:
        assert_same(ours, theirs.raw.clamp(min=0))
    if method in TORCHCAM:
        assert_same(ours, from_torchcam(method, model, "4", x))


def test_a_segmentation_network() -> None:
    """grad-cam's target for it is the sum of a class's logits over a mask."""
    model = seeded(lambda: nn.Sequential(CONV[2](3, 8, 3, padding=1), nn.ReLU(), CONV[2](8, 4, 3, stride=2))).eval()
    x = batch_for(batch=1)
    mask = torch.zeros(11, 15)
    mask[3:7, 2:9] = 1
    target = grad_cam.utils.model_targets.SemanticSegmentationTarget(2, mask.numpy())
    theirs = from_grad_cam("gradcam", model, model[1], x, [target])
    ours = mg.explainer("gradcam", model, layer="1")(x, lambda outputs: (outputs[:, 2] * mask).sum((1, 2)))
    assert_same(ours.cam, theirs.raw.clamp(min=0))


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
def test_a_vision_transformer(method: str) -> None:
    """What grad-cam needs a `reshape_transform` for is found."""
    timm = pytest.importorskip("timm")
    model = seeded(lambda: timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=20)).eval()
    x = batch_for(batch=3, size=(96, 96))

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 6, 6)

    theirs = from_grad_cam(method, model, model.blocks[-1].norm1, x, reshape_transform=reshape)
    ours = mg.explainer(method, model, layer="blocks.11.norm1")(x, CLASSES)
    assert_same(ours.cam, theirs.raw.clamp(min=0))


@pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor")
def test_captum_guided_grad_cam() -> None:
    """It multiplies before the maximum over the colours, which is the same, as the map has no negative values."""
    model = network("vgg11_bn")
    x = batch_for(batch=3, size=(96, 96))
    peer = captum.GuidedGradCam(model, model.features[27])
    theirs = peer.attribute(x, CLASSES, interpolate_mode="bilinear").detach().abs().amax(1)
    guided, cam = mg.explainer("guided", model), mg.explainer("gradcam", model, layer="features.27")
    assert_same(guided(x, CLASSES).heatmap * cam(x, CLASSES).heatmap, theirs)
    if "guided-gradcam" in mg.methods():
        ours = mg.explainer("guided-gradcam", model, layer="features.27")(x, CLASSES)
        assert_same(ours.heatmap, theirs)


@pytest.fixture(scope="module", params=["layer2", "layer4"])
def small_case(request: pytest.FixtureRequest) -> Case:
    """A network that can be run hundreds of times, a layer with convolutions after it or the last, one picture."""
    return Case(network("resnet18"), request.param, batch_for(batch=1, size=(64, 64)))


@needs("ablationcam")
def test_grad_cam_ablation_cam(small_case: Case) -> None:
    """It divides by the score as published, sign and all; where the layer has negative values, it ablates otherwise."""
    model, x, classes = small_case.model, small_case.x, CLASSES[:1]
    theirs = from_grad_cam("ablationcam", model, small_case.module, x, class_targets(classes))
    ours = mg.explainer("ablationcam", model, layer=small_case.layer, divide_by="score")(x, classes)
    assert theirs.activations.min() == 0
    assert_same(ours.cam, theirs.raw.clamp(min=0), ABLATION_TOLERANCE)


def score_cam(model: nn.Module, x: Tensor, activations: Tensor, classes: list[int], *, grad_cams: bool) -> Tensor:
    """Score-CAM with a softmax over the channels; grad-cam resizes with aligned corners, then rescales to 0 .. 1."""
    maps = []
    for picture, layer, number in zip(x, activations, classes, strict=True):
        logits = []
        for channel in layer:
            mask = channel[None, None]
            if grad_cams:
                mask = rescaled(nn.functional.interpolate(mask, x.shape[2:], mode="bilinear", align_corners=True))
            else:
                mask = nn.functional.interpolate(rescaled(mask), x.shape[2:], mode="bilinear")
            with torch.no_grad():
                logits.append(model(picture[None] * mask)[0, number])
        weights = torch.stack(logits).softmax(0)
        maps.append((weights[:, None, None] * layer).sum(0).clamp(min=0))
    return torch.stack(maps)


def rescaled(mask: Tensor) -> Tensor:
    width = mask.max() - mask.min()
    return (mask - mask.min()) / (width if width > 0 else 1.0)


@needs("scorecam")
def test_grad_cam_and_torchcam_score_cam() -> None:
    """Both weigh with a softmax over the channels; torchcam's masks are made as ours, grad-cam's are not."""
    model, x = tiny_net(classes=20), batch_for(batch=3)
    model[4] = nn.ReLU()
    theirs = from_grad_cam("scorecam", model, model[4], x)
    oracle = score_cam(model, x, theirs.activations, CLASSES, grad_cams=True)
    assert_same(oracle, theirs.raw.clamp(min=0))
    ours = mg.explainer("scorecam", model, layer="4", weights="channel-softmax")(x, CLASSES).cam
    assert_same(ours, score_cam(model, x, theirs.activations, CLASSES, grad_cams=False))
    with torchcam.ScoreCAM(model, "4") as cam:
        model(x)
        (raw,) = cam(CLASSES, normalized=False)
    assert_same(ours, raw)


@needs("scorecam")
def test_torchcam_score_cam(small_case: Case) -> None:
    model, x, classes = small_case.model, small_case.x, CLASSES[:1]
    with torchcam.ScoreCAM(model, small_case.layer) as cam:
        model(x)
        (theirs,) = cam(classes, normalized=False)
    ours = mg.explainer("scorecam", model, layer=small_case.layer, weights="channel-softmax")(x, classes)
    assert_same(ours.cam, theirs)
