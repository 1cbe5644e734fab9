"""`midgrain.compat.gradcam` against pytorch-grad-cam, which runs live: the same code, another import line."""

from __future__ import annotations

import inspect
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from midgrain.compat import gradcam as ours
from midgrain.compat.gradcam.utils.reshape_transforms import fasterrcnn_reshape_transform
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread

theirs = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam (extra 'peers')")
torchvision = pytest.importorskip("torchvision")

TOLERANCE = 1e-5
CLASSES = [3, 0, 4]
#: Classes with the same formula on both sides.
SAME = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise"]
OFFERED = [*SAME, "EigenCAM", "EigenGradCAM", "AblationCAM", "ScoreCAM", "RandomCAM", "FullGrad"]
pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks")

# The README of grad-cam 1.5.7, its example of use, with the package's name left open.
README = """
from {package} import GradCAM, HiResCAM, ScoreCAM, GradCAMPlusPlus, AblationCAM, XGradCAM, EigenCAM, FullGrad
from {package}.utils.model_targets import ClassifierOutputTarget
from {package}.utils.image import show_cam_on_image

target_layers = [model.layer4[-1]]
targets = [ClassifierOutputTarget(3)]

with GradCAM(model=model, target_layers=target_layers) as cam:
    grayscale_cam = cam(input_tensor=input_tensor, targets=targets)
    grayscale_cam = grayscale_cam[0, :]
    visualization = show_cam_on_image(rgb_img, grayscale_cam, use_rgb=True)
    model_outputs = cam.outputs
"""
# Its example of guided backpropagation; cv2.merge written out.
GUIDED = """
from {package} import GuidedBackpropReLUModel
from {package}.utils.image import (
    show_cam_on_image, deprocess_image, preprocess_image
)
input_tensor = preprocess_image(rgb_img, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
gb_model = GuidedBackpropReLUModel(model=model, device=next(model.parameters()).device)
gb = gb_model(input_tensor, target_category=None)
cam_mask = np.stack([grayscale_cam, grayscale_cam, grayscale_cam], -1)
cam_gb = deprocess_image(cam_mask * gb)
result = deprocess_image(gb)
"""


