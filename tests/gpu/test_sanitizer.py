"""NVIDIA's compute-sanitizer finds nothing: bad accesses, races, misused barriers, memory that nobody wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("every_kernel.py")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
#: What the program says where it cannot look at this device (virtual machines without the debugger's interface).
REFUSED = ("Device not supported", "not supported on this", "Unable to find injection library", "debugger is attached")


def find_sanitizer() -> str | None:
    """On the path, or where CUDA is installed."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [Path(home) / "bin" for home in homes if home]
    return shutil.which("compute-sanitizer") or next(
        (str(place / "compute-sanitizer") for place in places if (place / "compute-sanitizer").is_file()), None
    )


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Every allocation by itself, so that an access beyond one is seen.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=420, env=environment)


def test_the_script_runs_every_kernel(device):
    done = run([sys.executable, str(SCRIPT), device.type])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"


@pytest.mark.gpu
@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_found(gpu, tool):
    program = find_sanitizer()
    if program is None:
        pytest.skip("needs compute-sanitizer, which comes with the CUDA toolkit")
    options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    options += ["--report-api-errors", "no", "--launch-timeout", "120"]
    # Torch's own kernels are of no interest and take most of the time; but what they write is written.
    if tool != "initcheck":
        options += ["--kernel-name", "kns=midgrain"]
    done = run([program, *options, sys.executable, str(SCRIPT), "cuda"])
    output = done.stdout + done.stderr
    if any(text in output for text in REFUSED):
        pytest.skip(f"compute-sanitizer cannot be used on this device: {output.strip().splitlines()[0]}")
    assert done.returncode == 0, output[-8000:]
    assert "done" in done.stdout.splitlines()
    assert "ERROR SUMMARY: 0 errors" in output or "0 hazards" in output, output[-2000:]
