"""What does an explanation cost: seconds, passes through the network, memory? Every method, and its peers.

One photograph of 224 x 224 and a network with random weights, whose cost is that of trained ones. Every row is a
fresh process. Methods of many passes get a smaller budget than their default, the same as their peers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, pictures, report
from benchmarks.cost_peers import MEAN, PEERS, SLOW, STD, installed
from benchmarks.swag_overhead import normalised
from midgrain.registry import method_options

ROOT = Path(__file__).resolve().parent.parent
OURS = "midgrain"
NETWORKS = ("resnet50", "mobilenet_v2", "resnet18")
#: Method -> budget, the same for midgrain and its peers; what is not an option of the method is for the peers alone.
BUDGETS: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"n_steps": 20},
    "smoothgrad": {"n_samples": 20},
    "scorecam": {"n_channels": 64},
    "rise": {"n_samples": 100},
    "occlusion": {"window": 32, "stride": 32},
    "extremal": {"n_iterations": 20, "areas": 0.1},
    "lime": {"n_samples": 100},
    "lime-i": {"n_samples": 100, "n_segments": 50},
    "lime-ig": {"n_samples": 100, "n_segments": 50},
    "lime-g": {"n_samples": 100, "n_segments": 50},
    "lime-prior": {"n_samples": 25},
    "kernel-shap": {"n_samples": 100, "n_segments": 50},
    "sise": {"mu": 0.5},
    "xrai": {"n_steps": 10},
}
QUICK_METHODS = ("gradcam", "occlusion", "rise")
QUICK = {"rise": {"n_samples": 4}}
# Beyond this one run is enough; before, the fastest of three counts.
_ONE_RUN_SECONDS = 5.0
_LIMIT_SECONDS = 3600


@dataclass
class Passes:
    """Counts what goes through a network, in pictures."""

    forward: int = 0
    backward: int = 0
    handles: list[Any] = field(default_factory=list)

    def watch(self, model: nn.Module) -> None:
        """From now on. Forward passes that end early count too; passes through parts of the network do not."""
        self.handles = [model.register_forward_pre_hook(self._enter), model.register_forward_hook(self._leave)]

    def stop(self) -> None:
        """No longer."""
        for handle in self.handles:
            handle.remove()

    def _enter(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.forward += len(inputs[0])

    def _leave(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(self._back)

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def network(name: str) -> nn.Module:
    """Random weights; batch norms with the statistics of photographs, so that no number is tiny or huge."""
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.cat([normalised(picture) for picture in pictures(8, 1, 96, 96)]))
    return model.eval()


def budget_of(method: str, full: bool, quick: bool) -> dict[str, Any]:
    """What this row is allowed; empty means the method's defaults."""
    if full and method not in PEERS:
        return {}
    return BUDGETS.get(method, {}) | (QUICK.get(method, {}) if quick else {})


def our_explainer(method: str, model: nn.Module, budget: Mapping[str, Any]) -> Any:
    """With those of the budget's entries that are its options."""
    known = method_options(method)
    options = {name: value for name, value in budget.items() if name in known}
    if method == "xrai":  # Its passes are those of its scorer.
        options["scorer"] = mg.scorer("integrated-gradients", baseline=["black", "white"], n_steps=budget["n_steps"])
    return mg.explainer(method, model, mean=[MEAN] * 3, std=[STD] * 3, **options)


def measure(method: str, library: str, name: str, side: int, budget: Mapping[str, Any]) -> dict[str, Any]:
    """One row; to be called in a process that has done nothing else."""
    warnings.filterwarnings("ignore")
    model = network(name)
    x = normalised(pictures(1, 1, side, side)[0])
    with torch.no_grad():
        target = int(model(x).argmax(1))
        forward = min(_timed(lambda: model(x))[0] for _ in range(5))
    if library == OURS:
        explain = our_explainer(method, model, budget)

        def call() -> Any:
            return explain(x, target)

    else:

        def call() -> Any:
            return PEERS[method][library](model, x, target, budget)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passes, seconds, made = _counted(model, call)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if library == OURS:
        assert made.heatmap.shape == (1, side, side)
        assert made.heatmap.isfinite().all()
    if seconds < _ONE_RUN_SECONDS:
        # Again, as the first call may have looked for layers.
        passes, again, _ = _counted(model, call)
        seconds = min(seconds, again, _timed(call)[0])
    return {
        "method": method,
        "library": library,
        "budget": ", ".join(f"{key} {value}" for key, value in budget.items()),
        "seconds": seconds,
        "in forward passes": seconds / forward,
        "forward": passes.forward,
        "backward": passes.backward,
        # Kibibytes on Linux, bytes elsewhere.
        "memory [MiB]": memory / (1024 if sys.platform.startswith("linux") else 1024**2),
    }