def resnet() -> nn.Module:
    def build() -> nn.Module:
        model = torchvision.models.resnet18(weights=None, num_classes=10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model.train()(batch_for(batch=8, size=(64, 64), seed=2))
        return model.eval()

    return seeded(build)


def net() -> nn.Module:
    """`tiny_net` without in-place operations, which its peers trip over."""
    model = tiny_net()
    for number, module in enumerate(model):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            model[number] = type(module)()
    return model


def targets(library, classes=CLASSES):
    return [library.utils.model_targets.ClassifierOutputTarget(number) for number in classes]


def run(script: str, package: str, **names):
    exec(textwrap.dedent(script).format(package=package), names)
    return names


def test_the_readme(photos) -> None:
    """Only the import lines differ."""
    rgb_img = np.float32(photos["chelsea"][::3, ::3]) / 255
    model = resnet()
    x = theirs.utils.image.preprocess_image(rgb_img, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    before = run(README, "pytorch_grad_cam", model=model, input_tensor=x, rgb_img=rgb_img)
    after = run(README, "midgrain.compat.gradcam", model=model, input_tensor=x, rgb_img=rgb_img)
    assert np.ptp(before["grayscale_cam"]) > 0.9
    assert after["grayscale_cam"] == pytest.approx(before["grayscale_cam"], abs=TOLERANCE)
    assert torch.allclose(after["model_outputs"], before["model_outputs"], atol=1e-5)
    assert after["visualization"].dtype == np.uint8
    # OpenCV's "jet" has other corners than Matplotlib's.
    difference = np.abs(after["visualization"].astype(int) - before["visualization"])
    assert difference.mean() < 3
    assert difference.max() < 40


def test_the_guided_readme(photos) -> None:
    rgb_img = np.float32(photos["chelsea"][::3, ::3]) / 255
    model = resnet()
    for module in model.modules():  # In-place ReLUs are what theirs gets wrong.
        if isinstance(module, nn.ReLU):
            module.inplace = False
    mask = np.ones(rgb_img.shape[:2], np.float32)
    after = run(GUIDED, "midgrain.compat.gradcam", model=model, rgb_img=rgb_img, np=np, grayscale_cam=mask)
    before = run(GUIDED, "pytorch_grad_cam", model=model, rgb_img=rgb_img, np=np, grayscale_cam=mask)
    assert torch.equal(after["input_tensor"], before["input_tensor"].detach())
    assert np.abs(before["gb"]).max() > 0
    assert after["gb"] == pytest.approx(before["gb"], abs=TOLERANCE * float(np.abs(before["gb"]).max()))
    for name in ("cam_gb", "result"):
        assert after[name].dtype == np.uint8
        assert np.abs(after[name].astype(int) - before[name]).max() <= 1


@pytest.mark.parametrize("name", OFFERED)
def test_signatures(name) -> None:
    """Every parameter of theirs is there, in its place."""
    there = list(inspect.signature(getattr(theirs, name)).parameters)
    here = list(inspect.signature(getattr(ours, name)).parameters)
    assert here[: len(there)] == there
    called = [list(inspect.signature(getattr(library, name).__call__).parameters) for library in (ours, theirs)]
    assert called[0] == called[1]


@pytest.mark.parametrize("module", ["model_targets", "image", "reshape_transforms"])
def test_helpers_have_their_signatures(module) -> None:
    here, there = getattr(ours.utils, module), getattr(theirs.utils, module)
    assert here.__all__
    for name in here.__all__:
        parameters = [list(inspect.signature(getattr(library, name)).parameters) for library in (here, there)]
        assert parameters[0] == parameters[1], name


@pytest.mark.parametrize("classes", [CLASSES, None])
@pytest.mark.parametrize("name", SAME)
def test_same_maps(name, classes) -> None:
    model, x = net(), batch_for(batch=3)
    model[-1].weight.data *= 1e6  # Beside large gradients the small numbers in their denominators are nothing.
    chosen = [None if classes is None else targets(library, classes) for library in (ours, theirs)]
    with getattr(theirs, name)(model, [model[4]]) as cam:
        expected = cam(x, chosen[1])
    with getattr(ours, name)(model, [model[4]]) as cam:
        actual = cam(x, chosen[0])
    assert actual.dtype == np.float32
    assert actual.shape == (3, 24, 32)
    assert np.ptp(expected, axis=(1, 2)).max() > 0.9
    assert actual == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", SAME)
def test_same_maps_of_several_layers(name) -> None:
    model, x = net(), batch_for(batch=3)
    model[-1].weight.data *= 1e6
    with getattr(theirs, name)(model, [model[1], model[4]]) as cam:
        expected = cam(x, targets(theirs))
    actual = getattr(ours, name)(model, [model[1], model[4]])(x, targets(ours))
    assert actual == pytest.approx(expected, abs=TOLERANCE)


def test_ablation_and_eigen() -> None:
    """Ablation where no channel is negative; a principal component has no sign."""
    model, x = net(), batch_for(batch=3)
    with theirs.AblationCAM(model, [model[4]]) as cam:
        expected = cam(x, targets(theirs))
    assert ours.AblationCAM(model, [model[4]])(x, targets(ours)) == pytest.approx(expected, abs=1e-4)
    for name in ("EigenCAM", "EigenGradCAM"):
        with getattr(theirs, name)(model, [model[4]]) as cam:
            expected = cam(x, targets(theirs))
        actual = getattr(ours, name)(model, [model[4]])(x, targets(ours))
        same = [np.abs(a - e).max() <= 1e-4 for a, e in zip(actual, expected, strict=True)]
        with getattr(theirs, name)(model, [model[4]]) as cam:
            cam(x, targets(theirs))
            seen = cam.activations_and_grads
            gradients = seen.gradients[0].numpy() if seen.gradients else None
            raw = cam.get_cam_image(x, model[4], targets(theirs), seen.activations[0].numpy(), gradients, False)
        turned = theirs.utils.image.scale_cam_image(np.maximum(-raw, 0), (32, 24))
        turned = theirs.utils.image.scale_cam_image(turned)
        for number, is_same in enumerate(same):
            assert is_same or actual[number] == pytest.approx(turned[number], abs=1e-4)


def test_score_cam() -> None:
    """Masks differ: theirs are resized with aligned corners, ours as everything else is."""
    model, x = net(), batch_for(batch=2)
    with theirs.ScoreCAM(model, [model[4]]) as cam:
        cam.batch_size = 4
        expected = cam(x, targets(theirs, [3, 0]))
    cam = ours.ScoreCAM(model, [model[4]])
    cam.batch_size = 4
    actual = cam(x, targets(ours, [3, 0]))
    for one, other in zip(actual, expected, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
    cam.batch_size = 3
    assert cam(x, targets(ours, [3, 0])) == pytest.approx(actual, abs=1e-5)


def test_random_cam() -> None:
    model, x = net(), batch_for(batch=3)
    np.random.seed(5)  # noqa: NPY002
    with theirs.RandomCAM(model, [model[4]]) as cam:
        expected = cam(x, targets(theirs))
    np.random.seed(5)  # noqa: NPY002
    assert ours.RandomCAM(model, [model[4]])(x, targets(ours)) == pytest.approx(expected, abs=TOLERANCE)


def test_full_grad() -> None:
    """Theirs leaves out the biases of linear layers, and its rescaling of the input's term is another one."""
    model, x = net(), batch_for(batch=3)
    with theirs.FullGrad(model, []) as cam:
        expected = cam(x, targets(theirs))
    actual = ours.FullGrad(model, [])(x, targets(ours))
    assert actual.shape == expected.shape
    assert (actual.min(), actual.max()) == (0, 1)
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM"])
def test_aug_smooth(name) -> None:
    model, x = net(), batch_for(batch=3)
    with getattr(theirs, name)(model, [model[4]]) as cam:
        expected = cam(x, targets(theirs), aug_smooth=True)
        transforms = cam.tta_transforms
    cam = getattr(ours, name)(model, [model[4]])
    assert cam(x, targets(ours), aug_smooth=True) == pytest.approx(expected, abs=TOLERANCE)
    cam.tta_transforms = transforms
    assert cam(x, targets(ours), aug_smooth=True) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "AblationCAM", "ScoreCAM"])
def test_eigen_smooth(name) -> None:
    """The sign is the solver's in theirs; where it is ours, the maps are the same."""
    model, x = net(), batch_for(batch=3)
    with getattr(theirs, name)(model, [model[4]]) as cam:
        expected = cam(x, targets(theirs), eigen_smooth=True)
    cam = getattr(ours, name)(model, [model[4]])
    plain = cam(x, targets(ours))
    actual = cam(x, targets(ours), eigen_smooth=True)
    assert not np.allclose(actual, plain, atol=0.01)
    assert np.array_equal(cam(x, targets(ours)), plain)
    if name in ("GradCAM", "LayerCAM"):
        agree = [np.abs(a - e).max() < 1e-3 for a, e in zip(actual, expected, strict=True)]
        opposed = [np.corrcoef(a.ravel(), e.ravel())[0, 1] < 0 for a, e in zip(actual, expected, strict=True)]
        assert all(one or other for one, other in zip(agree, opposed, strict=True))
    for method in (ours.FullGrad, ours.SWAG):
        with pytest.raises(ValueError, match="eigen_smooth"):
            method(model)(x, targets(ours), eigen_smooth=True)


def test_targets() -> None:
    """Theirs and ours may be mixed; each gives what theirs gives."""
    model, x = net(), batch_for(batch=1)
    logits = torch.linspace(-2, 3, 5)
    for name, arguments in {
        "ClassifierOutputTarget": (2,),
        "ClassifierOutputSoftmaxTarget": (2,),
        "ClassifierOutputReST": (2,),
        "BinaryClassifierOutputTarget": (0,),
        "SoftmaxOutputTarget": (),
        "RawScoresOutputTarget": (),
        "FinerWeightedTarget": (2, [0, 4], 0.6),
    }.items():
        here = getattr(ours, name)(*arguments)
        there = getattr(theirs.utils.model_targets, name)(*arguments)
        assert torch.allclose(here(logits), there(logits))
        assert torch.allclose(here(torch.stack([logits, logits.flip(0)])), there(torch.stack([logits, logits.flip(0)])))
        if here(logits).numel() == 1:
            with theirs.GradCAM(model, [model[4]]) as cam:
                expected = cam(x, [there])
            for target in (here, there):
                assert ours.GradCAM(model, [model[4]])(x, [target]) == pytest.approx(expected, abs=1e-4), name


def test_segmentation_target() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2))).eval()
    x = batch_for(batch=2)
    mask = np.zeros((11, 15), np.float32)
    mask[3:7, 2:9] = 1
    made = []
    for library in (theirs, ours):
        target = library.utils.model_targets.SemanticSegmentationTarget(2, mask)
        with library.GradCAM(model, [model[1]]) as cam:
            made.append(
                cam(x, [target] * 2) if library is ours else np.concatenate([cam(s[None], [target]) for s in x])
            )
            outputs = cam.outputs
    assert made[1] == pytest.approx(made[0], abs=TOLERANCE)
    assert outputs.shape == (2, 4, 11, 15)


