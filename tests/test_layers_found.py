"""The layers that class activation maps find in networks that make it hard: several heads, wrappers, branches."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import midgrain as mg
from layers_for_tests import Custom, found
from midgrain import driver
from midgrain.cams import CAM, make_cam
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

# --- segmentation and detection -------------------------------------------------------------------------------------

SEGMENTATION = [
    ("deeplabv3_mobilenet_v3_large", "out", "classifier.3", (256, 12, 16)),
    ("deeplabv3_mobilenet_v3_large", "aux", "aux_classifier.2", (10, 24, 32)),
    ("lraspp_mobilenet_v3_large", "out", "classifier.cbr", (128, 12, 16)),
    pytest.param("fcn_resnet50", "out", "classifier.2", (512, 24, 32), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "output", "layer", "maps"), SEGMENTATION)
def test_segmentation(name: str, output: str, layer: str, maps: tuple[int, ...]) -> None:
    """The last features, not the maps of the classes."""
    models = pytest.importorskip("torchvision.models.segmentation")
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    model = seeded(lambda: getattr(models, name)(weights=None, weights_backbone=None, **options)).eval()
    assert found(model, torch.randn(1, 3, 192, 256), lambda out: out[output][:, 3].mean((1, 2))) == (layer, maps)


def test_detection() -> None:
    """Boxes are scored from the maps of the feature pyramid."""
    models = pytest.importorskip("torchvision.models.detection")
    model = seeded(
        lambda: models.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, box_score_thresh=0.0, box_detections_per_img=5
        )
    ).eval()
    layer, maps = found(
        model, torch.rand(1, 3, 192, 256), lambda out: torch.stack([one["scores"].sum() for one in out])
    )
    assert layer == "backbone"
    assert maps[0] == 256


class TwoHeads(nn.Module):
    """Each output comes from a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x).relu()
        return {"a": self.a(x).relu().amax((2, 3)), "b": self.b(x).relu().amax((2, 3))}


def test_another_callable_may_need_another_layer() -> None:
    model, x, cam = seeded(TwoHeads), batch_for(), CAM()
    targets: dict[str, Any] = {key: lambda out, key=key: out[key][:, 0] for key in "ab"}
    with driver.preserved(model, x):
        for key in "abba":
            assert cam.sites(model, x, targets[key])[0].name == key


# --- networks that make it hard -------------------------------------------------------------------------------------


def test_heads_without_training() -> None:
    """A last layer of zeros: no gradient anywhere, but the layer is found all the same."""
    model = tiny_net()
    nn.init.zeros_(model[8].weight)
    assert found(model, batch_for())[0] == "4"
    assert float(model[8].weight.detach().abs().max()) == 0
    assert float(mg.explainer("gradcam", model)(batch_for()).heatmap.abs().max()) == 0


def test_embeddings_are_no_classes() -> None:
    """Where a callable says what is explained, the means of the last maps may be all that the network returns."""
    model, x = tiny_net()[:5].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()), batch_for()
    assert found(model, x, lambda outputs: F.normalize(outputs)[:, :3].sum(1))[0] == "4"
    assert found(model, x)[0] == "2"  # Eight classes, and their maps before and after a ReLU.


def test_no_gradient_at_all() -> None:
    class Detaches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).detach()

    with pytest.raises(ValueError, match="layer: the explained score depends on no layer with a spatial output"):
        mg.explainer("gradcam", Detaches())(batch_for())


