"""Does anything grow while one method explains a thousand times?

A tiny network, so that a thousand explanations take seconds; methods of many passes with options that make these few,
since what a call leaves behind does not depend on how many passes it made. After a warm-up: the process's memory with
what the allocator holds back given up, Python's objects, tensors, threads, open files, and hooks on the network.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, report

#: Name -> options that make few passes.
FEW_PASSES: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"n_steps": 3},
    "smoothgrad": {"n_samples": 3},
    "xrai": {"scorer": "vanilla", "superpixels": "image"},
    "rise": {"n_samples": 8},
    "occlusion": {"stride": 8, "window": 8},
    **{name: {"n_samples": 8} for name in ("lime", "lime-i", "lime-ig", "lime-g", "lime-prior", "kernel-shap")},
    "extremal": {"n_iterations": 2, "areas": 0.2},
}
#: More than these is growth: some pages that the allocator keeps are not, an object or a kilobyte a call are.
MOST_BYTES_PER_CALL, MOST_OBJECTS = 1024, 20


def network() -> nn.Module:
    """Two convolutions, ending in a linear layer over channel means, as every method can explain."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def observed(net: nn.Module) -> dict[str, int]:
    """What could grow."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    objects = gc.get_objects()
    return {
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "objects": len(objects),
        "tensors": sum(issubclass(type(each), Tensor) for each in objects),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "hooks": sum(
            len(value)
            for module in net.modules()
            for key, value in vars(module).items()
            if "hook" in key and hasattr(value, "__len__")
        ),
    }


def explaining(name: str, net: nn.Module) -> Callable[[], object]:
    """A call that makes an explainer and explains, as a user's script does it."""
    x = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    return lambda: mg.explainer(name, net, **FEW_PASSES.get(name, {}))(x, 1)


def soak(name: str, n: int, warm: int) -> dict[str, Any]:
    """A row: how much there was after the warm-up, and what `n` explanations added."""
    net = network()
    explain = explaining(name, net)
    for _ in range(warm):
        explain()
    before, started = observed(net), time.perf_counter()
    for _ in range(n):
        explain()
    seconds, after = time.perf_counter() - started, observed(net)
    grown = {key: after[key] - before[key] for key in before}
    flat = grown["bytes"] <= max(MOST_BYTES_PER_CALL * n, 1_000_000) and all(
        grown[key] <= (MOST_OBJECTS if key == "objects" else 0) for key in grown if key != "bytes"
    )
    return {
        "method": name,
        "explanations": n,
        "MB after warm-up": round(before["bytes"] / 1e6, 1),
        "MB grown": round(grown.pop("bytes") / 1e6, 2),
        **{f"{key} grown": value for key, value in grown.items()},
        "ms each": round(1000 * seconds / n, 1),
        "flat": "yes" if flat else "NO",
    }


def main() -> None:
    """Exit status 1 where something grows."""
    options = parser("soak", __doc__)
    options.add_argument("--n", type=int, default=1000, help="explanations of every method")
    options.add_argument("--methods", nargs="+", default=list(mg.methods()), metavar="NAME")
    arguments = options.parse_args()
    n = 20 if arguments.quick else arguments.n
    torch.set_num_threads(1)
    rows = []
    for name in arguments.methods:
        rows.append(soak(name, n, max(10, n // 10)))
        print(rows[-1], file=sys.stderr, flush=True)
    report(arguments, {"What a thousand explanations leave behind": rows})
    sys.exit(int(any(row["flat"] == "NO" for row in rows)))


if __name__ == "__main__":
    main()
