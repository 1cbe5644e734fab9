"""Many threads at once, forked and spawned processes: results as of one thread, and nobody waits for ever."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import midgrain as mg
from models_for_tests import batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
RGB = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
CLIP = np.random.default_rng(1).integers(0, 256, (6, 30, 40, 3), np.uint8)
VALUES = np.random.default_rng(2).random((4, 90, 70))
LABELS = np.random.default_rng(3).integers(0, 30, (90, 70), np.int32)
MAPS = np.random.default_rng(4).random((1, 2, 30, 20))

# A call of every kind, each with what it gives as arrays.
ARRAYS: dict[str, Callable[[], Any]] = {
    "slic": lambda: mg.slic(RGB, 30, num_threads=3),
    "slic of a clip": lambda: mg.slic(CLIP, 20, num_threads=2),
    "slic of a tensor": lambda: mg.slic(torch.from_numpy(RGB), 12).numpy(),
    "pool": lambda: mg.pool(VALUES, LABELS[None].repeat(4, 0), "median", num_threads=2),
    "paint": lambda: mg.paint(np.arange(30.0), LABELS, num_threads=2),
    "rgb_to_lab": lambda: mg.ops.rgb_to_lab(RGB[None], channel_axis=-1, num_threads=2),
    "enforce_connectivity": lambda: mg.ops.enforce_connectivity(LABELS[None], num_threads=2)[0],
    "extract_patches": lambda: mg.ops.extract_patches(MAPS, 3, 5),
}
EXPLAINERS = ("swag-ig", "gradcam", "jittercam", "guided", "lime", "rise", "scorecam", "sise")


def explain(name: str, model: Any = None, x: Tensor | None = None) -> Tensor:
    model = tiny_net() if model is None else model
    return quick_explainer(name, model)(batch_for(batch=1) if x is None else x, 1).heatmap


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The calls' results, each in a thread of its own, all started together."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(60)
        return call()

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [each.result(120) for each in [pool.submit(run, call) for call in calls]]


def test_eight_threads_with_different_array_calls() -> None:
    calls = list(ARRAYS.values())
    assert len(calls) == 8
    expected = [call() for call in calls]
    for shift in range(3):
        for found, wanted in zip(
            at_once(calls[shift:] + calls[:shift]), expected[shift:] + expected[:shift], strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shared", [False, True], ids=["own networks", "one network"])
def test_eight_threads_with_different_explainers(shared) -> None:
    # Made here: drawing their weights in a thread would move the random state of the others.
    first, x = tiny_net().train(), batch_for(batch=1)
    models = [first if shared else tiny_net().train() for _ in EXPLAINERS]
    calls = [lambda n=n, m=m: explain(n, m, x) for n, m in zip(EXPLAINERS, models, strict=True)]

    def alone() -> list[Tensor]:
        # In a new thread too: each has its own number of threads in torch, on which sums of floats depend.
        return [at_once([call])[0] for call in calls]

    expected = alone()
    for _ in range(2):
        for name, one, other in zip(EXPLAINERS, at_once(calls), expected, strict=True):
            assert torch.equal(one, other), name
    for model in models:
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Labelled(torch.utils.data.Dataset):
    """Superpixels as a training set's preprocessing may make them."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> np.ndarray:
        return mg.slic(np.roll(RGB, index, 0), 20, num_threads=2)


@pytest.mark.parametrize("context", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_workers_of_a_data_loader(context) -> None:
    expected = np.stack([Labelled()[index] for index in range(6)])  # The parent's threads have run before.
    loader = torch.utils.data.DataLoader(
        Labelled(), batch_size=3, num_workers=2, multiprocessing_context=context, timeout=120
    )
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), expected)


def in_child(sender: Any) -> None:
    # Not of a method with gradients: torch refuses backward passes where the parent of a forked child has made some.
    torch.set_num_threads(1)  # torch's own threads do not live on in a forked child
    sender.send((ARRAYS["slic"](), ARRAYS["pool"](), explain("rise").numpy()))


def in_forked_child(sender: Any) -> None:
    in_child(sender)
    # Python's own end of a process waits for the pool's thread, which is this one.
    os._exit(0)


@needs_fork
def test_a_fork_in_a_thread_while_others_work() -> None:
    """The child has one thread, and every lock as it was at that moment."""
    expected = (ARRAYS["slic"](), ARRAYS["pool"](), explain("rise").numpy())
    stop = threading.Event()

    def keep_busy(call: Callable[[], Any]) -> None:
        while not stop.is_set():
            call()

    def fork() -> tuple[Any, int | None]:
        receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=in_forked_child, args=(sender,))
        child.start()
        try:
            found = receiver.recv() if receiver.poll(120) else None
            child.join(60)
            return found, child.exitcode
        finally:
            child.kill()

    busy = [threading.Thread(target=keep_busy, args=[ARRAYS[name]]) for name in ("slic", "pool", "extract_patches")]
    for thread in busy:
        thread.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            results = [pool.submit(fork).result(300) for _ in range(3)]
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    for found, code in results:
        assert code == 0
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_spawned_process() -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(sender,))
    child.start()
    try:
        assert receiver.poll(240), "the child does not answer"
        found = receiver.recv()
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    for one, other in zip(found, (ARRAYS["slic"](), ARRAYS["pool"](), explain("rise").numpy()), strict=True):
        np.testing.assert_array_equal(one, other)
