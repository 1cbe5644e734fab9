"""What does SISE's `mu` cost and bring: masks, passes, seconds and combined score on real photographs?

The ablation of Sattarzadeh et al. 2021 (mu 0, 0.3, 0.5), with networks whose ImageNet weights come in packages; beside
Grad-CAM and the centre of the picture. Each photograph's predicted class is explained.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import midgrain as mg
from benchmarks.cam_quality import Network, networks
from benchmarks.common import parser, report
from benchmarks.photographs import Photograph, add_options, find_photographs, said
from midgrain.masking import SISE
from midgrain.measures import bootstrap_interval

REFERENCE = "gradcam"
MUS = (0.0, 0.3, 0.5)
STEPS = 28


def explainers(network: Network, output: str) -> dict[str, Any]:
    """By the name of their row."""
    rows: dict[str, Any] = {f"sise, mu {mu:g}": SISE(network.model, mu=mu, output=output) for mu in MUS}
    return rows | {name: mg.explainer(name, network.model) for name in (REFERENCE, "centre")}


def records_of(network: Network, photos: Sequence[Photograph], output: str) -> list[dict[str, Any]]:
    """One record per photograph and row."""
    records = []
    found = explainers(network, output)
    for photo in photos:
        x = network.preprocess(photo.picture)
        with torch.no_grad():
            target = int(network.model(x).argmax(1))
        for name, explainer in found.items():
            start = time.process_time()
            explanation = explainer(x, target)
            seconds = time.process_time() - start
            result = mg.measures.combined(network.model, x, explanation.heatmap, target, steps=STEPS)
            masks = explanation.details.get("masks")
            records.append(
                {
                    "network": network.name,
                    "photograph": photo.name,
                    "row": name,
                    "masks": None if masks is None else masks[0].tolist(),
                    "passes": int(explanation.details["passes"][0]) if masks is not None else None,
                    "seconds": seconds,
                    "deletion": float(result.deletion.auc),
                    "insertion": float(result.insertion.auc),
                    "combined": float(result.score),
                }
            )
    return records


def column(records: Sequence[Mapping[str, Any]], row: str, key: str) -> list[Any]:
    """A row's values in the order of the records."""
    return [record[key] for record in records if record["row"] == row]


def difference(records: Sequence[Mapping[str, Any]], row: str) -> str:
    """A row's mean combined score less Grad-CAM's, with its paired interval over the photographs."""
    if row == REFERENCE:
        return "0"
    if len(set(column(records, row, "photograph"))) < 2:
        return "too few"
    pairs = zip(column(records, row, "combined"), column(records, REFERENCE, "combined"), strict=True)
    units = column(records, row, "photograph")
    return str(bootstrap_interval([mine - theirs for mine, theirs in pairs], units=units))


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means per row."""
    result = []
    for row in dict.fromkeys(record["row"] for record in records):
        masks = [each for each in column(records, row, "masks") if each is not None]
        result.append(
            {
                "": row,
                "masks per block": " ".join(f"{n:.0f}" for n in np.mean(masks, 0)) if masks else "",
                "passes": f"{np.mean(column(records, row, 'passes')):.0f}" if masks else "",
                "seconds": float(np.mean(column(records, row, "seconds"))),
                "deletion": f"{np.mean(column(records, row, 'deletion')):.3f}",
                "insertion": f"{np.mean(column(records, row, 'insertion')):.3f}",
                "combined": f"{np.mean(column(records, row, 'combined')):.3f}",
                "combined less Grad-CAM's [95 %]": difference(records, row),
            }
        )
    return result


def main() -> None:
    """Print the tables."""
    found = parser("sise_cost", __doc__)
    add_options(found)
    found.add_argument("--limit", type=int, metavar="N", help="at most so many photographs, evenly spread")
    found.add_argument("--output", default="probability", help="what the masks' score is (default probability)")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    photos = find_photographs(arguments.photos)
    limit = 1 if arguments.quick else arguments.limit
    if limit is not None and limit < len(photos):
        photos = [photos[index * len(photos) // limit] for index in range(limit)]
    print(said(photos, []), flush=True)
    tables, details = {}, []
    for network in networks()[: 1 if arguments.quick else None]:
        records = records_of(network, photos, arguments.output)
        details += records
        layers = SISE(network.model).layer_names(network.preprocess(photos[0].picture))
        tables[f"{network.name} ({', '.join(layers)}), {len(photos)} photographs"] = rows(records)
    report(
        arguments,
        tables,
        ["Means over the photographs; seconds are processor time of one thread, the network's included."],
        details,
    )


if __name__ == "__main__":
    main()
