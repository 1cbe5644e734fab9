"""How fast are XRAI's regions, beside the `saliency` package: the same masks, order and values first.

The network is left out: both get the same attributions of each photograph, integrated gradients of the demo network
from black and from white.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from saliency.core import xrai as package
from skimage.morphology import dilation, disk

import midgrain as mg
from benchmarks.common import parser, photographs, report, resized
from midgrain.models import load_model
from midgrain.regions import XRAI
from midgrain.regions.overlapping import Regions, overlapping_regions
from midgrain.regions.region_growing import rank_regions
from midgrain.regions.segmentations import felzenszwalb_scales

RADIUS = 5
RATIO = "ratio"
STEPS = 10


def seconds(call: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Processor time of the fastest run, and what it gave."""
    times, result = [], None
    for _ in range(runs):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return min(times), result


def attribution_of(x: torch.Tensor, model: torch.nn.Module, normalisation: dict[str, Any]) -> np.ndarray:
    """Signed integrated gradients of the predicted class, float64 [H, W]."""
    options = {"baseline": "black+white", "channels": "max", "n_steps": STEPS}
    explain = mg.explainer("integrated-gradients", model, **options, **normalisation)
    return explain(x).heatmap[0].double().numpy()


def their_masks(segmentations: list[np.ndarray]) -> list[np.ndarray]:
    """The package's: each label's mask grown on its own."""
    footprint = disk(RADIUS)
    return [dilation(mask, footprint=footprint) for mask in package._unpack_segs_to_masks(segmentations)]


def assert_same_masks(regions: Regions, masks: list[np.ndarray]) -> None:
    """The same regions in the same order."""
    assert regions.count == len(masks)
    for region, mask in enumerate(masks):
        assert np.array_equal(np.isin(regions.cells, regions.cells_of(region)), mask), f"region {region} differs"


def compare(picture: np.ndarray, attribution: np.ndarray, runs: int) -> dict[str, tuple[float, float]]:
    """Seconds of each step for one picture, floats [H, W, 3]: ours and theirs."""
    found = {}
    segmentation_time, segmentations = seconds(lambda: felzenszwalb_scales(picture), runs)
    growing, regions = seconds(lambda: overlapping_regions(segmentations, [RADIUS] * len(segmentations)), runs)
    their_growing, masks = seconds(lambda: their_masks(segmentations), 1)
    assert_same_masks(regions, masks)
    found["segmentation by scikit-image (both)"] = (segmentation_time, segmentation_time)
    found["growing the regions"] = (growing, their_growing)
    for mode, theirs in (("full", package.XRAI._xrai), ("fast", package.XRAI._xrai_fast)):
        ranking_time, ranking = seconds(lambda m=mode: rank_regions(attribution, regions, mode=m), runs)
        their_time, (heatmap, ranks) = seconds(lambda t=theirs: t(attribution, masks), 1)
        assert np.array_equal(ranking.labels, ranks - 1), f"{mode}: another order"
        assert np.allclose(ranking.gains[ranking.labels], heatmap, rtol=0, atol=1e-9 * np.abs(attribution).max())
        found[f"ranking, {mode}"] = (ranking_time, their_time)
        found[f"growing and ranking, {mode}"] = (growing + ranking_time, their_growing + their_time)
    return found


def compare_whole(explain: XRAI, x: torch.Tensor, attribution: np.ndarray, mode: str) -> tuple[float, float]:
    """The whole method for given attributions, segmentation included."""
    ours, explanation = seconds(lambda: explain(x), 3)
    picture = explain.rgb(x)[0].movedim(0, -1).double().numpy()
    parameters = package.XRAIParameters(return_xrai_segments=True, algorithm=mode)
    base = np.repeat(attribution[..., None], 3, -1)
    theirs, result = seconds(
        lambda: package.XRAI().GetMaskWithDetails(picture, None, base_attribution=base, extra_parameters=parameters), 1
    )
    assert np.array_equal(explanation.segments[0].numpy(), result.segments - 1), "another order"
    assert np.allclose(explanation.heatmap[0].numpy(), result.attribution_mask, rtol=1e-5, atol=1e-9)
    return ours, theirs


def rows(times: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Medians over the pictures."""
    return [
        {
            "": step,
            "midgrain [ms]": 1e3 * float(np.median([ours for ours, _ in pairs])),
            "saliency 0.2.1 [ms]": 1e3 * float(np.median([theirs for _, theirs in pairs])),
            RATIO: float(np.median([theirs / ours for ours, theirs in pairs])),
            "least ratio": min(theirs / ours for ours, theirs in pairs),
        }
        for step, pairs in times.items()
    ]


def main() -> None:
    """Print the tables."""
    found = parser("xrai_speed", __doc__)
    found.add_argument(
        "--sides", type=int, nargs="+", default=[224], metavar="N", help="of the square pictures (default 224)"
    )
    arguments = found.parse_args()
    torch.set_num_threads(1)
    loaded = load_model("demo")
    normalisation = {"mean": loaded.preprocess.mean, "std": loaded.preprocess.std}
    pictures = list(photographs().values())[: 1 if arguments.quick else None]
    tables = {}
    for side in arguments.sides[: 1 if arguments.quick else None]:
        times: dict[str, list[tuple[float, float]]] = {}
        for photo in pictures:
            picture = resized(photo, side, side) / 255.0
            planes = torch.from_numpy(picture).float().movedim(-1, 0)[None]
            mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in normalisation.values())
            x = (planes - mean) / std
            attribution = attribution_of(x, loaded.model, normalisation)
            steps = compare(picture, attribution, 3)
            scores = torch.from_numpy(attribution).float()[None]
            for mode in ("full", "fast"):
                explain = XRAI(torch.nn.Flatten(), scorer=lambda *_, s=scores: s, mode=mode, **normalisation)
                steps[f"whole method but the network, {mode}"] = compare_whole(explain, x, scores[0].numpy(), mode)
            for step, pair in steps.items():
                times.setdefault(step, []).append(pair)
        tables[f"{side} x {side}, {len(pictures)} photographs"] = rows(times)
    report(
        arguments,
        tables,
        ["Processor time of one thread, medians over the photographs; of midgrain the fastest of three runs."],
    )


if __name__ == "__main__":
    main()
