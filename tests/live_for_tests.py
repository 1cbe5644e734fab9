"""A stream without a network: frames that move, drawn as the settings say, at a given rate."""

from __future__ import annotations

import threading
import time

import numpy as np

from midgrain.classes import ClassScore
from midgrain.video import (
    Broadcast,
    Choices,
    Controls,
    DrawnFrame,
    ExplainedFrame,
    Frame,
    PageServer,
    StageTimes,
    StreamReport,
)

LABELS = (
    *(f"class {index}" for index in range(10)),
    "<img src=x onerror=\"document.title='run'\">",
    "crane",
    "crane",
)
METHODS = {
    "swag-ig": "SWAG",
    "gradcam": "Grad-CAM: the last layer's activations",
    "sobel": "Edges of <b>brightness</b>",
}
CHOICES = Choices("swag-ig", METHODS, {"sobel"}, classes=len(LABELS), labels=LABELS)
SIZE = (96, 160)


def plain_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Grey stripes that move: no pixel has a colour."""
    height, width = size
    row = (np.arange(width) * 3 + 7 * number) % 256
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def drawn_frame(number: int, controls: Controls | None = None, *, rate: float = 25.0, size=SIZE) -> DrawnFrame:
    """Red is the heat, green lines are superpixel borders, the settings are those of the moment."""
    settings = (controls or Controls()).now
    pixels = plain_frame(number, size)
    heat = np.linspace(0, 1, size[1], dtype=np.float32)[None].repeat(size[0], 0)
    red = np.array([255, 0, 0], np.float32)
    drawn = np.rint((1 - settings.alpha) * pixels + settings.alpha * red).astype(np.uint8)
    if settings.contours and settings.alpha > 0:
        drawn[:, :: max(2, 2000 // (settings.n_segments or 100))] = (0, 255, 0)
    if settings.side_by_side:
        drawn = np.concatenate([pixels, drawn], axis=1)
    waves = [0.1 + 0.8 * abs(np.sin(number / 30 + index)) / (index + 1) for index in (0, 1, 2)]
    classes = tuple(ClassScore(index, LABELS[index], float(p)) for index, p in zip((3, 10, 11), waves, strict=True))
    target = classes[0] if settings.target is None else ClassScore(settings.target, LABELS[settings.target], 0.25)
    explained = ExplainedFrame(
        Frame(pixels, number, number / rate, time.monotonic()),
        heat=heat,
        region=(0.0, 0.0, float(size[1]), float(size[0])),
        target=target,
        classes=classes,
        method=settings.method or "swag-ig",
    )
    return DrawnFrame(explained, drawn)


class Feeder:
    """Writes frames into a broadcast from a thread of its own, as a stream does."""

    def __init__(self, broadcast: Broadcast, controls: Controls, rate: float = 25.0, size=SIZE):
        self.broadcast = broadcast
        self.controls = controls
        self.rate = rate
        self.size = size
        self.written = 0
        self.complaints = ["the camera <b>blinked</b>"]
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder")

    def report(self) -> StreamReport:
        """As of a stream that keeps its pace, whatever the machine's."""
        written = self.written
        times = StageTimes(written, 0.004 * written, 0.004, 0.009)
        return StreamReport(
            frames=written + 7,
            windows=written // 5,
            written=written,
            dropped=7,
            seconds=written / self.rate,
            rate=self.rate,
            stages={"draw": times, "network": StageTimes(0, 0.0, float("nan"), float("nan"))},
            latency=times,
            complaints=tuple(self.complaints),
        )

    def __enter__(self):
        self._thread.start()
        assert self._first.wait(30)  # From here on there is a picture to ask for.
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(1 / self.rate):
            drawn = drawn_frame(self.written, self.controls, rate=self.rate, size=self.size)
            self.broadcast.write(drawn)
            self._first.set()
            self.written += 1


class LivePage:
    """A server with a feeder, for `with`."""

    def __init__(self, *, rate: float = 25.0, size=SIZE, choices: Choices = CHOICES, **options):
        self.controls = Controls()
        self.broadcast = Broadcast()
        self.feeder = Feeder(self.broadcast, self.controls, rate, size)
        options = {"port": 0, "title": "A stream of <stripes>", **options}
        self.server = PageServer(self.broadcast, self.controls, self.feeder.report, choices, **options)

    @property
    def url(self) -> str:
        return self.server.url

    def __enter__(self):
        self.server.start()
        self.feeder.__enter__()
        return self

    def __exit__(self, *_):
        self.feeder.__exit__()
        self.server.close("end of stream")
