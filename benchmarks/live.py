"""The live page: processor time by the number of viewers, one of them stalled.

A stream of photographs, 25 frames per second, without a network. Viewers are WebSockets in another process that
acknowledge every frame; the stalled one reads nothing. Given is the processor time of the serving process alone, per
second of the stream, beside what the readers got.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import multiprocessing.connection
import threading
import time
from typing import Any

import aiohttp
import numpy as np

from benchmarks.common import parser, pictures, report
from midgrain.classes import ClassScore
from midgrain.video import Broadcast, Controls, DrawnFrame, ExplainedFrame, Frame, PageServer, StreamReport

_RATE = 25.0
_CLASSES = tuple(ClassScore(index, f"class {index}", 0.2) for index in range(5))


class _Feeder:
    """Writes frames at their pace, and takes the time of it."""

    def __init__(self, broadcast: Broadcast, frames: np.ndarray):
        self.written = 0
        self.spent: list[float] = []
        self._broadcast, self._frames = broadcast, frames
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun + self.written / _RATE - time.monotonic())):
            pixels = self._frames[self.written % len(self._frames)]
            frame = Frame(pixels, self.written, self.written / _RATE, time.monotonic())
            start = time.perf_counter()
            self._broadcast.write(DrawnFrame(ExplainedFrame(frame, classes=_CLASSES), pixels))
            self.spent.append(time.perf_counter() - start)
            self.written += 1


def _look(url: str, viewers: int, stalled: int, seconds: float, answer: multiprocessing.connection.Connection) -> None:
    """Frames that the readers got, and the median of their age in seconds when they were sent."""
    got: list[int] = []
    ages: list[float] = []

    async def read(session: aiohttp.ClientSession, until: float) -> None:
        count = 0
        async with session.ws_connect(url + "stream", max_msg_size=0) as socket:
            while time.monotonic() < until:
                message = await socket.receive(timeout=5)
                if message.type == aiohttp.WSMsgType.BINARY:
                    facts = json.loads(message.data[4 : 4 + int.from_bytes(message.data[:4], "big")])
                    await socket.send_json({"ack": facts["id"]})
                    ages.append(facts["latency"])
                    count += 1
        got.append(count)

    async def work() -> None:
        until = time.monotonic() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            asleep = [await session.ws_connect(url + "stream") for _ in range(stalled)]
            await asyncio.gather(*(read(session, until) for _ in range(viewers)))
            for socket in asleep:
                await socket.close()

    asyncio.run(work())
    answer.send((got, float(np.median(ages)) if ages else None))


def measure(viewers: int, stalled: int, frames: np.ndarray, seconds: float) -> dict[str, Any]:
    """One number of viewers."""
    broadcast = Broadcast()
    with PageServer(broadcast, Controls(), StreamReport, port=0) as server:
        feeder = _Feeder(broadcast, frames)
        mine, other = multiprocessing.get_context("spawn").Pipe()
        work = multiprocessing.get_context("spawn").Process(
            target=_look, args=(server.url, viewers, stalled, seconds, other)
        )
        work.start()
        begun = time.monotonic()
        while broadcast.viewers < viewers + stalled:
            time.sleep(0.01)
            assert time.monotonic() < begun + 60, "the viewers did not come"
        cpu, start, first = time.process_time(), time.monotonic(), feeder.written
        time.sleep(seconds - 1.0)
        cpu, lasted, written = time.process_time() - cpu, time.monotonic() - start, feeder.written - first
        assert mine.poll(60), "the viewers did not answer"
        got, age = mine.recv()
        work.join()
        feeder.stop()
    assert all(count > 0.5 * written for count in got), (got, written)
    return {
        "viewers": viewers,
        "stalled": stalled,
        "cpu_ms_per_second": round(1000 * cpu / lasted, 1),
        "frames_per_second_written": round(written / lasted, 1),
        "frames_per_second_read": round(float(np.mean(got)) / seconds, 1) if got else None,
        "age_when_sent_ms": round(1000 * age, 1) if age is not None else None,
        "write_ms": round(1000 * float(np.median(feeder.spent[first : first + written])), 2),
    }


def main() -> None:
    """Measure and print."""
    options = parser("live", __doc__)
    options.add_argument("--seconds", type=float, default=8.0)
    arguments = options.parse_args()
    seconds = 3.0 if arguments.quick else arguments.seconds
    viewers = [(1, 1)] if arguments.quick else [(0, 0), (1, 0), (4, 0), (4, 4), (16, 0), (16, 16)]
    frames = np.stack(pictures(12, 1, 360, 640))
    rows = [measure(reading, stalled, frames, seconds) for reading, stalled in viewers]
    report(arguments, {f"640 x 360, {_RATE:.0f} frames per second": rows})


if __name__ == "__main__":
    main()
