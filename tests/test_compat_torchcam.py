"""`midgrain.compat.torchcam` against torchcam, which runs live: the same code, another import line."""

from __future__ import annotations

import gc
import inspect
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import midgrain as mg
from midgrain.compat import torchcam as ours
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

theirs = pytest.importorskip("torchcam.methods", reason="needs torchcam (extra 'peers')")
their_utils = pytest.importorskip("torchcam.utils")

TOLERANCE = 1e-5
CLASSES = [3, 0, 4]
#: Classes with the same formula on both sides; theirs of Grad-CAM++ is another one, see `test_cam_faults.py`.
SAME = ["GradCAM", "XGradCAM", "LayerCAM"]
pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks")

# torchcam's README, with the package's name left open and the network given.
README = """
from {package}.methods import LayerCAM
from {package}.utils import overlay_mask

with LayerCAM(model, target_layer) as cam_extractor:
    out = model(input_tensor)
    cams = cam_extractor(out.squeeze(0).argmax().item(), out)

activation_map = cams
result = overlay_mask(picture, to_pil_image(activation_map[0].squeeze(0)), alpha=0.5)
fused_cam = cam_extractor.fuse_cams(cams)
"""


def net(dims: int = 2) -> nn.Module:
    model = tiny_net(dims)
    for number, module in enumerate(model):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            model[number] = nn.ReLU()
    model[-1].weight.data *= 1e4  # Beside large gradients the small numbers in their denominators are nothing.
    return model


def assert_same(here, there, tolerance: float = TOLERANCE) -> None:
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert one.shape == other.shape
        assert other.abs().max() > 0
        assert relative_deviation(one, other) <= tolerance


def test_the_readme(photos) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    model, x = net(), batch_for(batch=1)
    made = []
    for package in ("torchcam", "midgrain.compat.torchcam"):
        names = {"model": model, "target_layer": ["1", "4"], "input_tensor": x, "to_pil_image": functional.to_pil_image}
        exec(README.format(package=package), names | {"picture": Image.fromarray(photos["chelsea"])}, names)
        made.append(names)
    there, here = made
    assert_same(here["cams"], there["cams"])
    assert_same([here["fused_cam"]], [there["fused_cam"]])
    assert here["result"].size == there["result"].size
    assert np.abs(np.asarray(here["result"], int) - np.asarray(there["result"])).max() <= 1


@pytest.mark.parametrize("name", [*SAME, "GradCAMpp", "CAM", "ScoreCAM"])
def test_signatures(name) -> None:
    there = inspect.signature(getattr(theirs, name)).parameters
    here = inspect.signature(getattr(ours, name)).parameters
    named = [parameter for parameter in there if parameter != "kwargs"]
    assert list(here)[: len(named)] == named
    assert [here[parameter].default for parameter in named] == [there[parameter].default for parameter in named]
    calls = [list(inspect.signature(getattr(library, name).__call__).parameters) for library in (ours.methods, theirs)]
    assert calls[0] == calls[1]
    both = [list(inspect.signature(library.overlay_mask).parameters) for library in (ours.utils, their_utils)]
    assert both[0] == both[1]


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SAME)
def test_same_maps(name, dims, normalized) -> None:
    model, x = net(dims), batch_for(dims, batch=3)
    for classes in (CLASSES, 2):
        made = []
        for library in (ours.methods, theirs):
            with getattr(library, name)(model, model[4]) as extractor:
                out = model(x)
                made.append(extractor(classes, out, normalized))
        assert_same(*made)


@pytest.mark.parametrize("name", ["GradCAM"])
def test_targets(name) -> None:
    model, x = net(), batch_for(batch=3)
    several = [lambda output, number=number: output[number] for number in CLASSES]
    for targets in (several, lambda output: output[1] - output[2]):
        made = []
        for library in (ours.methods, theirs):
            with getattr(library, name)(model, "4") as extractor:
                out = model(x)
                made.append(extractor(scores=out, targets=targets))
        assert_same(*made)


def test_cam_and_score_cam() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    model, x = seeded(lambda: nn.Sequential(*layers)).eval(), batch_for(batch=2)
    for name, tolerance in (("ScoreCAM", 1e-3), ("CAM", TOLERANCE)):
        made = []
        for library in (ours.methods, theirs):
            with getattr(library, name)(model, "1") as extractor, torch.no_grad():
                model(x)
                made.append(extractor([3, 0]))
        assert_same(*made, tolerance)
    with ours.CAM(model, "1", fc_layer=model[-1]) as extractor:
        model(x)
        assert_same(extractor([3, 0]), made[1])
    with pytest.raises(ValueError, match="fc_layer: expected the network's only linear layer"):
        ours.CAM(seeded(lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), "0", fc_layer="1")