def test_box_target() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 4.0, 12.0, 9.0], [20.0, 20.0, 30.0, 40.0]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": torch.tensor([0.9, 0.8, 0.3])}
    wanted = np.array([[0, 0, 10, 9], [4, 4, 12, 9], [5, 30, 6, 31]])
    for labels in ([1, 2, 1], [2, 2, 2]):
        scores = [
            library.utils.model_targets.FasterRCNNBoxScoreTarget(labels, wanted)(found) for library in (ours, theirs)
        ]
        assert torch.allclose(*scores)
    empty = {name: value[:0] for name, value in found.items()}
    assert ours.FasterRCNNBoxScoreTarget([1], wanted[:1])(empty).tolist() == [0.0]


def test_transformer() -> None:
    """With their reshape transform and without any."""
    timm = pytest.importorskip("timm")
    model = seeded(lambda: timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=5)).eval()
    nn.init.normal_(model.head.weight, std=1.0)
    x, layers = batch_for(batch=2, size=(96, 96)), [model.blocks[-1].norm1]

    def reshape(tensor):
        return theirs.utils.reshape_transforms.vit_reshape_transform(tensor, height=6, width=6)

    with theirs.GradCAM(model, layers, reshape_transform=reshape) as cam:
        expected = cam(x, targets(theirs, [3, 0]))
    assert ours.GradCAM(model, layers, reshape)(x, targets(ours, [3, 0])) == pytest.approx(expected, abs=TOLERANCE)
    assert ours.GradCAM(model, layers)(x, targets(ours, [3, 0])) == pytest.approx(expected, abs=TOLERANCE)
    tokens = torch.randn(2, 37, 8)
    for library in (ours, theirs):
        assert torch.equal(library.utils.reshape_transforms.vit_reshape_transform(tokens, 6, 6), reshape(tokens))
    swin = [library.utils.reshape_transforms.swinT_reshape_transform(tokens[:, 1:], 6, 6) for library in (ours, theirs)]
    assert torch.equal(*swin)


