"""The last layer of every convolutional block, in a list of networks with random weights and in small ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.layers import last_spatial_site
from midgrain.network.capture import run_from, run_until
from midgrain.network.stages import stage_sites
from midgrain.network.trace import trace
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from test_layers import built
from test_network_exported import exported

BLOCKS = ("layer1", "layer2", "layer3", "layer4")
STAGES = ("stages.0", "stages.1", "stages.2", "stages")
# Name, size of the input, layers.
QUICK: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
    ("torchvision:densenet121", (64, 96), ("relu0", *(f"transition{i}.conv" for i in (1, 2, 3)), "")),
    ("torchvision:inception_v3", (171, 171), ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    ("torchvision:googlenet", (64, 96), ("conv1", "conv3", "inception3b", "inception4e", "inception5b")),
    ("torchvision:mobilenet_v2", (64, 96), ("features.1", "features.3", "features.6", "features.13", "features")),
    ("torchvision:mobilenet_v3_small", (64, 96), ("features.0", "features.1", "features.3", "features.8", "features")),
    ("torchvision:efficientnet_b0", (64, 96), ("features.1", "features.2", "features.3", "features.5", "features")),
    ("torchvision:mnasnet0_5", (64, 96), ("layers.7", "layers.8", "layers.9", "layers.11", "layers")),
    ("torchvision:regnet_y_400mf", (64, 96), ("stem", *(f"trunk_output.block{i}" for i in (1, 2, 3)), "trunk_output")),
    ("torchvision:resnet50", (64, 96), ("relu", *BLOCKS)),
    ("torchvision:shufflenet_v2_x0_5", (64, 96), ("conv1", "stage2", "stage3", "conv5")),
    ("torchvision:squeezenet1_1", (64, 96), ("features.1", "features.4", "features.7", "features")),
    ("torchvision:vgg16", (64, 64), ("features.3", "features.8", "features.15", "features.22", "features.29")),
    ("torchvision:r2plus1d_18", (8, 32, 32), BLOCKS),
    ("torchvision:mc3_18", (8, 32, 32), BLOCKS),
    ("timm:convnext_atto", (96, 96), STAGES),
    ("timm:test_convnext", (160, 160), STAGES),
    ("timm:test_byobnet", (160, 160), ("stem", *STAGES)),
    ("timm:test_coatnet", (160, 160), ("stem", "stages.0", "stages.1", "stages.2", "norm")),
    ("timm:test_efficientnet", (160, 160), ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "bn2")),
    ("timm:test_mambaout", (160, 160), ("stem.act", *STAGES)),
    ("timm:test_resnet", (160, 160), ("act1", *BLOCKS)),
    (
        "timm:densenet121",
        (96, 96),
        ("features.norm0", *(f"features.transition{i}.conv" for i in (1, 2, 3)), "features"),
    ),
    ("timm:dla34", (96, 96), tuple(f"level{i}" for i in range(6))),
    ("timm:resnetv2_18", (96, 96), ("stem.conv", "stages.0", "stages.1", "stages.2", "norm")),
]
SLOW: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
    ("torchvision:alexnet", (128, 128), ("features.1", "features.4", "features.11")),
    ("torchvision:convnext_tiny", (64, 96), ("features.2.0", "features.4.0", "features.6.0", "features")),
    ("torchvision:efficientnet_v2_s", (64, 96), ("features.1", "features.2", "features.3", "features.5", "features")),
    ("torchvision:inception_v3", (299, 299), ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    ("torchvision:maxvit_t", (224, 224), ("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3")),
    ("torchvision:r3d_18", (8, 32, 32), BLOCKS),
    ("torchvision:resnext50_32x4d", (64, 96), ("relu", *BLOCKS)),
    ("torchvision:swin_t", (224, 224), ("features.1", "features.3", "features.5", "permute")),
    ("torchvision:vgg11_bn", (64, 96), ("features.2", "features.6", "features.13", "features.20", "features.27")),
    ("torchvision:wide_resnet50_2", (64, 96), ("relu", *BLOCKS)),
    ("timm:dpn48b", (96, 96), ("conv1_1", "conv2_3", "conv3_4", "conv4_6", "")),
    ("timm:hrnet_w18_small", (128, 128), ("act1", "layer1", "final_layer")),
    ("timm:inception_v4", (299, 299), ("features.2", "features.4", "features.9", "features.17", "features")),
    ("timm:mobilenetv3_small_050", (96, 96), ("bn1", "blocks.0", "blocks.1", "blocks.3", "blocks")),
    ("timm:res2net50_26w_4s", (96, 96), ("act1", *BLOCKS)),
    ("timm:rexnet_100", (96, 96), ("features.0", "features.2", "features.4", "features.10", "features")),
    ("timm:xception41", (96, 96), ("stem", "blocks.0", "blocks.1", "blocks.10", "blocks")),
]


def found(model: nn.Module, x: Tensor, target: Any = None) -> list[Any]:
    with driver.preserved(model, x):
        calls = trace(model, x[:1])
        return list(stage_sites(model, x, calls, last_spatial_site(model, x, calls, target), target))


def names(model: nn.Module, x: Tensor, target: Any = None) -> tuple[str, ...]:
    return tuple(site.name for site in found(model, x, target))


def all_goes_through(model: nn.Module, x: Tensor, site: Any) -> bool:
    """Is the output what it was, where everything but this layer starts from an input of NaN?"""
    with driver.preserved(model, x):
        outputs = run_from(model, torch.full_like(x, torch.nan), site, run_until(model, x, site))
        expected = model(x)
    return bool(torch.allclose(outputs, expected, rtol=1e-4, atol=1e-5))


def full_names(spec: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Those of DenseNet and DPN all begin with "features"."""
    short = spec in ("torchvision:densenet121", "timm:dpn48b")
    return tuple(f"features.{name}".removesuffix(".") for name in layers) if short else layers


