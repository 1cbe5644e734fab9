"""How long does a class activation map take, here and in pytorch-grad-cam, captum and torchcam?

ResNet-50 with random weights, whose speed is that of trained ones, on real photographs. The unit is one forward pass of
the network on the same input. Before anything is timed, maps that are defined alike are checked to agree.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, pictures, report
from benchmarks.swag_overhead import normalised
from midgrain.explanation import Explanation
from midgrain.timing import race, summary

#: (input [B, 3, H, W], classes) -> a map.
Call = Callable[[Tensor, list[int]], Tensor]

LAYER = "layer4"
# Of the largest value of a map.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    label: str
    name: str
    options: Mapping[str, Any]


METHODS = [
    *(Method(name, name, {}) for name in ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam")),
    Method("guided", "guided", {}),
    Method("guided-gradcam", "guided-gradcam", {}),
    Method("jittercam, shared trunk", "jittercam", {"shared_trunk": True}),
    Method("jittercam, window step 2", "jittercam", {"window_step": 2}),
    Method("jittercam, window step 3", "jittercam", {"window_step": 3}),
    Method("jittercam, exact", "jittercam", {"shared_trunk": False}),
    Method("ablationcam", "ablationcam", {}),
    Method("scorecam", "scorecam", {"weights": "channel-softmax"}),
]
# Timed once: seconds a call.
LONG = {("jittercam, exact", "midgrain")}
# Timed once, for one photograph and with --slow only: minutes a call.
SLOW = {
    ("ablationcam", "grad-cam"),
    ("scorecam", "grad-cam"),
    ("scorecam", "torchcam"),
    ("scorecam", "midgrain"),
}


@dataclass(frozen=True)
class Peer:
    """Another library: its methods, and what of an explanation of ours is to equal them."""

    name: str
    calls: Mapping[str, Call]
    ours: Mapping[str, Callable[[Explanation], Tensor]]


def grad_cam(model: nn.Module) -> Peer:
    """Its maps are resized and rescaled to 0 .. 1."""
    import pytorch_grad_cam as library
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def call(kind: Any) -> Call:
        def run(x: Tensor, classes: list[int]) -> Tensor:
            # Made anew, as its hooks would run with everybody's passes; its bars say nothing here.
            with kind(model, [model.get_submodule(LAYER)]) as cam, contextlib.redirect_stderr(io.StringIO()):
                return torch.from_numpy(cam(x, [ClassifierOutputTarget(number) for number in classes]))

        return run

    kinds = {
        "gradcam": library.GradCAM,
        "gradcam++": library.GradCAMPlusPlus,
        "xgradcam": library.XGradCAM,
        "layercam": library.LayerCAM,
        "hirescam": library.HiResCAM,
        "eigencam": library.EigenCAM,
        "ablationcam": library.AblationCAM,
        "scorecam": library.ScoreCAM,
    }
    # Not those with another definition: numbers added to denominators, a sign by chance, masks with aligned corners.
    alike = ("gradcam", "xgradcam", "layercam", "hirescam", "ablationcam")
    return Peer(
        "grad-cam", {name: call(kind) for name, kind in kinds.items()}, dict.fromkeys(alike, Explanation.normalised)
    )


def captum(model: nn.Module) -> Peer:
    """Its maps are of the layer's size."""
    from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam

    layer = model.get_submodule(LAYER)

    def guided(x: Tensor, classes: list[int]) -> Tensor:
        return GuidedBackprop(model).attribute(x, classes).abs().amax(1)

    def guided_gradcam(x: Tensor, classes: list[int]) -> Tensor:
        peer = GuidedGradCam(model, layer)
        return peer.attribute(x, classes, interpolate_mode="bilinear").detach().abs().amax(1)

    def gradcam(x: Tensor, classes: list[int]) -> Tensor:
        return LayerGradCam(model, layer).attribute(x, classes, relu_attributions=True).detach()[:, 0]

    return Peer(
        "captum",
        {"gradcam": gradcam, "guided": guided, "guided-gradcam": guided_gradcam},
        {"gradcam": _cam, "guided": _heatmap, "guided-gradcam": _heatmap},
    )


def torchcam(model: nn.Module) -> Peer:
    """Its maps are of the layer's size."""
    from torchcam import methods as library

    def call(kind: Any) -> Call:
        def run(x: Tensor, classes: list[int]) -> Tensor:
            with kind(model, LAYER) as cam:
                (raw,) = cam(classes, model(x), normalized=False)
            return raw.detach()

        return run

    kinds = {
        "gradcam": library.GradCAM,
        "gradcam++": library.GradCAMpp,
        "xgradcam": library.XGradCAM,
        "layercam": library.LayerCAM,
        "scorecam": library.ScoreCAM,
    }
    # Its Grad-CAM++ is another: what it divides is a copy.
    alike = ("gradcam", "xgradcam", "layercam", "scorecam")
    return Peer("torchcam", {name: call(kind) for name, kind in kinds.items()}, dict.fromkeys(alike, _cam))


def _cam(explanation: Explanation) -> Tensor:
    assert explanation.cam is not None
    return explanation.cam


def _heatmap(explanation: Explanation) -> Tensor:
    return explanation.heatmap


