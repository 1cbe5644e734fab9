"""All methods under all measures: which explanation to trust, and do the papers' orderings hold?

Three evaluations, each resumable and with a report of its own: real photographs with ImageNet weights, digits on
photographs, whose true explanation is known, and moving digits in clips.

    python -m benchmarks.all_methods --out DIR [--digits FILE] [--scenes FILE] [--clips FILE] [--reports docs/reports]
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import midgrain as mg
from benchmarks.common import parser, report
from benchmarks.photographs import add_options, find_photographs, packaged
from midgrain.evaluate import Results, Sample, synthetic
from midgrain.measures import bootstrap_interval
from midgrain.models import load_model

#: Methods whose defaults take a thousand passes and more -> what they get here.
FEWER: dict[str, dict[str, Any]] = {
    "rise": {"n_samples": 1000},
    "extremal": {"n_iterations": 200},
    **{name: {"n_samples": 200} for name in ("lime", "lime-i", "lime-ig", "lime-g", "kernel-shap")},
}
#: A minute for each photograph, whose 800 passes of a large network are already few.
NOT_ON_PHOTOGRAPHS = ("extremal",)
BASELINES = ("noise", "centre", "random-point", "sobel", "constant")
CLIP_METHODS = (
    "swag-i", "swag-ig", "swag-g", "gws", "lime-i", "lime-ig", "lime-prior", "gradcam", "gradcam++", "xgradcam",
    "act-gradcam", "layercam", "jittercam", "ablationcam", "guided-gradcam", "relu-activation", "saliency-tubes",
    "deepmaps", "sise", "rise", "occlusion", "vanilla", "guided", "input-x-gradient", "integrated-gradients",
    "smoothgrad", "fullgrad",
)  # fmt: skip
DELTAS: dict[str, Any] = {f"delta_{name}": {"steps": 50} for name in ("n_morf", "n_lerf")}
DELTAS |= {"delta_aopc": {}, "delta_afoc": {}}
PHOTOGRAPHS: dict[str, Any] = {"combined": {}, "drop_increase": {}, "average_drop": {}}
LOCATED: dict[str, Any] = {
    "pointing_game": {"tolerance": 4},
    "energy_pointing_game": {},
    "mask_iou": {"share": 0.05},
    "bbox_score": {},
    "weak_localisation": {},
}
DIGITS: dict[str, Any] = {
    "combined": {},
    **{name: {"steps": 50} for name in ("n_morf", "n_lerf")},
    "aopc": {},
    "afoc": {},
    **DELTAS,
    "removed_best_first": ("superpixel_removal", {"order": "best"}),
    "removed_worst_first": ("superpixel_removal", {"order": "worst"}),
    "drop_increase": {},
    "average_drop": {},
    **LOCATED,
}
CLIPS: dict[str, Any] = {"combined": {"steps": 16}, "delta_n_morf": {"steps": 20}, "average_drop": {}, **LOCATED}

#: Of which the reports show figures and wins.
SHOWN = ("combined", "n_morf", "delta_n_lerf", "pointing_game", "weak_localisation")

_SURE = 0.95
# Below it a difference is that of the passes' rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Claim:
    """What a paper found: the first method's value of a measure is below the second's, or above."""

    source: str
    first: str
    second: str
    measure: str
    below: bool = True


CLAIMS = (
    Claim("Thesis, table 3.7", "swag-g", "swag-ig", "combined.deletion"),
    Claim("Thesis, table 3.7", "swag-ig", "swag-i", "combined.deletion"),
    Claim("Thesis, table 3.7", "swag-i", "gradcam", "combined.deletion"),
    Claim("Thesis, table 3.7", "guided", "swag-g", "combined.deletion"),
    Claim("Thesis, table 3.9", "lime-g", "lime-ig", "combined.deletion"),
    Claim("Thesis, table 3.9", "lime-ig", "lime-i", "combined.deletion"),
    Claim("Thesis, ch. 5", "jittercam", "gradcam", "combined.deletion"),
    Claim("Thesis, ch. 5", "jittercam", "gradcam", "combined.insertion"),
    Claim("Thesis, ch. 5", "jittercam", "gradcam", "pointing_game", below=False),
    Claim("Thesis, ch. 5", "jittercam", "gradcam", "weak_localisation"),
    Claim("SISE", "sise", "gradcam", "energy_pointing_game", below=False),
    Claim("SISE", "sise", "rise", "energy_pointing_game", below=False),
    Claim("DeepMaps", "deepmaps", "gradcam", "delta_n_morf"),
    Claim("DeepMaps", "deepmaps", "gradcam", "delta_n_lerf", below=False),
    Claim("DeepMaps", "deepmaps", "fullgrad", "delta_aopc", below=False),
    Claim("a map that hides nothing", "constant", "gradcam", "average_drop"),
)


def main() -> None:
    """Evaluate, or go on; print the tables; write the reports where they are asked for."""
    options = parser("all_methods", __doc__)
    add_options(options)
    options.add_argument(
        "--out", type=Path, metavar="DIR", help="folders of the results, to go on; by default none stay"
    )
    options.add_argument("--reports", type=Path, metavar="DIR", help="write one HTML page for each part here")
    for name in ("digits", "scenes", "clips"):
        options.add_argument(
            f"--{name}", type=Path, metavar="FILE", help="that network's weights, or where to put them"
        )
    options.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    options.add_argument("--limit", type=int, metavar="N", help="samples of each part")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        arguments.out = arguments.out or Path(folder)
        report(arguments, _tables(arguments), ["Intervals: 95 %, BCa bootstrap over samples."])


def _tables(arguments: Any) -> dict[str, Sequence[Mapping[str, Any]]]:
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    for part in arguments.part or PARTS:
        results = PARTS[part](arguments)
        tables[f"{part}: means"] = means(results)
        found = judged(results)
        if found:
            tables[f"{part}: what papers found"] = found
        if arguments.reports:
            arguments.reports.mkdir(parents=True, exist_ok=True)
            shown = [name for name in SHOWN if name in results.measures]
            results.report(arguments.reports / f"{part}.html", measures=shown)
    return tables


def photographs(arguments: Any) -> Results:
    """The demo's network on real photographs, the predicted class."""
    loaded = load_model("demo")
    found = [Sample(each.name, each.picture) for each in find_photographs(arguments.photos)]
    methods = {name: value for name, value in all_methods().items() if name not in NOT_ON_PHOTOGRAPHS}
    return _evaluate(loaded, found, methods, PHOTOGRAPHS, arguments, "photographs", 1)


