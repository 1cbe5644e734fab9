"""The compiled functions' own boundary: what they take through DLPack, what they refuse, and that nothing leaks."""

import contextlib
import gc
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch

import producers
from midgrain._kernels import _cpu

# The patches 1 .. 4 of six.
PATCHES = {"cells": (1, 2, 3), "grid": (1, 3, 2), "size": (2, 8, 8), "start": 1}


def arguments(function):
    """Keyword arguments of one small call."""
    rng = np.random.default_rng(0)
    return {
        "slic": lambda: {
            "features": rng.random((2, 3, 2, 8, 9), dtype=np.float32),
            "weights": [0.3, 0.3, 0.3],
            "ranges": None,
            "n_segments": 6,
            "max_num_iter": 5,
            "spacing": (1.0, 1.0, 1.0),
            "min_size": 4,
            "labels": np.zeros((2, 2, 8, 9), np.int32),
            "counts": np.zeros(2, np.int32),
            "num_threads": 1,
        },
        "enforce_connectivity": lambda: {
            "labels": rng.integers(0, 3, (2, 2, 8, 9), dtype=np.int32),
            "min_size": 3,
            "out": np.zeros((2, 2, 8, 9), np.int32),
            "counts": np.zeros(2, np.int32),
            "num_threads": 1,
        },
        "rgb_to_lab": lambda: {
            "rgb": rng.random((2, 3, 40), dtype=np.float32),
            "lab": np.zeros((2, 3, 40), np.float32),
            "channels_last": False,
            "num_threads": 1,
        },
        "pool": lambda: {
            "values": rng.random((2, 3, 40)),
            "labels": rng.integers(0, 5, (2, 40), dtype=np.int32),
            "reduce": "mean",
            "out": np.zeros((2, 3, 5)),
            "num_threads": 1,
        },
        "paint": lambda: {
            "scores": rng.random((2, 3, 5)),
            "labels": rng.integers(0, 5, (2, 40), dtype=np.int32),
            "out": np.zeros((2, 3, 40)),
            "num_threads": 1,
        },
        "draw_overlay": lambda: {
            "picture": rng.integers(0, 256, (2, 9, 3), dtype=np.uint8),
            "region": (0, 1, 1, 9),
            "heat": rng.random((2, 4)),
            "labels": rng.integers(0, 5, (2, 5), dtype=np.int32),
            "colours": rng.random((7, 3), dtype=np.float32),
            "keep": 0.5,
        },
        "extract_patches": lambda: {
            "images": rng.random((2, 3, 2, 4, 6)),
            **PATCHES,
            "out": np.zeros((2, 4, 3, 2, 4, 6)),
            "num_threads": 1,
        },
        "extract_patches_backward": lambda: {
            "patches": rng.random((2, 4, 3, 2, 4, 6)),
            **PATCHES,
            "out": np.zeros((2, 3, 2, 4, 6)),
            "num_threads": 1,
        },
        "aggregate_patches": lambda: {
            "maps": rng.random((2, 6, 1, 2, 3)),
            "grid": (1, 3, 2),
            "out": np.zeros((2, 2, 5, 7)),
            "num_threads": 1,
        },
    }[function]()


INPUTS = [
    ("slic", "features"),
    ("enforce_connectivity", "labels"),
    ("rgb_to_lab", "rgb"),
    ("pool", "values"),
    ("pool", "labels"),
    ("paint", "scores"),
    ("paint", "labels"),
    ("draw_overlay", "heat"),
    ("draw_overlay", "labels"),
    ("draw_overlay", "colours"),
    ("extract_patches", "images"),
    ("extract_patches_backward", "patches"),
    ("aggregate_patches", "maps"),
]
OUTPUTS = [
    ("slic", "labels"),
    ("slic", "counts"),
    ("enforce_connectivity", "out"),
    ("enforce_connectivity", "counts"),
    ("rgb_to_lab", "lab"),
    ("pool", "out"),
    ("paint", "out"),
    ("draw_overlay", "picture"),
    ("extract_patches", "out"),
    ("extract_patches_backward", "out"),
    ("aggregate_patches", "out"),
]
RESULTS = {
    "slic": "labels",
    "enforce_connectivity": "out",
    "rgb_to_lab": "lab",
    "pool": "out",
    "paint": "out",
    "draw_overlay": "picture",
    "extract_patches": "out",
    "extract_patches_backward": "out",
    "aggregate_patches": "out",
}

every_input = pytest.mark.parametrize(("function", "name"), INPUTS)
every_output = pytest.mark.parametrize(("function", "name"), OUTPUTS)
every_array = pytest.mark.parametrize(("function", "name"), INPUTS + OUTPUTS)