def test_grad_cam_plus_plus() -> None:
    model, x = net(), batch_for(batch=3)
    with ours.GradCAMpp(model, "4") as extractor:
        model(x)
        (raw,) = extractor(CLASSES, normalized=False)
    assert torch.equal(raw, mg.explainer("gradcam++", model, layer="4")(x, CLASSES).cam)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_passes_without_gradients(mode) -> None:
    """Torchcam needs a pass with gradients, and parameters that ask for them."""
    model, x = net().requires_grad_(False), batch_for(batch=3)
    with ours.GradCAM(model, "4") as extractor:
        model(x)
        expected = extractor(CLASSES)
        with mode():
            model(x.clone())
            assert_same(extractor(CLASSES), expected)


def test_the_layer_is_found() -> None:
    model, x = net(), batch_for(batch=2)
    with ours.GradCAM(model) as extractor:
        model(x)
        found = extractor([3, 0])
    with ours.GradCAM(model, model[4]) as extractor:
        model(x)
        assert extractor([3, 0])[0].shape == found[0].shape


def test_more_than_torchcam_has() -> None:
    model, x = net(), batch_for(batch=2)
    for kind, options in ((ours.HiResCAM, {}), (ours.AblationCAM, {}), (ours.JitterCAM, {"shared_trunk": False})):
        with kind(model, "4", **options) as extractor:
            model(x)
            (cam,) = extractor([3, 0])
        assert cam.shape == ((2, 12, 16) if kind is not ours.JitterCAM else (2, 24, 32))


def test_hooks() -> None:
    """They go with the context, also after an exception, on request, and with the extractor."""
    model, x = net(), batch_for(batch=1)

    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    with pytest.raises(IndexError, match="of the user"), ours.GradCAM(model, "4"):
        raise IndexError("of the user")
    assert hooks() == 0
    extractor = ours.GradCAM(model, "4")
    assert hooks() == 1
    model(x)
    extractor.disable_hooks()
    model(batch_for(batch=2))
    assert len(extractor(2)[0]) == 1
    extractor.enable_hooks()
    model(batch_for(batch=2))
    assert len(extractor(2)[0]) == 2
    extractor.reset_hooks()
    with pytest.raises(AssertionError, match="run the model"):
        extractor(2)
    extractor.remove_hooks()
    assert hooks() == 0
    extractor = ours.GradCAM(model, "4")
    gone = weakref.ref(extractor)
    del extractor
    gc.collect()
    assert gone() is None
    assert hooks() == 0


def test_the_users_graph_is_left_alone() -> None:
    """Torchcam frees it, so that a loss cannot be differentiated afterwards."""
    model, x = net(), batch_for(batch=2)
    with ours.GradCAM(model, "4") as extractor:
        out = model(x)
        extractor([3, 0], out)
        out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with theirs.GradCAM(model, "4") as extractor:
        out = model(x)
        extractor([3, 0], out)
        try:
            out.sum().backward()
        except RuntimeError:
            return
    pytest.skip("torchcam has this fault no more; its half of the test may go")


def test_bad_input() -> None:
    model, x = net(), batch_for(batch=3)
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module"):
        ours.GradCAM(len)
    with pytest.raises(ValueError, match="the model has no module 'layer9'"):
        ours.GradCAM(model, "layer9")
    with pytest.raises(ValueError, match="not part of the model"):
        ours.GradCAM(model, nn.ReLU())
    with ours.GradCAM(model, "4") as extractor:
        with pytest.raises(AssertionError, match="run the model"):
            extractor(1)
        model(x)
        with pytest.raises(ValueError, match="expected exactly one of them"):
            extractor()
        with pytest.raises(ValueError, match="expected exactly one of them"):
            extractor(1, targets=lambda output: output[0])
        with pytest.raises(ValueError, match=r"class_idx: expected one class per sample \(3\), got 2"):
            extractor([1, 2])
        with pytest.raises(ValueError, match="expected classes in"):
            extractor(99)
        with pytest.raises(TypeError, match="has no argument eps"):
            extractor(1, eps=1)
    with pytest.raises(TypeError, match="cams: expected a list"):
        ours.GradCAM.fuse_cams(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="at least one map"):
        ours.GradCAM.fuse_cams([])
    with pytest.raises(TypeError, match="expected pictures of PIL"):
        ours.overlay_mask(np.zeros((3, 3)), Image.new("F", (3, 3)))
    with pytest.raises(ValueError, match="alpha: expected a float"):
        ours.overlay_mask(Image.new("RGB", (3, 3)), Image.new("F", (3, 3)), alpha=1.0)
    with pytest.raises(ValueError, match="img: expected a grey or RGB picture"):
        ours.overlay_mask(Image.new("RGBA", (3, 3)), Image.new("F", (3, 3)))
