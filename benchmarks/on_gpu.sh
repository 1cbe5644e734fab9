#!/usr/bin/env bash
# Builds midgrain with its CUDA kernels for this machine's GPU, runs the tests of the GPU and the benchmark.
#
#   benchmarks/on_gpu.sh OUT_FOLDER [--skip-build] [--dry-run] [--quick]
#
# --skip-build  takes the midgrain that is installed.
# --dry-run     the same on the CPU with small inputs: does everything run? Implies --skip-build; measures nothing.
# --quick       the benchmark's smallest form.
#
# Needs: a driver, nvcc 12.0 or newer, CMake, a C++20 compiler, and Python with torch, numpy, scikit-image, scipy,
# pybind11, scikit-build-core and pytest; nothing is fetched. CuPy, Numba, torchvision and compute-sanitizer are used
# where they are there. The environment stays as it is: the build goes to a folder for temporary files.
#
# Ends within MIDGRAIN_GPU_SECONDS (570 by default). OUT_FOLDER has summary.txt, build.log, tests.log, benchmark.log,
# sanitizer.log, gpu.json and gpu.md, each as far as it came.
# Exit code: 0 tests and benchmark passed; 1 something failed or ran out of time; 2 this machine cannot run it.
set -uo pipefail

usage() {
    sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
}

out="" build=yes device=cuda quick=""
for argument in "$@"; do
    case $argument in
        --skip-build) build=no ;;
        --dry-run) build=no device=cpu quick=--quick ;;
        --quick) quick=--quick ;;
        -h | --help) usage && exit 0 ;;
        -*) echo "on_gpu.sh: unknown option $argument" >&2 && exit 2 ;;
        *) out=$argument ;;
    esac
done
[ -n "$out" ] || { usage >&2 && exit 2; }
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2

start=$SECONDS
seconds=${MIDGRAIN_GPU_SECONDS:-570}
python=${PYTHON:-python3}
summary=$out/summary.txt
failed=0
: >"$summary"
export PYTHONUNBUFFERED=1

say() {
    echo "$*" | tee -a "$summary"
}

give_up() {
    say "on_gpu.sh: $*"
    exit 2
}

left() {
    echo $((seconds - (SECONDS - start)))
}

# part NAME LIMIT COMMAND...: runs it within LIMIT seconds, or what is left, into OUT_FOLDER/NAME.log.
part() {
    local name=$1 limit=$2 began=$SECONDS status
    shift 2
    [ "$limit" -le "$(left)" ] || limit=$(left)
    if [ "$limit" -lt 5 ]; then
        say "$name: no time left"
        return 124
    fi
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    case $status in
        0) say "$name: passed, $((SECONDS - began)) s" ;;
        124 | 137) say "$name: stopped after $((SECONDS - began)) s" ;;
        *) say "$name: failed with exit code $status, $((SECONDS - began)) s; see $name.log" ;;
    esac
    return $status
}

# --- the machine ---------------------------------------------------------------------------------------------------
for home in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
    [ -n "$home" ] && [ -d "$home/bin" ] && PATH=$PATH:$home/bin
done
export PATH
"$python" -c "import torch, numpy, skimage, scipy, pytest" 2>>"$summary" || give_up "Python packages are missing"
if [ "$device" = cuda ]; then
    architecture=$("$python" -c "
import torch
print('%d%d' % torch.cuda.get_device_capability() if torch.cuda.is_available() else '')" 2>>"$summary")
    [ -n "$architecture" ] || give_up "torch sees no CUDA device"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | tee -a "$summary"
fi

# --- the build -----------------------------------------------------------------------------------------------------
if [ "$build" = yes ]; then
    command -v nvcc >/dev/null || give_up "no nvcc on the path or under /usr/local/cuda: the kernels cannot be built"
    command -v cmake >/dev/null || "$python" -c "import cmake" 2>/dev/null || give_up "no CMake"
    "$python" -c "import pybind11, scikit_build_core" 2>>"$summary" || give_up "pybind11 or scikit-build-core is missing"
    say "nvcc $(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'), architecture $architecture," \
        "$(command -v ninja >/dev/null && echo ninja || echo 'make (no ninja)')"
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    export MIDGRAIN_CUDA=ON MIDGRAIN_CUDA_ARCHITECTURES=$architecture-real
    export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    part build 240 "$python" -m pip install -v --disable-pip-version-check --no-index --no-build-isolation --no-deps \
        --target "$site" . || { tail -n 30 "$out/build.log" && exit 1; }
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" -c "
import midgrain as mg
cuda = mg.build_info()['cuda']
print('midgrain', mg.__version__, mg.__file__, '\n', cuda)
raise SystemExit(0 if cuda['usable'] or '$device' == 'cpu' else 1)" 2>&1 | tee -a "$summary" ||
    give_up "this build of midgrain cannot use the GPU"

# --- the tests, the benchmark, and, because it is slow, NVIDIA's sanitizer last --------------------------------------
marked=gpu
[ "$device" = cuda ] || marked="not gpu and not slow"
pytest=("$python" -m pytest -v -p no:cacheprovider -m "$marked")
part tests 240 "${pytest[@]}" --ignore=tests/gpu/test_sanitizer.py tests/gpu || failed=1
tail -n 3 "$out/tests.log"
# Tables are written part by part; what is begun last ends before it is stopped.
budget=$(($(left) - 60))
[ "$budget" -ge 20 ] || budget=20
part benchmark $((budget + 40)) "$python" -m benchmarks.gpu --device "$device" $quick --out "$out" --budget "$budget" ||
    failed=1
[ ! -f "$out/gpu.md" ] || cat "$out/gpu.md"
if [ "$(left)" -ge 40 ]; then
    part sanitizer "$(($(left) - 5))" "${pytest[@]}" tests/gpu/test_sanitizer.py
    # Running out of time here is no failure: the tools slow a process down by ten times and more.
    case $? in 0 | 124 | 137) ;; *) failed=1 ;; esac
    tail -n 3 "$out/sanitizer.log"
fi
say "done after $((SECONDS - start)) s, $([ $failed = 0 ] && echo passed || echo failed)"
exit $failed
