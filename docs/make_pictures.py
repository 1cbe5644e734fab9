"""Draws `img/methods/NAME.jpg` for every method, what the demo's network saw in one photograph, and writes gallery.md.

python docs/make_pictures.py [NAME ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data

import midgrain as mg
from midgrain.models import load_model

DOCS = Path(__file__).parent
FOLDER = DOCS / "img" / "methods"
SIDE = 280
#: The cat's class is explained, not whatever else is likely.
TARGET = "tabby"
#: Where the default would take minutes without another picture.
OPTIONS: dict[str, dict[str, Any]] = {}


def main() -> None:
    """Draw the methods named on the command line, or all."""
    torch.set_num_threads(1)  # So that the pictures do not depend on the machine's cores.
    loaded = load_model("demo")
    picture = Image.fromarray(data.chelsea())
    x = loaded.preprocess(picture)
    shown = loaded.preprocess.shown(picture, SIDE)
    assert loaded.labels is not None
    target = next(number for number, label in enumerate(loaded.labels) if TARGET in label.lower())
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or mg.methods():
        explainer = mg.explainer(
            name, loaded.model, mean=loaded.preprocess.mean, std=loaded.preprocess.std, **OPTIONS.get(name, {})
        )
        drawn = explainer(x, target).overlay(image=shown, alpha=0.6)
        Image.fromarray(drawn).save(FOLDER / f"{name}.jpg", quality=85)
        print(name, flush=True)
    (DOCS / "gallery.md").write_text(gallery(), encoding="utf-8")


def gallery() -> str:
    """The page with all pictures, in the order of `mg.methods()`."""
    lines = [
        "# Gallery",
        "",
        "One photograph, one network (EfficientNet-Lite0 with ImageNet weights), one class (tabby), every method with",
        "its defaults; drawn by `python docs/make_pictures.py`. What each one computes: [methods](methods/README.md).",
        "",
        "| | | |",
        "| --- | --- | --- |",
    ]
    cells = [f"![{name}](img/methods/{name}.jpg)<br>`{name}`<br>{line}" for name, line in mg.methods().items()]
    cells += [""] * (-len(cells) % 3)
    lines += [f"| {' | '.join(cells[start : start + 3])} |" for start in range(0, len(cells), 3)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
