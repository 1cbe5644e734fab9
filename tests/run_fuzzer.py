"""Builds the fuzzer of the kernels (tests/fuzz) with clang and runs it.

    python tests/run_fuzzer.py --seconds 600 --folder build/fuzz
    python tests/run_fuzzer.py --runs 2000 --seed 1
    python tests/run_fuzzer.py --folder build/fuzz build/fuzz/found/crash-...    # an input again

Needs CMake, clang and its libFuzzer. Inputs that break something are left in the folder's `found`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
}
_EMPTY = "#include <cstdint>\n#include <cstddef>\n" + (
    'extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) { return 0; }\n'
)


def find_compiler() -> str | None:
    """A clang++ that can build fuzzers: MIDGRAIN_CLANG, else the newest on the path; None where there is none."""
    named = os.environ.get("MIDGRAIN_CLANG")
    folders = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    numbered = {each.name for folder in folders for each in folder.glob("clang++-*") if re.search(r"-\d+$", each.name)}
    names = [named] if named else ["clang++", *sorted(numbered, key=lambda name: -int(name.rsplit("-")[-1]))]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cpp"
        source.write_text(_EMPTY)
        for name in names:
            command = [name, "-std=c++20", "-fsanitize=fuzzer,address,undefined", str(source), "-o", f"{folder}/empty"]
            if shutil.which(name) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return name
    return None


def configure(compiler: str, made: Path) -> None:
    """Configures the build in `made`; one that is of no use there (of other sources, of an older CMake) is deleted."""
    command = [
        *("cmake", "-S", str(ROOT), "-B", str(made), "-DMIDGRAIN_FUZZ=ON", "-DMIDGRAIN_CUDA=OFF"),
        # A build type of its own: what Release has is too slow to compile with sanitizers.
        *("-DCMAKE_BUILD_TYPE=Fuzz", "-DCMAKE_CXX_FLAGS=-O1 -g1", "-DMIDGRAIN_SANITIZE=address,undefined"),
        f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    if made.exists():
        if subprocess.run(command, check=False).returncode == 0:
            return
        shutil.rmtree(made)
    subprocess.run(command, check=True)


def build(compiler: str, folder: Path) -> Path:
    """Builds into `folder`, and returns the program."""
    made = folder / "build"
    configure(compiler, made)
    jobs = str(min(4, os.cpu_count() or 1))
    subprocess.run(["cmake", "--build", str(made), "--target", "midgrain_fuzz", "--parallel", jobs], check=True)
    return made / "midgrain_fuzz"


def main() -> int:
    """Returns the fuzzer's exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("inputs", nargs="*", type=Path, help="inputs to try again, instead of a search")
    parser.add_argument("--folder", type=Path, help="keeps the build, the corpus and what is found")
    parser.add_argument("--seconds", type=int, default=0, help="searches as long; 0: no limit")
    parser.add_argument("--runs", type=int, default=-1, help="inputs tried; -1: no limit")
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    arguments = parser.parse_args()
    compiler = find_compiler()
    if compiler is None:
        sys.exit("no clang++ that builds fuzzers (libclang-rt or compiler-rt has libFuzzer)")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        command = [str(build(compiler, folder))]
        if arguments.inputs:
            command += [str(each) for each in arguments.inputs]
        else:
            found = (folder if arguments.folder else Path.cwd()) / "found"
            found.mkdir(exist_ok=True)
            # What a seed finds is the same only from the same corpus, which for a given seed is none.
            corpus = [] if arguments.seed else [str(folder / "corpus")]
            for each in corpus:
                Path(each).mkdir(exist_ok=True)
            command += [*corpus, f"-artifact_prefix={found}{os.sep}", f"-max_total_time={arguments.seconds}"]
            command += [f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-print_final_stats=1"]
            # Longer inputs at once: short ones draw most of their values from a hash.
            command += ["-len_control=20", "-max_len=3000"]
        return subprocess.run(command, env={**os.environ, **_OPTIONS}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
