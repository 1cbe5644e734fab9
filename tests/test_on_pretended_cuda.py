"""Every method on a pretended CUDA device: the CPU's results, on the input's device, and the model as it was.

pretended_cuda.py says what such a device is and what it cannot show. In short, these tests find code that mixes
devices, leaves results on the wrong one, hands a device's tensor to NumPy or uses an operator that CUDA does not have.
They run no CUDA kernel; that is for tests with the mark `gpu`.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from midgrain.explanation import Explanation
from midgrain.registry import method_options
from models_for_tests import CONV, POOL, batch_for, quick_explainer, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from pretended_checks import assert_same, assert_unchanged, state_of
from pretended_cuda import pretended_cuda

SLOW = pytest.mark.slow
SETTINGS = pytest.mark.parametrize(
    ("dims", "kernels"),
    [(2, True), (2, False), (3, True), pytest.param(3, False, marks=SLOW)],
    ids=["images", "images, no kernels", "clips", "clips, no kernels"],
)
LABELS = {2: torch.arange(24 * 32).reshape(24, 32) // 96, 3: torch.arange(4 * 12 * 16).reshape(4, 12, 16) // 96}


def mean_net(dims: int = 2) -> nn.Module:
    """Ends in a linear layer over its channels' means, which Saliency Tubes need."""
    return seeded(
        lambda: nn.Sequential(CONV[dims](3, 6, 3), nn.ReLU(), POOL[dims](1), nn.Flatten(), nn.Linear(6, 5))
    ).eval()


#: One of each kind that goes its own ways with targets and types.
KINDS = frozenset(
    {
        "swag-ig",
        "lime",
        "lime-prior",
        "xrai",
        "gradcam",
        "jittercam",
        "scorecam",
        "sise",
        "rise",
        "occlusion",
        "fullgrad",
    }
)


def quick(kinds: Mapping[str, bool]) -> pytest.MarkDecorator:
    """Every method with each of these; slow are those that say so, and methods that do as one of KINDS."""
    cases = [
        pytest.param(name, kind, marks=SLOW if slow or name not in KINDS else (), id=f"{name}, {kind}")
        for name in mg.methods()
        for kind, slow in kinds.items()
    ]
    return pytest.mark.parametrize(("name", "kind"), cases)


def net_for(name: str, dims: int = 2) -> nn.Module:
    return mean_net(dims) if name == "saliency-tubes" else tiny_net(dims)


def explained(name: str, x: Tensor, target: Any = None, **options: Any) -> Explanation:
    return quick_explainer(name, net_for(name, x.ndim - 2).to(x), **options)(x, target)


@functools.cache
def on_the_cpu(name: str, dims: int) -> Explanation:
    return explained(name, batch_for(dims))


@SETTINGS
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name == "extremal" else ()) for name in mg.methods()]
)
def test_every_method(name, dims, kernels) -> None:
    expected = on_the_cpu(name, dims)
    with pretended_cuda(kernels=kernels):
        x, net = batch_for(dims).cuda(), net_for(name, dims).cuda()
        x_before, version, before = x.clone(), x._version, state_of(net)
        found = quick_explainer(name, net)(x)
        assert_same(found, expected)
        assert_unchanged(before, state_of(net))
        assert torch.equal(x, x_before)
        assert x._version == version


# Kind -> from what puts a tensor to where x is to the target.
TARGETS = {
    "class": lambda on: 2,
    "classes": lambda on: [4, 0],
    "array": lambda on: np.array([4, 0], np.int32),
    "on the device": lambda on: on(torch.tensor([4, 0])),
    "on the CPU": lambda on: torch.tensor([4, 0]),
    "callable": lambda on: lambda outputs: outputs.gather(1, on(torch.tensor([[4], [0]])))[:, 0],
}


@quick({kind: kind in ("class", "classes", "array") for kind in TARGETS})
def test_targets(name, kind) -> None:
    if kind == "callable" and name in ("saliency-tubes", "scorecam"):
        pytest.skip("takes classes only, as another test says")
    options = {"output": "logit"} if "output" in method_options(name) else {}
    expected = explained(name, batch_for(), TARGETS[kind](lambda tensor: tensor), **options)
    with pretended_cuda():
        found = explained(name, batch_for().cuda(), TARGETS[kind](operator.methodcaller("cuda")), **options)
        assert_same(found, expected)


