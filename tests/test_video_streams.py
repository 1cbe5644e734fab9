"""Running streams: order, back-pressure, dropping, stopping, failing; and nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import midgrain as mg
from clips_for_tests import numbered_frames, write_video
from midgrain.video import Controls, Settings, StreamStats, explain_frames, explain_stream, open_source
from midgrain.video.channels import Aborted, Channel
from models_for_tests import one_thread  # noqa: F401
from streams_for_tests import Told, our_threads
from waiting_for_tests import until


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert our_threads() == []


def test_channels_keep_order_and_wait() -> None:
    channel: Channel[int] = Channel(2)
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(channel))
    for number in range(2):
        assert channel.put(number) == []
    blocked = threading.Thread(target=lambda: [channel.put(number) for number in range(2, 50)])
    blocked.start()
    time.sleep(0.05)
    assert blocked.is_alive()
    assert len(channel) == 2
    reader.start()
    blocked.join(30)
    channel.finish()
    reader.join(30)
    assert taken == [*range(50)]


def test_aborting_a_channel_wakes_both_sides() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    woken: list[str] = []

    def put() -> None:
        try:
            channel.put(1)
        except Aborted:
            woken.append("put")

    threads = [threading.Thread(target=put)]
    threads[0].start()
    channel.abort()
    threads[0].join(30)
    assert woken == ["put"]
    with pytest.raises(Aborted):
        next(iter(channel))
    assert len(channel) == 0


def test_each_stage_has_a_thread_and_keeps_the_order() -> None:
    told, stats, shown = Told(), StreamStats(), []
    names = set()

    def sink(frame) -> None:
        names.add(threading.current_thread().name)
        shown.append(frame.explained.frame.number)

    report = explain_stream(numbered_frames(50), told, sink, 8, 4, stats=stats)
    assert shown == [*range(50)]
    assert told.threads == {"midgrain_explain"}
    assert names == {"midgrain_write"}
    assert report == stats.snapshot()
    assert (report.frames, report.written, report.dropped, report.ended) == (50, 50, 0, "end of stream")
    assert {"decode", "explain", "network", "draw", "write"} <= set(report.stages)
    assert report.latency.count == 50
    assert report.latency.p95 >= report.latency.p50 > 0


def test_small_stages_leave_the_cores_to_the_network() -> None:
    threads = {}

    class Asking(Told):
        def prepare(self, frame) -> None:
            threads["prepare"] = torch.get_num_threads()

        def __call__(self, frames, settings):
            threads["explain"] = torch.get_num_threads()
            return super().__call__(frames, settings)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for live in (False, True):
            explain_stream(open_source(numbered_frames(8), rate=100, live=live), Asking(), None, 4, 1)
            assert threads == {"prepare": 1, "explain": 3}
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_slow_sink_holds_back_the_source() -> None:
    ahead, written = [], []

    def frames():
        for number, pixels in enumerate(numbered_frames(300)):
            ahead.append(number - len(written))
            yield pixels

    def sink(frame) -> None:
        time.sleep(0.001)
        written.append(frame)

    explain_stream(frames(), Told(), sink, 4, 4)
    assert len(written) == 300
    assert max(ahead) < 60


def test_a_source_that_begins_slowly_and_one_frame() -> None:
    def frames():
        time.sleep(0.2)
        yield numbered_frames(1)[0]

    told = Told()
    assert explain_stream(frames(), told, None, 16).written == 1
    assert told.windows == [[0] * 16]
    assert explain_stream(iter([]), told, None).written == 0


@pytest.mark.parametrize("where", ["source", "explainer", "sink", "close", "progress"])
def test_errors_reach_the_caller_as_themselves(where) -> None:
    class OwnError(Exception):
        pass

    def fail(*_: object) -> None:
        raise OwnError(where)

    def frames():
        for number, pixels in enumerate(numbered_frames(60)):
            if number == 30 and where == "source":
                fail()
            yield pixels

    class Sink:
        closed = 0

        def write(self, frame) -> None:
            time.sleep(0.005)
            if where == "sink" and frame.explained.frame.number == 10:
                fail()

        def close(self) -> None:
            self.closed += 1
            if where == "close":
                fail()

    def explainer(frames, settings):
        if where == "explainer" and frames[0].number > 20:
            fail()
        return Told()(frames, settings)

    sink = Sink()
    with pytest.raises(OwnError, match=where):
        explain_stream(frames(), explainer, sink, 4, 4, progress=fail if where == "progress" else False)
    assert sink.closed == 1


def test_stopping_writes_what_is_explained() -> None:
    stop, shown = threading.Event(), []

    def sink(frame) -> None:
        shown.append(frame.explained.frame.number)
        if len(shown) == 10:
            stop.set()
            time.sleep(0.1)

    def endless():
        while True:
            yield numbered_frames(1)[0]

    report = explain_stream(endless(), Told(0.01), sink, 4, 4, stop=stop)
    assert report.ended == "stopped"
    assert shown == [*range(len(shown))]
    assert report.written == len(shown) >= 10


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_a_file_that_plays(tmp_path) -> None:
    out = tmp_path / "out.mp4"

    def frames():
        for number, pixels in enumerate(numbered_frames(1000)):
            if number == 200:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001 if number < 200 else 0.01)
            yield pixels

    with pytest.raises(KeyboardInterrupt):
        explain_stream(frames(), Told(), out, 4, 4)
    from clips_for_tests import decoded

    assert 100 < len(decoded(out)) < 1000


def test_a_live_source_drops_and_shows_the_newest() -> None:
    shown: list = []
    all_came = threading.Event()

    class Slow(Told):
        def __call__(self, frames, settings):
            if len(self.windows) == 2:
                assert all_came.wait(30)
            return super().__call__(frames, settings)

    def frames():
        for number, pixels in enumerate(numbered_frames(60)):
            until(lambda number=number: len(shown) > min(number - 5, 4))
            yield pixels
        all_came.set()

    def sink(frame) -> None:
        shown.append(frame)
        if len(shown) == 5:
            assert all_came.wait(30)

    told = Slow()
    report = explain_stream(open_source(frames(), live=True), told, sink, 4, 1)
    assert report.frames == 60 == report.written + report.dropped
    numbers = [each.explained.frame.number for each in shown]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59
    # After the pause at the sink at most: one frame drawn, one on its way in, the newest.
    assert 1 <= len(numbers[5:]) <= 3
    assert len(told.windows) < 30
    assert all(window == sorted(window) for window in told.windows)
    assert told.windows[-1] == [56, 57, 58, 59]
    assert shown[0].explained.heat is None or shown[0].explained.target.index == 0


def one_at_a_time(count: int, shown: list, told: Told):
    """Frames of which the next comes when the last has been shown and explained."""
    for number, pixels in enumerate(numbered_frames(count)):
        until(
            lambda number=number: (
                not number or (len(shown) == number and told.windows and told.windows[-1][-1] == number - 1)
            )
        )
        yield pixels


def test_a_live_stream_that_can_be_followed_drops_nothing() -> None:
    shown: list = []
    told = Told()
    report = explain_stream(open_source(one_at_a_time(20, shown, told), live=True), told, shown, 4, 1)
    assert report.frames == 20 == report.written
    assert report.dropped == 0


def test_an_array_is_played_at_its_pace() -> None:
    report = explain_stream(open_source(numbered_frames(20), rate=40, live=True), Told(), None, 4, 1)
    assert report.frames == 20 == report.written + report.dropped
    assert report.seconds > 19 / 40


def test_live_heat_is_of_the_nearest_sample() -> None:
    shown: list = []
    told = Told()
    source = open_source(one_at_a_time(20, shown, told), live=True)
    explain_stream(source, told, shown, 4, 1, draw=False)
    explained = [each for each in shown if each.heat is not None]
    assert len(explained) > 10
    assert all(each.heat[0, 0] % 1000 == 3 for each in explained[-5:])


def test_a_looped_source_goes_on_until_it_is_stopped() -> None:
    stop, shown = threading.Event(), []

    def sink(frame) -> None:
        shown.append(frame.explained.frame)
        if len(shown) == 30:
            stop.set()

    source = open_source(numbered_frames(7), rate=200, live=True, loop=True)
    report = explain_stream(source, Told(), sink, 4, 1, stop=stop)
    assert report.ended == "stopped"
    assert [frame.seconds for frame in shown] == pytest.approx([frame.number / 200 for frame in shown])
    assert all(frame.pixels[-1, -1, 0] == numbered_frames(7)[frame.number % 7, -1, -1, 0] for frame in shown)


def test_live_frames_of_another_size() -> None:
    mixed = [*numbered_frames(10), *numbered_frames(10, 96, 64)]
    shown: list = []

    def frames():
        for pixels in mixed:
            time.sleep(0.005)
            yield pixels

    explain_stream(open_source(frames(), live=True), Told(), shown, 4, 1)
    for each in shown:
        if each.explained.heat is not None:
            assert each.explained.region[3] == each.explained.frame.pixels.shape[0]


def test_settings_take_effect_while_it_runs() -> None:
    told, controls, shown = Told(), Controls(Settings(alpha=0.5)), []

    def sink(frame) -> None:
        shown.append(frame)
        if frame.explained.frame.number == 20:
            controls.change(method="other", alpha=0.0, n_segments=9)

    explain_stream(numbered_frames(200), told, sink, 4, 4, controls=controls)
    assert told.settings[0].method is None
    assert (told.settings[-1].method, told.settings[-1].n_segments) == ("other", 9)
    assert shown[-1].explained.method == "other"
    np.testing.assert_array_equal(shown[-1].pixels, shown[-1].explained.frame.pixels)
    assert (shown[0].pixels != shown[0].explained.frame.pixels).any()


def test_settings_that_cannot_be_followed_are_put_back() -> None:
    controls = Controls(Settings(method="good"))

    class Particular(Told):
        def __call__(self, frames, settings):
            if settings.method == "bad":
                raise ValueError("no method 'bad'")
            return super().__call__(frames, settings)

    def sink(frame) -> None:
        if frame.explained.frame.number == 10:
            controls.change(method="bad")

    told = Particular()
    report = explain_stream(numbered_frames(100), told, sink, 4, 4, controls=controls)
    assert report.written == 100
    assert report.complaints == ("settings: no method 'bad'",)
    assert controls.now.method == "good"
    assert {settings.method for settings in told.settings} == {"good"}
    with pytest.raises(ValueError, match="no method 'bad'"):
        explain_stream(numbered_frames(10), Particular(), None, 4, controls=Controls(Settings(method="bad")))


def test_frames_one_by_one() -> None:
    frames = explain_frames(numbered_frames(30), Told(), 4, 2)
    assert [each.frame.number for each in frames] == [*range(30)]
    frames = explain_frames(numbered_frames(300), Told(), 4, 2)
    assert next(frames).frame.number == 0
    frames.close()
    assert our_threads() == []
    frames = explain_frames(numbered_frames(300), Told(fail_at=4), 4, 4)
    with pytest.raises(RuntimeError, match="this window is refused"):
        list(frames)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"window": 0}, ValueError, "window: expected 1 .. 4096, got 0"),
        ({"window": 1.5}, TypeError, "window: expected an int, got float"),
        ({"window": None}, ValueError, "window: expected a number of frames"),
        ({"stride": 0}, ValueError, "stride: expected 1 .. 4096, got 0"),
        ({"stride": True}, TypeError, "stride: expected an int, got bool"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 .. 4096, got 0"),
        ({"merge": "max"}, ValueError, "merge: expected mean, centre, latest, got 'max'"),
        ({"limits": "frame"}, ValueError, "limits: expected running, window, got 'frame'"),
        ({"colormap": "no such"}, ValueError, "colormap: Matplotlib has no colour map 'no such'"),
        ({"rate": -1}, ValueError, r"rate: expected 0.01 .. 1000 frames per second, got -1"),
        ({"alpha": 2}, ValueError, "alpha: expected 0 .. 1, got 2"),
        ({"target": -1}, ValueError, "target: expected 0 or more, got -1"),
        ({"controls": Settings()}, TypeError, "controls: expected midgrain.video.Controls, got Settings"),
        ({"controls": Controls(), "alpha": 0.1}, ValueError, "alpha: expected among the settings of `controls`"),
        ({"sink": "x.mp4", "draw": False}, ValueError, "draw: expected True for the file 'x.mp4'"),
        ({"stop": 3}, TypeError, "stop: expected a threading.Event, got int"),
        ({"explainer": None}, TypeError, "explainer: expected an explainer, a loaded network or a callable"),
    ],
)
def test_unfit_arguments(options, kind, message) -> None:
    given = {"explainer": Told(), "sink": None, **options}
    with pytest.raises(kind, match=message):
        explain_stream(numbered_frames(4), **given)


def test_a_callable_target() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten()
    ).eval()
    shown: list = []
    explain_stream(
        numbered_frames(4), mg.SWAG(net), shown, 4, 4, target=lambda outputs: outputs[:, :2].sum(1), draw=False
    )
    assert shown[0].target is None
    explain_stream(numbered_frames(4), mg.SWAG(net), shown, 4, 4, target=2, draw=False)
    assert shown[-1].target.index == 2


def test_the_report_while_it_runs_and_progress() -> None:
    stats, seen = StreamStats(), []
    explain_stream(numbered_frames(40), Told(0.02), None, 4, 4, stats=stats, progress=seen.append)
    assert seen
    assert all(report.ended == "running" for report in seen)
    assert [report.written for report in seen] == sorted(report.written for report in seen)


def figures_now() -> tuple[int, int, int]:
    """Memory (bytes), open files, threads of this process."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux's /proc")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()