def _counted(model: nn.Module, call: Any) -> tuple[Passes, float, Any]:
    passes = Passes()
    passes.watch(model)
    try:
        return passes, *_timed(call)
    finally:
        passes.stop()


def _timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def measured_apart(arguments: argparse.Namespace, method: str, library: str, budget: Mapping[str, Any]) -> Any:
    """One row from a process of its own, or the last line of its complaint."""
    task = [method, library, arguments.network, arguments.side, budget]
    command = [sys.executable, "-m", "benchmarks.explainers_cost", "--row", json.dumps(task)]
    command += ["--threads", str(arguments.threads)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=arguments.limit or None
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {arguments.limit} seconds"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows_wanted(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """(method, library) for every method that there is and every peer that is installed."""
    wanted = arguments.methods or (QUICK_METHODS if arguments.quick else tuple(mg.methods()))
    unknown = set(wanted) - set(mg.methods())
    if unknown:
        raise SystemExit(f"--methods: expected names of {', '.join(mg.methods())}, got {', '.join(sorted(unknown))}")
    rows = []
    for method in wanted:
        peers = [name for name in PEERS.get(method, {}) if installed(name)]
        rows += [(method, OURS)]
        rows += [(method, name) for name in peers if arguments.slow or (method, name) not in SLOW]
    return rows


def main() -> None:
    """Print the table."""
    options = parser("explainers_cost", __doc__)
    options.add_argument("--network", choices=NETWORKS, default="resnet50", help="of torchvision (default resnet50)")
    options.add_argument("--side", type=int, default=224, help="of the photograph in pixels (default 224)")
    options.add_argument("--methods", nargs="+", metavar="NAME", help="by default all")
    options.add_argument("--full", action="store_true", help="methods without peers with their own defaults: hours")
    options.add_argument("--slow", action="store_true", help="also peers that take minutes a call")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options.add_argument("--limit", type=float, default=_LIMIT_SECONDS, help="seconds for one row")
    options.add_argument("--row", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.row:
        print(json.dumps(measure(*json.loads(arguments.row))))
        return
    if arguments.quick:
        arguments.network, arguments.side = "resnet18", 64
    rows, notes, failed = [], [], False
    for method, library in rows_wanted(arguments):
        found = measured_apart(arguments, method, library, budget_of(method, arguments.full, arguments.quick))
        if isinstance(found, str):
            notes.append(f"{method} of {library} failed: {found}")
            failed = failed or library == OURS
        else:
            rows.append(found)
            print(f"{method}, {library}: {found['seconds']:.3g} s", file=sys.stderr)
    ours = {row["method"]: row["in forward passes"] for row in rows if row["library"] == OURS}
    for row in rows:
        row["times midgrain's"] = row["in forward passes"] / ours[row["method"]] if row["method"] in ours else ""
    title = f"{arguments.network}, one photograph of {arguments.side} x {arguments.side}"
    notes.append(
        f"{arguments.threads} threads. Seconds of the fastest of three runs, of one where it takes more than "
        f"{_ONE_RUN_SECONDS:g}; in forward passes of the same process. Passes in pictures, of the whole network, "
        "without those that look for a layer at first: forward ones that end at a layer count, those from a layer on "
        "do not. Memory is what the process at most held beyond what it held after a forward pass; libraries that are "
        "imported late count."
    )
    if not rows:
        raise SystemExit("\n".join(notes))
    report(arguments, {title: rows}, notes)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
