"""Inflated networks: a still clip gives what the picture gives, and kernels are repeated as I3D says."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import skimage
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional
from torchvision import models as tv

import midgrain as mg
from midgrain.inflation import Inflated, InflatedConv, inflate
from midgrain.models import load_model
from midgrain.pictures import open_picture
from models_for_tests import METHODS, batch_for, one_thread, quick_explainer, seeded, tiny_net  # noqa: F401

QUICK = ("gradcam", "layercam", "jittercam", "scorecam", "swag-ig", "guided", "fullgrad", "deepmaps", "rise")


class Many(nn.Module):
    """Every module and function that can be inflated, some of them twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.same = nn.Conv2d(8, 8, (4, 3), padding="same", dilation=(1, 2))
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.pad = nn.Sequential(nn.ReplicationPad2d((1, 0, 0, 2)), nn.ZeroPad2d(1), nn.ConstantPad2d(1, 0.5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1, 1, count_include_pad=False))
        self.drop = nn.Dropout2d(0.5)
        self.small = nn.Sequential(nn.AdaptiveMaxPool2d((5, 4)), nn.Conv2d(8, 6, 1))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.Sigmoid())
        self.classify = nn.Linear(6 * 10, 5)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = x + self.same(x) + self.grouped(self.grouped(x).relu())
        x = self.drop(self.pool(self.pad(x)))
        x = functional.max_pool2d(x, 3, 1, padding=1) + functional.avg_pool2d(x, (3, 1), stride=1, padding=(1, 0))
        x = self.small(x)
        x = self.gate(x) * x
        pooled = [
            functional.adaptive_avg_pool2d(x, 1).flatten(1),
            functional.adaptive_max_pool2d(x, (1, 2)).flatten(1),
            x.mean([2, 3]),
            torch.mean(x, dim=(-2, -1), keepdim=True).flatten(1),
            nn.functional.adaptive_avg_pool2d(x, (2, 1)).flatten(1),
            x.mean((3, 2)),
            functional.dropout(x.amax((-1, -2)).reshape(len(x), 6, -1).amax(-1), 0.5, self.training),
            x.flatten(2).mean(2),
        ]
        return self.classify(torch.cat(pooled, 1))


def still(x: torch.Tensor, frames: int = 5) -> torch.Tensor:
    return x[:, :, None].expand(-1, -1, frames, -1, -1)


def shaken(network: nn.Module) -> nn.Module:
    """Batch norms as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("weights", ["average", "centre"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_every_module_and_function(kernel, weights) -> None:
    network = seeded(lambda: shaken(Many())).double()
    x = batch_for(size=(31, 40), dtype=torch.float64)
    inflated = inflate(network, kernel=kernel, weights=weights, size=(31, 40))
    with torch.no_grad():
        torch.testing.assert_close(inflated(still(x)), network(x), rtol=1e-9, atol=1e-9)
        # One frame is a clip, too.
        torch.testing.assert_close(inflated(still(x, 1)), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "resnet18",
                "densenet121",
                "vgg11_bn",
                "squeezenet1_1",
                "mnasnet0_5",
                "mobilenet_v3_small",
                "regnet_y_400mf",
            )
        ),
    ],
)
def test_networks_of_torchvision(name) -> None:
    network = seeded(lambda: shaken(tv.get_model(name, weights=None, num_classes=7))).double()
    x = batch_for(size=(64, 80), dtype=torch.float64)
    with torch.no_grad():
        expected, found = network(x), inflate(network, size=64)(still(x, 4))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("frames", [3, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2), "dilation": (2, 1)},
        {"kernel_size": 3, "groups": 4, "bias": False},
    ],
)
def test_an_average_kernel_is_the_mean_over_neighbouring_frames(options, frames) -> None:
    """By SciPy: the first and last frame go on beyond the ends."""
    flat = seeded(lambda: nn.Conv2d(4, 8, **options)).double()
    clip = batch_for(3, channels=4, size=(6, 17, 19), dtype=torch.float64)
    with torch.no_grad():
        each = torch.stack([flat(frame) for frame in clip.unbind(2)], 2).numpy()
        found = InflatedConv(flat, frames, "average")(clip)
        centred = InflatedConv(flat, frames, "centre")(clip)
    expected = ndimage.uniform_filter1d(each, frames, axis=2, mode="nearest")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(centred.numpy(), each, rtol=1e-10, atol=1e-10)


def test_kernels_in_time() -> None:
    plain = inflate(seeded(lambda: tv.resnet18(weights=None, num_classes=3)), size=33)
    shapes = {name: tuple(each.weight.shape[2:]) for name, each in plain.named_modules() if isinstance(each, nn.Conv3d)}
    assert shapes["network.conv1"] == (3, 7, 7)
    assert shapes["network.layer2.0.downsample.0"] == (1, 1, 1)
    assert {shape for name, shape in shapes.items() if name.startswith("network.layer1")} == {(3, 3, 3)}
    first = plain.get_submodule("network.conv1").weight
    torch.testing.assert_close(first[:, :, 0], first[:, :, 2], rtol=0, atol=0)
    top = inflate(seeded(lambda: tv.resnet18(weights=None, num_classes=3)), last=2, size=33)
    inflated = [name for name, each in top.named_modules() if isinstance(each, nn.Conv3d) and each.kernel_size[0] > 1]
    assert inflated == ["network.layer4.1.conv1", "network.layer4.1.conv2"]
    depthwise = inflate(seeded(lambda: tv.mobilenet_v2(weights=None, num_classes=3)), kernel=5, size=33)
    for each in depthwise.modules():
        if isinstance(each, nn.Conv3d):
            assert each.kernel_size[0] == (5 if each.groups > 1 else 1)


def test_frames_by_themselves() -> None:
    """A kernel of one frame, and one whose weight is all in the middle: the mean of the frames' features."""
    network = tiny_net()
    clip = batch_for(3, size=(4, 24, 32))
    trunk, head = network[:5], network[7:]
    with torch.no_grad():
        features = torch.stack([trunk(frame.clone()) for frame in clip.unbind(2)], 2).mean(2)
        expected = head(functional.adaptive_avg_pool2d(features, 2).flatten(1))
        for options in ({"kernel": 1}, {"weights": "centre"}, {"last": 0}):
            found = inflate(network, size=(24, 32), **options)(clip)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        moved = inflate(network, size=(24, 32))(clip)
    assert (moved - expected).abs().max() > 1e-3


