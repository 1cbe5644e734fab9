"""The project configures with every CMake that is found here: one from the system may be years older than PyPI's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).resolve().parent.parent


def cmake_programs() -> dict[str, str]:
    """The programs named cmake on the path, beside Python, and where systems put theirs; one for every version."""
    folders = [Path(sys.executable).parent, *map(Path, os.environ.get("PATH", "").split(os.pathsep)), Path("/usr/bin")]
    found: dict[str, str] = {}
    for program in [shutil.which("cmake", path=str(folder)) for folder in folders]:
        if program is None:
            continue
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"\d+(\.\d+)+", done.stdout)
        if done.returncode == 0 and version:
            found.setdefault(version[0], program)
    return found


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split("."))


PROGRAMS = cmake_programs()
OLDEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["cmake"]["version"].strip(">=")


@pytest.mark.skipif(not PROGRAMS, reason="needs a CMake program")
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("version", sorted(PROGRAMS) or ["none"])
def test_the_project_configures(version: str, tmp_path: Path) -> None:
    if numbers(version) < numbers(OLDEST):
        pytest.skip(f"needs CMake {OLDEST} or newer, as pyproject.toml says, got {version}")
    # AUTO: with the CUDA kernels where there is nvcc, since what a CMake does not know is often about CUDA.
    command = [PROGRAMS[version], "-S", str(ROOT), "-B", str(tmp_path), "-DMIDGRAIN_CUDA=AUTO"]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    done = subprocess.run([*command, "-Werror=dev"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CMake Warning" not in done.stderr
    has_nvcc = shutil.which("nvcc") is not None
    assert ("CUDA kernels for" in done.stdout) == has_nvcc, done.stdout


def test_the_oldest_cmake_is_the_same_everywhere() -> None:
    required = re.search(
        r"cmake_minimum_required\(VERSION ([\d.]+?)(\.\.\.[\d.]+)?\)", (ROOT / "CMakeLists.txt").read_text()
    )
    assert required is not None
    assert required[1] == OLDEST
