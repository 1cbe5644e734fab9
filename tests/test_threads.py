"""The kernels' threads: calls at the same time share the cores, forked processes work, nothing is left running."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import midgrain as mg

SHAPES = [(224, 224), (40, 333), (16, 64, 64), (7, 5), (600, 300)]


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def labels_of(shape):
    return mg.slic(picture(shape), 20, num_threads=3)


@pytest.fixture(scope="module")
def expected():
    return {shape: mg.slic(picture(shape), 20, num_threads=1) for shape in SHAPES}


def test_many_calls_at_once(expected):
    # Sizes alternate, so that memory kept from one call serves another of a different size.
    work = SHAPES * 8
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for shape, labels in zip(work, pool.map(labels_of, work), strict=True):
            np.testing.assert_array_equal(labels, expected[shape])


def most_threads(run):
    """The most threads that the process had while `run` ran."""
    most, done = 0, threading.Event()

    def watch():
        nonlocal most
        while True:  # at least once, also where `run` ends before this thread begins
            most = max(most, len(os.listdir("/proc/self/task")))
            if done.is_set():
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return most


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads through /proc")
def test_calls_at_once_do_not_outnumber_the_cores():
    code = """
import concurrent.futures, os, sys
sys.path.insert(0, "tests")
import midgrain as mg
from test_threads import most_threads, picture
image = picture((700, 700))
def call(_):
    return mg.slic(image, 200, num_threads=16)
base = most_threads(lambda: None)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: None, range(64)))
    idle = most_threads(lambda: None)
    busy = most_threads(lambda: list(pool.map(call, range(12))))
alone = most_threads(lambda: call(0))
print(idle, busy, alone, len(os.sched_getaffinity(0)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    idle, busy, alone, cores = map(int, done.stdout.split())
    # The first call may start all sixteen before the others come; each of those has its own thread at least, which the
    # pool has already, and what cores are left. Some that have ended may still be counted for a moment.
    assert busy - idle <= 15 + cores + 4
    assert alone > 10, "a call alone gets the threads it asks for"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_works(expected):
    context = multiprocessing.get_context("fork")
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            labels_of((224, 224))

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        for _ in range(5):
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=lambda sender=sender: sender.send(labels_of((224, 224))))
            child.start()
            assert receiver.poll(60), "the child does not answer"
            np.testing.assert_array_equal(receiver.recv(), expected[224, 224])
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        busy.join()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads through /proc")
def test_no_thread_is_left():
    before = set(os.listdir("/proc/self/task"))
    for shape in SHAPES:
        labels_of(shape)
    for _ in range(100):  # a joined thread's entry may stay for a moment
        if set(os.listdir("/proc/self/task")) <= before:
            return
        time.sleep(0.01)
    pytest.fail("threads are left over")


def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads memory through /proc")
def test_memory_stays_flat():
    images = [picture(shape) for shape in SHAPES]
    for image in images:
        mg.slic(image, 20, num_threads=2)
    before = resident_pages()
    for _ in range(60):
        for image in images:
            mg.slic(image, 20, num_threads=2)
    grown = (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 16 << 20