def installed_peers(model: nn.Module) -> tuple[list[Peer], list[str]]:
    """The peers that are installed, and a sentence for each that is not."""
    peers, missing = [], []
    for find in (grad_cam, captum, torchcam):
        try:
            peers.append(find(model))
        except ImportError as error:
            missing.append(f"{find.__name__} is missing ({error}): pip install 'midgrain[peers]'")
    return peers, missing


def network(quick: bool) -> nn.Module:
    """Random weights; batch norms with the statistics of photographs, so that no number is tiny or huge."""
    torch.manual_seed(0)
    build = torchvision.models.resnet18 if quick else torchvision.models.resnet50
    model: nn.Module = build(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.cat([normalised(picture) for picture in pictures(8, 1, 96, 96)]))
    return model.eval()


def check_agreement(method: Method, peers: Sequence[Peer], results: Mapping[str, Any]) -> None:
    """Maps defined alike agree to a thousandth of the largest value."""
    for peer in peers:
        if method.name in peer.ours and peer.name in results:
            expected = peer.ours[method.name](results["midgrain"])
            deviation = float((results[peer.name] - expected).abs().max() / expected.abs().max())
            assert deviation <= TOLERANCE, f"{method.label} and {peer.name} differ by {deviation:.2g}"


def row(
    method: Method,
    model: nn.Module,
    peers: Sequence[Peer],
    inputs: Sequence[tuple[Tensor, list[int]]],
    seconds: float,
    least: int,
    slow: bool,
) -> dict[str, Any] | None:
    """The times of one method, in one race with the network's forward pass; None where midgrain's is left out."""

    def forward(x: Tensor, _: list[int]) -> None:
        with torch.no_grad():
            model(x)

    calls: dict[str, Callable[[Tensor, list[int]], Any]] = {
        "forward": forward,
        "midgrain": mg.explainer(method.name, model, **method.options),
        **{peer.name: peer.calls[method.name] for peer in peers if method.name in peer.calls},
    }
    if not slow:
        calls = {name: call for name, call in calls.items() if (method.label, name) not in SLOW}
    if "midgrain" not in calls:
        return None
    figures: dict[str, float] = {}
    results: dict[str, Any] = {}
    for name, call in calls.items():
        started = time.perf_counter()
        results[name] = call(*inputs[0])
        figures[name] = (time.perf_counter() - started) * 1e3
    check_agreement(method, peers, results)
    raced = {
        name: (lambda item, call=call: call(*item))
        for name, call in calls.items()
        if (method.label, name) not in LONG | SLOW
    }
    times = race(raced, inputs, seconds, least=least)
    figures |= {name: summary(each, len(inputs))["fastest"] for name, each in times.items()}
    model.zero_grad()  # grad-cam leaves gradients in all parameters.
    result: dict[str, Any] = {
        "method": method.label,
        "forward [ms]": figures["forward"],
        "midgrain [ms]": figures["midgrain"],
        "in forwards": figures["midgrain"] / figures["forward"],
    }
    for peer in peers:
        theirs = figures.get(peer.name)
        result[f"{peer.name} [ms]"] = "" if theirs is None else theirs
        result[f"{peer.name} / midgrain"] = "" if theirs is None else theirs / figures["midgrain"]
    return result


def table(
    model: nn.Module, peers: Sequence[Peer], batch: int, side: int, seconds: float, least: int, slow: bool
) -> list[dict[str, Any]]:
    """All methods on batches of one size."""
    singles = [normalised(picture) for picture in pictures(max(3, batch), 1, side, side)]
    batches = singles[:3] if batch == 1 else [torch.cat(singles[:batch])]
    with torch.no_grad():
        inputs = [(x, model(x).argmax(1).tolist()) for x in batches]
    known = [method for method in METHODS if method.name in mg.methods()]
    rows = [row(method, model, peers, inputs, seconds, least, slow) for method in known]
    return [each for each in rows if each is not None]


def main() -> None:
    """Print the tables."""
    options = parser("cams_speed", __doc__)
    options.add_argument("--slow", action="store_true", help="also what takes minutes a call")
    options.add_argument("--seconds", type=float, default=10.0, help="for each row")
    arguments = options.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    quick = arguments.quick
    model = network(quick)
    peers, missing = installed_peers(model)
    what, side, batch = ("ResNet-18, 64 x 64", 64, 2) if quick else ("ResNet-50, 224 x 224", 224, 8)
    seconds, least = (0.0, 1) if quick else (arguments.seconds, 3)
    tables = {
        f"{what}, one photograph": table(model, peers, 1, side, seconds, least, slow=arguments.slow or quick),
        f"{what}, a batch of {batch}": table(model, peers, batch, side, seconds, least, slow=False),
    }
    notes = [
        f"Medians over the inputs of each one's fastest run; {torch.get_num_threads()} threads. Every row is one race, "
        "its contestants taking turns; what takes seconds or minutes runs once, and minutes only with --slow. midgrain "
        "and grad-cam resize their maps to the input; captum and torchcam, but for guided methods, do not.",
        *missing,
    ]
    report(arguments, tables, notes)


if __name__ == "__main__":
    main()
