"""The CUDA sources as a whole: nvcc compiles all of them without a warning, and the sanitizers find nothing."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import cuda_library as cuda

NVCC = shutil.which("nvcc")
# The oldest and the newest that releases are made for.
ARCHITECTURES = ("sm_75", "sm_90")


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize("source", [path.name for path in cuda.KERNELS])
def test_nvcc_compiles_every_source(source, tmp_path):
    flags = ["-std=c++20", "-fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    flags += [f"-gencode=arch=compute_{name[3:]},code={name}" for name in ARCHITECTURES]
    path = cuda.ROOT / "csrc" / "cuda" / source
    command = [str(NVCC), *flags, f"-I{cuda.ROOT / 'csrc'}", "-c", str(path), "-o", str(tmp_path / "one.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CALLS = """
import numpy as np, cuda_kernels
import midgrain as mg

rng = np.random.default_rng(0)
image = rng.standard_normal((2, 3, 21, 37)).astype(np.float32)
clip = rng.standard_normal((1, 5, 4, 9, 35)).astype(np.float32)
picture = rng.integers(0, 256, (1, 3, 17, 18)).astype(np.uint8)
labels = rng.integers(0, 6, (2, 21, 37))
with cuda_kernels.as_backend({seed}):
    mg.ops.slic(image, [1.0] * 3, 15, max_num_iter=3)
    mg.ops.slic(image * 1e4, [1.0] * 3, 15, max_num_iter=3)
    mg.ops.slic(clip, [1.0] * 5, 12, max_num_iter=3, spacing=(1e5, 1, 1))
    mg.ops.slic_pictures(picture, 300, gradient=rng.random((1, 17, 18), np.float32), max_num_iter=2)
    mg.ops.enforce_connectivity(labels, 9)
    mg.ops.rgb_to_lab(picture)
    for reduce in mg.ops.REDUCTIONS:
        for values in (image, image.astype(np.float64)):
            pooled = mg.pool(values, labels, reduce, n=8)
            mg.paint(pooled, labels)
            mg.pool(np.moveaxis(values, 1, -1).copy(), labels, reduce, n=8, channel_axis=-1)
    for bad in (-1, 8, 2**31 - 1):
        try:
            mg.pool(image, np.where(labels == 3, bad, labels), n=8)
            raise SystemExit("a label outside was not noticed")
        except ValueError:
            pass
    patches = mg.ops.extract_patches(image, (3, 5), (2, 3))
    mg.ops.patches.extract_patches_backward_numpy(patches, (21, 37), (3, 5), (2, 3), (28, 52), 0, 1)
    mg.ops.aggregate_patches(rng.random((1, 6, 3, 4)), (2, 3), size=(9, 10))
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(cuda.COMPILER is None, reason="needs g++")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_sanitizers_find_nothing(seed):
    done = cuda.under_sanitizers(CALLS.format(seed=seed))
    assert done.stdout == "done\n", done.stderr[-6000:]
    assert "runtime error" not in done.stderr
