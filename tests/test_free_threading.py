"""Many Python threads in the kernels at once, with the GIL or without: short calls, so that they meet on the way in."""

import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest

import midgrain as mg
import producers
from midgrain._kernels import _cpu

THREADS = 8
GENERATOR = np.random.default_rng(0)
PICTURE = GENERATOR.integers(0, 256, (24, 31, 3), np.uint8)
BATCH = GENERATOR.random((2, 3, 1, 12, 17), np.float32)
LABELS = GENERATOR.integers(0, 9, (2, 1, 12, 17), np.int32)
MAPS = GENERATOR.random((2, 6, 1, 4, 5))


def refusal(function, *arguments):
    with pytest.raises(ValueError, match=": ") as caught:
        function(*arguments)
    return str(caught.value)


CALLS = {
    "slic": lambda: mg.slic(PICTURE, 12, num_threads=2),
    "slic of features": lambda: mg.ops.slic(BATCH, [0.2] * 3, 20)[0],
    "connectivity": lambda: mg.ops.enforce_connectivity(LABELS, 5)[0],
    "colours": lambda: mg.ops.rgb_to_lab(BATCH[:, :, 0]),
    "mean": lambda: mg.ops.pool(BATCH, LABELS, n=9),
    "median": lambda: mg.ops.pool(BATCH, LABELS, "median", n=9),
    "paint": lambda: mg.ops.paint(BATCH.reshape(2, 3, -1)[..., :9], LABELS),
    "patches": lambda: mg.ops.extract_patches(BATCH[:, :, 0], 3, 2),
    "aggregation": lambda: mg.ops.aggregate_patches(MAPS[:, :, 0], (2, 3)),
    "refused": lambda: refusal(mg.slic, PICTURE, 0),
    "not finite": lambda: refusal(mg.ops.rgb_to_lab, np.full_like(BATCH[:, :, 0], np.nan)),
    "information": lambda: mg.build_info()["cpu"]["instruction_sets"],
}


def run_at_once(work, threads=THREADS):
    """Runs work(number) in threads that begin together; raises what one of them raised."""
    start, errors = threading.Barrier(threads), []

    def run(number):
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    each = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    if errors:
        raise errors[0]


def hammer(rounds):
    expected = {name: call() for name, call in CALLS.items()}
    names = list(CALLS)

    def work(number):
        for turn in range(rounds * len(names)):
            name = names[(number * 3 + turn) % len(names)]
            np.testing.assert_array_equal(CALLS[name](), expected[name], err_msg=name)

    run_at_once(work)


def test_eight_threads():
    hammer(6)


@pytest.mark.slow
def test_eight_threads_for_long():
    hammer(400)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("refused", "not finite", "information")])
def test_instruction_sets_may_be_exchanged_meanwhile(name):
    call = CALLS[name]
    before, expected, done = _cpu.instruction_set(), call(), threading.Event()

    def work(number):
        if number == 0:
            while not done.is_set():
                for each in _cpu.available_instruction_sets():
                    _cpu.select_instruction_set(each)
            return
        try:
            for _ in range(40):
                np.testing.assert_array_equal(call(), expected)
        finally:
            if number == 1:
                done.set()

    try:
        run_at_once(work)
    finally:
        _cpu.select_instruction_set(before)


class OneCapsule(producers.HandMade):
    """Gives everybody the same capsule."""

    def __init__(self, array):
        super().__init__(array, version=(1, 0))
        self.capsule = super().__dlpack__()

    def __dlpack__(self, *, max_version=None):
        return self.capsule


def take_from_threads(rounds):
    for _ in range(rounds):
        shared, taken = OneCapsule(np.arange(64, dtype=np.float32)), []

        def work(_, shared=shared, taken=taken):
            try:
                taken.append(_cpu.find_range(shared))
            except BufferError as error:
                assert "unconsumed" in str(error)  # noqa: PT017

        run_at_once(work)
        assert taken == [(0.0, 63.0)]
        assert shared.deleted == 1


def test_a_capsule_is_taken_once():
    take_from_threads(20)


@pytest.mark.slow
def test_a_capsule_is_taken_once_for_long():
    take_from_threads(3000)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded Python")
def test_importing_leaves_the_gil_off():
    # Python warns where a module turns it on.
    code = "import sys, midgrain; from midgrain._kernels import _cpu; assert not sys._is_gil_enabled()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=300)
