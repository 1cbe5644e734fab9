"""Wrong input to the array functions: which exception, and that its message starts with the argument's name."""

import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

import midgrain as mg

RGB = np.zeros((8, 9, 3), np.uint8)
GREY = np.arange(72.0).reshape(8, 9)
FEATURES = np.arange(144, dtype=np.float32).reshape(1, 2, 8, 9)
LABELS = np.arange(72).reshape(8, 9) // 24
SCORES = np.array([1.0, 2.0, 3.0])
NAN, INF = float("nan"), float("inf")


def with_bad(array, bad):
    """A float copy whose last value is `bad`."""
    copy = np.array(array, float)
    copy.flat[-1] = bad
    return copy


class NumberLike:
    """Not a number, though float() takes it."""

    def __repr__(self):
        return "NumberLike()"

    def __float__(self):
        return 1.0


# What is no array of real numbers, for any array argument.
NO_ARRAYS = {
    "list": [[1.0, 2.0], [3.0, 4.0]],
    "number": 3.0,
    "string": "picture.png",
    "object": object(),
    "sparse": torch.ones(8, 9).to_sparse(),
    "complex": np.ones((8, 9), complex),
    "complex tensor": torch.ones(8, 9, dtype=torch.complex64),
    "text": np.full((8, 9), "a"),
    "objects": np.full((8, 9), None),
    "dates": np.full((8, 9), "2020-01-01", "datetime64[D]"),
    "masked": np.ma.masked_array(np.ones((8, 9)), np.eye(8, 9)),
    "float8 tensor": torch.ones(8, 9).to(torch.float8_e4m3fnuz),
}


def same_kind(reference, array):
    """`reference` as a tensor where `array` is one, so that the mixture is not what is refused."""
    return torch.from_numpy(reference) if isinstance(array, torch.Tensor) else reference


def grow(array, axes):
    """An array with that many more axes in front; anything else as it is."""
    return array[(None,) * axes] if hasattr(array, "shape") and not array_is_sparse(array) else array


def array_is_sparse(array):
    return isinstance(array, torch.Tensor) and array.is_sparse


ARRAY_ARGUMENTS = {
    "slic image": ("image", lambda a: mg.slic(a, 4)),
    "slic gradient": ("gradient", lambda a: mg.slic(None, 4, gradient=a)),
    "ops.slic": ("features", lambda a: mg.ops.slic(grow(a, 2), [1.0], 4)),
    "rgb_to_lab": ("rgb", lambda a: mg.ops.rgb_to_lab(grow(a, 1))),
    "enforce_connectivity": ("labels", lambda a: mg.ops.enforce_connectivity(grow(a, 1))),
    "extract_patches": ("images", lambda a: mg.ops.extract_patches(grow(a, 2), 2, 3)),
    "aggregate_patches": ("maps", lambda a: mg.ops.aggregate_patches(grow(a, 2), 1)),
    "pool values": ("values", lambda a: mg.pool(a, same_kind(LABELS, a))),
    "pool labels": ("labels", lambda a: mg.pool(same_kind(GREY, a), a)),
    "pool labels, n": ("labels", lambda a: mg.pool(same_kind(GREY, a), a, n=3)),
    "paint scores": ("scores", lambda a: mg.paint(a, same_kind(LABELS, a))),
    "paint labels": ("labels", lambda a: mg.paint(same_kind(SCORES, a), a)),
}


@pytest.mark.parametrize("what", NO_ARRAYS)
@pytest.mark.parametrize("argument", ARRAY_ARGUMENTS)
def test_no_array_of_real_numbers(argument, what):
    name, call = ARRAY_ARGUMENTS[argument]
    with pytest.raises(TypeError, match=rf"^{name}: "):
        call(NO_ARRAYS[what])