def grown(run, times: int) -> tuple[int, int, int]:
    """By how much memory (bytes), open files and threads grow from the first half of the runs to the last."""
    figures = []
    for _ in range(times):
        run()
        figures.append(figures_now())
    middle = figures[times // 2]
    return tuple(int(last - first) for first, last in zip(middle, figures[-1], strict=True))


def test_nothing_is_left_after_many_streams(tmp_path) -> None:
    path = write_video(tmp_path / "v.mp4", numbered_frames(30, 96, 128), codec="libx264", audio=True)

    def run() -> None:
        explain_stream(path, Told(), tmp_path / "out.mp4", 8, 4)
        frames = explain_frames(path, Told(), 8, 4)
        next(frames)
        frames.close()

    memory, files, threads = grown(run, 24)
    assert files <= 0
    assert threads <= 0
    assert memory < 16e6


def soak(seconds: float, rate: float) -> None:
    """A live stream whose memory, open files, threads and queues stay as they are after its first third."""
    stop, figures = threading.Event(), []
    began = time.monotonic()

    def watch(report) -> None:
        now = time.monotonic() - began
        if now > seconds:
            stop.set()
        if seconds / 3 < now < seconds:
            figures.append(figures_now())

    frames = np.random.default_rng(0).integers(0, 256, (8, 120, 160, 3), np.uint8)
    source = open_source(frames, rate=rate, live=True, loop=True)
    net = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3, (1, 4, 4)), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten()
    ).eval()
    report = explain_stream(source, mg.SWAG(net), lambda frame: None, 8, 2, stop=stop, progress=watch)
    assert report.written + report.dropped == report.frames
    assert report.windows > 3
    figures_at = np.array(figures, float)
    assert figures_at[:, 1].max() == figures_at[:, 1].min()
    assert figures_at[:, 2].max() == figures_at[:, 2].min()
    growth = np.polyfit(np.arange(len(figures)), figures_at[:, 0], 1)[0] * len(figures)
    assert growth < 16e6


def test_a_live_stream_does_not_grow() -> None:
    soak(4.0, 100.0)


@pytest.mark.slow
def test_a_long_live_stream_does_not_grow() -> None:
    soak(90.0, 60.0)
