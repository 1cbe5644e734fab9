"""Superpixels on a GPU: pictures, batches, clips; by graph replay and without; beside other SLICs; each kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import midgrain as mg
from benchmarks import gpu_kernel_models as models
from benchmarks.common import ITERATIONS
from benchmarks.gpu_floors import copy_bandwidth, floor_rows, integer_rate, kernel_times
from benchmarks.gpu_peers import PUBLISHED, Arrays, assert_right, cupy_peer, numba_peer
from benchmarks.gpu_timing import Call, Clock, Spread, captured, captured_all
from gpu_for_tests import channels_first, clips, pictures, slopes

#: Different inputs that take turns.
ROTATED = 8


@dataclass(frozen=True)
class Case:
    """One size of inputs."""

    name: str
    items: int
    frames: int
    height: int
    width: int
    wanted: int
    #: Microseconds per call that are aimed at on an H200, by graph replay; None: no aim.
    aim: float | None = None


CASES = (
    Case("1 x 224 x 224", 1, 1, 224, 224, 300, aim=150.0),
    Case("64 x 224 x 224", 64, 1, 224, 224, 300, aim=64 / 50_000 * 1e6),
    Case("1 clip of 16 x 112 x 112", 1, 16, 112, 112, 120, aim=300.0),
    Case("16 clips of 16 x 112 x 112", 16, 16, 112, 112, 120),
    Case("1 x 480 x 640", 1, 1, 480, 640, 1200),
    Case("1 x 1080 x 1920", 1, 1, 1080, 1920, 2000),
)
QUICK = (Case("2 x 40 x 48", 2, 1, 40, 48, 30, aim=150.0), Case("1 clip of 4 x 24 x 28", 1, 4, 24, 28, 12))


def inputs(case: Case, count: int) -> list[np.ndarray]:
    """Different batches of pictures or clips, uint8, channels last."""
    n = case.items * count
    size = case.height, case.width
    every = clips(n, case.frames, *size) if case.frames > 1 else pictures(n, *size)
    return list(every.reshape(count, case.items, *every.shape[1:]))


def assert_like_the_cpu(
    labels: torch.Tensor, counts: torch.Tensor, batch: np.ndarray, case: Case, **options: Any
) -> None:
    """The CPU's labels of the same pictures."""
    expected = mg.ops.slic_pictures(batch, case.wanted, channel_axis=-1, max_num_iter=ITERATIONS, **options)
    assert np.array_equal(labels.cpu().numpy(), expected[0]), f"{case.name}: other labels than the CPU's"
    assert np.array_equal(counts.cpu().numpy(), expected[1]), f"{case.name}: other counts than the CPU's"


def slic_calls(case: Case, batches: Sequence[np.ndarray], device: torch.device) -> list[Call]:
    """SLIC of each batch, connectivity included, without waiting for checks; the first result is compared."""
    calls: list[Call] = []
    for batch in batches:
        tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(device)

        def call(x: torch.Tensor = tensor) -> Any:
            with mg.ops.deferred_checks():
                return mg.ops.slic_pictures(x, case.wanted, channel_axis=-1, max_num_iter=ITERATIONS)

        calls.append(call)
    assert_like_the_cpu(*calls[0](), batches[0], case)
    return calls


def slic_row(case: Case, device: torch.device, clock: Clock, count: int) -> dict[str, Any]:
    """One size: alone and in a row, by graph replay and eagerly."""
    calls = slic_calls(case, inputs(case, count), device)
    replays = captured_all(calls, device)
    eager, replay = clock.alone(calls), clock.alone(replays)
    row = clock.in_a_row(replays)
    return {
        "pictures": case.name,
        "superpixels": case.wanted,
        "replay [us]": replay.median,
        "10 % .. 90 %": f"{replay.p10:.4g} .. {replay.p90:.4g}",
        "replay, in a row [us]": row.median,
        "items per second": case.items / row.median * 1e6,
        "eager [us]": eager.median,
        "runs": replay.runs,
        "aim [us]": "" if case.aim is None else case.aim,
    }


