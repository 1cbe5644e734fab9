"""The CUDA sources built as C++ on top of `cuda_on_cpu.hpp` and called through ctypes, for tests.

The library is built once for every state of the sources and kept in the system's folder for temporary files.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
EXECUTION = ROOT / "tests" / "cuda_on_cpu"
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
SOURCES = [*KERNELS, EXECUTION / "self_test.cu", EXECUTION / "library.cpp"]
HEADERS = sorted([*(ROOT / "csrc").rglob("*.hpp"), *(ROOT / "csrc" / "cuda").glob("*.cuh"), *EXECUTION.glob("*.hpp")])

FLAGS = ["-std=c++20", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unused-parameter"]
FLAGS += [f"-I{ROOT / 'csrc'}", f"-I{EXECUTION}", "-DMIDGRAIN_CUDA_ON_CPU"]
# setjmp and longjmp go from stack to stack here, which glibc's checks take for a mistake.
FLAGS += ["-U_FORTIFY_SOURCE", "-Wno-clobbered"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1"]

COMPILER = shutil.which("g++")


def build(sanitized: bool = False) -> Path:
    """The library's path; compiles it if these sources have not been compiled yet."""
    assert COMPILER is not None
    flags = [*FLAGS, "-O1", *(SANITIZE if sanitized else [])]
    version = subprocess.run([COMPILER, "-v"], capture_output=True, text=True, check=True).stderr
    key = hashlib.sha256("\0".join([version, *flags]).encode())
    for path in sorted({*SOURCES, *HEADERS}):
        key.update(str(path).encode() + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"midgrain-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key.hexdigest()[:24]}.so"
    # Several test processes may start at the same time: one compiles, the others wait for it.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _compile(COMPILER, flags, library)
    return library


def _compile(compiler: str, flags: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        objects = [Path(scratch) / f"{source.stem}{source.suffix[1:]}.o" for source in SOURCES]
        commands = [
            [compiler, *flags, "-c", "-x", "c++", str(source), "-o", str(target)]
            for source, target in zip(SOURCES, objects, strict=True)
        ]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(_run, commands))
        whole = Path(scratch) / "library.so"
        _run([compiler, *flags, "-shared", *map(str, objects), "-o", str(whole)])
        whole.rename(library)


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