def test_the_image_network_is_left_alone_and_copies_work() -> None:
    network = tiny_net().train()
    before = copy.deepcopy(network.state_dict())
    inflated = inflate(network, size=(24, 32))
    assert network.training
    assert isinstance(network[0], nn.Conv2d)
    assert not any(module.training for module in inflated.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    clip = batch_for(3, size=(4, 24, 32))
    with torch.no_grad():
        for other in (copy.deepcopy(inflated), pickle.loads(pickle.dumps(inflated))):
            assert torch.equal(other(clip), inflated(clip))
    assert [name for name, _ in inflated.named_children()] == ["network"]
    x = clip.clone().requires_grad_()
    inflated(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(3).abs().amax((1, 3)) > 0).all()
    assert inflated.network[0].weight.grad is not None


def test_pooling_outside_of_the_network_is_not_touched() -> None:
    clip = batch_for(3)
    inflate(tiny_net(), size=(24, 32))(batch_for(3, size=(4, 24, 32)))
    assert clip.mean((2, 3)).shape == (2, 3, 16)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_every_method_explains_an_inflated_network(name) -> None:
    clip = batch_for(3, size=(3, 24, 32))
    inflated = inflate(tiny_net(), size=(24, 32))
    heatmap = quick_explainer(name, inflated)(clip).heatmap
    assert heatmap.shape == (2, 3, 24, 32)
    assert torch.isfinite(heatmap).all()


def test_a_still_clips_explanation_is_the_pictures() -> None:
    network, x = tiny_net(), batch_for()
    inflated = inflate(network, kernel=1, size=(24, 32))
    for name in ("gradcam", "vanilla", "guided"):
        flat = mg.explainer(name, network)(x, 1).heatmap
        clip = mg.explainer(name, inflated)(still(x, 4), 1).heatmap
        # Each of four frames has a quarter of the gradient.
        scale = flat.abs().amax() / clip.abs().amax()
        assert 3.9 < scale < 4.1
        torch.testing.assert_close(clip * scale, flat[:, None].expand_as(clip), rtol=1e-3, atol=1e-4)


class Lost(nn.Module):
    """Runs on clips, but takes time for rows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).amax(2).flatten(2).mean(2)


class Permuted(Lost):
    """Knows that there are four axes."""

    def forward(self, x):
        return self.conv(x).permute(0, 2, 3, 1).mean((1, 2))


def test_networks_that_do_not_suit_clips() -> None:
    small = lambda *layers: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers)  # noqa: E731
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for network, said in (
        (small(nn.Upsample(scale_factor=2), *end), "model: model.1 is a Upsample, which cannot be inflated"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), *end),
            "model: model.0 pads with 'reflect'",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), "model: expected a network with convolutions"),
        (Lost(), "model: a still clip gives other outputs"),
        (Permuted(), "model: cannot be run on clips"),
        (small(nn.Flatten(), nn.Linear(7, 2)), "size: the network does not take a picture"),
        (small(nn.Flatten(), nn.Linear(4 * 32 * 32, 2)), "model: cannot be run on clips"),
    ):
        with pytest.raises(ValueError, match=f"^{said}"):
            inflate(network, size=32)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"kernel": 2}, ValueError, "kernel: expected an odd number of frames, got 2"),
        ({"kernel": 3.0}, TypeError, "kernel: expected an int, got float"),
        ({"kernel": -1}, ValueError, "kernel: expected an odd number of frames, got -1"),
        ({"weights": "mean"}, ValueError, "weights: expected average or centre, got 'mean'"),
        ({"last": -1}, ValueError, "last: expected 0 or more, got -1"),
        ({"last": 1.0}, TypeError, "last: expected an int or None, got float"),
        ({"size": 0}, ValueError, "size: expected a side or "),
        ({"size": (3,)}, ValueError, "size: expected a side or "),
    ],
)
def test_unfit_arguments(options, error, said) -> None:
    with pytest.raises(error, match=f"^{said}"):
        inflate(tiny_net(), **({"size": (24, 32)} | options))
    with pytest.raises(TypeError, match=r"^model: expected a torch\.nn\.Module, got function"):
        inflate(lambda x: x)


def test_the_demo_network_for_clips() -> None:
    image, clip = load_model("demo"), load_model("demo-clip")
    picture = open_picture(f"{skimage.__path__[0]}/data/chelsea.png")
    x = clip.preprocess(np.asarray(picture)[None].repeat(3, 0))
    assert isinstance(clip.model, Inflated)
    assert (clip.name, clip.preprocess.frames, clip.preprocess.rate) == ("demo-clip", 16, 15.0)
    assert torch.equal(x[:, :, 1], image.preprocess(picture))
    with torch.no_grad():
        found, expected = clip.model(x), image.model(x[:, :, 0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert clip.label(int(found.argmax())) == "tiger cat"