@quick({"float16": False, "float64": True, "bfloat16": True})
def test_dtypes(name, kind) -> None:
    dtype = getattr(torch, kind)
    expected = explained(name, batch_for(dtype=dtype))
    with pretended_cuda():
        assert_same(explained(name, batch_for().cuda().to(dtype)), expected)


@pytest.mark.parametrize("name", [name for name in mg.methods() if hasattr(mg.explainer(name, mean_net()), "several")])
def test_several_targets(name) -> None:
    expected = quick_explainer(name, net_for(name)).several(batch_for(), [1, None])
    with pretended_cuda():
        found = quick_explainer(name, net_for(name).cuda()).several(batch_for().cuda(), [1, None])
        assert_same(found, expected)


def own_labels(on):
    return on(LABELS[2])


# Method, options that lead elsewhere than the defaults; callables get what puts a tensor to where x is.
OPTIONS = [
    ("swag-ig", {"n_segments": 12, "reduce": "max"}),
    ("swag-ig", {"scorer": "gradcam", "reduce": "median"}),
    *(("lime", {"superpixels": own_labels, "n_samples": 12, "baseline": each}) for each in ("blur", "mean", "noise")),
    ("lime-ig", {"n_samples": 12, "alpha": 0.0, "batch_size": 1, "stop_at": 0.9}),
    ("lime", {"superpixels": lambda on: LABELS[2], "n_samples": 12}),
    ("lime", {"superpixels": lambda on: LABELS[2].numpy(), "n_samples": 12}),
    ("lime-prior", {"n_samples": 12, "prior": "cells", "layer": "3"}),
    ("kernel-shap", {"n_samples": 40, "baseline": "blur", "output": "logit"}),
    ("xrai", {"mode": "fast", "scorer": "guided", "superpixels": "image+gradient"}),
    ("xrai", {"superpixels": own_labels, "scorer": "vanilla", "min_pixel_diff": 5}),
    ("rise", {"n_samples": 40, "baseline": "blur", "stop_at": 0.5, "grid": 4}),
    ("rise", {"n_samples": 20, "baseline": lambda on: on(torch.full((3, 1, 1), 0.3))}),
    ("rise", {"n_samples": 20, "baseline": lambda on: torch.full((3, 1, 1), 0.3)}),
    ("rise", {"n_samples": 20, "baseline": lambda on: lambda x: x.mean((2, 3), keepdim=True)}),
    ("occlusion", {"stride": 6, "window": 8, "baseline": "noise", "batch_size": 3}),
    *(
        ("extremal", {"n_iterations": 2, "areas": (0.1, 0.3), **each})
        for each in (
            {"perturbation": "fade", "variant": "delete"},
            {"jitter": True, "stop_at": 0.9},
            {"variant": "hybrid"},
        )
    ),
    ("sise", {"mu": 0.2, "output": "logit"}),
    *((name, {"layer": ["0", "3"]}) for name in ("gradcam", "layercam", "eigencam", "ablationcam")),
    ("jittercam", {"inner": "layercam", "scales": (1.0, 2.0)}),
    ("jittercam", {"inner": "eigencam", "shared_trunk": False, "batch_size": 2}),
    ("ablationcam", {"batch_size": 3, "relu": False}),
    ("scorecam", {"n_channels": 3, "weights": "channel-softmax"}),
    *(("integrated-gradients", {"n_steps": 4, "baseline": each}) for each in ("black", "blur", "noise", "white")),
    ("integrated-gradients", {"n_steps": 4, "rule": "trapezium", "channels": "sum", "batch_size": 1}),
    ("smoothgrad", {"n_samples": 6, "of": "guided", "average": "squared", "stop_at": 0.9}),
    ("smoothgrad", {"n_samples": 4, "average": "variance", "batch_size": 1}),
    ("fullgrad", {"rescale": "layer", "implicit": False}),
]


def given(options: dict[str, Any], on: Any) -> dict[str, Any]:
    return {key: value(on) if callable(value) else value for key, value in options.items()}