@pytest.mark.parametrize("labels", [GREY, GREY > 3, np.float16([[0]])], ids=["float64", "bool", "float16"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_labels_that_are_no_integers(labels, as_tensor):
    values = np.ones(labels.shape)
    if as_tensor:
        labels, values = torch.from_numpy(labels), torch.from_numpy(values)
    for call in (
        lambda: mg.pool(values, labels),
        lambda: mg.pool(values, labels, n=5),
        lambda: mg.paint(values[0], labels),
        lambda: mg.ops.enforce_connectivity(labels[None]),
    ):
        with pytest.raises(TypeError, match=r"^labels: expected integers"):
            call()


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("labels", "n"),
    [
        (LABELS - 1, None),
        (LABELS - 1, 3),
        (LABELS - 9, None),
        (LABELS + 1, 3),
        (LABELS, 2),
        (LABELS + 2**32, 3),
        (LABELS + 2**32, None),
        (LABELS - 2**32, 3),
        (LABELS + np.iinfo(np.int64).min, 3),
        (LABELS.astype(np.uint64) + 2**63, 3),
        (LABELS.astype(np.uint64) + 2**63, None),
    ],
)
def test_labels_out_of_range(library, labels, n):
    values, scores = GREY, SCORES[:n]
    if library == "torch":
        labels, values, scores = (torch.from_numpy(array) for array in (labels, values, scores))
    with pytest.raises(ValueError, match=r"^labels: expected values"):
        mg.pool(values, labels, n=n)
    if n is not None:
        with pytest.raises(ValueError, match=r"^labels: expected values"):
            mg.paint(scores, labels)


# call, exception, the beginning of its message
CASES = {
    # mg.slic
    "slic: nothing": (lambda: mg.slic(None), ValueError, "image: "),
    "slic: 1 axis": (lambda: mg.slic(np.zeros(9), 4), ValueError, "image: "),
    "slic: 5 axes": (lambda: mg.slic(np.zeros((2, 2, 2, 2, 3)), 4), ValueError, "image: "),
    "slic: 4 axes without channels": (
        lambda: mg.slic(np.zeros((2, 2, 2, 3)), 4, channel_axis=None),
        ValueError,
        "image: ",
    ),
    "slic: no pixels": (lambda: mg.slic(RGB[:0], 4), ValueError, "image: "),
    "slic: no channels": (lambda: mg.slic(RGB[..., :0], 4), ValueError, "image: "),
    "slic: too many channels": (lambda: mg.slic(np.zeros((4, 5, 65)), 4), ValueError, "image: .*channel_axis=None"),
    "slic: nan": (lambda: mg.slic(with_bad(GREY, NAN), 4), ValueError, "image: "),
    "slic: inf": (lambda: mg.slic(with_bad(RGB / 255, INF), 4), ValueError, "image: "),
    "slic: floats to 255": (lambda: mg.slic(RGB + 255.0, 4), ValueError, "image: expected RGB floats in 0 .. 1"),
    "slic: normalised floats": (lambda: mg.slic(RGB - 2.0, 4), ValueError, "image: expected RGB floats in 0 .. 1"),
    "slic: int64 RGB": (lambda: mg.slic(RGB.astype(int), 4), TypeError, "image: "),
    "slic: bool RGB": (lambda: mg.slic(RGB > 0, 4), TypeError, "image: "),
    "slic: channel_axis": (lambda: mg.slic(RGB, 4, channel_axis=3), ValueError, "channel_axis: "),
    "slic: channel_axis str": (lambda: mg.slic(RGB, 4, channel_axis="last"), TypeError, "channel_axis: "),
    "slic: channel_axis bool": (lambda: mg.slic(RGB, 4, channel_axis=True), TypeError, "channel_axis: "),
    "slic: convert2lab": (lambda: mg.slic(GREY, 4, convert2lab=True), ValueError, "convert2lab: "),
    "slic: gradient shape": (lambda: mg.slic(RGB, 4, gradient=GREY[1:]), ValueError, "gradient: "),
    "slic: gradient with channels": (lambda: mg.slic(RGB, 4, gradient=GREY[None]), ValueError, "gradient: "),
    "slic: gradient 1 axis": (lambda: mg.slic(None, 4, gradient=GREY[0]), ValueError, "gradient: "),
    "slic: gradient without pixels": (lambda: mg.slic(None, 4, gradient=GREY[:, :0]), ValueError, "gradient: "),
    "slic: gradient nan": (lambda: mg.slic(RGB, 4, gradient=with_bad(GREY, NAN)), ValueError, "gradient: "),
    "slic: gradient inf": (lambda: mg.slic(RGB, 4, gradient=with_bad(GREY, -INF)), ValueError, "gradient: "),
    "slic: mixture": (lambda: mg.slic(RGB, 4, gradient=torch.zeros(8, 9)), TypeError, "image, gradient: "),
    "slic: max_num_iter 0": (lambda: mg.slic(RGB, 4, max_num_iter=0), ValueError, "max_num_iter: "),
    "slic: max_num_iter float": (lambda: mg.slic(RGB, 4, max_num_iter=5.0), TypeError, "max_num_iter: "),
    "slic: min_size_factor": (lambda: mg.slic(RGB, 4, min_size_factor=-1), ValueError, "min_size_factor: "),
    "slic: start_label": (lambda: mg.slic(RGB, 4, start_label=-1), ValueError, "start_label: "),
    "slic: start_label float": (lambda: mg.slic(RGB, 4, start_label=1.0), TypeError, "start_label: "),
    "slic: spacing of a volume": (lambda: mg.slic(RGB, 4, spacing=(1, 1, 1)), ValueError, "spacing: "),
    # mg.ops.slic
    "ops.slic: 3 axes": (lambda: mg.ops.slic(FEATURES[0], [1, 1], 4), ValueError, "features: "),
    "ops.slic: 6 axes": (lambda: mg.ops.slic(FEATURES[None, None], [1, 1], 4), ValueError, "features: "),
    "ops.slic: no items": (lambda: mg.ops.slic(FEATURES[:0], [1, 1], 4), ValueError, "features: "),
    "ops.slic: no channels": (lambda: mg.ops.slic(FEATURES[:, :0], [], 4), ValueError, "features: "),
    "ops.slic: no pixels": (lambda: mg.ops.slic(FEATURES[..., :0], [1, 1], 4), ValueError, "features: "),
    "ops.slic: 65 channels": (lambda: mg.ops.slic(np.zeros((1, 65, 4, 4)), [1] * 65, 4), ValueError, "features: "),
    "ops.slic: nan": (
        lambda: mg.ops.slic(with_bad(FEATURES, NAN), [1, 1], 4),
        ValueError,
        "features: .*item 0, channel 1",
    ),
    "ops.slic: inf": (lambda: mg.ops.slic(with_bad(FEATURES, INF), [1, 1], 4), ValueError, "features: "),
    "ops.slic: beyond float32": (lambda: mg.ops.slic(with_bad(FEATURES, 1e39), [1, 1], 4), ValueError, "features: "),
    "ops.slic: nan tensor": (
        lambda: mg.ops.slic(torch.from_numpy(with_bad(FEATURES, NAN)), [1, 1], 4),
        ValueError,
        "features: ",
    ),
    "ops.slic: weights count": (lambda: mg.ops.slic(FEATURES, [1, 1, 1], 4), ValueError, "weights: "),
    "ops.slic: weights number": (lambda: mg.ops.slic(FEATURES, 1.0, 4), TypeError, "weights: "),
    "ops.slic: weights str": (lambda: mg.ops.slic(FEATURES, "11", 4), TypeError, "weights: "),
    "ops.slic: weights 0-d": (lambda: mg.ops.slic(FEATURES, np.array(1.0), 4), TypeError, "weights: "),
    "ops.slic: weights 2-d": (lambda: mg.ops.slic(FEATURES, np.ones((2, 1)), 4), TypeError, "weights: "),
    "ops.slic: weights tensor": (lambda: mg.ops.slic(FEATURES, torch.ones(2), 4), TypeError, "weights: "),
    "ops.slic: weights text": (lambda: mg.ops.slic(FEATURES, ["1", "1"], 4), TypeError, "weights: "),
    "ops.slic: weights bool": (lambda: mg.ops.slic(FEATURES, [True, 1], 4), TypeError, "weights: "),
    "ops.slic: weight 0": (lambda: mg.ops.slic(FEATURES, [1, 0], 4), ValueError, "weights: "),
    "ops.slic: weight nan": (lambda: mg.ops.slic(FEATURES, [1, NAN], 4), ValueError, "weights: "),
    "ops.slic: weight 1e-40": (lambda: mg.ops.slic(FEATURES * 0, [1, 1e-40], 4), ValueError, "weights: "),
    "ops.slic: weight far below the range": (lambda: mg.ops.slic(FEATURES, [1, 1e-8], 4), ValueError, "weights: "),
    "ops.slic: ranges number": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=5), TypeError, "ranges: "),
    "ops.slic: ranges count": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[(0, 1)]), ValueError, "ranges: "),
    "ops.slic: ranges 1 + 3": (
        lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[(0,), (1, 0, 1)]),
        ValueError,
        "ranges: ",
    ),
    "ops.slic: ranges flat": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[0, 1]), TypeError, "ranges: "),
    "ops.slic: ranges text": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[("0", "1")] * 2), TypeError, "ranges: "),
    "ops.slic: ranges swapped": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[(1, 0)] * 2), ValueError, "ranges: "),
    "ops.slic: ranges nan": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[(0, NAN)] * 2), ValueError, "ranges: "),
    "ops.slic: ranges beyond float32": (
        lambda: mg.ops.slic(FEATURES, [1, 1], 4, ranges=[(0, 1e39)] * 2),
        ValueError,
        "ranges: ",
    ),
    "ops.slic: spacing number": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=1.0), TypeError, "spacing: "),
    "ops.slic: spacing 0-d": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=np.array(1.0)), TypeError, "spacing: "),
    "ops.slic: spacing count": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=(1,)), ValueError, "spacing: "),
    "ops.slic: spacing 0": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=(1, 0)), ValueError, "spacing: "),
    "ops.slic: spacing nan": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=(1, NAN)), ValueError, "spacing: "),
    "ops.slic: spacing 1e-200": (
        lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=(1, 1e-200)),
        ValueError,
        "spacing: ",
    ),
    "ops.slic: spacing 1e308": (lambda: mg.ops.slic(FEATURES, [1, 1], 4, spacing=(1e308, 1)), ValueError, "spacing: "),
    "max_superpixels: n_segments": (lambda: mg.ops.max_superpixels(100, 0), ValueError, "n_segments: "),
    "max_superpixels: pixels": (lambda: mg.ops.max_superpixels(0, 1), ValueError, "pixels: "),
    # mg.ops.enforce_connectivity
    "connectivity: 2 axes": (lambda: mg.ops.enforce_connectivity(LABELS), ValueError, "labels: "),
    "connectivity: 5 axes": (lambda: mg.ops.enforce_connectivity(LABELS[None, None, None]), ValueError, "labels: "),
    "connectivity: no pixels": (lambda: mg.ops.enforce_connectivity(LABELS[None, :0]), ValueError, "labels: "),
    "connectivity: beyond int32": (lambda: mg.ops.enforce_connectivity(LABELS[None] + 2**31), ValueError, "labels: "),
    "connectivity: min_size -1": (lambda: mg.ops.enforce_connectivity(LABELS[None], -1), ValueError, "min_size: "),
    "connectivity: min_size float": (lambda: mg.ops.enforce_connectivity(LABELS[None], 2.0), TypeError, "min_size: "),
    # mg.ops.rgb_to_lab
    "lab: 4 channels": (lambda: mg.ops.rgb_to_lab(np.zeros((1, 4, 5, 5))), ValueError, "rgb: "),
    "lab: channels elsewhere": (lambda: mg.ops.rgb_to_lab(np.zeros((1, 5, 5, 3))), ValueError, "rgb: "),
    "lab: 2 axes": (lambda: mg.ops.rgb_to_lab(np.zeros((5, 3))), ValueError, "rgb: "),
    "lab: no items": (lambda: mg.ops.rgb_to_lab(np.zeros((0, 3, 5, 5))), ValueError, "rgb: "),
    "lab: no pixels": (lambda: mg.ops.rgb_to_lab(np.zeros((1, 3, 0, 5))), ValueError, "rgb: "),
    "lab: int32": (lambda: mg.ops.rgb_to_lab(np.zeros((1, 3, 5, 5), np.int32)), TypeError, "rgb: "),
    "lab: int32 tensor": (lambda: mg.ops.rgb_to_lab(torch.zeros(1, 3, 5, 5, dtype=torch.int32)), TypeError, "rgb: "),
    "lab: bool": (lambda: mg.ops.rgb_to_lab(np.zeros((1, 3, 5, 5), bool)), TypeError, "rgb: "),
    "lab: nan tensor": (lambda: mg.ops.rgb_to_lab(torch.full((1, 3, 5, 5), NAN)), ValueError, "rgb: "),
    "lab: beyond float32": (lambda: mg.ops.rgb_to_lab(np.full((1, 3, 5, 5), 1e39)), ValueError, "rgb: "),
    "lab: channel_axis 2": (
        lambda: mg.ops.rgb_to_lab(np.zeros((1, 3, 3, 3)), channel_axis=2),
        ValueError,
        "channel_axis: ",
    ),
    "lab: channel_axis 0": (
        lambda: mg.ops.rgb_to_lab(np.zeros((3, 3, 3)), channel_axis=0),
        ValueError,
        "channel_axis: ",
    ),
    "lab: channel_axis str": (
        lambda: mg.ops.rgb_to_lab(torch.zeros(1, 3, 3, 3), channel_axis="last"),
        TypeError,
        "channel_axis: ",
    ),
    # mg.pool
    "pool: mixture": (lambda: mg.pool(GREY, torch.from_numpy(LABELS)), TypeError, "values, labels: "),
    "pool: mixture the other way": (lambda: mg.pool(torch.from_numpy(GREY), LABELS), TypeError, "values, labels: "),
    "pool: nan": (lambda: mg.pool(with_bad(GREY, NAN), LABELS), ValueError, "values: "),
    "pool: nan, max": (lambda: mg.pool(with_bad(GREY, NAN), LABELS, "max"), ValueError, "values: "),
    "pool: inf": (lambda: mg.pool(with_bad(GREY, INF), LABELS), ValueError, "values: "),
    "pool: nan tensor": (
        lambda: mg.pool(torch.from_numpy(with_bad(GREY, NAN)), torch.from_numpy(LABELS)),
        ValueError,
        "values: ",
    ),
    "pool: no pixels": (lambda: mg.pool(GREY[:0], LABELS[:0]), ValueError, "values: "),
    "pool: empty batch": (lambda: mg.pool(np.zeros((0, 8, 9)), LABELS), ValueError, "values: "),
    "pool: other shape": (lambda: mg.pool(GREY, LABELS[1:]), ValueError, "labels: "),
    "pool: transposed": (lambda: mg.pool(GREY, LABELS.T), ValueError, "labels: "),
    "pool: number": (lambda: mg.pool(np.float64(3), LABELS), ValueError, "labels: "),
    "pool: labels 1 axis": (lambda: mg.pool(GREY, LABELS[0]), ValueError, "labels: "),
    "pool: labels 5 axes": (lambda: mg.pool(GREY, LABELS[None, None, None]), ValueError, "labels: "),
    "pool: ambiguous": (lambda: mg.pool(np.zeros((2, 2, 8, 9)), np.stack([LABELS] * 2)), ValueError, "labels: "),
    "pool: spatial_dims 1": (lambda: mg.pool(GREY, LABELS, spatial_dims=1), ValueError, "spatial_dims: "),
    "pool: spatial_dims 3": (lambda: mg.pool(GREY, LABELS, spatial_dims=3), ValueError, "spatial_dims: "),
    "pool: spatial_dims float": (lambda: mg.pool(GREY, LABELS, spatial_dims=2.0), TypeError, "spatial_dims: "),
    "pool: reduce": (lambda: mg.pool(GREY, LABELS, "average"), ValueError, "reduce: .*mean, sum.*'average'"),
    "pool: reduce number": (lambda: mg.pool(GREY, LABELS, 3), ValueError, "reduce: "),
    "pool: reduce list": (lambda: mg.pool(GREY, LABELS, ["mean"]), ValueError, "reduce: "),
    "pool: n 0": (lambda: mg.pool(GREY, LABELS, n=0), ValueError, "n: "),
    "pool: n float": (lambda: mg.pool(GREY, LABELS, n=3.0), TypeError, "n: "),
    "pool: n bool": (lambda: mg.pool(GREY, LABELS, n=True), TypeError, "n: "),
    "pool: n 2^31": (lambda: mg.pool(GREY, LABELS, n=2**31), ValueError, "n: "),
    # mg.ops.extract_patches
    "extract: 3 axes": (lambda: mg.ops.extract_patches(FEATURES[0], 2, 3), ValueError, "images: .*B, C, Y, X"),
    "extract: 6 axes": (lambda: mg.ops.extract_patches(FEATURES[None, None], 2, 3), ValueError, "images: "),
    "extract: no items": (lambda: mg.ops.extract_patches(FEATURES[:0], 2, 3), ValueError, "images: "),
    "extract: no channels": (lambda: mg.ops.extract_patches(FEATURES[:, :0], 2, 3), ValueError, "images: "),
    "extract: no pixels": (lambda: mg.ops.extract_patches(FEATURES[..., :0], 2, 3), ValueError, "images: "),
    "extract: cells 0": (
        lambda: mg.ops.extract_patches(FEATURES, 0, 3),
        ValueError,
        "cells: expected 1 or more, got 0",
    ),
    "extract: cells float": (lambda: mg.ops.extract_patches(FEATURES, 2.0, 3), TypeError, "cells: "),
    "extract: cells None": (lambda: mg.ops.extract_patches(FEATURES, None, 3), TypeError, "cells: "),
    "extract: cells bool": (lambda: mg.ops.extract_patches(FEATURES, True, 3), TypeError, "cells: expected an int"),
    "extract: 3 cells": (lambda: mg.ops.extract_patches(FEATURES, (2, 2, 2), 3), ValueError, "cells: .*axis .2.*got 3"),
    "extract: cells beyond pixels": (
        lambda: mg.ops.extract_patches(FEATURES, 9, 3),
        ValueError,
        r"cells: expected at most the patch's pixels along each axis, \[8, 9\], got \[9, 9\]",
    ),
    "extract: cells beyond patch": (
        lambda: mg.ops.extract_patches(FEATURES, 3, 3, patch_size=2),
        ValueError,
        "cells: expected at most the patch's pixels",
    ),
    "extract: grid 0": (lambda: mg.ops.extract_patches(FEATURES, 2, (3, 0)), ValueError, "grid: "),
    "extract: grid text": (lambda: mg.ops.extract_patches(FEATURES, 2, "33"), TypeError, "grid: "),
    "extract: grid of floats": (lambda: mg.ops.extract_patches(FEATURES, 2, (3.0, 3)), TypeError, "grid: "),
    "extract: grid 2^31": (lambda: mg.ops.extract_patches(FEATURES, 2, 2**31), ValueError, "grid: "),
    "extract: grid too large": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 2**15, count=1),
        ValueError,
        r"grid: expected fewer than 2\^31 enlarged pixels",
    ),
    "extract: patch_size 0": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, patch_size=0),
        ValueError,
        "patch_size: ",
    ),
    "extract: patch_size tensor": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, patch_size=torch.tensor([4, 4])),
        TypeError,
        "patch_size: ",
    ),
    "extract: size too small": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, size=(16, 17)),
        ValueError,
        r"size: expected at least \[16, 18\], where the last patch ends, got \[16, 17\]",
    ),
    "extract: size too large": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, size=2**16),
        ValueError,
        r"size: expected fewer than 2\^31 enlarged pixels",
    ),
    "extract: size float": (lambda: mg.ops.extract_patches(FEATURES, 2, 3, size=18.0), TypeError, "size: "),
    "extract: start -1": (lambda: mg.ops.extract_patches(FEATURES, 2, 3, start=-1), ValueError, "start: "),
    "extract: start 9": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, start=9),
        ValueError,
        r"start: expected 0 \.\. 8, got 9",
    ),
    "extract: count 0": (lambda: mg.ops.extract_patches(FEATURES, 2, 3, count=0), ValueError, "count: "),
    "extract: count beyond the grid": (
        lambda: mg.ops.extract_patches(FEATURES, 2, 3, start=5, count=5),
        ValueError,
        r"count: expected 1 \.\. 4, got 5",
    ),
    "extract: count float": (lambda: mg.ops.extract_patches(FEATURES, 2, 3, count=1.0), TypeError, "count: "),
    # mg.ops.aggregate_patches
    "aggregate: 3 axes": (lambda: mg.ops.aggregate_patches(FEATURES[0], 1), ValueError, "maps: .*B, n, Y, X"),
    "aggregate: no items": (lambda: mg.ops.aggregate_patches(FEATURES[:0], (1, 2)), ValueError, "maps: "),
    "aggregate: no cells": (lambda: mg.ops.aggregate_patches(FEATURES[..., :0], (1, 2)), ValueError, "maps: "),
    "aggregate: too few maps": (
        lambda: mg.ops.aggregate_patches(FEATURES, 3),
        ValueError,
        r"maps: expected 9 along axis 1, one per patch of the grid \[3, 3\], got shape \[1, 2, 8, 9\]",
    ),
    "aggregate: grid 0": (lambda: mg.ops.aggregate_patches(FEATURES, (0, 2)), ValueError, "grid: "),
    "aggregate: grid of 3": (lambda: mg.ops.aggregate_patches(FEATURES, (1, 1, 2)), ValueError, "grid: "),
    "aggregate: grid float": (lambda: mg.ops.aggregate_patches(FEATURES, 2.0), TypeError, "grid: "),
    "aggregate: size 0": (lambda: mg.ops.aggregate_patches(FEATURES, (1, 2), size=0), ValueError, "size: "),
    "aggregate: size of 1": (lambda: mg.ops.aggregate_patches(FEATURES, (1, 2), size=[4]), ValueError, "size: "),
    "aggregate: size too large": (
        lambda: mg.ops.aggregate_patches(FEATURES, (1, 2), size=2**16),
        ValueError,
        r"size: expected fewer than 2\^31",
    ),
    # mg.paint
    "paint: mixture": (lambda: mg.paint(SCORES, torch.from_numpy(LABELS)), TypeError, "scores, labels: "),
    "paint: number": (lambda: mg.paint(np.float64(3), LABELS), ValueError, "scores: "),
    "paint: no scores": (lambda: mg.paint(SCORES[:0], LABELS), ValueError, "scores: "),
    "paint: no pixels": (lambda: mg.paint(SCORES, LABELS[:0]), ValueError, "labels: "),
    "paint: labels 1 axis": (lambda: mg.paint(SCORES, LABELS[0]), ValueError, "labels: "),
    "paint: other batch": (lambda: mg.paint(np.ones((3, 3)), np.zeros((2, 2, 4, 5), int)), ValueError, "scores: "),
    "paint: spatial_dims 4": (lambda: mg.paint(SCORES, LABELS, spatial_dims=4), ValueError, "spatial_dims: "),
    "paint: spatial_dims 2 of a volume": (
        lambda: mg.paint(SCORES, np.zeros((4, 5, 6), int), spatial_dims=2),
        ValueError,
        "scores: ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_arguments(case):
    call, exception, beginning = CASES[case]
    with pytest.raises(exception, match=f"^{beginning}"):
        call()


@pytest.mark.parametrize(
    ("bad", "exception"),
    [
        (0, ValueError),
        (-1, ValueError),
        (73, ValueError),
        (2**80, ValueError),
        (4.0, TypeError),
        (True, TypeError),
        (np.True_, TypeError),
        ("4", TypeError),
        (None, TypeError),
        (np.array([4]), TypeError),
        (torch.tensor(4), TypeError),
    ],
    ids=repr,
)
def test_n_segments(bad, exception):
    for call in (lambda: mg.slic(RGB, bad), lambda: mg.ops.slic(FEATURES, [1, 1], bad)):
        with pytest.raises(exception, match=r"^n_segments: expected"):
            call()


@pytest.mark.parametrize(
    ("bad", "exception"),
    [
        (0, ValueError),
        (-1, ValueError),
        (NAN, ValueError),
        (INF, ValueError),
        (1e-30, ValueError),
        (10**400, ValueError),
        ("10", TypeError),
        (None, TypeError),
        (True, TypeError),
        (10j, TypeError),
        (NumberLike(), TypeError),
        (torch.tensor(10.0), TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["compactness", "gradient_compactness"])
def test_compactness(name, bad, exception):
    for gradient in (GREY, np.zeros_like(GREY)):
        with pytest.raises(exception, match=f"^{name}: expected"):
            mg.slic(RGB, 4, gradient=gradient, **{name: bad})


CALLS_WITH_THREADS = {
    "slic": lambda **options: mg.slic(RGB, 4, **options),
    "ops.slic": lambda **options: mg.ops.slic(FEATURES, [1, 1], 4, **options),
    "ops.slic tensor": lambda **options: mg.ops.slic(torch.from_numpy(FEATURES), [1, 1], 4, **options),
    "rgb_to_lab": lambda **options: mg.ops.rgb_to_lab(np.zeros((1, 3, 4, 4)), **options),
    "rgb_to_lab tensor": lambda **options: mg.ops.rgb_to_lab(torch.zeros(1, 3, 4, 4), **options),
    "enforce_connectivity": lambda **options: mg.ops.enforce_connectivity(LABELS[None], **options),
    "pool": lambda **options: mg.pool(GREY, LABELS, **options),
    "pool tensor": lambda **options: mg.pool(torch.from_numpy(GREY), torch.from_numpy(LABELS), **options),
    "extract_patches": lambda **options: mg.ops.extract_patches(FEATURES, 2, 3, **options),
    "extract_patches tensor": lambda **options: mg.ops.extract_patches(torch.from_numpy(FEATURES), 2, 3, **options),
    "aggregate_patches": lambda **options: mg.ops.aggregate_patches(FEATURES, (1, 2), **options),
    "aggregate_patches tensor": lambda **options: mg.ops.aggregate_patches(
        torch.from_numpy(FEATURES), (1, 2), **options
    ),
    "paint": lambda **options: mg.paint(SCORES, LABELS, **options),
    "paint tensor": lambda **options: mg.paint(torch.from_numpy(SCORES), torch.from_numpy(LABELS), **options),
}


@pytest.mark.parametrize("name", CALLS_WITH_THREADS)
class TestNumThreads:
    @pytest.mark.parametrize(
        ("bad", "exception"), [(0, ValueError), (-2, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError)]
    )
    def test_wrong(self, name, bad, exception):
        with pytest.raises(exception, match=r"^num_threads: expected"):
            CALLS_WITH_THREADS[name](num_threads=bad)

    @pytest.mark.parametrize("good", [1, 3, np.int64(2), 10**30])
    def test_right(self, name, good):
        CALLS_WITH_THREADS[name](num_threads=good)

    @pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5", " ", "0x2", "²"])
    def test_wrong_environment(self, name, bad, monkeypatch):
        monkeypatch.setenv("MIDGRAIN_NUM_THREADS", bad)
        with pytest.raises(ValueError, match=r"^MIDGRAIN_NUM_THREADS: expected a positive integer"):
            CALLS_WITH_THREADS[name]()
        CALLS_WITH_THREADS[name](num_threads=1)

    @pytest.mark.parametrize("good", ["", "1", "007", "100000"])
    def test_right_environment(self, name, good, monkeypatch):
        monkeypatch.setenv("MIDGRAIN_NUM_THREADS", good)
        CALLS_WITH_THREADS[name]()


class OnDevice:
    """A NumPy array that says that it lies somewhere else."""

    def __init__(self, array, device):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


class OldCudaArray:
    """An array of a library that knows only CUDA's own protocol."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


@pytest.mark.parametrize("argument", ARRAY_ARGUMENTS)
@pytest.mark.parametrize("elsewhere", [OnDevice(GREY, (2, 0)), OldCudaArray()], ids=["dlpack", "cuda"])
def test_arrays_on_a_device_without_kernels(argument, elsewhere):
    with pytest.raises(mg.BackendUnavailableError, match="CUDA"):
        ARRAY_ARGUMENTS[argument][1](elsewhere)


def test_arrays_on_an_unknown_device():
    with pytest.raises(mg.BackendUnavailableError, match="DLPack device type 10"):
        mg.slic(OnDevice(GREY, (10, 0)), 4)


def test_arrays_of_other_libraries_in_host_memory():
    # Whatever speaks DLPack; here it has no other attributes at all.
    shared = [OnDevice(array, (1, 0)) for array in (GREY, LABELS)]
    np.testing.assert_array_equal(mg.pool(*shared), mg.pool(GREY, LABELS))
    np.testing.assert_array_equal(mg.slic(shared[0], 4), mg.slic(GREY, 4))


def test_subclasses_of_arrays_become_plain_arrays():
    class TwoDimensional(np.ndarray):
        """Like numpy.matrix, it can have no other rank."""

        def reshape(self, *shape):
            raise AssertionError(shape)

    special = GREY.view(TwoDimensional)
    pooled = mg.pool(special, LABELS.view(TwoDimensional))
    assert type(pooled) is np.ndarray
    np.testing.assert_array_equal(pooled, mg.pool(GREY, LABELS))
    assert type(mg.slic(special, 4)) is np.ndarray


def test_numpy_users_do_not_import_torch():
    code = (
        "import sys, numpy as np, midgrain as mg;"
        "mg.pool(np.ones((2, 2)), mg.slic(np.zeros((2, 2, 3), np.uint8), 2));"
        "mg.paint(np.ones(1), np.zeros((2, 2), int));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_an_interface_that_claims_objects_is_refused_before_they_are_followed():
    class Claims:
        memory = np.full(16, 0xDEAD, np.uint64)
        __array_interface__: ClassVar = {
            "shape": (4, 4),
            "typestr": "|O",
            "data": (memory.ctypes.data, False),
            "strides": (8, 32),
            "version": 3,
        }

    with pytest.raises(TypeError, match=r"^values: expected real numbers, got dtype object$"):
        mg.pool(Claims(), np.zeros((4, 4), np.int32))
