"""What the GPU benchmark compares with computes what it says: checked without a GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_for_tests import pictures

ROOT = Path(__file__).resolve().parent.parent
NVCC, COMPILER = shutil.which("nvcc"), shutil.which("g++")
SOURCES = ("gpu_slic_peer.cu", "gpu_integer_peak.cu")
# A launcher for each kernel; `float` atomics and two functions of the device come on top of the execution on the CPU.
ON_CPU = """
#include <cmath>
#include "call.hpp"
#include "cuda_on_cpu.hpp"
using std::max; using std::min;
inline float atomicAdd(float* address, float value) {
    return cuda_on_cpu::update(address, [value](float old) { return old + value; });
}
#include "gpu_slic_peer.cu"
#include "gpu_integer_peak.cu"
using midgrain::cuda::call;
#define RUN(kernel, ...) call(message, [&] { cuda_on_cpu::run(kernel, dim3(blocks), dim3(256), __VA_ARGS__); })
extern "C" {
int run_to_lab(char* message, int blocks, const unsigned char* rgb, float* lab, int all) {
    return RUN(to_lab, rgb, lab, all);
}
int run_seed(char* message, int blocks, const float* lab, float* centres, float* sums, int n, int h, int w, int cy,
             int cx) {
    return RUN(seed, lab, centres, sums, n, h, w, cy, cx);
}
int run_assign(char* message, int blocks, const float* lab, const float* centres, float* sums, int* labels, int n,
               int h, int w, int cy, int cx, float colour, float place) {
    return RUN(assign, lab, centres, sums, labels, n, h, w, cy, cx, colour, place);
}
int run_update(char* message, int blocks, float* centres, float* sums, int all) {
    return RUN(update, centres, sums, all);
}
int run_multiply_adds(char* message, int blocks, unsigned* out, unsigned factor, unsigned term, int rounds) {
    return RUN(multiply_adds, out, factor, term, rounds);
}
}
"""

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the repository, not the package")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++")


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    """The kernels' sources, executed on the CPU."""
    folder = tmp_path_factory.mktemp("peer")
    (folder / "peer.cpp").write_text(ON_CPU)
    command = [str(COMPILER), "-std=c++20", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-Wno-clobbered"]
    command += [f"-I{ROOT / 'tests' / 'cuda_on_cpu'}", f"-I{ROOT / 'benchmarks'}", str(folder / "peer.cpp")]
    done = subprocess.run([*command, "-o", str(folder / "peer.so")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "peer.so"))


def launcher(library: ctypes.CDLL):
    def argument(value):
        if isinstance(value, torch.Tensor):
            return ctypes.c_void_p(value.data_ptr())
        return ctypes.c_int(value) if isinstance(value, int) else ctypes.c_float(value)

    def launch(name, threads, *arguments):
        from benchmarks.gpu_peers import blocks

        message = ctypes.create_string_buffer(512)
        status = getattr(library, f"run_{name}")(message, blocks(threads), *map(argument, arguments))
        assert status == 0, message.value.decode()

    return launch


@needs_compiler
def test_the_source_for_cupy_gives_its_definition(library):
    from benchmarks.gpu_peers import Arrays, assert_right, run_steps

    images = pictures(2, 61, 84)
    arrays = Arrays(torch.from_numpy(images), 30)
    run_steps(arrays, launcher(library))
    assert assert_right(arrays, images, "CuPy") > 0.98
    arrays.labels[:] = 0
    with pytest.raises(AssertionError, match="only"):
        assert_right(arrays, images, "CuPy")


@needs_compiler
def test_the_integer_peak_multiplies_and_adds(library):
    from benchmarks.gpu_floors import CHAINS

    out = np.zeros(512, np.uint32)
    message = ctypes.create_string_buffer(512)
    pointer = ctypes.c_void_p(out.ctypes.data)
    library.run_multiply_adds(message, 2, pointer, ctypes.c_uint(1664525), ctypes.c_uint(1013904223), 5)
    assert message.value == b""
    chains = np.arange(512, dtype=np.uint32)[:, None] + np.arange(CHAINS, dtype=np.uint32)
    for _ in range(5):
        chains = chains * np.uint32(1664525) + np.uint32(1013904223)
    assert np.array_equal(out, np.bitwise_xor.reduce(chains, axis=1))


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_nvcc_compiles_the_sources(source, tmp_path):
    path = ROOT / "benchmarks" / source
    command = [str(NVCC), "-arch=sm_90", "-Werror", "all-warnings", "--ptx", str(path), "-o", str(tmp_path / "one.ptx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ".entry" in (tmp_path / "one.ptx").read_text()


SIMULATED = """
import numpy as np, torch
from benchmarks.gpu_peers import Arrays, assert_right, numba_peer
from gpu_for_tests import pictures

images = pictures(1, 24, 30)
arrays = Arrays(torch.from_numpy(images), 12)
numba_peer(simulated=True)(arrays)()
print(assert_right(arrays, images, "Numba"))
"""


@pytest.mark.slow
def test_numba_gives_its_definition():
    """In Numba's simulator, which has to be chosen before Numba is imported."""
    pytest.importorskip("numba")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-c", SIMULATED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.98


def test_the_definition_is_slic():
    """Nearly as good a clustering as scikit-image's, measured by what both minimise."""
    from benchmarks.common import COMPACTNESS
    from benchmarks.gpu_peers import definition, grid
    from skimage.color import rgb2lab
    from skimage.segmentation import slic

    picture = pictures(1, 90, 120)[0]
    y, x = np.mgrid[:90, :120]
    step = grid(90, 120, 60)[2]
    points = np.concatenate([rgb2lab(picture) / COMPACTNESS, y[..., None] / step, x[..., None] / step], -1)

    def objective(labels):
        means = [np.bincount(labels.ravel(), points[..., v].ravel()) for v in range(5)]
        sizes = np.maximum(np.bincount(labels.ravel()), 1)
        centres = np.stack(means, -1) / sizes[:, None]
        return float(((points - centres[labels]) ** 2).sum())

    ours = objective(definition(picture, 60))
    theirs = objective(slic(picture, 60, COMPACTNESS, enforce_connectivity=False, start_label=0))
    assert ours < 1.25 * theirs
    assert objective(np.asarray(y // 13 * 10 + x // 13)) > 1.2 * ours


def test_published_figures_name_their_source():
    from benchmarks.gpu_peers import PUBLISHED

    assert {"640 x 480"} <= {figure.size for figure in PUBLISHED}
    assert all(figure.source and figure.device and figure.milliseconds > 0 for figure in PUBLISHED)
