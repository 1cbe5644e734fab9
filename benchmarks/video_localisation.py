"""Weak localisation in space and in time: digits that move through clips, whose place in every frame is known.

    python -m benchmarks.video_localisation [--weights FILE] [--clips N]

In space a box around the thresholded heat of each frame is compared with the digit's (intersection over union, mean
over the frames that show it). In time the frames' greatest heat is thresholded, and the interval around what is left
compared with the digit's time. The error is the share of clips whose overlap is 0.5 or less, at the threshold where
that is least. The network was trained on other digits; the digit's own class is explained, whatever the network
predicts.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import midgrain as mg
from benchmarks.common import parser, report
from midgrain.evaluate.synthetic import MEAN, STD, clip_network, held_out_clips, predicted, scenes, train_clips
from midgrain.evaluate.truth import boxes_around
from midgrain.measures.boxes import THRESHOLDINGS

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "swag-i": ("swag-i", {}),
    "swag-ig": ("swag-ig", {}),
    "swag-g": ("swag-g", {}),
    "swag-ig, 300 superpixels": ("swag-ig", {"n_segments": 300}),
    "guided": ("guided", {}),
    "vanilla": ("vanilla", {}),
    "gradcam": ("gradcam", {}),
    "gradcam++": ("gradcam++", {}),
    "saliency-tubes": ("saliency-tubes", {}),
    "jittercam": ("jittercam", {}),
    "jittercam, time doubled too": ("jittercam", {"temporal_scale": 2.0}),
    "guided-gradcam": ("guided-gradcam", {}),
    "deepmaps": ("deepmaps", {}),
    "sobel": ("sobel", {}),
    "centre": ("centre", {}),
    "noise": ("noise", {}),
    "constant": ("constant", {}),
}
REFERENCE = "gradcam"
_BATCH = 20
_DRAWS = 2000


def trained_clips(weights: Path | None) -> nn.Module:
    """The network, from the file where there is one, otherwise written to it."""
    if weights is not None and weights.exists():
        network = clip_network()
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network.eval()
    network = train_clips(scenes())
    if weights is not None:
        torch.save(network.state_dict(), weights)
    return network


def least_error(overlaps: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
    """Percent of clips that miss, [draws] or one number; the threshold is chosen anew in every draw.

    Args:
        overlaps: [clips, thresholds].
        draws: numbers of clips, [draws, clips].
    """
    missed = overlaps <= 0.5
    return 100 * (missed.mean(0).min() if draws is None else missed[draws].mean(1).min(1))


def with_interval(values: dict[str, np.ndarray], name: str, draws: np.ndarray) -> str:
    """The error, its 95 % bootstrap interval, and a mark where it differs from the reference's on the same clips."""
    own = least_error(values[name], draws)
    low, high = np.percentile(own, [2.5, 97.5])
    apart = np.percentile(own - least_error(values[REFERENCE], draws), [2.5, 97.5])
    mark = "" if apart[0] <= 0 <= apart[1] else " -" if apart[1] < 0 else " +"
    return f"{least_error(values[name]):.1f} ({low:.0f} .. {high:.0f}){mark}"


def main() -> None:
    """Print the tables."""
    found = parser("video_localisation", __doc__)
    found.add_argument("--weights", type=Path, metavar="FILE", help="the trained network, read here or written")
    found.add_argument("--clips", type=int, default=300, help="how many (default 300)")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    count = 6 if arguments.quick else arguments.clips
    data = held_out_clips(scenes(), count)
    if arguments.quick:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: nn.Module = clip_network().eval()
    else:
        model = trained_clips(arguments.weights)
    inputs, labels = data.inputs, torch.from_numpy(data.labels)
    right = float((predicted(model, inputs) == labels).double().mean())
    boxes = torch.from_numpy(np.concatenate([boxes_around(mask) for mask in data.masks]))
    masks = torch.from_numpy(data.masks)
    frames = masks.shape[1]
    # A span as a box of height 1 in a picture of one row.
    spans = torch.tensor([[first, 0, last, 1] for first, last in data.spans.tolist()])
    short = torch.from_numpy(data.spans[:, 1] - data.spans[:, 0] < frames)

    in_space: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    in_time: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    on_digit: dict[str, float] = {}
    in_span: dict[str, float] = {}
    methods = {name: METHODS[name] for name in ("swag-i", REFERENCE)} if arguments.quick else METHODS
    for name, (method, options) in methods.items():
        explainer = mg.explainer(method, model, mean=[MEAN] * 3, std=[STD] * 3, **options)
        rows = torch.arange(count).split(_BATCH)
        heat = torch.cat([explainer(inputs[some], labels[some]).heatmap for some in rows])
        profile = heat.flatten(2).amax(2)[:, None]
        for thresholding in THRESHOLDINGS:
            in_space[thresholding][name] = mg.measures.weak_localisation(heat, boxes, thresholding).iou.numpy()
            iou = mg.measures.weak_localisation(profile[short], spans[short], thresholding).iou
            in_time[thresholding][name] = iou.numpy()
        shown = masks.flatten(2).any(2)
        on_digit[name] = float(mg.measures.energy_pointing_game(heat[shown], masks[shown]).mean())
        in_span[name] = share_of_time(heat, shown)[short].mean().item()
        print(name, flush=True)

    random = np.random.default_rng(0)
    times = int(short.sum())
    draws, draws_in_time = (random.integers(n, size=(_DRAWS, n)) for n in (count, times))
    place, time = [], []
    for name in methods:
        place.append(
            {"method": name}
            | {each: with_interval(values, name, draws) for each, values in in_space.items()}
            | {"on the digit": f"{100 * on_digit[name]:.1f}"}
        )
        time.append(
            {"method": name}
            | {each: with_interval(values, name, draws_in_time) for each, values in in_time.items()}
            | {"in its time": f"{100 * in_span[name]:.1f}"}
        )
    by_chance = float(shown[short].double().mean())
    report(
        arguments,
        {
            f"In space: error (%) by three ways to threshold, {count} clips": place,
            f"In time: likewise, {times} clips that show the digit part of the time": time,
        },
        [
            f"The network reads {right:.1%} of the clips right. In brackets 95 % bootstrap intervals; - and + mark "
            f"errors that are lower or higher than {REFERENCE}'s (paired bootstrap, 95 %). On the digit: percent of "
            "the heat of the frames that show it; its strokes are "
            f"{100 * float(masks[shown].double().mean()):.1f} % of their pixels. In its time: percent of the heat in "
            f"frames that show the digit, which are {100 * by_chance:.0f} % of the frames."
        ],
    )


def share_of_time(heat: Tensor, shown: Tensor) -> Tensor:
    """The share of positive heat in the frames that show the digit, [B]."""
    energy = heat.clamp_min(0).flatten(2).double().sum(2)
    return (energy * shown).sum(1) / energy.sum(1).clamp_min(1e-300)


if __name__ == "__main__":
    main()
