"""Builds the compiled module with sanitizers into a folder of its own and runs the kernels' tests with it.

    python tests/run_sanitized.py address,undefined
    python tests/run_sanitized.py thread tests/test_threads.py -k fork

Needs CMake, g++ with its sanitizers' libraries, and Linux. The installed module is not touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent
#: What calls the kernels: the boundary, the twins, threads.
TESTS = (
    "test_boundary.py",
    "test_boundary_fuzz.py",
    "test_bad_input_ops.py",
    "test_color.py",
    "test_connectivity.py",
    "test_overlay_kernel.py",
    "test_patches.py",
    "test_pool.py",
    "test_pool_channels.py",
    "test_pool_kernel.py",
    "test_slic_image.py",
    "test_slic_kernel.py",
    "test_slic_pictures.py",
    "test_threads.py",
    "test_free_threading.py",
    "test_processes.py",
)
SANITIZERS = ("address,undefined", "thread")
# Tests whose subject a sanitizer itself changes: memory that is kept, warnings of an import, and a fork while another
# thread allocates, after which the child waits for ever for a lock of the sanitizer's allocator.
DESELECTED = ("memory_stays_flat", "nothing_leaks", "fork", "importing_leaves_the_gil_off")
_LIBRARIES = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
_OPTIONS = {
    # Python and torch keep much until the process ends. A refused allocation of terabytes is a test's subject.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
    # Python, torch and NumPy are not instrumented, so their own synchronisation is not seen.
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:abort_on_error=1:second_deadlock_stack=1",
}
# Takes the editable install's finder away, which would import the module from elsewhere.
_SITE = """
import sys
sys.meta_path[:] = [each for each in sys.meta_path if "ScikitBuild" not in type(each).__name__]
"""


def build(sanitize: str, folder: Path) -> Path:
    """Builds into `folder`, and returns a folder for PYTHONPATH."""
    made, found = folder / "build", folder / "path"
    subprocess.run(
        [
            *("cmake", "-S", ROOT, "-B", made, "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DMIDGRAIN_CUDA=OFF"),
            f"-DMIDGRAIN_SANITIZE={sanitize}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ],
        check=True,
    )
    subprocess.run(["cmake", "--build", made, "--parallel", str(os.cpu_count() or 1)], check=True)
    shutil.rmtree(found, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "midgrain", found / "midgrain", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    (module,) = made.glob("_cpu.*.so")
    shutil.copy(module, found / "midgrain" / "_kernels")
    (found / "sitecustomize.py").write_text(_SITE)
    return found


def environment(sanitize: str, path: Path) -> dict[str, str]:
    """What a Python process needs to load the module, and its children."""
    libraries = [
        subprocess.run(["g++", f"-print-file-name={_LIBRARIES[name]}"], capture_output=True, text=True, check=True)
        for name in sanitize.split(",")
    ]
    return {
        **os.environ,
        **_OPTIONS,
        # libstdc++ before anything else that may bring its own: sanitizers wrap its exceptions.
        "LD_PRELOAD": " ".join([*(done.stdout.strip() for done in libraries), "libstdc++.so.6"]),
        "PYTHONPATH": os.pathsep.join([str(path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(":"),
        # So that Python's own small objects are watched too; a free-threaded Python has its own allocator only.
        **({} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"PYTHONMALLOC": "malloc"}),
        "OMP_NUM_THREADS": "1",  # torch's threads are not instrumented
        "NUMBA_DISABLE_JIT": "0",
    }


# A mistake of each kind that no check can find out: an output that is larger than its memory, and two calls at once
# into the same output.
_MISTAKES = {
    "address,undefined": """
import numpy as np, producers
from midgrain._kernels import cpu
assert "path/midgrain" in cpu.__file__, cpu.__file__
out = producers.HandMade(np.zeros((1, 3, 40), np.float32), strides=False)
out._shape[2] = rest = 100_000
cpu.rgb_to_lab(np.zeros((1, 3, rest), np.float32), out, False, 1)
""",
    "thread": """
import numpy as np, threading
from midgrain._kernels import cpu
assert "path/midgrain" in cpu.__file__, cpu.__file__
rgb, out = np.zeros((1, 3, 1_000_000), np.float32), np.zeros((1, 3, 1_000_000), np.float32)
start = threading.Barrier(2)
def work():
    start.wait()
    for _ in range(5):
        cpu.rgb_to_lab(rgb, out, False, 1)
threads = [threading.Thread(target=work) for _ in range(2)]
[each.start() for each in threads]
[each.join() for each in threads]
""",
}
_REPORTS = {"address,undefined": "heap-buffer-overflow", "thread": "data race"}


def _check_that_it_sees(sanitize: str, command: list[str], found: dict[str, str]) -> None:
    """That the module is the sanitized one, and the sanitizer at work: it must report a mistake made on purpose."""
    done = subprocess.run(
        [*command, "-c", _MISTAKES[sanitize]],
        env=found,
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 or _REPORTS[sanitize] not in done.stderr:
        sys.exit(f"the sanitizer did not report a mistake that was made on purpose:\n{done.stdout}{done.stderr}")


def main() -> int:
    """Returns pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sanitize", choices=SANITIZERS)
    parser.add_argument("--folder", type=Path, help="keeps the build for the next run")
    arguments, pytest_arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        found = environment(arguments.sanitize, build(arguments.sanitize, folder.absolute()))
        # Where memory is laid out at random, older sanitizers may find the place of their own taken.
        command = [*(["setarch", "-R"] if shutil.which("setarch") else []), sys.executable]
        _check_that_it_sees(arguments.sanitize, command, found)
        if not any(each.startswith("tests/") for each in pytest_arguments):
            pytest_arguments += [f"tests/{name}" for name in TESTS if (ROOT / "tests" / name).exists()]
        if "-k" not in pytest_arguments:
            pytest_arguments += ["-k", f"not ({' or '.join(DESELECTED)})"]
        run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-s", *pytest_arguments]
        return subprocess.run([*command, *run], env=found, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
