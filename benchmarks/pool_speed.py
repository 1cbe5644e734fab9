"""How long do pooling and painting take, beside torch, NumPy and SciPy in the same run?

Superpixels of real photographs; random values. Every contestant gives the same numbers, which is checked first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage

import midgrain as mg
from benchmarks.common import parser, photographs, race_calls, report, resized

# name, channels, side, wanted superpixels
CASES = [
    ("1 x 224 x 224", 1, 224, 300),
    ("64 x 224 x 224", 64, 224, 300),
    ("512 x 56 x 56", 512, 56, 100),
    ("2048 x 7 x 7", 2048, 7, 10),
]
SECONDS = 1.0  # per operation
OPERATIONS = ("sum", "mean", "max", "std", "paint", "sum, backward", "mean, backward", "max, backward")

Calls = dict[str, list[Callable[[], Any]]]


class Input:
    """One label map with values and scores in one layout, as arrays and as the tensors that torch would be given."""

    def __init__(self, labels: np.ndarray, channels: int, last: bool, rng: np.random.Generator):
        shape = (*labels.shape, channels) if last else (channels, *labels.shape)
        self.labels, self.n = labels, int(labels.max()) + 1
        self.axis = -1 if last else 1
        self.values = rng.standard_normal(shape, dtype=np.float32)
        self.scores = rng.standard_normal((self.n, channels) if last else (channels, self.n), dtype=np.float32)
        self.dim = 0 if last else 1  # of the pixels, with the spatial axes flattened
        self.index = torch.from_numpy(labels.ravel().astype(np.int64))
        self.flat = torch.from_numpy(self.values.reshape((-1, channels) if last else (channels, -1)))
        self.tensor, self.label_tensor = torch.from_numpy(self.values), torch.from_numpy(labels)
        self.wide_index = self.index[:, None].expand_as(self.flat) if last else self.index.expand_as(self.flat)
        self.sizes = torch.bincount(self.index, minlength=self.n).float()
        if last:
            self.sizes = self.sizes[:, None]

    def pool(self, reduce: str, threads: int) -> Any:
        """Midgrain's pooling."""
        return mg.pool(self.values, self.labels, reduce, n=self.n, channel_axis=self.axis, num_threads=threads)

    def paint(self, threads: int) -> Any:
        """Midgrain's painting."""
        return mg.paint(self.scores, self.labels, channel_axis=self.axis, num_threads=threads)

    def zeros(self) -> torch.Tensor:
        """Where torch adds up."""
        return torch.zeros(self.scores.shape)

    def index_add(self, flat: torch.Tensor) -> torch.Tensor:
        """Torch's sums."""
        return self.zeros().index_add(self.dim, self.index, flat)

    def scatter(self, reduce: str, flat: torch.Tensor) -> torch.Tensor:
        """Torch's other sums, means and extremes."""
        return self.zeros().scatter_reduce(self.dim, self.wide_index, flat, reduce, include_self=False)


def forward(item: Input, operation: str) -> dict[str, Callable[[], Any]]:
    """Every contestant's call for one input."""
    one_channel = item.flat.numel() == item.labels.size
    calls: dict[str, Callable[[], Any]] = {}
    if operation == "paint":
        calls["one"], calls["two"] = lambda: item.paint(1), lambda: item.paint(2)
        scores = torch.from_numpy(item.scores)
        calls["torch index_select"] = lambda: scores.index_select(item.dim, item.index)
        return calls
    calls["one"], calls["two"] = lambda: item.pool(operation, 1), lambda: item.pool(operation, 2)
    values, labels, regions = item.values.squeeze(), item.labels, range(item.n)
    if operation == "sum":
        calls["torch index_add_"] = lambda: item.index_add(item.flat)
        calls["torch scatter_reduce_"] = lambda: item.scatter("sum", item.flat)
        if one_channel:
            calls["numpy bincount"] = lambda: np.bincount(labels.ravel(), values.ravel(), item.n)
            calls["scipy sum_labels"] = lambda: ndimage.sum_labels(values, labels, regions)
    elif operation == "mean":
        calls["torch index_add_, division"] = lambda: item.index_add(item.flat) / item.sizes
        calls["torch scatter_reduce_"] = lambda: item.scatter("mean", item.flat)
        if one_channel:
            calls["scipy mean"] = lambda: ndimage.mean(values, labels, regions)
    elif operation == "max":
        calls["torch scatter_reduce_"] = lambda: item.scatter("amax", item.flat)
        if one_channel:
            calls["scipy maximum"] = lambda: ndimage.maximum(values, labels, regions)
    elif one_channel:
        calls["scipy standard_deviation"] = lambda: ndimage.standard_deviation(values, labels, regions)
    return calls