def wrapped(kind: str) -> Any:
    model = tiny_net()
    if kind == "data parallel":
        return nn.DataParallel(model)
    if kind == "compiled":
        return torch.compile(model)
    if kind == "compiled in place":
        model.compile()
    if kind == "compiled in part":
        model[3] = torch.compile(model[3])
    if kind == "frozen":
        model.requires_grad_(False)
    if kind == "weight norm":
        nn.utils.parametrizations.weight_norm(model[3])
    if kind == "traced by fx":
        return torch.fx.symbolic_trace(model)
    if kind == "training":
        model.train()
    return model


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "kind",
    [
        *("plain", "data parallel", "compiled", "compiled in place", "compiled in part", "frozen", "weight norm"),
        *("traced by fx", "training"),
    ],
)
def test_wrapped_networks(kind: str, mode: Any) -> None:
    """Layer, map and class are those of the plain network, whose state does not change."""
    model, x = wrapped(kind), batch_for()
    expected = mg.explainer("gradcam++", tiny_net())(x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    for layer in (None, "3", "module.3" if kind == "data parallel" else "3"):
        wanted = expected if layer is None else mg.explainer("gradcam++", tiny_net(), layer="3")(x)
        with mode():
            actual = mg.explainer("gradcam++", model, layer=layer)(x)
        assert relative_deviation(actual.heatmap, wanted.heatmap) < 1e-4
        assert torch.equal(actual.target, wanted.target)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_autocast() -> None:
    x = batch_for()
    expected = mg.explainer("layercam", tiny_net())(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = mg.explainer("layercam", tiny_net())(x)
    assert actual.heatmap.dtype == torch.float32
    assert relative_deviation(actual.heatmap, expected.heatmap) < 0.1


def _conv(channels: int = 4, into: int = 4) -> nn.Module:
    return nn.Conv2d(channels, into, 3, padding=1)


def _gap(a: Tensor) -> Tensor:
    return a.mean((2, 3))


def _small(function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> nn.Module:
    """A convolution `m.conv`, a head `m.head` and what the case is about."""
    return Custom(function, conv=_conv(3), head=nn.Linear(4, 5), **modules)


WHICH: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "the last call of a module that is used again": (
        lambda: _small(lambda m, x: m.head(_gap(m.again(m.again(m.conv(x)).relu()).relu())), again=_conv()),
        "again",
        1,
    ),
    "an identity hands on": (
        lambda: _small(lambda m, x: m.head(_gap(m.drop(m.same(m.conv(x))))), same=nn.Identity(), drop=nn.Dropout()),
        "conv",
        0,
    ),
    "a ReLU in place does not": (
        lambda: _small(lambda m, x: m.head(_gap(m.act(m.conv(x)))), act=nn.ReLU(True)),
        "act",
        0,
    ),
    "the outermost of modules that return the same tensor": (
        lambda: _small(
            lambda m, x: m.head(_gap(m.body(m.conv(x)))), body=nn.Sequential(nn.Sequential(_conv(), nn.ReLU()))
        ),
        "body",
        0,
    ),
    "poolings do not count": (
        lambda: _small(lambda m, x: m.head(_gap(m.pool(m.conv(x)))), pool=nn.MaxPool2d(2)),
        "conv",
        0,
    ),
    "maps of the classes do not count": (
        lambda: _small(lambda m, x: _gap(m.classes(m.conv(x).relu())), classes=nn.Conv2d(4, 7, 1)),
        "conv",
        0,
    ),
    "a side path that the score does not see": (
        lambda: _small(lambda m, x: (m.head(_gap(m.conv(x))), m.aside(x))[0], aside=_conv(3)),
        "conv",
        0,
    ),
    "maps of indices": (
        lambda: _small(
            lambda m, x: m.head(m.pool(m.conv(x))[0].amax((2, 3))), pool=nn.MaxPool2d(2, return_indices=True)
        ),
        "conv",
        0,
    ),
}


@pytest.mark.parametrize("what", WHICH)
def test_which_layer(what: str) -> None:
    build, layer, call = WHICH[what]
    model, x = seeded(build).eval(), batch_for()
    with driver.preserved(model, x):
        (site,) = CAM().sites(model, x, None)
    assert (site.name, site.call) == (layer, call)


@pytest.mark.parametrize("training", [False, True])
def test_eight_threads_share_a_network_and_an_explainer(training: bool) -> None:
    """In training mode, too, a thread that is done does not turn it on under the others."""
    model = tiny_net().train(training)
    explainer = mg.explainer("gradcam", model)
    inputs = [batch_for(batch=1 + seed % 3, seed=seed, size=(24, 32 + 8 * (seed % 2))) for seed in range(16)]
    expected = [mg.explainer("gradcam", tiny_net())(x).heatmap for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for got, wanted in zip(pool.map(lambda x: explainer(x).heatmap, inputs), expected, strict=True):
                assert torch.equal(got, wanted)
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(value, tiny_net().state_dict()[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_remembered_keeps_no_network_alive() -> None:
    cam, x = make_cam("gradcam"), batch_for()
    for layer in (None, "3"):
        cam = make_cam("gradcam", layer=layer)
        model = tiny_net()
        gone = weakref.ref(model)
        with driver.preserved(model, x):
            first = cam.score(model, x, None).map
        del model
        gc.collect()
        assert gone() is None
        model = tiny_net()
        with driver.preserved(model, x):
            assert torch.equal(cam.score(model, x, None).map, first)


def test_parts_of_a_network_may_be_exchanged() -> None:
    model, x = tiny_net(), batch_for()
    explainer = mg.explainer("gradcam", model, layer="3")
    explainer(x)
    model[3] = seeded(lambda: nn.Conv2d(8, 8, 3, stride=2, padding=1), 5)
    assert torch.equal(explainer(x).heatmap, mg.explainer("gradcam", model, layer="3")(x).heatmap)