def aims(rows: Sequence[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """Was each aim reached? Single inputs by the latency of a replay, batches by throughput."""
    found = []
    for row in rows:
        if row["aim [us]"] != "":
            column = "replay [us]" if row["pictures"].startswith("1 ") else "replay, in a row [us]"
            reached = "yes" if row[column] <= row["aim [us]"] else "no"
            if device.type != "cuda":
                reached = "not a measurement"
            found.append(
                {"aim": row["pictures"], "at most [us]": row["aim [us]"], "us": row[column], "reached": reached}
            )
    return found


def stage_rows(device: torch.device, clock: Clock, quick: bool) -> list[dict[str, Any]]:
    """Each operation alone, eagerly and by replay."""
    return [
        {
            "operation": name,
            "replay [us]": clock.alone([captured(call, device)]).median,
            "eager [us]": clock.alone([call]).median,
        }
        for name, (call, _) in operations(device, quick).items()
    ]


def operations(device: torch.device, quick: bool) -> dict[str, tuple[Call, list[models.Model]]]:
    """By name: a call, and the needs of its kernels."""
    items, side = (2, 40) if quick else (16, 224)
    images = pictures(items, side, side)
    x = torch.from_numpy(images).to(device)
    first = torch.from_numpy(channels_first(images)).to(device)
    maps = torch.from_numpy(slopes(images)).to(device)
    wanted = side * side // 170
    case = models.SlicCase(items, 1, side, side, wanted, gradient=True)
    raw, counts = mg.ops.slic_pictures(x, wanted, gradient=maps, channel_axis=-1, enforce_connectivity=False)
    n, least = int(counts.max()), side * side // (2 * wanted)
    labels, _ = mg.ops.enforce_connectivity(raw, least)
    n = int(labels.max()) + 1
    planes = torch.randn(items, 8, side, side, device=device)
    scores = mg.pool(planes, labels, n=n)
    pixels = side * side
    floats = first.float() / 255
    patches = mg.ops.extract_patches(floats, 7 if not quick else 4, 4)
    cell_maps = torch.randn(items, 16, 7, 7, device=device)

    def deferred(call: Callable[[], Any]) -> Call:
        def checked_later() -> Any:
            with mg.ops.deferred_checks():
                return call()

        return checked_later

    kernels = {
        "rgb_to_lab": (lambda: mg.ops.rgb_to_lab(x, channel_axis=-1), models.lab_models(items * pixels)),
        "slic_pictures without connectivity": (
            lambda: mg.ops.slic_pictures(x, wanted, gradient=maps, channel_axis=-1, enforce_connectivity=False),
            models.slic_models(case),
        ),
        "enforce_connectivity": (
            lambda: mg.ops.enforce_connectivity(raw, least),
            models.connectivity_models(items * pixels),
        ),
        "pool: mean, 8 planes": (
            lambda: mg.pool(planes, labels, n=n),
            models.pool_models(items, 8 * items, pixels, n),
        ),
        "paint, 8 planes": (lambda: mg.paint(scores, labels), models.paint_models(items, 8 * items, pixels, n)),
        "extract_patches, 16": (
            lambda: mg.ops.extract_patches(floats, 7 if not quick else 4, 4),
            models.patches_models(floats.numel(), patches.numel()),
        ),
        "aggregate_patches, 16": (
            lambda: mg.ops.aggregate_patches(cell_maps, 4, size=(side, side)),
            models.aggregate_models(cell_maps.numel(), items * pixels),
        ),
    }
    return {name: (deferred(call), needs) for name, (call, needs) in kernels.items()}


def kernel_tables(device: torch.device, clock: Clock, quick: bool) -> tuple[dict[str, Any], list[str]]:
    """Peaks and kernels as tables, and what could not be measured."""
    notes = []
    bandwidth = copy_bandwidth(clock, 8 if quick else 1024)
    rate: float | None = None
    if device.type == "cuda":
        try:
            rate = integer_rate(clock)
        except Exception as error:
            notes.append(f"No integer rate: {type(error).__name__}: {error}")
    else:
        notes.append("No integer rate, no times of kernels: the device is a CPU.")
    rows: list[dict[str, Any]] = []
    for name, (call, needs) in operations(device, quick).items():
        times = kernel_times([call], 2 if quick else 20) if device.type == "cuda" else {}
        if device.type == "cuda" and not times:
            notes.append(f"{name}: the profiler saw no kernels.")
        rows += floor_rows(name, needs, times, bandwidth, rate)
    peaks = [
        {
            "copy [10^9 bytes per second]": bandwidth / 1e9,
            "multiply-adds [10^9 per second]": "not measured" if rate is None else rate / 1e9,
        }
    ]
    return {"Peaks": peaks, "Kernels": rows}, notes


def peer_rows(device: torch.device, clock: Clock, quick: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The same pictures through midgrain and the straightforward SLICs."""
    rows, notes = [], []
    cases = QUICK[:1] if quick else (CASES[0], CASES[1], CASES[4], CASES[5])
    makers = {"CuPy RawKernel": cupy_peer, "Numba": numba_peer}
    peers = {}
    for name, make in makers.items():
        try:
            if device.type != "cuda":
                raise ImportError("the device is a CPU")
            peers[name] = make()
        except Exception as error:
            notes.append(f"{name} is missing: {type(error).__name__}: {error}")
    for case in cases:
        batches = inputs(case, 2)
        calls = slic_calls(case, batches, device)
        contestants: dict[str, list[Call]] = {
            "midgrain": calls,
            "midgrain, replay": captured_all(calls, device),
        }
        for name, prepare in peers.items():
            try:
                contestants |= peer_calls(name, prepare, case, batches, device)
            except Exception as error:
                notes.append(f"{name}, {case.name}: {type(error).__name__}: {error}")
        times = clock.race(contestants)
        rows += [peer_row(name, case, found, times["midgrain, replay"]) for name, found in times.items()]
    return rows, notes


def peer_calls(
    name: str, prepare: Callable[[Arrays], Call], case: Case, batches: Sequence[np.ndarray], device: torch.device
) -> dict[str, list[Call]]:
    """A peer's calls, eagerly and by replay; its labels are compared with its definition first."""
    eager = []
    for batch in batches:
        arrays = Arrays(torch.from_numpy(batch).to(device), case.wanted)
        eager.append(prepare(arrays))
        eager[-1]()
        if case.height <= 224:  # The definition in NumPy takes its time.
            assert_right(arrays, batch[:2], name)
    return {name: eager, f"{name}, replay": captured_all(eager, device)}


def peer_row(name: str, case: Case, found: Spread, ours: Spread) -> dict[str, Any]:
    """One line of the table."""
    return {
        "pictures": case.name,
        "library": name,
        "connected": "yes" if name.startswith("midgrain") else "no",
        "us": found.median,
        "10 % .. 90 %": f"{found.p10:.4g} .. {found.p90:.4g}",
        "times midgrain's replay": found.median / ours.median,
    }


def published_rows() -> list[dict[str, Any]]:
    """Figures of others, on other devices."""
    return [
        {
            "library": each.library,
            "size": each.size,
            "us": each.milliseconds * 1e3,
            "device": each.device,
            "source": each.source,
        }
        for each in PUBLISHED
    ]
