"""Where does the time of SWAG on a clip go, apart from the network? 16 x 112 x 112, image and gradient.

Processor time of one thread. The gradient is the slope of the picture's brightness, which costs nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import midgrain as mg
from benchmarks.common import parser, pictures, report, slope
from midgrain.driver import Pass
from midgrain.explainer_base import to_uint8
from midgrain.regions.base import painted, pooled
from midgrain.scorers import Score

FRAMES, SIDE, SEGMENTS = 16, 112, 120
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def spent(work: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds of processor time: the least and the median of so many."""
    work()
    found = []
    for _ in range(times):
        start = time.thread_time()
        work()
        found.append(1000 * (time.thread_time() - start))
    return {"least (ms)": min(found), "median (ms)": float(np.median(found))}


def main() -> None:
    """Print the table."""
    arguments = parser("video_stages", __doc__).parse_args()
    torch.set_num_threads(1)
    clip = pictures(1, FRAMES, SIDE, SIDE)[0]
    maps = torch.from_numpy(slope(clip))[None].float().contiguous()
    mean, std = (torch.tensor(each)[:, None, None, None] for each in (_MEAN, _STD))
    x = ((torch.from_numpy(clip).movedim(-1, 0).float() / 255 - mean) / std)[None].contiguous()

    class Fixed:
        """The same pixel scores always."""

        def score(self, model: Any, x: torch.Tensor, target: Any) -> Score:
            return Score(maps, Pass(torch.tensor([0]), torch.zeros(1, 2)))

    explainer = mg.SWAG(torch.nn.Identity(), scorer=Fixed())

    def slic(iterations: int) -> Any:
        return mg.ops.slic_pictures(
            x,
            SEGMENTS,
            gradient=maps,
            compactness=20.0,
            max_num_iter=iterations,
            mean=_MEAN,
            std=_STD,
            num_threads=1,
        )

    rgb = explainer.rgb(x)
    segments = explainer.segment(x, rgb, maps)
    scores = pooled(maps, segments, "mean")
    stages: dict[str, Callable[[], Any]] = {
        "SWAG as a whole": lambda: explainer(x),
        "superpixels": lambda: slic(10),
        "superpixels, 5 iterations": lambda: slic(5),
        "superpixels, 3 iterations": lambda: slic(3),
        "the picture behind the input": lambda: explainer.rgb(x),
        "the picture as bytes": lambda: to_uint8(rgb),
        "pooling": lambda: pooled(maps, segments, "mean"),
        "painting": lambda: painted(scores, segments),
    }
    times = 3 if arguments.quick else 60
    rows = [{"stage": name} | spent(work, times) for name, work in stages.items()]
    report(arguments, {f"SWAG-I+G of {FRAMES} x {SIDE} x {SIDE}, {SEGMENTS} superpixels": rows})


if __name__ == "__main__":
    main()
