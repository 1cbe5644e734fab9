"""Capsules in which any field may be wrong, thrown at the compiled functions and at the public ones.

Run in a process of its own, which a mistake may take down: `python tests/boundary_fuzz.py EXAMPLES NOTES SEED` writes
each case into the file NOTES before it is tried. What no consumer can find out is left out: a pointer to memory that
the producer does not own, and extents that claim more of it than there is.
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

import midgrain as mg
import producers
import test_boundary
from midgrain._kernels import _cpu

BYTES = 1 << 16
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
EXTENT = st.one_of(st.integers(0, 9), st.sampled_from([-1, -(2**63), 2**31, 2**40, 2**62, 2**63 - 1]))


@dataclass(frozen=True)
class Lies:
    """What a capsule says instead of the truth; None: the truth, "null": no pointer."""

    name: str | None = None
    version: tuple[int, int] | None = None
    flags: int = 0
    data: str | None = None
    device: int | None = None
    reported: Any = (1, 0)
    ndim: int | None = None
    dtype: tuple[int, int, int] | None = None
    shape: Any = None
    strides: Any = None
    byte_offset: int | None = None
    deleter: bool = True
    twice: bool = False
    result: str = "capsule"


# A lie at a time is found by the first check that looks; some together reach the ones behind it.
LIES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["dltensor", "dltensor_versioned", "used_dltensor", "", "dltensor "]),
    "version": st.one_of(st.just((1, 0)), st.tuples(*2 * [st.integers(0, 2**32 - 1)])),
    "flags": st.integers(0, 2**64 - 1),
    "data": st.just("null"),
    "device": INT32,
    "reported": st.one_of(
        st.tuples(INT64, INT64), st.sampled_from([None, (), (1,), (1, 2, 3), ("cpu", 0), (2**70, 0)])
    ),
    "ndim": st.one_of(INT32, st.integers(-2, 70)),
    "dtype": st.one_of(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535)),
        st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 8, 16, 32, 64]), st.sampled_from([0, 1, 2])),
    ),
    "shape": st.one_of(st.just("null"), st.lists(EXTENT, max_size=8)),
    "strides": st.one_of(st.just("null"), st.lists(st.one_of(INT64, st.integers(-9, 9)), max_size=8)),
    "byte_offset": st.integers(0, 64),
    "deleter": st.just(False),
    "twice": st.just(True),
    "result": st.sampled_from(["nothing", "text", "raises", "interrupts", "no keyword"]),
}


@st.composite
def lies(draw: st.DrawFn, but: tuple[str, ...] = ()) -> Lies:
    """One to three of them."""
    names = draw(st.lists(st.sampled_from([name for name in LIES if name not in but]), max_size=3, unique=True))
    return Lies(**{name: draw(LIES[name]) for name in names})


class Interrupt(BaseException):
    """What is no error and must get through."""


# DLPack's kinds of numbers that functions accept, in NumPy's letters.
CODES = {0: "i", 1: "u", 2: "f"}


class Lying:
    """A producer; `array` is what it would share if it told the truth."""

    def __init__(self, array: np.ndarray, told: Lies):
        self.told, self.deleted = told, 0
        self.memory = np.zeros(BYTES, np.uint8)
        start = -self.memory.ctypes.data % 64 + 64
        self.memory[start : start + array.nbytes] = array.view(np.uint8).reshape(-1)
        self.start, self.array = start, array
        self.shape = list(array.shape) if told.shape in (None, "null") else told.shape
        strides = [s // array.itemsize for s in array.strides]
        strides = strides if told.strides in (None, "null") else told.strides
        # As long as any reader may take them to be.
        self._shape = (ctypes.c_int64 * 80)(*self.shape, *[1] * (80 - len(self.shape)))
        self._strides = (ctypes.c_int64 * 80)(*strides, *[1] * (80 - len(strides)))
        self._deleter = producers.Deleter(self._count) if told.deleter else producers.Deleter()
        versioned = told.version is not None if told.name is None else "versioned" in told.name
        self.managed = producers.ManagedVersioned(*(told.version or (1, 0))) if versioned else producers.Managed()
        if versioned:
            self.managed.flags = told.flags
        self.managed.deleter = self._deleter
        code, bits, lanes = told.dtype or (producers._CODES[array.dtype.kind], 8 * array.itemsize, 1)
        self.managed.tensor = producers.Tensor(
            data=None if told.data == "null" else self.memory.ctypes.data + start,
            device=producers.Device(1 if told.device is None else told.device, 0),
            ndim=len(self.shape) if told.ndim is None else told.ndim,
            dtype=producers.DataType(code, bits, lanes),
            shape=None if told.shape == "null" else self._shape,
            strides=None if told.strides == "null" else self._strides,
            byte_offset=told.byte_offset or 0,
        )
        name = told.name if told.name is not None else "dltensor_versioned" if versioned else "dltensor"
        self._name = name.encode()
        self._capsule = None

    def _count(self, _: int) -> None:
        self.deleted += 1

    def is_honest(self) -> bool:
        """Does the memory that it claims exist, or can it not exist at all?"""
        extents = [*self._shape][: self.ndim] if 0 <= self.ndim <= 80 else []
        size = math.prod(extents) * max(1, self.managed.tensor.dtype.bits // 8)
        fits = 0 <= size <= BYTES - 256 or self.managed.tensor.data is None
        return fits or min(extents) < 0 or math.prod(n for n in extents if n) > 2**63

    @property
    def ndim(self) -> int:
        return int(self.managed.tensor.ndim)

    def __dlpack__(self, **options: Any) -> Any:
        match self.told.result:
            case "nothing":
                return None
            case "text":
                return "dltensor"
            case "raises":
                raise RuntimeError("not today")
            case "interrupts":
                raise Interrupt
            case "no keyword" if options:
                raise TypeError("unexpected keyword")
        if self._capsule is None or not self.told.twice:
            self._capsule = producers._new_capsule(ctypes.addressof(self.managed), self._name, None)
        return self._capsule

    def __dlpack_device__(self) -> Any:
        return self.told.reported

    def consumed(self) -> bool:
        """Did somebody take the capsule?"""
        if self._capsule is None:
            return False
        name = ctypes.pythonapi.PyCapsule_GetName
        name.restype, name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
        return bool(name(self._capsule) != self._name)

    def truth(self) -> np.ndarray:
        """What a consumer that accepted it must have seen."""
        start = self.start + (self.told.byte_offset or 0)
        extents = [*self._shape][: self.ndim]
        # Bytes are pixels as good as floats: a function that takes both reads what it is told.
        told = self.managed.tensor.dtype
        dtype = np.dtype(f"{CODES[told.code]}{told.bits // 8}")
        size = math.prod(extents) * dtype.itemsize
        return self.memory[start : start + size].view(dtype).reshape(extents).copy()


def said(notes: Path, *what: object) -> None:
    told = what[-1]
    assert isinstance(told, Lies)
    lied = {f.name: getattr(told, f.name) for f in fields(told) if getattr(told, f.name) != f.default}
    notes.write_text(f"{' '.join(map(str, what[:-1]))}: {lied}")


def fuzz_compiled(examples: int, notes: Path) -> None:
    """The functions of `_cpu` refuse with one of three errors that names an argument, or do what they are for."""

    @hypothesis.settings(max_examples=examples)
    @hypothesis.given(st.sampled_from(test_boundary.INPUTS + test_boundary.OUTPUTS), lies())
    def check(where: tuple[str, str], told: Lies) -> None:
        function, name = where
        said(notes, function, name, told)
        given = test_boundary.arguments(function)
        producer = Lying(given[name], told)
        hypothesis.assume(producer.is_honest())
        before = producer.memory.copy()
        given[name] = producer
        if told.twice:
            first = test_boundary.arguments(function)
            first[name] = producer
            call(function, first, told)
        accepted = call(function, given, told)
        assert producer.deleted == int(producer.consumed() and told.deleter)
        is_output = where in test_boundary.OUTPUTS
        if not accepted or not is_output:
            # What is refused is not written to, but for one call that was not.
            assert told.twice or (producer.memory == before).all()
        if accepted and not is_output:
            plain = test_boundary.arguments(function)
            plain[name] = producer.truth()
            getattr(_cpu, function)(**plain)
            result = test_boundary.RESULTS[function]
            np.testing.assert_array_equal(given[result], plain[result])

    check()


def check_named(error: Exception, names: set[str] | None = None) -> None:
    """That a message begins with the name of an argument."""
    argument, colon, _ = str(error).partition(": ")
    assert colon, error
    assert names is None or argument in names, error


def call(function: str, given: dict[str, Any], told: Lies) -> bool:
    try:
        getattr(_cpu, function)(**given)
    except (TypeError, ValueError, BufferError) as error:
        check_named(error, {*given, "n"})
        return False
    except Interrupt:
        assert told.result == "interrupts"
        return False
    return True


GREY = np.arange(72.0, dtype=np.float32).reshape(8, 9)
LABELS = np.arange(72, dtype=np.int32).reshape(8, 9) // 24
PUBLIC: dict[str, tuple[np.ndarray, Any]] = {
    "slic image": (GREY, lambda a: mg.slic(a, 4)),
    "slic gradient": (GREY, lambda a: mg.slic(None, 4, gradient=a)),
    "ops.slic": (GREY.reshape(1, 1, 8, 9), lambda a: mg.ops.slic(a, [1.0], 4)),
    "ops.slic_pictures": (np.zeros((1, 8, 9, 3), np.uint8), lambda a: mg.ops.slic_pictures(a, n_segments=4)),
    "rgb_to_lab": (np.zeros((1, 3, 8, 9), np.float32), mg.ops.rgb_to_lab),
    "enforce_connectivity": (LABELS[None], mg.ops.enforce_connectivity),
    "extract_patches": (GREY[None, None], lambda a: mg.ops.extract_patches(a, 2, 3)),
    "aggregate_patches": (GREY.reshape(1, 4, 3, 6), lambda a: mg.ops.aggregate_patches(a, 2)),
    "pool values": (GREY, lambda a: mg.pool(a, LABELS)),
    "pool labels": (LABELS, lambda a: mg.pool(GREY, a, n=3)),
    "paint scores": (GREY[0, :3].copy(), lambda a: mg.paint(a, LABELS)),
    "paint labels": (LABELS, lambda a: mg.paint(GREY[0], a)),
}


def fuzz_public(examples: int, notes: Path) -> None:
    """The public functions; NumPy reads the capsule, so what NumPy itself takes for granted is told truly."""

    @hypothesis.settings(max_examples=examples)
    @hypothesis.given(
        st.sampled_from([*PUBLIC]), lies(but=("shape", "ndim", "data", "byte_offset", "strides", "dtype"))
    )
    def check(where: str, told: Lies) -> None:
        said(notes, where, told)
        array, function = PUBLIC[where]
        producer = Lying(array, told)
        try:
            found = function(producer)
        except mg.BackendUnavailableError:
            assert told.reported != (1, 0)
            return
        except (TypeError, ValueError, BufferError) as error:
            check_named(error)
            return
        except Interrupt:
            assert told.result == "interrupts"
            return
        expected = function(array)
        for one, other in zip(found if isinstance(found, tuple) else [found], as_tuple(expected), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

    check()


def as_tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


class Interface:
    """Shares memory by NumPy's older protocol, with anything in its fields but the pointer."""

    def __init__(self, array: np.ndarray, **told: Any):
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, **told}