def run(function, name, change):
    """Calls with one array changed; returns the result, and that of the unchanged call."""
    changed, plain = arguments(function), arguments(function)
    result = changed[RESULTS[function]]
    changed[name] = change(changed[name])
    getattr(_cpu, function)(**changed)
    getattr(_cpu, function)(**plain)
    return result, plain[RESULTS[function]]


def check_same(function, name, change):
    np.testing.assert_array_equal(*run(function, name, change))


def check_refused(function, name, change, exception, message):
    with pytest.raises(exception, match=rf"^{name}: .*{message}"):
        run(function, name, change)


def elsewhere(array):
    """The same values with a row before and after them: a view that starts inside its memory."""
    flat = np.zeros(array.size + 10, array.dtype)
    view = flat[5:-5].reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@every_array
def test_torch_tensors(function, name):
    check_same(function, name, torch.from_numpy)


@every_input
def test_inputs_that_are_views(function, name):
    check_same(function, name, elsewhere)
    check_same(function, name, lambda array: torch.from_numpy(elsewhere(array)))


@every_output
def test_outputs_that_are_views(function, name):
    given, plain = arguments(function), arguments(function)
    whole = np.full(given[name].size + 10, 77, given[name].dtype)
    view = whole[5:-5].reshape(given[name].shape)
    view[...] = given[name]
    given[name] = view
    getattr(_cpu, function)(**given)
    getattr(_cpu, function)(**plain)
    np.testing.assert_array_equal(given[name], plain[name])
    assert (whole[:5] == 77).all()
    assert (whole[-5:] == 77).all()


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="older NumPy does not share these arrays")
@every_input
def test_read_only_inputs(function, name):
    check_same(function, name, read_only)


@every_output
def test_read_only_outputs_are_refused(function, name):
    check_refused(function, name, read_only, BufferError, "writable|readonly")


@every_array
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.repeat(2, -1)[..., ::2],
        lambda array: array[..., ::-1],
        lambda array: torch.from_numpy(array)[..., :1].expand(array.shape),
        lambda array: torch.from_numpy(array.repeat(2, -1))[..., ::2],
    ],
    ids=["every second", "backwards", "broadcast", "torch"],
)
def test_arrays_that_are_not_contiguous_are_refused(function, name, change):
    check_refused(function, name, change, BufferError, "contiguous")


@every_array
def test_strides_of_axes_of_length_one_do_not_matter(function, name):
    producer = producers.HandMade(arguments(function)[name][:1])
    assert producer._shape[0] == 1
    producer._strides[0] = 12345
    given = {key: a[:1] if isinstance(a, np.ndarray) else a for key, a in arguments(function).items()}
    given[name] = producer
    getattr(_cpu, function)(**given)


@every_array
@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint16, np.bool_, np.complex64])
def test_other_dtypes_are_refused(function, name, dtype):
    check_refused(function, name, lambda array: array.astype(dtype), TypeError, "expected .*(8|32|64), got ")


@every_array
def test_bfloat16_is_refused(function, name):
    check_refused(function, name, lambda a: torch.zeros(a.shape, dtype=torch.bfloat16), TypeError, "got bfloat16")


@every_array
def test_vector_elements_are_refused(function, name):
    check_refused(function, name, lambda a: producers.HandMade(a, lanes=4), TypeError, "x 4")


@every_array
def test_another_rank_is_refused(function, name):
    check_refused(function, name, lambda array: array[None], ValueError, r"dimensions, got shape \[1, ")
    check_refused(function, name, lambda array: np.zeros(array.shape[1:], array.dtype), ValueError, "got shape")


@every_output
def test_another_shape_of_an_output_is_refused(function, name):
    # The last axes of these say how many regions there are, and what to enlarge to.
    others = {
        "pool": (2, 4, 5),
        "extract_patches": (2, 4, 4, 2, 4, 6),
        "extract_patches_backward": (2, 4, 2, 4, 6),
        "aggregate_patches": (3, 2, 5, 7),
    }
    if function in others:
        change = lambda array: np.empty(others[function])  # noqa: E731
    else:
        change = lambda array: np.empty((*array.shape[:-1], array.shape[-1] + 1), array.dtype)  # noqa: E731
    with pytest.raises(ValueError, match=r"expected shape \["):
        run(function, name, change)


@every_array
@pytest.mark.parametrize(
    "thing", [[1.0, 2.0], 3.0, None, "text", memoryview(b"12345678")], ids=lambda thing: type(thing).__name__
)
def test_no_array(function, name, thing):
    if (function, name, thing) == ("draw_overlay", "labels", None):
        pytest.skip("it may be left out")
    check_refused(function, name, lambda _: thing, TypeError, "expected an array that supports DLPack")


