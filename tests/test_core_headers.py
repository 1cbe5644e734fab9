"""The definitions in csrc/core stand alone, and compile for host and device alike."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
HEADERS = sorted(path.name for path in (CSRC / "core").glob("*.hpp"))

# Calls on a device everything that a kernel will need from the definitions.
DEVICE_SOURCE = """
#include "core/color.hpp"
#include "core/connectivity.hpp"
#include "core/patches.hpp"
#include "core/pool.hpp"
#include "core/slic.hpp"
using namespace midgrain::core;
__global__ void every_definition(const float* table, float* f, int* i, long long n) {
    const Lab lab = srgb_to_lab(f[0], f[1], f[2], table);
    f[0] = lab.l + lab.a + lab.b;
    unite(i, i[1], i[2]);
    i[3] = quantise(f[3], 0.0f, 1.0f, feature_scale(n, 2.0));
    i[4] = static_cast<int>(divide_half_up(n, i[5]) + initial_cell(n, n, i[6]));
    i[7] = fixed_exponent(n) + is_better_target(n, i[8], n, i[9]);
    const Dims dims{n, n, n};
    i[10] = static_cast<int>(dims.size() + dims[1]);
    const PatchGrid grid{dims, dims, dims, dims, n, n};
    const Tap<float> tap = linear_tap<float>(n, grid.patch.x, grid.size.x);
    f[4] = interpolate(f, tap) * weight_of(tap, n);
    i[11] = static_cast<int>(patches_extent(n, grid.patch.y, grid.cells.y) + last_map(n, n) - first_map(n, n));
}
"""


def compile_with(command: list[str], source: str, path: Path) -> None:
    path.write_text(source)
    done = subprocess.run([*command, "-std=c++20", f"-I{CSRC}", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("header", HEADERS)
def test_header_is_self_contained(header, tmp_path):
    flags = ["g++", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    compile_with(flags, f'#include "core/{header}"\nint main() {{}}\n', tmp_path / "one.cpp")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_definitions_compile_for_the_device(tmp_path):
    flags = ["nvcc", "-arch=sm_80", "-fmad=false", "-Werror", "all-warnings", "-c", "-o", str(tmp_path / "one.o")]
    compile_with(flags, DEVICE_SOURCE, tmp_path / "one.cu")