@pytest.mark.parametrize(
    ("spec", "size", "layers"),
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)],
    ids=[f"{row[0]}-{row[1][-1]}" for row in (*QUICK, *SLOW)],
)
def test_the_last_layer_of_every_block(spec, size, layers) -> None:
    model = built(spec)
    x = seeded(lambda: torch.randn(1, 3, *size))
    sites = found(model, x)
    assert tuple(site.name for site in sites) == full_names(spec, layers)
    for site in sites:
        assert all_goes_through(model, x, site), site


def test_the_papers_resnet_50_has_3904_feature_maps() -> None:
    model, x = built("torchvision:resnet50"), torch.randn(1, 3, 64, 64)
    with driver.preserved(model, x):
        assert sum(run_until(model, x, site).shape[1] for site in found(model, x)) == 64 + 256 + 512 + 1024 + 2048


@pytest.mark.parametrize(
    ("spec", "size"),
    [("timm:test_vit", (160, 160)), pytest.param("torchvision:vit_b_16", (224, 224), marks=pytest.mark.slow)],
)
def test_transformers_have_no_blocks(spec, size) -> None:
    with pytest.raises(ValueError, match=r"layer: the network ends in tokens .*layer=\[\.\.\.\].*'rise'"):
        found(built(spec), torch.randn(1, 3, *size))


# Small networks.

HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def conv(inside: int = 8, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inside, 8, 3, stride=stride, padding=1)


def test_pooling_inside_of_nested_containers() -> None:
    """The layer before the pooling, though the container that it is in returns what was pooled."""

    def block(inside: int) -> nn.Module:
        return nn.Sequential(conv(inside), nn.ReLU(), conv(), nn.ReLU(), nn.MaxPool2d(2))

    net = nn.Sequential(nn.Sequential(block(3), block(8)), nn.Sequential(conv(), nn.ReLU()), *HEAD)
    assert names(net, batch_for(size=(32, 32))) == ("0.0.3", "0.1.3", "1")


class Block(nn.Module):
    """Two convolutions and, by a function, a pooling."""

    def __init__(self, inside: int, pool: bool = True):
        super().__init__()
        self.a, self.b, self.pool = conv(inside), conv(), pool

    def forward(self, x):
        x = F.relu(self.b(F.relu(self.a(x))))
        return F.max_pool2d(x, 2) if self.pool else x


class ReluBlock(Block):
    def __init__(self, inside: int):
        super().__init__(inside)
        self.relu = nn.ReLU()

    def forward(self, x):
        return F.avg_pool2d(self.relu(self.b(self.relu(self.a(x)))), 2)


