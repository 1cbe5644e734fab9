"""Clips become inputs as torchvision's weights for videos want them; masks and boxes follow; clips become files."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import VideoClassification

from clips_for_tests import numbered_frames
from midgrain.clips import ClipPreprocess, open_clip, write_clip
from midgrain.pictures import Preprocess

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def noise(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(5, 90),
    width=st.integers(5, 90),
    resize=st.sampled_from([(32, 43), (40, 40), 33, 48]),
    crop=st.sampled_from([(28, 28), 32, (20, 31)]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_it_equals_torchvision(height, width, resize, crop, interpolation) -> None:
    frames = noise(3, height, width)
    sides = {"resize_size": resize if isinstance(resize, tuple) else (resize,)}
    sides["crop_size"] = crop if isinstance(crop, tuple) else (crop, crop)
    theirs = VideoClassification(mean=MEAN, std=STD, interpolation=InterpolationMode(interpolation), **sides)
    expected = theirs(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
    found = ClipPreprocess(resize, crop, MEAN, STD, interpolation)(frames)
    assert found.shape == (1, *expected.shape)
    assert found.is_contiguous()
    torch.testing.assert_close(found[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(50, 60), (40, 40), (36, 36)])
@pytest.mark.parametrize("antialias", [False, True])
def test_layouts_of_frames_and_torch_s_defaults_change_nothing(size, antialias) -> None:
    preprocess = ClipPreprocess((36, 36) if size == (36, 36) else (40, 40), 36, MEAN, STD, antialias=antialias)
    frames = noise(3, *size)
    before, expected, cropped = frames.copy(), preprocess(frames), preprocess.cropped(frames)
    assert expected.dtype == torch.float32
    frames.flags.writeable = False
    turned = frames[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        for given_frames in (frames, turned):
            torch.testing.assert_close(preprocess(given_frames), expected, rtol=0, atol=0)
            np.testing.assert_array_equal(preprocess.cropped(given_frames), cropped)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(90, 70), (50, 97), (64, 64)])
def test_antialiased_it_equals_that_of_pictures(height, width, interpolation) -> None:
    frames = noise(3, height, width)
    picture = Preprocess(40, 36, MEAN, STD, interpolation)
    expected = torch.stack([picture(Image.fromarray(frame))[0] for frame in frames], 1)[None]
    found = ClipPreprocess(40, 36, MEAN, STD, interpolation, antialias=True)(torch.from_numpy(frames))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(24, 70),
    width=st.integers(24, 70),
    resize=st.sampled_from([(32, 43), 33]),
    antialias=st.booleans(),
    data=st.data(),
)
def test_masks_and_boxes_follow_the_crop(height, width, resize, antialias, data) -> None:
    preprocess = ClipPreprocess(resize, (28, 30), (0.0,) * 3, (1.0,) * 3, antialias=antialias)
    x0, y0 = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    x1, y1 = data.draw(st.integers(x0 + 6, width)), data.draw(st.integers(y0 + 6, height))
    mask = np.zeros((2, height, width), bool)
    mask[0, y0:y1, x0:x1] = True
    seen = preprocess.stencil(mask)
    assert seen.shape == (2, 28, 30)
    assert not seen[1].any()
    box = preprocess.placed(np.array([[[x0, y0, x1, y1], [np.nan] * 4]], np.float64), (width, height))
    assert box.shape == (1, 2, 4)
    assert np.isnan(box[0, 1]).all()
    if np.isnan(box[0, 0]).any():
        assert seen[0].sum() == 0
        return
    rows, columns = np.flatnonzero(seen[0].any(1)), np.flatnonzero(seen[0].any(0))
    if len(rows):
        around = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        scale = np.max([[43, 32] if resize != 33 else [33 * max(1, width / height), 33 * max(1, height / width)]], 0)
        # Half a pixel for rounding, and a pixel of the frames for how they are resized.
        assert (np.abs(around - box[0, 0]) <= 1.0 + np.tile(scale / [width, height], 2)).all()


def test_shown_is_what_the_network_sees() -> None:
    rows, columns = np.mgrid[0:120, 0:200]
    frames = np.stack([rows * 2, columns, rows + columns], -1).astype(np.uint8)[None].repeat(2, 0)
    for resize in ((64, 86), 64):
        preprocess = ClipPreprocess(resize, 56, MEAN, STD, antialias=True)
        shown = preprocess.shown(frames, 1000)
        expected = (105, round(200 * 56 / 86)) if resize != 64 else (105, 106)
        assert shown.shape[1:3] == expected
        small = np.stack([np.asarray(Image.fromarray(each).resize((56, 56))) for each in shown])
        assert np.abs(small.astype(int) - preprocess.cropped(frames)).mean() < 1.5
    assert preprocess.shown(frames, 50).shape == (2, 50, 50, 3)


def test_another_size() -> None:
    assert ClipPreprocess((128, 171), 112, MEAN, STD).sized(56).resize == (64, 86)
    assert ClipPreprocess(256, (224, 224), MEAN, STD).sized(112).resize == 128
    assert ClipPreprocess(256, 224, MEAN, STD).sized(112).crop == 112


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"crop": 40}, ValueError, "crop: expected up to resize"),
        ({"crop": (20, 50)}, ValueError, "crop: expected up to resize"),
        ({"crop": 0}, ValueError, "crop: expected 1 or more"),
        ({"resize": 2.5}, TypeError, "resize: expected an int or "),
        ({"resize": (1, 2, 3)}, TypeError, "resize: expected an int or "),
        ({"interpolation": "nearest"}, ValueError, "interpolation: expected bilinear or bicubic"),
        ({"frames": 0}, ValueError, "frames: expected 1 .. 4096, got 0"),
        ({"rate": -3}, ValueError, "rate: expected a positive finite number, got -3"),
    ],
)
def test_unfit_settings(options, error, said) -> None:
    with pytest.raises(error, match=f"^{said}"):
        ClipPreprocess(**({"resize": (32, 40), "crop": 28, "mean": MEAN, "std": STD} | options))


@pytest.mark.parametrize(
    ("frames", "error", "said"),
    [
        ([1, 2], TypeError, "clip: expected a uint8 array .* got list"),
        (np.zeros((2, 4, 4, 3)), TypeError, "clip: expected a uint8 array .* got dtype float64"),
        (np.zeros((4, 4, 3), np.uint8), ValueError, r"clip: expected shape \[T, H, W, 3\], got \[4, 4, 3\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), ValueError, r"clip: expected shape \[T, H, W, 3\], got \[2, 3, 4, 4\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), ValueError, r"clip: expected shape \[T, H, W, 3\], got \[0, 4, 4, 3\]"),
    ],
)
def test_what_is_no_clip(frames, error, said) -> None:
    with pytest.raises(error, match=f"^{said}"):
        ClipPreprocess(32, 28, MEAN, STD)(frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "webp", "gif"])
def test_clips_become_files_that_play(suffix, tmp_path) -> None:
    frames = (numbered_frames(9, 33, 47).astype(int) * 9 % 256).astype(np.uint8)
    path = write_clip(frames, tmp_path / f"out.{suffix}", rate=30000 / 1001)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if suffix == "webp":
        with Image.open(path) as opened:
            assert (opened.n_frames, opened.size) == (9, (47, 33))
            assert opened.info["loop"] == 0
        return
    clip = open_clip(path, 9)
    assert clip.length == 9
    assert clip.frames.shape == (9, *((33, 47) if suffix == "gif" else (34, 48)), 3)
    assert np.abs(clip.frames[:, :33, :47].astype(int) - frames).mean() < 4
    assert clip.seconds[-1] == pytest.approx(8 / 30, abs=0.011)
    if suffix == "mp4":
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("frames", "name", "rate", "error", "said"),
    [
        (numbered_frames(2), "a.avi", 15, ValueError, "path: expected a file ending in .mp4"),
        (numbered_frames(2), "a.mp4", 0, ValueError, "rate: expected 0.1 .. 1000, got 0"),
        (numbered_frames(2), "a.mp4", "15", TypeError, "rate: expected a number, got str"),
        (numbered_frames(2)[0], "a.mp4", 15, ValueError, r"frames: expected shape \[T, H, W, 3\]"),
        (numbered_frames(2).astype(float), "a.mp4", 15, TypeError, "frames: expected a uint8 array"),
    ],
)
def test_what_cannot_be_written(frames, name, rate, error, said, tmp_path) -> None:
    with pytest.raises(error, match=f"^{said}"):
        write_clip(frames, tmp_path / name, rate)
    assert not list(tmp_path.iterdir())