def backward(item: Input, reduce: str) -> dict[str, Callable[[], Any]]:
    """The backward pass alone: gradients of all values for given gradients of the results."""

    def gradient(leaf: torch.Tensor, result: torch.Tensor) -> Callable[[], Any]:
        seed = torch.from_numpy(item.scores).reshape(result.shape)
        return lambda: torch.autograd.grad(result, leaf, seed, retain_graph=True)[0]

    def ours(threads: int) -> Callable[[], Any]:
        leaf = item.tensor.clone().requires_grad_()
        options = {"n": item.n, "channel_axis": item.axis, "num_threads": threads}
        return gradient(leaf, mg.pool(leaf, item.label_tensor, reduce, **options))

    leaf = item.flat.clone().requires_grad_()
    calls = {"one": ours(1), "two": ours(2)}
    if reduce == "max":
        calls["torch scatter_reduce_"] = gradient(leaf, item.scatter("amax", leaf))
    else:
        total = item.index_add(leaf)
        calls["torch index_add_"] = gradient(leaf, total if reduce == "sum" else total / item.sizes)
    return calls


def rows(seconds: float, case: str, channels: int, side: int, wanted: int) -> list[dict[str, Any]]:
    """Times of one size: both layouts, every operation, one row per contestant."""
    rng = np.random.default_rng(0)
    maps = [mg.slic(resized(photo, side, side), wanted) for photo in list(photographs().values())[:5]]
    found = []
    for last in (False, True):
        items = [Input(labels, channels, last, rng) for labels in maps]
        for operation in OPERATIONS:
            calls: Calls = {}
            for item in items:
                reduce, _, direction = operation.partition(", ")
                for name, call in (backward(item, reduce) if direction else forward(item, operation)).items():
                    calls.setdefault(name, []).append(call)
            for number in range(len(items)):
                results = {name: np.asarray(of_all[number]()) for name, of_all in calls.items()}
                ours = results["one"]
                assert np.array_equal(ours, results["two"]), f"{operation} depends on threads"
                for name, result in results.items():
                    same = np.allclose(ours.ravel(), result.ravel(), rtol=1e-4, atol=1e-4)
                    assert same, f"{operation}: {name} differs"
            # So that the first contestant is not alone in waiting for memory.
            touch = [lambda item=item: (item.values.max(), item.labels.max()) for item in items]
            times = race_calls({"touch": touch, **calls}, seconds)
            peers = [name for name in calls if name not in ("one", "two")] or [None]
            for peer in peers:
                theirs = times[peer]["fastest"] if peer else None
                found.append(
                    {
                        "values": case,
                        "channels": "last" if last else "first",
                        "operation": operation,
                        "1 thread [ms]": times["one"]["fastest"],
                        "2 threads [ms]": times["two"]["fastest"],
                        "peer": peer or "-",
                        "peer [ms]": theirs or "-",
                        "ratio, 1 thread": theirs / times["one"]["fastest"] if theirs else "-",
                    }
                )
    return found


def main() -> None:
    """Time all sizes, or the smallest."""
    arguments = parser("pool_speed", __doc__).parse_args()
    torch.set_num_threads(1)
    cases, seconds = (CASES[-1:], 0.0) if arguments.quick else (CASES, SECONDS)
    table = [row for case in cases for row in rows(seconds, *case)]
    note = (
        "Medians over the inputs of each one's fastest run; float32; peers have one thread, midgrain takes a second "
        "where there is work for it."
    )
    report(arguments, {"Pooling and painting": table}, [note])


if __name__ == "__main__":
    main()
