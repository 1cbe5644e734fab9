"""The kernels' tests under a sanitizer, in short; run_sanitized.py by hand runs them all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="needs the repository, not the package")
@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("cmake") is None, reason="needs g++ and CMake")
@pytest.mark.skipif(sys.platform != "linux", reason="loads the sanitizer before Python, as Linux does")
def test_the_boundary_under_address_and_undefined(tmp_path):
    script = [sys.executable, str(ROOT / "tests" / "run_sanitized.py"), "address,undefined", "--folder", str(tmp_path)]
    tests = [
        "tests/test_boundary.py",
        "tests/test_boundary_fuzz.py",
        "tests/test_pool_kernel.py",
        "tests/test_patches.py",
    ]
    done = subprocess.run([*script, *tests], capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
