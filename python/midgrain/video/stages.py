"""The stages of a running stream, each in a thread of its own."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeVar

from midgrain.stopwatch import network_seconds
from midgrain.video.channels import Aborted, Channel, Ending
from midgrain.video.frames import ExplainedFrame, Frame, HeatWindow, WindowExplainer
from midgrain.video.limits import ColourLimits
from midgrain.video.newest import NewestWindow
from midgrain.video.painting import draw_frame
from midgrain.video.sampling import Sampler
from midgrain.video.settings import Controls, Settings
from midgrain.video.sinks import Sink
from midgrain.video.sliding import SlidingWindows, explained
from midgrain.video.sources.base import Source
from midgrain.video.stats import StreamStats
from midgrain.video.threads import one_core

__all__ = ["Plan", "Stages"]

Item = TypeVar("Item")
# Frames between decoding and preprocessing, and between drawing and the sink.
_FEW = 4
# Bytes of the frames that wait for the explainer.
_MOST_AHEAD = 256 << 20


@dataclass(frozen=True)
class Plan:
    """What a stream is to do; see `midgrain.video.explain_stream`."""

    source: Source
    explainer: WindowExplainer
    sink: Sink | None
    controls: Controls
    window: int
    stride: int
    rate: float | None
    merge: str = "mean"
    limits: str = "running"
    batch_size: int = 1
    draw: bool = True
    colormap: str = "turbo"


class Stages:
    """Decodes, preprocesses, explains, draws and writes, with bounded queues in between.

    Of a source that is not live every frame goes through all stages in order, and whoever is slower makes the others
    wait. Of a live one nobody waits: the newest window is explained as often as the explainer can, the newest frame is
    drawn with the newest heat there is, and what comes too late for that is left out and counted.

    An exception in one stage ends all of them, those after it when they are done with what it gave them; `wait` raises
    it.
    """

    def __init__(self, plan: Plan, stats: StreamStats):
        self._plan, self._stats = plan, stats
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        live = plan.source.live
        self._decoded: Channel[Frame] = Channel(1 if live else _FEW, newest=live)
        # While a window is explained, the next one's frames are preprocessed.
        self._sampled: Channel[Frame] = Channel(2 * plan.window + _FEW, newest=True)
        ahead = min(plan.window + _FEW, max(_FEW, _MOST_AHEAD // _frame_bytes(plan.source)))
        self._prepared: Channel[tuple[Frame | None, Sequence[Frame]]] = Channel(ahead)
        self._explained: Channel[Sequence[ExplainedFrame]] = Channel(2)
        self._drawn: Channel[Any] = Channel(1 if live else _FEW, newest=live)
        self._channels: dict[str, Channel[Any]] = {
            "decoded": self._decoded,
            "sampled": self._sampled,
            "prepared": self._prepared,
            "explained": self._explained,
            "drawn": self._drawn,
        }
        self._followed: Settings | None = None
        self._newest = NewestWindow(plan.window)
        # Work, where its items come from, where they go.
        work: list[tuple[Callable[[], None], Sequence[Ending], Sequence[Ending]]] = [
            (self._decode, (), (self._sampled, self._decoded)),
            (self._prepare, (self._decoded,), (self._prepared,)),
            (self._explain, (self._prepared,), (self._explained,)),
            (self._draw, (self._explained,), (self._drawn,)),
        ]
        if live:
            work[1:] = [
                (self._follow, (self._sampled,), (self._newest,)),
                (self._explain_newest, (self._newest,), ()),
                (self._draw_newest, (self._decoded,), (self._drawn,)),
            ]
        work.append((self._write, (self._drawn,), ()))
        self._threads = [
            threading.Thread(target=self._run, args=each, name=f"midgrain{each[0].__name__}", daemon=True)
            for each in work
        ]
        self._running = len(self._threads)

    def start(self) -> None:
        """Begin."""
        self._stats.begin()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more frames; what is explained already is still written."""
        self._stopping.set()
        self._plan.source.close()
        self._newest.finish()

    def abort(self) -> None:
        """Stop at once; what is under way is lost."""
        self.stop()
        for channel in self._channels.values():
            channel.abort()
        self._newest.abort()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; is it there?

        Raises:
            BaseException: what a stage raised.
        """
        if not self._done.wait(seconds):
            return False
        for thread in self._threads:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    @property
    def waiting(self) -> dict[str, int]:
        """How many items wait in each queue."""
        return {name: len(channel) for name, channel in self._channels.items()}

    def _run(self, work: Callable[[], None], inputs: Sequence[Ending], outputs: Sequence[Ending]) -> None:
        try:
            work()
        except Aborted:
            pass
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self.stop()
        finally:
            # Whatever ended it: nobody may wait for this stage any more, and what it has done goes its way.
            for channel in inputs:
                channel.abort()
            for channel in outputs:
                channel.finish()
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if last:
                self._end()

    def _end(self) -> None:
        source = self._plan.source
        self._stats.source(source.reconnects, [*source.complaints, *getattr(self._plan.sink, "complaints", ())])
        how = "stopped" if self._stopping.is_set() else "source lost" if source.lost else "end of stream"
        self._stats.end(how)
        self._done.set()

    def _decode(self) -> None:
        """Every source's first stage."""
        source, stats = self._plan.source, self._stats
        live = source.live
        sampler = Sampler(self._plan.rate, live=True, most=self._plan.window)
        # `close` by the thread that reads, too: generators do not like to be closed by others.
        with closing(source), ExitStack() as stack:
            frames = iter(source)
            if isinstance(frames, Generator):
                stack.enter_context(closing(frames))
            complaints = 0
            for frame in self._timed("decode", frames):
                stats.count(frames=1)
                if len(source.complaints) != complaints:
                    complaints = len(source.complaints)
                    stats.source(source.reconnects, source.complaints)
                if live:
                    for sample in sampler.push(frame):
                        self._sampled.put(sample)
                stats.count(dropped=len(self._decoded.put(frame)))
                if self._stopping.is_set():
                    break

    def _timed(self, stage: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items, with the time that each took to come."""
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._stats.spent(stage, time.perf_counter() - start)
            yield item

    # --- Files: every frame, in order ---

    def _prepare(self) -> None:
        sampler = Sampler(self._plan.rate)
        with one_core():
            for frame in self._decoded:
                samples = sampler.push(frame)
                self._preprocess(samples)
                self._prepared.put((frame, samples))
                if self._stopping.is_set():
                    return
            samples = sampler.end()
            self._preprocess(samples)
            self._prepared.put((None, samples))

    def _preprocess(self, samples: Iterable[Frame]) -> None:
        prepare = getattr(self._plan.explainer, "prepare", None)
        if prepare is None:
            return
        for sample in samples:
            with self._stats.stage("preprocess"):
                prepare(sample)

    def _explain(self) -> None:
        plan = self._plan
        limits = ColourLimits(plan.limits)
        windows = SlidingWindows(self._ask, plan.window, plan.stride, plan.merge, limits, plan.batch_size)
        for frame, samples in self._prepared:
            if self._stopping.is_set():
                break
            self._hand_over(windows.push(frame, samples))
        if not self._stopping.is_set():
            self._hand_over(windows.end())

    def _hand_over(self, frames: Sequence[ExplainedFrame]) -> None:
        if frames:
            self._explained.put(frames)

    def _draw(self) -> None:
        for frames in self._explained:
            for each in frames:
                self._drawn.put(self._picture(each))

    def _picture(self, frame: ExplainedFrame) -> Any:
        if not self._plan.draw:
            return frame
        with self._stats.stage("draw"):
            return draw_frame(frame, self._plan.controls.now, colormap=self._plan.colormap)

    def _write(self) -> None:
        sink, stats = self._plan.sink, self._stats
        try:
            for item in self._drawn:
                if sink is not None:
                    with stats.stage("write"):
                        sink.write(item)
                stats.written((item.explained if self._plan.draw else item).frame.arrived)
        finally:
            if sink is not None:
                sink.close()

    # --- Live: the newest frame with the newest heat ---

    def _follow(self) -> None:
        with one_core():
            for sample in self._sampled:
                self._preprocess([sample])
                self._newest.add(sample)

    def _explain_newest(self) -> None:
        plan = self._plan
        limits = ColourLimits(plan.limits)
        for samples in self._newest.windows(plan.stride):
            filled = [*samples, *samples[-1:] * plan.window][: plan.window]
            (window,) = self._ask([filled])
            self._newest.heat = window, limits.of(window.heat, samples[-1].seconds, window.method), samples
            if self._stopping.is_set():
                break

    def _draw_newest(self) -> None:
        for frame in self._decoded:
            heat = self._newest.heat
            found = ExplainedFrame(frame)
            if heat is not None and heat[2][-1].pixels.shape == frame.pixels.shape:
                window, limits, samples = heat
                found = explained(frame, window, _nearest(frame.number, samples), limits)
            self._stats.count(dropped=len(self._drawn.put(self._picture(found))))

    # --- Asking the explainer ---

    def _ask(self, windows: Sequence[Sequence[Frame]]) -> list[HeatWindow]:
        """Explain windows as the settings of this moment say."""
        settings = self._plan.controls.now
        waited = network_seconds()
        with self._stats.stage("explain"):
            try:
                found = self._explained_windows(windows, settings)
            except (TypeError, ValueError, RuntimeError) as error:  # The last one when memory is short.
                before = self._followed
                if before is None or _wishes(before) == _wishes(settings):
                    raise
                # A setting that this network cannot follow ends no stream.
                self._stats.complain(f"settings: {error}")
                names = ("method", "target", "n_segments")
                settings = self._plan.controls.change(**{name: getattr(before, name) for name in names})
                found = self._explained_windows(windows, settings)
        self._followed = settings
        self._stats.spent("network", network_seconds() - waited)
        self._stats.count(windows=len(windows))
        return found

    def _explained_windows(self, windows: Sequence[Sequence[Frame]], settings: Settings) -> list[HeatWindow]:
        several = getattr(self._plan.explainer, "several", None)
        if several is not None and len(windows) > 1:
            found: list[HeatWindow] = several(windows, settings)
        else:
            found = [self._plan.explainer(frames, settings) for frames in windows]
        for frames, window in zip(windows, found, strict=True):
            if window.heat.ndim != 3 or len(window.heat) != len(frames):
                raise ValueError(
                    f"explainer: expected heat [{len(frames)}, h, w] for {len(frames)} frames, got "
                    f"{list(window.heat.shape)}"
                )
        return found


def _frame_bytes(source: Source) -> int:
    return 3 * math.prod(source.size or (1, 1))


def _wishes(settings: Settings) -> tuple[object, ...]:
    return settings.method, settings.target, settings.n_segments


def _nearest(number: int, samples: Sequence[Frame]) -> int:
    """The place of the sample whose number is nearest, of two the earlier one."""
    numbers = [sample.number for sample in samples]
    place = bisect.bisect_right(numbers, number) - 1
    if place + 1 < len(numbers) and (place < 0 or numbers[place + 1] - number < number - numbers[place]):
        place += 1
    return max(place, 0)
