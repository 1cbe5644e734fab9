"""The CUDA sources built as C++ on top of `cuda_on_cpu.hpp` and called through ctypes, for tests.

The library is built once for every state of the sources and kept in the system's folder for temporary files.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pybind11

ROOT = Path(__file__).resolve().parent.parent
EXECUTION = ROOT / "tests" / "cuda_on_cpu"
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
BINDINGS = [ROOT / "csrc" / "bindings" / name for name in ("arguments.cpp", "array_view.cpp", "module_cuda.cpp")]
SOURCES = [*KERNELS, EXECUTION / "self_test.cu", EXECUTION / "library.cpp", *BINDINGS]
HEADERS = sorted([*(ROOT / "csrc").rglob("*.hpp"), *(ROOT / "csrc" / "cuda").glob("*.cuh"), *EXECUTION.glob("*.hpp")])

FLAGS = [
    "-std=c++20",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Werror",
    "-Wno-unused-parameter",
]
FLAGS += [f"-I{ROOT / 'csrc'}", f"-I{EXECUTION}", "-DMIDGRAIN_CUDA_ON_CPU"]
# For the module, which is in the same library.
FLAGS += [f"-isystem{pybind11.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
# setjmp and longjmp go from stack to stack here, which glibc's checks take for a mistake.
FLAGS += ["-U_FORTIFY_SOURCE", "-Wno-clobbered"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1"]

COMPILER = shutil.which("g++")


def build(sanitized: bool = False) -> Path:
    """The library's path; compiles what has not been compiled yet of these sources."""
    assert COMPILER is not None
    flags = [*FLAGS, "-O1", *(SANITIZE if sanitized else [])]
    version = subprocess.run([COMPILER, "-v"], capture_output=True, text=True, check=True).stderr
    common = _digest(version, *flags, *(str(path) for path in HEADERS), *(path.read_bytes() for path in HEADERS))
    folder = Path(tempfile.gettempdir()) / f"midgrain-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    objects = [folder / f"{_digest(common, str(path), path.read_bytes())}.o" for path in SOURCES]
    library = folder / f"{_digest(*(path.name for path in objects))}.so"
    # Several test processes may start at the same time: one compiles, the others wait for it.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            missing = [pair for pair in zip(SOURCES, objects, strict=True) if not pair[1].exists()]
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                compile_one = [COMPILER, *flags, "-c", "-x", "c++"]
                list(pool.map(lambda pair: _make([*compile_one, str(pair[0])], pair[1]), missing))
            _make([COMPILER, *flags, "-shared", *map(str, objects)], library)
    return library


def _digest(*parts: str | bytes) -> str:
    """Names a state of sources; every part's length counts."""
    key = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        key.update(len(data).to_bytes(8, "little") + data)
    return key.hexdigest()[:24]


def _make(command: list[str], target: Path) -> None:
    """Runs a compiler's command; the target is there in full or not at all."""
    unfinished = target.with_suffix(".unfinished" + target.suffix)
    _run([*command, "-o", str(unfinished)])
    unfinished.rename(target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


class LaunchError(Exception):
    """What the execution on the CPU found wrong."""


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library: the one named by MIDGRAIN_CUDA_LIBRARY, else built from these sources."""
    path = os.environ.get("MIDGRAIN_CUDA_LIBRARY") or str(build())
    loaded = ctypes.CDLL(path)
    loaded.launches.restype = ctypes.c_int64
    return loaded


@functools.cache
def module() -> ModuleType:
    """The same library as the Python module that `_cuda` is on a machine with a GPU."""
    loader = importlib.machinery.ExtensionFileLoader("_cuda", library()._name)
    spec = importlib.util.spec_from_loader("_cuda", loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


def set_devices(
    count: int = 2, driver: int = 13000, major: int = 9, status: int = 0, of_pointers: int = 0, launches: int = 0
) -> None:
    """What the runtime says from now on: devices, the driver's version, ..., how every launch ends."""
    numbers = (count, driver, major, status, of_pointers, launches)
    library().set_devices(*[ctypes.c_int(value) for value in numbers])


def last_launch() -> tuple[int, int, int]:
    """Device and stream of the last launch, and the device that is current now."""
    numbers = (ctypes.c_int64 * 3)()
    library().last_launch(numbers)
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def reseed(seed: int) -> None:
    """Chooses the order in which blocks and threads run from now on."""
    library().reseed(ctypes.c_uint64(seed))


def launches() -> int:
    """Kernels launched so far."""
    return int(library().launches())


def call(name: str, *arguments: object) -> None:
    """Calls a function of the library; arrays are passed as pointers, ints as int64, floats as double."""
    message = ctypes.create_string_buffer(512)
    if getattr(library(), name)(message, *[_argument(value) for value in arguments]):
        raise LaunchError(message.value.decode())


def _argument(value: object) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, bool | int | np.integer):
        return ctypes.c_int64(int(value))
    if isinstance(value, float):
        return ctypes.c_double(value)
    assert isinstance(value, str)
    return ctypes.c_char_p(value.encode())


def under_sanitizers(code: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code with this module on the library built with the address and undefined-behaviour sanitizers."""
    # The C++ library too: the sanitizer looks for its functions when it starts.
    names = [[str(COMPILER), f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
    runtime = [subprocess.run(name, capture_output=True, text=True, check=True).stdout.strip() for name in names]
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "MIDGRAIN_CUDA_LIBRARY": str(build(sanitized=True)),
        "PYTHONPATH": str(ROOT / "tests"),
    }
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
