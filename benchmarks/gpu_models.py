"""What SWAG costs on a GPU beyond the network's own forward and backward pass, eagerly and as a CUDA graph."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import midgrain as mg
from benchmarks.gpu_timing import Call, Clock, captured_all
from gpu_for_tests import clips, pictures

BATCHES = (1, 16, 64)
PRECISIONS = ("fp32", "bf16")
#: Different inputs that take turns.
ROTATED = 3
#: Begins a note on what should not have gone wrong; the benchmark's exit code is 1 then.
FAILED = "FAILED:"


@dataclass(frozen=True)
class Network:
    """A network of torchvision with random weights, whose speed is that of trained ones."""

    name: str
    build: Callable[[], Any]
    shape: tuple[int, ...]  # of one input: 3, (T,) H, W
    aims: dict[tuple[int, str], float]  # (batch, precision) -> overhead aimed at on an H200


def networks(quick: bool) -> list[Network]:
    """The networks; quickly a small one of each kind."""
    if quick:
        from models_for_tests import tiny_net

        return [
            Network("two convolutions, 24 x 32", lambda: tiny_net(2), (3, 24, 32), {(1, "fp32"): 0.03}),
            Network("two convolutions, 4 x 12 x 16", lambda: tiny_net(3), (3, 4, 12, 16), {}),
        ]
    from torchvision import models

    both = {precision: 0.03 for precision in PRECISIONS}
    return [
        Network("ResNet-50", models.resnet50, (3, 224, 224), {(16, p): aim for p, aim in both.items()}),
        Network("VGG16", models.vgg16, (3, 224, 224), {}),
        Network("R(2+1)D-18", models.video.r2plus1d_18, (3, 16, 112, 112), {(1, p): aim for p, aim in both.items()}),
    ]


def inputs(network: Network, batch: int, count: int, device: torch.device) -> list[torch.Tensor]:
    """Batches as the network takes them, float32 [batch, 3, (T,) H, W]."""
    n = batch * count
    shape = network.shape[1:]
    every = clips(n, *shape) if len(shape) == 3 else pictures(n, *shape)
    normalised = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(every, -1, 1))).float() / 255 - 0.45) / 0.225
    return list(normalised.to(device).split(batch))


@contextlib.contextmanager
def precision_of(name: str, device: torch.device) -> Iterator[None]:
    """Autocast to bfloat16, or nothing."""
    with torch.autocast(device.type, torch.bfloat16) if name == "bf16" else contextlib.nullcontext():
        yield


def plain_calls(model: Any, batches: list[torch.Tensor], target: torch.Tensor, precision: str) -> list[Call]:
    """Forward, and backward to the input from the target's scores: what every gradient method needs at least."""

    def call(x: torch.Tensor) -> torch.Tensor:
        leaf = x.detach().requires_grad_(True)
        with precision_of(precision, x.device):
            score = model(leaf).gather(1, target[:, None]).sum()
        return torch.autograd.grad(score, leaf)[0]

    return [lambda x=x: call(x) for x in batches]


def overhead_row(
    network: Network, model: Any, batch: int, precision: str, device: torch.device, clock: Clock
) -> dict[str, Any]:
    """Times of one network, batch size and precision. The targets are given, so that nothing is read in between."""
    batches = inputs(network, batch, ROTATED, device)
    target = torch.arange(batch, device=device) % int(model(batches[0][:1]).shape[1])
    explainer = mg.SWAG(model)
    with precision_of(precision, device):
        compiled = explainer.compile(batches[0], target=target)
        first, same = explainer(batches[0], target=target), compiled(batches[0], target=target)
    assert torch.equal(first.target, target), "another class was explained"
    assert torch.isfinite(first.heatmap).all()
    # Convolutions may sum in another order from run to run, so superpixels at the edge of a tie may differ.
    difference = float((same.heatmap - first.heatmap).abs().mean() / first.heatmap.abs().mean())
    assert difference < (0.1 if compiled.captured else 1e-6), f"compiled and eager differ by {difference:.1%}"

    def explain(call: Any) -> list[Call]:
        def one(x: torch.Tensor) -> Any:
            with precision_of(precision, device):
                return call(x, target=target)

        return [lambda x=x: one(x) for x in batches]

    plain = plain_calls(model, batches, target, precision)
    contestants = {
        "plain": plain,
        "plain, graph": captured_all(plain, device),
        "swag": explain(explainer),
        "swag, compiled": explain(compiled),
    }
    times = {name: found.median / 1e3 for name, found in clock.race(contestants).items()}
    best_plain = min(times["plain"], times["plain, graph"])
    overhead = times["swag, compiled"] / times["plain, graph"] - 1
    aim = network.aims.get((batch, precision))
    reached = "not reached" if aim is None or overhead >= aim else "reached"
    if device.type != "cuda":
        reached = "not a measurement"
    return {
        "network": network.name,
        "batch": batch,
        "precision": precision,
        "forward + backward [ms]": times["plain"],
        "the same as a graph [ms]": times["plain, graph"],
        "swag-ig [ms]": times["swag"],
        "swag-ig, compiled [ms]": times["swag, compiled"],
        "captured": compiled.reason or "yes",
        "overhead, eager": f"{times['swag'] / times['plain'] - 1:+.1%}",
        "overhead, compiled beside graph": f"{overhead:+.1%}",
        "fastest swag / fastest plain": min(times["swag"], times["swag, compiled"]) / best_plain,
        "aim": "" if aim is None else f"{aim:.0%}: {reached}",
    }


def rows(device: torch.device, clock: Clock, quick: bool, end: float) -> tuple[list[dict[str, Any]], list[str]]:
    """All networks, batch sizes and precisions that there is time for until `end` (time.monotonic)."""
    made: list[dict[str, Any]] = []
    notes: list[str] = []
    for network in networks(quick):
        torch.manual_seed(0)
        model = network.build().eval().to(device)
        for batch in BATCHES[: 1 if quick else None]:
            for precision in PRECISIONS:
                case = f"{network.name}, batch {batch}, {precision}"
                if time.monotonic() > end:
                    notes.append(f"{case}: no time left.")
                    continue
                try:
                    made.append(overhead_row(network, model, batch, precision, device, clock))
                except torch.OutOfMemoryError as error:
                    notes.append(f"{case}: {str(error).splitlines()[0]}")
                except Exception as error:  # The other cases are still worth having.
                    notes.append(f"{FAILED} {case}: {type(error).__name__}: {error}")
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
        del model
    return made, notes