def fuzz_interface(examples: int, notes: Path) -> None:
    """`__array_interface__`, whose pointer is told truly, and which never claims more memory than there is."""
    options = {
        "version": st.one_of(st.integers(-1, 9), st.just("3")),
        "typestr": st.sampled_from(["<f4", ">f4", "<i4", "|u1", "<f2", "<c8", "|O", "|V4", "x", "", None, 4]),
        "shape": st.one_of(st.lists(st.integers(-1, 8), max_size=4).map(tuple), st.sampled_from([None, 3, (2**62, 4)])),
        "strides": st.one_of(st.none(), st.tuples(st.sampled_from([0, 4, 36]), st.sampled_from([0, 4])), st.just((0,))),
        "data": st.sampled_from([None, 7, ("1", False), ()]),
    }

    @hypothesis.settings(max_examples=examples)
    @hypothesis.given(st.sampled_from([*PUBLIC]), st.data())
    def check(where: str, draw: st.DataObject) -> None:
        named = draw.draw(st.lists(st.sampled_from([*options]), max_size=2, unique=True))
        told = {name: draw.draw(options[name]) for name in named}
        notes.write_text(f"{where} through __array_interface__: {told}")
        array, function = PUBLIC[where]
        shape = told.get("shape", array.shape)
        if isinstance(shape, tuple) and all(n >= 0 for n in shape):
            hypothesis.assume(math.prod(shape) * 8 <= BYTES or math.prod(shape) > 2**60)
        memory = np.zeros(BYTES, np.uint8)
        memory[: array.nbytes] = array.view(np.uint8).reshape(-1)
        shared = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        try:
            function(Interface(shared, **told))
        except (TypeError, ValueError, BufferError) as error:
            check_named(error)

    check()


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    hypothesis.settings.register_profile(
        "fuzz", deadline=None, derandomize=sys.argv[3] == "0", suppress_health_check=list(hypothesis.HealthCheck)
    )
    hypothesis.settings.load_profile("fuzz")
    for fuzz in (fuzz_compiled, fuzz_public, fuzz_interface):
        fuzz(int(sys.argv[1]), Path(sys.argv[2]))