@every_array
@pytest.mark.parametrize("version", [None, (1, 0), (1, 7)])
@pytest.mark.parametrize("options", [{}, {"strides": False}, {"byte_offset": 16}, {"has_deleter": False}], ids=str)
def test_capsules_of_all_versions(function, name, version, options):
    made = []

    def change(array):
        made.append(producers.HandMade(array, version, **options))
        return made[0]

    check_same(function, name, change)
    assert made[0].deleted == int(options.get("has_deleter", True))


@every_array
def test_a_refused_capsule_is_released_once(function, name):
    producer = producers.HandMade(arguments(function)[name].astype(np.float16))
    check_refused(function, name, lambda _: producer, TypeError, "got float16")
    assert producer.deleted == 1


@every_array
def test_a_capsule_of_an_unknown_version_is_refused(function, name):
    check_refused(function, name, lambda a: producers.HandMade(a, (2, 0)), BufferError, "expected DLPack version 1")


@every_array
@pytest.mark.parametrize("producer", [producers.BeforeVersions, producers.LastOwner])
def test_other_producers(function, name, producer):
    if producer is producers.LastOwner and (function, name) in OUTPUTS:
        # Nobody could read the result; it must still be written somewhere.
        getattr(_cpu, function)(**{**arguments(function), name: producer(arguments(function)[name])})
    else:
        check_same(function, name, producer)


@every_array
@pytest.mark.parametrize(
    ("producer", "message"),
    [
        (producers.AlreadyConsumed, "unconsumed DLPack capsule"),
        (producers.NoCapsule, "unconsumed DLPack capsule"),
        (producers.OtherCapsule, "unconsumed DLPack capsule"),
        (producers.Raising, "not today"),
        (producers.OnCuda, "device type 2"),
        (producers.NoDevice, "__dlpack_device__"),
        (lambda _: producers.OldCuda(), "CUDA device"),
        (lambda array: torch.from_numpy(array.astype(np.float32)).requires_grad_(), "require.* grad"),
        (lambda array: torch.from_numpy(array).to("meta"), "meta|device"),
        (lambda array: array.astype(array.dtype.newbyteorder()), "native byte order"),
    ],
    ids=["consumed", "string", "other", "raising", "cuda", "no device", "old cuda", "grad", "meta", "byte order"],
)
def test_producers_that_are_refused(function, name, producer, message):
    if message == "native byte order" and arguments(function)[name].itemsize == 1:
        pytest.skip("bytes have no order")
    check_refused(function, name, producer, BufferError, message)


@every_array
def test_pointers_that_are_not_aligned_are_refused(function, name):
    if arguments(function)[name].itemsize == 1:
        pytest.skip("bytes may lie anywhere")

    def change(array):
        return np.frombuffer(bytearray(array.nbytes + 1), array.dtype, array.size, 1).reshape(array.shape)

    with pytest.raises(BufferError, match=rf"^{name}: "):
        run(function, name, change)


@pytest.mark.parametrize("function", RESULTS)
def test_nothing_leaks(function):
    given = arguments(function)
    arrays = [value for value in given.values() if isinstance(value, np.ndarray)]
    bad = {**given, RESULTS[function]: arrays[0][None]}

    def call(times):
        for _ in range(times):
            getattr(_cpu, function)(**given)
            with contextlib.suppress(TypeError, ValueError):
                getattr(_cpu, function)(**bad)

    call(20)
    gc.collect()
    counts = [sys.getrefcount(array) for array in arrays]
    tracemalloc.start()
    try:
        # Without the GIL, Python frees some of its own later, all in all no more than it has after some hundred calls.
        call(300)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        call(1000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(array) for array in arrays] == counts
    # A reference or a message lost in each call would come to more than this.
    assert grown < 16_000


def test_the_interpreter_runs_on_meanwhile():
    # With the GIL held, this thread would get no turn between the start of the call and its end. Several calls: on a
    # machine with other work, it may get few turns either way.
    features = np.random.default_rng(0).random((1, 3, 1, 400, 400), dtype=np.float32)
    labels, counts = np.empty((1, 1, 400, 400), np.int32), np.empty(1, np.int32)

    def turns_during_a_call():
        span, turns = [], []

        def work():
            span.append(time.monotonic())
            _cpu.slic(features, [0.05] * 3, None, 50, 40, (1.0, 1.0, 1.0), 1, labels, counts, 1)
            span.append(time.monotonic())

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            turns.append(time.monotonic())
            time.sleep(0.001)
        thread.join()
        return sum(span[0] < turn < span[1] for turn in turns)

    assert any(turns_during_a_call() >= 5 for _ in range(20))


