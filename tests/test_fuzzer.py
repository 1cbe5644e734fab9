"""The kernels against their definitions on a fuzzer's inputs (tests/fuzz); run_fuzzer.py tries as many as told."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import run_fuzzer

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def compiler() -> str | None:
    return run_fuzzer.find_compiler() if shutil.which("cmake") else None


def built() -> Path:
    """A folder for this checkout's build, kept for the next run of the tests."""
    digest = hashlib.sha256(f"{ROOT}\n{compiler()}".encode())
    return Path(tempfile.gettempdir()) / f"midgrain-fuzz-{os.getuid()}" / digest.hexdigest()[:24]


def run(tmp_path: Path, *arguments: str) -> str:
    folder = built()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "tests" / "run_fuzzer.py"), "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = done.stdout[-2000:] + done.stderr[-4000:]
    assert done.returncode == 0, said
    return said


@pytest.fixture
def needs_clang() -> None:
    if compiler() is None:
        pytest.skip("needs CMake and a clang++ with libFuzzer")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_sources_are_sound():
    sources = map(str, sorted((ROOT / "tests" / "fuzz").glob("*.cpp")))
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror", f"-I{ROOT / 'csrc'}"]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_clang")
def test_a_thousand_inputs(tmp_path):
    said = run(tmp_path, "--runs", "1000", "--seed", "1")
    assert "stat::number_of_executed_units: 1000" in said


@pytest.mark.usefixtures("needs_clang")
def test_a_build_of_other_sources_is_made_anew(tmp_path):
    made = tmp_path / "build"
    made.mkdir()
    (made / "CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere\n")
    run_fuzzer.configure(compiler(), made)
    assert f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" in (made / "CMakeCache.txt").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("needs_clang")
def test_inputs_for_a_quarter_of_an_hour(tmp_path):
    run(tmp_path, "--seconds", "900")