def test_pictures() -> None:
    rgb = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    numbers = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    for img in (rgb, np.uint8(255 * rgb), rgb.astype(np.float64)):
        here, there = (library.utils.image.preprocess_image(img, **numbers) for library in (ours, theirs))
        assert here.dtype == there.dtype
        assert torch.allclose(here, there)
    assert np.array_equal(ours.deprocess_image(rgb), theirs.utils.image.deprocess_image(rgb))
    maps = np.random.default_rng(1).random((2, 5, 7), dtype=np.float32)
    for size in (None, (28, 20)):
        here, there = (library.utils.image.scale_cam_image(maps, size) for library in (ours, theirs))
        assert here == pytest.approx(there, abs=1e-5)
    assert ours.show_cam_on_image(rgb, np.zeros((20, 30)), image_weight=1.0).max() == 255
    grey = ours.show_cam_on_image(np.zeros((4, 4, 3)), np.linspace(0, 1, 16).reshape(4, 4), colormap="gray")
    assert grey[0, 0].tolist() == [0, 0, 0]
    assert grey[3, 3].tolist() == [255, 255, 255]


def test_more_than_grad_cam_has() -> None:
    model, x = net(), batch_for(batch=3)
    for cam in (ours.JitterCAM(model, [model[4]], shared_trunk=False), ours.SWAG(model, n_segments=12)):
        actual = cam(x, targets(ours))
        assert actual.shape == (3, 24, 32)
        assert (actual.min(), actual.max()) == (0, 1)
    clips = ours.GradCAM(tiny_net(3), ["4"])(batch_for(3, batch=2), targets(ours, [3, 0]))
    assert clips.shape == (2, 4, 12, 16)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_and_frozen(mode) -> None:
    model, x = net().requires_grad_(False), batch_for(batch=3)
    expected = ours.GradCAM(net(), ["4"])(x, targets(ours))
    with mode():
        assert ours.GradCAM(model, [model[4]])(x, targets(ours)) == pytest.approx(expected, abs=1e-6)