def test_eight_threads_at_once_give_the_same_labels():
    features = np.random.default_rng(0).random((1, 3, 1, 120, 130), dtype=np.float32)
    outputs = [np.empty((1, 1, 120, 130), np.int32) for _ in range(8)]
    start = threading.Barrier(8)

    def work(labels, num_threads):
        start.wait()
        for _ in range(3):
            _cpu.slic(
                features, [0.3] * 3, None, 60, 10, (1.0, 1.0, 1.0), 20, labels, np.empty(1, np.int32), num_threads
            )

    threads = [threading.Thread(target=work, args=(out, 1 + i % 3)) for i, out in enumerate(outputs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for labels in outputs[1:]:
        np.testing.assert_array_equal(labels, outputs[0])


@pytest.mark.parametrize("num_threads", [0, -1, 1025])
@pytest.mark.parametrize("function", [each for each in RESULTS if "num_threads" in arguments(each)])
def test_the_number_of_threads_is_checked(function, num_threads):
    with pytest.raises(ValueError, match=r"^num_threads: expected 1 .. 1024"):
        getattr(_cpu, function)(**{**arguments(function), "num_threads": num_threads})


@pytest.mark.parametrize(
    ("function", "name", "bad", "message"),
    [
        ("slic", "weights", [1.0], "weights: expected one per channel"),
        ("slic", "weights", [1.0, 1.0, 0.0], "weights: expected a number from"),
        ("slic", "ranges", [(0.0, 1.0)], "ranges: expected one"),
        ("slic", "ranges", [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0)], "ranges: expected finite low <= high"),
        ("slic", "ranges", [(0.0, 1e39)] * 3, "ranges: "),
        ("slic", "n_segments", 0, "n_segments: expected 1 .. 144"),
        ("slic", "n_segments", 145, "n_segments: expected 1 .. 144"),
        ("slic", "max_num_iter", 0, "max_num_iter: "),
        ("slic", "spacing", (1.0, 1.0, float("nan")), "spacing: "),
        ("slic", "min_size", -1, "min_size: "),
        ("enforce_connectivity", "min_size", -1, "min_size: "),
        ("pool", "reduce", "average", "reduce: unknown reduction 'average'"),
        ("pool", "out", np.empty((2, 3, 0)), "n: expected at least one"),
        ("pool", "out", np.empty((2, 3, 4)), "labels: expected values in 0 .. 3"),
        ("paint", "scores", np.empty((2, 3, 4)), "labels: expected values in 0 .. 3"),
        *[
            (function, *rest)
            for function in ("extract_patches", "extract_patches_backward")
            for rest in (
                ("cells", (0, 2, 3), "cells: expected 1 .. 2"),
                ("cells", (1, 5, 3), "cells: expected at most the patch's pixels, 4, got 5"),
                ("grid", (1, 3, 2**30 + 1), "grid: expected 1 .. 2"),
                ("grid", (1, 4, 2), "size: expected 10 or more, where the last patch ends, got 8"),
                ("size", (2, 7, 8), "size: expected 8 or more"),
                ("size", (2**10, 2**10, 2**11), "size: expected fewer than 2"),
                ("size", (2**30, 2**30, 2**30), "size: expected fewer than 2"),
                ("start", -1, "start: expected 0 .. 5"),
                ("start", 6, "start: expected 0 .. 5"),
                ("start", 3, ".*: expected 1 .. 3 patches, got 4"),
            )
        ],
        ("extract_patches", "images", np.empty((2, 3, 2, 0, 6)), "images: expected at least one pixel"),
        ("extract_patches", "images", np.empty((2, 0, 2, 4, 6)), "images: expected 1 .. 2"),
        ("extract_patches", "out", np.empty((2, 0, 3, 2, 4, 6)), "out: expected 1 .. 5 patches, got 0"),
        ("aggregate_patches", "grid", (1, 2, 2), "maps: expected one per patch of the grid"),
        ("aggregate_patches", "grid", (2**30, 2**30, 2**30), "maps: expected one per patch of the grid"),
        ("aggregate_patches", "grid", (1, 0, 6), "grid: expected 1 .. 2"),
        ("aggregate_patches", "out", np.empty((2, 0, 5, 7)), "out: expected at least one pixel"),
    ],
)
def test_other_arguments_are_checked(function, name, bad, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(_cpu, function)(**{**arguments(function), name: bad})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("pool", "values"),
        ("extract_patches", "images"),
        ("extract_patches_backward", "patches"),
        ("aggregate_patches", "maps"),
    ],
)
def test_the_dtypes_of_values_and_result_must_agree(function, name):
    with pytest.raises(TypeError, match=f"^out: expected the dtype of {name}"):
        run(function, "out", lambda array: array.astype(np.float32))


def test_instruction_sets():
    available = _cpu.available_instruction_sets()
    assert available[-1] == "baseline"
    assert _cpu.instruction_set() in available
    with pytest.raises(ValueError, match="instruction set 'mmx' is not available here"):
        _cpu.select_instruction_set("mmx")
