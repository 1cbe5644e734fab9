"""Does guided backpropagation explain the class, and the network, or draw edges alone?

Two sanity checks, on networks with ImageNet weights from packages and real photographs. Random class (Thesis 3.6.4,
table 3.5): maps of a class drawn at random in the place of the predicted one; the predicted class's deletion, insertion
and combined score (28 steps, removed pixels 0) should get worse. Random weights (Adebayo et al. 2018): from the last
layer to the first, the weights of convolutions and linear layers are drawn anew, normal with each layer's own mean and
standard deviation; maps should change.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import midgrain as mg
from benchmarks.cam_quality import STEPS, Network, networks
from benchmarks.common import parser, report
from benchmarks.photographs import Photograph, add_options, find_photographs, said
from midgrain.measures import bootstrap_interval
from midgrain.stability import rank_correlation

#: Rows -> the method and its options.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "guided": ("guided", {}),
    "vanilla": ("vanilla", {}),
    "gradcam": ("gradcam", {}),
    "swag-i, guided": ("swag-i", {}),
    "swag-i, vanilla": ("swag-i", {"scorer": "vanilla"}),
}
#: Maps that know nothing of the network, as scores of SWAG-I's superpixels (Thesis table 3.4).
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "swag-i, sobel": ("swag-i", {"scorer": "sobel"}),
    "swag-i, noise": ("swag-i", {"scorer": "noise"}),
}
#: Shares of the layers that have random weights, from the last one on; 0 is the last layer alone.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PREDICTED, RANDOM = "predicted class", "random class"
SEED = 0


def explainers(model: nn.Module, rows: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Explainers by the name of their row."""
    return {row: mg.explainer(name, model, **options) for row, (name, options) in rows.items()}


def class_records(network: Network, photos: Sequence[Photograph]) -> list[dict[str, Any]]:
    """One record per photograph, method and class explained; measured is the predicted class always."""
    random = np.random.default_rng(SEED)
    found, blind = explainers(network.model, METHODS), explainers(network.model, BASELINES)
    records = []
    for photo in photos:
        x = network.preprocess(photo.picture)
        with torch.no_grad():
            logits = network.model(x)[0]
        predicted = int(logits.argmax())
        other = (predicted + int(random.integers(1, len(logits)))) % len(logits)
        maps = {(row, PREDICTED): explain(x, predicted).heatmap for row, explain in (found | blind).items()}
        maps |= {(row, RANDOM): explain(x, other).heatmap for row, explain in found.items()}
        for (row, explained), heatmap in maps.items():
            result = mg.measures.combined(network.model, x, heatmap, predicted, steps=STEPS)
            records.append(
                {
                    "network": network.name,
                    "photograph": photo.name,
                    "method": row,
                    "class": explained,
                    "deletion": float(result.deletion.auc),
                    "insertion": float(result.insertion.auc),
                    "combined": float(result.score),
                    "correlation": None
                    if explained == PREDICTED
                    else correlation(maps[row, PREDICTED], maps[row, RANDOM]),
                }
            )
    return records


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, of the magnitudes."""
    return rank_correlation(a.abs().numpy(), b.abs().numpy())


def class_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means per method for both classes, and what the random class costs, drawn by photograph."""
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        own, other = (
            [record for record in records if record["method"] == method and record["class"] == explained]
            for explained in (PREDICTED, RANDOM)
        )
        row: dict[str, Any] = {"": method}
        for key in ("deletion", "insertion", "combined"):
            values = [np.mean([record[key] for record in each]) if each else None for each in (own, other)]
            row[f"{key}, predicted / random class"] = " / ".join("" if v is None else f"{v:.3f}" for v in values)
        losses = [b["combined"] - a["combined"] for a, b in zip(own, other, strict=False)]
        row["combined, loss by the random class [95 %]"] = interval(losses, other)
        row["rank correlation of the two maps"] = (
            f"{np.mean([record['correlation'] for record in other]):.2f}" if other else ""
        )
        rows.append(row)
    return rows


def interval(values: Sequence[float], records: Sequence[Mapping[str, Any]]) -> str:
    """The mean and its interval, drawn by photograph; of one photograph none."""
    photographs = [record["photograph"] for record in records]
    if len(set(photographs)) < 2:
        return "too few" if values else ""
    return str(bootstrap_interval(values, units=photographs))


def randomised(model: nn.Module) -> Iterator[tuple[float, nn.Module]]:
    """Copies of a network, the weights of more and more of its last layers drawn anew."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(SEED)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)][::-1]
    done = 0
    for share in SHARES:
        until = max(1, round(share * len(layers)))
        for layer in layers[done:until]:
            weight = layer.weight.data
            weight.copy_(torch.randn(weight.shape, generator=generator) * weight.std() + weight.mean())
        done = until
        yield share, model


def weight_records(network: Network, photos: Sequence[Photograph]) -> list[dict[str, Any]]:
    """One record per photograph, method and share: how alike is the map to that of the trained network?"""
    inputs = [network.preprocess(photo.picture) for photo in photos]
    with torch.no_grad():
        targets = [int(network.model(x).argmax()) for x in inputs]
    trained = {
        row: [explain(x, target).heatmap for x, target in zip(inputs, targets, strict=True)]
        for row, explain in explainers(network.model, METHODS).items()
    }
    return [
        {
            "network": network.name,
            "photograph": photo.name,
            "method": row,
            "share": share,
            "correlation": correlation(explain(x, target).heatmap, trained[row][index]),
        }
        for share, model in randomised(network.model)
        for row, explain in explainers(model, METHODS).items()
        for index, (photo, x, target) in enumerate(zip(photos, inputs, targets, strict=True))
    ]


def weight_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean rank correlation per method and share."""
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        row: dict[str, Any] = {"": method}
        for share in SHARES:
            name = "last layer" if share == 0 else "all layers" if share == 1 else f"last {share:.0%}"
            values = [each["correlation"] for each in records if each["method"] == method and each["share"] == share]
            row[name] = f"{np.mean(values):.2f}"
        rows.append(row)
    return rows


def options() -> argparse.Namespace:
    """The command line."""
    found = parser("guided_sanity", __doc__)
    add_options(found)
    found.add_argument("--limit", type=int, metavar="N", help="at most so many photographs, evenly spread")
    found.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default 1)")
    arguments: argparse.Namespace = found.parse_args()
    if arguments.quick:
        arguments.limit = 1
    return arguments


def main() -> None:
    """Print the tables."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    photos = find_photographs(arguments.photos)
    if arguments.limit is not None and arguments.limit < len(photos):
        photos = [photos[index * len(photos) // arguments.limit] for index in range(arguments.limit)]
    print(said(photos, []), flush=True)
    tables: dict[str, list[dict[str, Any]]] = {}
    details, together = [], []
    for network in networks()[: 1 if arguments.quick else None]:
        classes, weights = class_records(network, photos), weight_records(network, photos)
        tables[f"{network.name}: another class"] = class_rows(classes)
        tables[f"{network.name}: rank correlation with the trained network's maps"] = weight_rows(weights)
        together += classes
        details += [*classes, *weights]
    if not arguments.quick:
        tables["Both networks, drawn by photograph: another class"] = class_rows(together)
    report(arguments, tables, details=details)


if __name__ == "__main__":
    main()
