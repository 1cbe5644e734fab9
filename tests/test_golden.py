"""Labels that must never change: digests of superpixels of synthetic features.

The features come from integer arithmetic alone, so they are the same on every machine and with every version of
NumPy; the labels must be so too. After a deliberate change of the definition, write the digests anew and say so in
the changelog:

    python tests/test_golden.py --write
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import midgrain as mg

DIGESTS = Path(__file__).parent / "golden" / "slic.json"


def noise(shape, seed):
    """Integers 0 .. 255 without a pattern: SplitMix64 of the index."""
    h = (np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((h ^ (h >> np.uint64(31))) >> np.uint64(56)).astype(np.int64).reshape(shape)


def blobs(shape, seed):
    """Integers 0 .. 255 with something like objects: a stepped ramp, stripes and noise; channels first."""
    index = np.indices(shape[1:])
    channel = np.arange(shape[0]).reshape(-1, *[1] * len(index))
    ramp = sum((a + 1) * i for a, i in enumerate(index))
    stripes = 60 * ((index[-1] // 9 + index[-2] // 7 + channel) % 3)
    return (stripes + (ramp * (channel + 2) // 3) % 80 + noise(shape, seed) // 4) % 256


def features(shape, seed):
    """A batch [B, C, ...] of float32 integers."""
    return np.stack([blobs(shape[1:], seed + b) for b in range(shape[0])]).astype(np.float32)


def picture(shape, seed):
    """RGB bytes, channels last."""
    return np.moveaxis(blobs((3, *shape), seed), 0, -1).astype(np.uint8)


def slic(shape, seed, weights, n_segments, **options):
    return mg.ops.slic(features(shape, seed), weights, n_segments, **options)[0]


CASES = {
    "image, 1 channel, raw": lambda: slic((1, 1, 64, 80), 1, [16], 60, enforce_connectivity=False),
    "image, 1 channel": lambda: slic((1, 1, 64, 80), 1, [16], 60),
    "image, 3 channels, odd": lambda: slic((1, 3, 61, 47), 2, [20, 24, 28], 37),
    "image, 3 channels, odd, raw": lambda: slic((1, 3, 61, 47), 2, [20, 24, 28], 37, enforce_connectivity=False),
    "image, 4 channels, 50 iterations": lambda: slic((1, 4, 50, 70), 3, [32] * 4, 50, max_num_iter=50),
    "image, 9 channels, wide": lambda: slic((1, 9, 40, 40), 4, [0.5] * 9, 25),
    "image, noise": lambda: mg.ops.slic(noise((1, 2, 60, 60), 5).astype(np.float32), [64, 32], 40)[0],
    "image, one row": lambda: slic((1, 1, 1, 300), 6, [32], 20),
    "image, clamped ranges": lambda: slic((1, 2, 48, 48), 7, [16, 16], 30, ranges=[(40, 160), (0, 90)]),
    "image, spacing": lambda: slic((1, 2, 48, 64), 8, [32, 32], 30, spacing=(1.5, 0.75)),
    "batch of images": lambda: slic((3, 2, 40, 56), 9, [24, 24], 28, min_size_factor=0.25),
    "volume, 1 channel, raw": lambda: slic((1, 1, 8, 32, 36), 10, [24], 40, enforce_connectivity=False),
    "volume, 4 channels": lambda: slic((1, 4, 9, 31, 37), 11, [40] * 4, 40),
    "volume, spacing, wide": lambda: slic((2, 2, 5, 24, 28), 12, [0.75, 0.5], 30, spacing=(4, 1, 1)),
    "picture in Lab": lambda: mg.slic(picture((72, 90), 13), 80),
    "picture in Lab, raw": lambda: mg.slic(picture((72, 90), 13), 80, 20, enforce_connectivity=False),
    "picture in Lab and gradient": lambda: mg.slic(picture((72, 90), 13), 80, gradient=blobs((1, 72, 90), 14)[0]),
    "gradient alone": lambda: mg.slic(None, 80, gradient=blobs((1, 72, 90), 14)[0]),
    "clip in Lab": lambda: mg.slic(picture((6, 40, 44), 15), 60),
}


def digest(labels):
    """SHA-256 of shape and values."""
    return hashlib.sha256(f"{labels.shape}".encode() + labels.astype("<i4").tobytes()).hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_labels_are_as_they_always_were(case, instruction_set):
    assert digest(CASES[case]()) == json.loads(DIGESTS.read_text())[case]


def test_every_digest_has_a_case():
    assert list(json.loads(DIGESTS.read_text())) == list(CASES)


def test_the_features_themselves_are_as_they_always_were():
    assert noise((6,), 1).tolist() == [190, 70, 231, 153, 29, 134]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    DIGESTS.write_text(json.dumps({case: digest(make()) for case, make in CASES.items()}, indent=2) + "\n")