def test_the_model_is_as_it_was() -> None:
    """Theirs switches to evaluation in its constructor, keeps hooks, and leaves gradients on the parameters."""
    model, x = net().train(), batch_for(batch=3)
    with ours.GradCAM(model, [model[4]]) as cam:
        cam(x, targets(ours))
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert cam(x, targets(ours)).shape == (3, 24, 32)  # The context need not be open.


def test_the_context_hides_no_error() -> None:
    model = net()
    with pytest.raises(IndexError, match="of the user"), ours.GradCAM(model, [model[4]]):
        raise IndexError("of the user")


def test_bad_input() -> None:
    model, x = net(), batch_for(batch=3)
    cam = ours.GradCAM(model, [model[4]])
    with pytest.raises(ValueError, match=r"targets: expected one per sample \(3\), got 1; repeat it"):
        cam(x, targets(ours, [3]))
    with pytest.raises(ValueError, match="targets: expected one per sample"):
        cam(x, targets(ours, [3] * 4))
    with pytest.raises(TypeError, match="targets: expected a list of callables"):
        cam(x, [3, 0, 4])
    with pytest.raises(ValueError, match=r"expected each to return a scalar tensor, got shape \[5\]"):
        cam(x, [ours.RawScoresOutputTarget()] * 3)
    with pytest.raises(TypeError, match="target_layers: expected a list of modules, got Conv2d"):
        ours.GradCAM(model, model[0])
    with pytest.raises(TypeError, match="model: expected"):
        ours.GradCAM(3, [])
    with pytest.raises(ValueError, match="not part of the model"):
        ours.GradCAM(model, [nn.ReLU()])(x)
    with pytest.raises(ValueError, match=r"ratio_channels_to_ablate: expected 1\.0, got 0\.5"):
        ours.AblationCAM(model, [model[4]], ratio_channels_to_ablate=0.5)
    with pytest.raises(ValueError, match="ablation_layer: nothing is put into the model; expected None"):
        ours.AblationCAM(model, [model[4]], ablation_layer=theirs.AblationLayerFasterRCNN())
    with pytest.raises(ValueError, match="expected one sample, got 3"):
        ours.GuidedBackpropReLUModel(model)(x)
    with pytest.raises(ValueError, match=r"img: expected floats in 0 \.\. 1"):
        ours.show_cam_on_image(np.full((4, 4, 3), 255), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="mask: expected the picture's shape"):
        ours.show_cam_on_image(np.zeros((4, 4, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"image_weight: expected 0 \.\. 1"):
        ours.show_cam_on_image(np.zeros((4, 4, 3)), np.zeros((4, 4)), image_weight=2)
    with pytest.raises(ValueError, match="no colour map 5"):
        ours.show_cam_on_image(np.zeros((4, 4, 3)), np.zeros((4, 4)), colormap=5)
    with pytest.raises(TypeError, match="pass its levels as layers"):
        fasterrcnn_reshape_transform({})