@pytest.mark.parametrize("kernels", [True, pytest.param(False, marks=SLOW)], ids=["kernels", "no kernels"])
@pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[f"{number} {name}" for number, (name, _) in enumerate(OPTIONS)]
)
def test_options(name, options, kernels) -> None:
    x = batch_for()
    expected = mg.explainer(name, tiny_net(), **given(options, lambda tensor: tensor))(x)
    with pretended_cuda(kernels=kernels):
        own = given(options, operator.methodcaller("cuda"))
        assert_same(mg.explainer(name, tiny_net().cuda(), **own)(x.cuda()), expected)


@pytest.mark.parametrize("temporal", ["clip", "frame"])
@pytest.mark.parametrize("name", ["gradcam", "guided-gradcam", "layercam"])
def test_maps_of_frames(name, temporal) -> None:
    expected = mg.explainer(name, tiny_net(3), temporal=temporal)(batch_for(3))
    with pretended_cuda():
        assert_same(mg.explainer(name, tiny_net(3).cuda(), temporal=temporal)(batch_for(3).cuda()), expected)


class Bent(nn.Module):
    """Functions whose bias FullGrad must look for, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.sigmoid(self.first(x)).flatten(2).mT
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        return self.last(nn.functional.gelu(tokens).mean(1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fullgrad", {}),
        ("vanilla", {}),
        ("gradcam", {"layer": "norm"}),
        ("swag-ig", {"scorer": "fullgrad"}),
        ("rise", {}),
    ],
)
def test_a_transformer(name, options) -> None:
    net = seeded(Bent).eval()
    expected = quick_explainer(name, net, **options)(batch_for())
    with pretended_cuda():
        found = quick_explainer(name, copy.deepcopy(net).cuda(), **options)(batch_for().cuda())
        assert_same(found.heatmap, expected.heatmap, tolerance=1e-4)


# What explanations can do.


@pytest.mark.parametrize("name", ["swag-ig", "gradcam", "rise"])
@pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
def test_explanations_are_drawn_and_kept(name, dims, tmp_path) -> None:
    expected = on_the_cpu(name, dims)
    with pretended_cuda():
        found = explained(name, batch_for(dims).cuda())
        assert_same(found.normalised(), expected.normalised())
        assert np.array_equal(found.overlay(1), expected.overlay(1))
        assert repr(found) == repr(expected)
        found.plot(1, max_frames=2).savefig(tmp_path / "plot.png")
        read = Explanation.load(found.save(tmp_path / "kept.npz"))
    assert_same(read, expected, device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["vanilla", "swag-ig", "gradcam"])
def test_the_input_may_be_in_a_graph_or_strided(name) -> None:
    expected = on_the_cpu(name, 2)
    with pretended_cuda():
        x = batch_for().cuda()
        for each in (x.clone().requires_grad_(), x.mT.contiguous().mT, x.to(memory_format=torch.channels_last)):
            assert_same(explained(name, each).heatmap, expected.heatmap)
        with torch.no_grad():
            assert_same(explained(name, x), expected)
        with torch.inference_mode():
            x = batch_for().cuda()
        assert_same(explained(name, x).heatmap, expected.heatmap)


def test_networks_and_inputs_on_different_devices() -> None:
    """Torch says what is wrong; the network is as before."""
    with pretended_cuda():
        net, x = tiny_net(), batch_for().cuda()
        before = state_of(net)
        for name in ("vanilla", "swag-ig", "gradcam", "rise"):
            with pytest.raises(RuntimeError, match="same device"):
                quick_explainer(name, net)(x)
        assert_unchanged(before, state_of(net))


def test_one_wait_more_for_every_sample_is_none(capsys) -> None:
    """How often the host waits does not grow with the batch, for methods of one pass."""
    with pretended_cuda() as traffic:
        for name in ("vanilla", "guided", "input-x-gradient", "gradcam", "layercam", "sobel", "swag-i", "swag-ig"):
            waits = []
            for batch in (2, 8):
                x, net = batch_for(batch=batch).cuda(), tiny_net().cuda()
                before = traffic.waits
                mg.explainer(name, net)(x)
                waits.append(traffic.waits - before)
            assert waits[0] == waits[1], name