def digits(arguments: Any) -> Results:
    """The digit of every picture, with mask; the network that names scenes beside it for BAM's contrast."""
    photos = [photograph.picture for photograph in packaged()]
    data = synthetic.held_out(photos, 60)
    objects = _trained(arguments.digits, photos, "digits", arguments.quick)
    scenes = _trained(arguments.scenes, photos, "scenes", arguments.quick)
    measures = DIGITS | {"model_contrast": {"scene_model": scenes}}
    return _evaluate(objects, data.samples(), all_methods(), measures, arguments, "digits", 1)


def clips(arguments: Any) -> Results:
    """The moving digit of every clip, with its mask in every frame."""
    photos = [photograph.picture for photograph in packaged()]
    data = synthetic.held_out_clips(photos, 30)
    network = _trained_clips(arguments.clips, photos, arguments.quick)
    methods = {name: (name, FEWER.get(name, {})) for name in CLIP_METHODS}
    return _evaluate(network, data.samples(), methods, CLIPS, arguments, "clips", 1)


PARTS = {"photographs": photographs, "digits": digits, "clips": clips}


def all_methods() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every method but the baselines, which are added to every evaluation."""
    return {name: (name, FEWER.get(name, {})) for name in mg.methods() if name not in BASELINES}


def _evaluate(
    model: Any, data: Sequence[Sample], methods: Any, measures: Any, arguments: Any, name: str, examples: int
) -> Results:
    limit = 2 if arguments.quick else arguments.limit
    if arguments.quick:
        methods = {label: methods[label] for label in ("swag-ig", "gradcam")}
        measures = {label: value for label, value in measures.items() if not label.startswith("delta")}
    normalisation = {} if name == "photographs" else {"mean": (synthetic.MEAN,) * 3, "std": (synthetic.STD,) * 3}
    results: Results = mg.evaluate(
        model,
        data,
        methods,
        measures,
        arguments.out / name,
        baselines=BASELINES,
        limit=limit,
        examples=examples,
        progress=True,
        **normalisation,
    )
    for error in results.errors().to_dict("records"):
        print(f"{error['id']}, {error['stage']}: {error['error']}")
    return results


def _trained(weights: Path | None, photos: Any, classes: str, quick: bool) -> nn.Module:
    return synthetic.train(photos, 100, classes) if quick else synthetic.trained(weights, photos, classes)


def _trained_clips(weights: Path | None, photos: Any, quick: bool) -> nn.Module:
    if weights is not None and weights.exists():
        network = synthetic.clip_network()
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network.eval()
    trained = synthetic.train_clips(photos, 100 if quick else None)
    if weights is not None:
        torch.save(trained.state_dict(), weights)
    return trained


def means(results: Results) -> list[dict[str, Any]]:
    """A row per method: means of the measures, and the cost."""
    summary = results.summary()
    wide = summary.table.pivot(index="explainer", columns="measure", values="mean")
    costs = summary.costs.set_index("explainer")
    return [
        {
            "method": name,
            **{column: _rounded(wide.loc[name, column]) for column in summary.measures},
            "seconds": _rounded(costs.loc[name, "seconds"]),
        }
        for name in results.explainers
    ]


def judged(results: Results) -> list[dict[str, Any]]:
    """A row per claim that the measures can judge: the paired difference and its interval."""
    frame = results.frame()
    rows = []
    for claim in CLAIMS:
        if claim.measure not in frame or not {claim.first, claim.second} <= set(results.explainers):
            continue
        difference = _paired(frame, claim.measure, claim.first) - _paired(frame, claim.measure, claim.second)
        sign = "<" if claim.below else ">"
        rows.append(
            _judgement(claim.source, f"{claim.first} {sign} {claim.second}", claim.measure, difference, claim.below)
        )
    for column in (name for name in results.columns if name.startswith("delta_") and "." not in name):
        for baseline in ("noise", "centre"):
            values = _paired(frame, column, baseline)
            rows.append(_judgement("DeepMaps, 4.3", f"{baseline} = 0", column, values, None))
    return rows


def _paired(frame: pd.DataFrame, column: str, explainer: str) -> pd.Series:
    return frame[frame["explainer"] == explainer].set_index("id")[column].astype(float)


def _judgement(source: str, claim: str, measure: str, values: pd.Series, below: bool | None) -> dict[str, Any]:
    numbers = values.dropna().to_numpy(np.float64)
    row = {"source": source, "claim": claim, "measure": measure}
    if len(numbers) < 2 or np.ptp(numbers) == 0:
        return row | {
            "difference": _rounded(float(numbers.mean()) if len(numbers) else np.nan),
            "found": "no difference",
        }
    interval = bootstrap_interval(numbers, confidence=_SURE)
    lower, upper = interval.low, interval.high
    text = f"{interval.mean:+.3f} [{lower:+.3f}, {upper:+.3f}]"
    if below is None:
        holds = lower <= 0 <= upper or max(abs(lower), abs(upper)) < _ROUNDING
        return row | {"difference": text, "found": "holds" if holds else "does not hold"}
    if lower <= 0 <= upper:
        return row | {"difference": text, "found": "not shown"}
    return row | {"difference": text, "found": "shown" if (upper < 0) == below else "the opposite"}


def _rounded(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
