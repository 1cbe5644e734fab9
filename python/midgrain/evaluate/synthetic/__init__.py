"""Data whose true explanation is known: digits on photographs, moving digits in clips, and small networks for them.

* `held_out(scenes())`: pictures with a digit each, its mask and box, and which scene it is on; `train(scenes())` and
  `train(scenes(), classes="scenes")` train a network for the digits and one for the scenes, `contrast` is BAM's score.
* `held_out_clips(scenes())`: clips in which a digit moves, with its mask in every frame and the time it is there;
  `train_clips(scenes())`.
* `misleading(scenes())`: digits with a patch that goes with another class in the training pictures (`teaching`);
  `train_with_shortcut(scenes())` trains a network that learns the patch.

Everything is drawn from seeds. `.samples()` of either goes into `midgrain.evaluate`.
"""

from __future__ import annotations

from midgrain.evaluate.synthetic.clips import DigitClips, held_out_clips, paste_moving
from midgrain.evaluate.synthetic.pictures import MEAN, STD, DigitPictures, held_out, paste
from midgrain.evaluate.synthetic.shortcuts import Shortcut, misleading, plant, teaching, train_with_shortcut
from midgrain.evaluate.synthetic.sources import digits, packaged_photographs, scenes
from midgrain.evaluate.synthetic.training import (
    clip_network,
    contrast,
    network,
    predicted,
    train,
    train_clips,
    trained,
)

__all__ = [
    "MEAN",
    "STD",
    "DigitClips",
    "DigitPictures",
    "Shortcut",
    "clip_network",
    "contrast",
    "digits",
    "held_out",
    "held_out_clips",
    "misleading",
    "network",
    "packaged_photographs",
    "paste",
    "paste_moving",
    "plant",
    "predicted",
    "scenes",
    "teaching",
    "train",
    "train_clips",
    "train_with_shortcut",
    "trained",
]
