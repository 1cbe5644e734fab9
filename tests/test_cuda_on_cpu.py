"""The execution of CUDA sources on the CPU: right kernels give right results, and wrong ones are found out."""

from __future__ import annotations

import numpy as np
import pytest

import cuda_library as cuda

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")

THREADS = 96  # in a block of every self-test


def self_test(name: str, numbers: np.ndarray, out_size: int = 1, seed: int = 0) -> np.ndarray:
    out = np.zeros(out_size, np.int32)
    cuda.reseed(seed)
    cuda.call("self_test", name, numbers.astype(np.int32), len(numbers), out)
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 31, 96, 97, 5000])
def test_shared_memory_shuffles_and_atomics(n, seed):
    numbers = np.random.default_rng(n).integers(-99, 99, n)
    assert self_test("sum", numbers, seed=seed)[0] == numbers.sum()


@pytest.mark.parametrize("n", [96, 200])
def test_votes(n):
    numbers = np.random.default_rng(n).integers(0, 9, n)
    odd = np.zeros(-(-n // THREADS) * THREADS, bool)
    odd[:n] = numbers % 2 != 0
    of_warps = odd.reshape(-1, 32).sum(1).repeat(32)
    of_blocks = odd.reshape(-1, THREADS).sum(1).repeat(THREADS)
    np.testing.assert_array_equal(self_test("vote", numbers, n), (1000 * of_warps + of_blocks)[:n])


def test_a_race_shows():
    numbers = np.arange(1, THREADS + 1)
    results = {self_test("race", numbers, THREADS, seed).tobytes() for seed in range(4)}
    assert len(results) == 4
    assert np.roll(numbers, 1).astype(np.int32).tobytes() not in results


def test_a_lost_update_shows():
    assert self_test("lost update", np.zeros(THREADS * 4), seed=1)[0] < 4 * THREADS


def test_shared_memory_that_was_never_set_shows():
    first, second = (self_test("unset shared", np.zeros(1), THREADS, seed) for seed in (1, 2))
    assert (first != second).mean() > 0.9


def test_the_same_seed_is_the_same_execution():
    first, second = (self_test("race", np.arange(THREADS), THREADS, 7) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missed barrier", r"the barrier at self_test.cu:\d+ was reached by 10 of 96 threads; the others have ended"),
        ("two barriers", r"threads of one block wait at two barriers, self_test.cu:\d+ and self_test.cu:\d+"),
        ("missed warp", r"waits at self_test.cu:\d+|names a lane that has ended at self_test.cu:\d+"),
        ("foreign lane", r"a lane reads one that takes no part at self_test.cu:\d+"),
        ("much shared", "a block uses more than 48 KiB of shared memory"),
        ("impossible block", "a block of an impossible size"),
    ],
)
def test_mistakes_are_errors(name, message):
    for seed in range(3):
        with pytest.raises(cuda.LaunchError, match=message):
            self_test(name, np.zeros(THREADS), THREADS, seed)
        # After a failure the next launch begins afresh.
        assert self_test("sum", np.ones(1000), seed=seed)[0] == 1000


CALL = """
import numpy as np, cuda_library as cuda
cuda.call("self_test", "{name}", np.ones(96, np.int32), {n}, np.zeros(96, np.int32))
print("done")
"""


@pytest.mark.slow
def test_what_lies_beyond_shared_memory_is_seen_by_the_sanitizer():
    done = cuda.under_sanitizers(CALL.format(name="shared overflow", n=1))
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "shared_overflow_kernel" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sum", "vote"])
def test_what_is_right_passes_the_sanitizers(name):
    done = cuda.under_sanitizers(CALL.format(name=name, n=96))
    assert done.stdout == "done\n", done.stderr


@pytest.mark.slow
def test_failed_launches_leave_sound_fibres():
    # Under the sanitizer, abandoned stacks must not be taken for poisoned ones.
    failing = CALL.format(name="missed barrier", n=96).replace("cuda.call", "try:\n    cuda.call")
    failing = failing.replace('print("done")', "except cuda.LaunchError:\n    pass")
    done = cuda.under_sanitizers(failing + CALL.format(name="sum", n=96))
    assert done.stdout == "done\n", done.stderr