def test_pooling_by_a_function() -> None:
    x = batch_for(size=(32, 32))
    assert names(nn.Sequential(Block(3), Block(8), Block(8, pool=False), *HEAD), x) == ("0.b", "1.b", "2")
    assert names(nn.Sequential(ReluBlock(3), ReluBlock(8), conv(), *HEAD), x) == ("0.relu", "1.relu", "2")


class Bottleneck(nn.Module):
    """Narrow, with strides, wide; as in MobileNetV2 nothing goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 1)
        )

    def forward(self, x):
        return self.inner(x)


class Residual(Bottleneck):
    def forward(self, x):
        return self.inner(x) + x[..., 1:-1:2, 1:-1:2]


@pytest.mark.parametrize("kind", [Bottleneck, Residual])
def test_a_layer_with_strides_begins_a_block(kind) -> None:
    net = nn.Sequential(conv(3), nn.ReLU(), kind(), nn.ReLU(), kind(), *HEAD)
    assert names(net, batch_for(size=(31, 31))) == ("1", "3", "4")


def test_a_first_layer_with_strides_is_all_there_is_of_its_block() -> None:
    """The layers inside it have the finest maps of all, and nothing comes before them."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), Bottleneck(), nn.ReLU(), *HEAD)
    assert names(net, batch_for(size=(31, 31))) == ("0", "2")

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = conv(3), conv(8, 2)

        def forward(self, x):
            return self.coarse(self.fine(x).relu()).relu()

    assert names(nn.Sequential(Stem(), *HEAD), batch_for(size=(32, 32))) == ("0.fine", "0")


def test_one_block() -> None:
    assert names(nn.Sequential(conv(3), nn.ReLU(), conv(), *HEAD), batch_for()) == ("2",)


def test_convolutions_without_padding_are_no_down_sampling() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5), nn.MaxPool2d(2), nn.Conv2d(8, 8, 5), *HEAD)
    assert names(net, batch_for(size=(32, 32))) == ("2", "4")


def test_branches_are_not_all_there_is() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.last = conv(3), conv(), conv(), conv(16, 2)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.last(torch.cat([self.a(x), self.b(x)], 1))

    net = nn.Sequential(Branches(), *HEAD)
    assert names(net, batch_for()) == ("0.stem", "0")

    class Halves(nn.Module):
        """One of two parts of a tensor is less than the tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.split, self.last = conv(3), Split(), conv(8, 2)

        def forward(self, x):
            a, b = self.split(self.stem(x).relu())
            return self.last(torch.cat([a * 2, b], 1))

    class Split(nn.Module):
        def forward(self, x):
            return x.chunk(2, 1)

    assert names(nn.Sequential(Halves(), *HEAD), batch_for()) == ("0.stem", "0")


def test_padding_of_the_input_is_no_feature() -> None:
    net = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), conv(8, 2), *HEAD)
    assert names(net, batch_for()) == ("2", "3")


def test_features_that_the_network_also_returns() -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny_net()

        def forward(self, x):
            features = self.net[:3](x)
            return self.net[3:](features), features

    assert names(Returns(), batch_for(), lambda out: out[0][:, 1]) == ("net.2", "net.4")


def test_a_decoder_has_no_blocks_of_its_own() -> None:
    net = nn.Sequential(conv(3), nn.MaxPool2d(2), conv(), nn.ReLU(), nn.Upsample(scale_factor=2), conv())
    assert names(net, batch_for(), lambda out: out[:, 2, 5, 5]) == ("0", "4")


def test_a_trunk_without_gradients_ends_the_search() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.rest = nn.Sequential(conv(3), nn.ReLU(), nn.MaxPool2d(2)), nn.Sequential(conv(), *HEAD)

        def forward(self, x):
            with torch.no_grad():
                x = self.trunk(x)
            return self.rest(x)

    assert names(Frozen(), batch_for()) == ("rest.0",)


def test_an_exported_program(tmp_path) -> None:
    net, x = nn.Sequential(conv(3), nn.ReLU(), Bottleneck(), conv(), *HEAD), batch_for()
    assert names(net, x) == names(exported(net, x, tmp_path, dynamic=True), x) == ("1", "3")


def test_weights_that_rule_gradients_out() -> None:
    with torch.inference_mode():
        net = tiny_net()
    with pytest.raises(ValueError, match=re.escape("under torch.inference_mode(), which rules gradients out")):
        found(net, batch_for())
