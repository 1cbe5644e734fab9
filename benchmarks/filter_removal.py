"""Which measure of filters finds those that a network needs? Filter removal curves of eight measures (thesis, 6.2.2).

The filters of the last convolution are set to 0, most important first: on digits on photographs, with a network trained
for them and their true classes, and on real photographs, with networks whose ImageNet weights come in packages and the
classes that they predict. Activations are taken and set to 0 at the convolution itself, after its batch norm, and after
the activation function that follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import midgrain as mg
from benchmarks import digits
from benchmarks.cam_quality import networks
from benchmarks.common import parser, report
from benchmarks.photographs import add_options, find_photographs, packaged, said
from midgrain import driver
from midgrain.cams.finder import LayerFinder
from midgrain.failures import FILTER_MEASURES, FilterScorer
from midgrain.measures import FilterRemoval, bootstrap_interval, filter_removal_curves

#: Where filters are measured and set to 0.
PLACES = ("convolution", "batch norm", "activation")
_BATCH = 16


class Residual(nn.Module):
    """Two convolutions with batch norms, added to what came in."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside))
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside))
        self.around = nn.Sequential()
        if stride > 1:
            self.around = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        around = self.around(x)
        return torch.relu(around + self.second(torch.relu(self.first(x))))


def residual_network(classes: int) -> nn.Sequential:
    """Of the kind of a ResNet-18: what the last convolution gives is added to what came before it."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(16, 32, 2), Residual(32, 64, 2), Residual(64, 128, 2), Residual(128, 128, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)),
    )


def residual(weights: Path | None, photos: list[Image.Image], quick: bool) -> nn.Sequential:
    """The trained residual network, from a file beside that of the plain one, otherwise written to it."""
    file = None if weights is None or quick else weights.with_name(f"{weights.stem}-residual{weights.suffix}")
    if file is not None and file.exists():
        model = residual_network(10)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    model = digits.train(photos, limit=100 if quick else None, build=residual_network)
    if file is not None:
        torch.save(model.state_dict(), file)
    return model


def place_options(model: nn.Module, x: Tensor, place: str) -> dict[str, Any]:
    """Options for a place; the last activations are those that class activation maps are made of."""
    if place == "convolution":
        return {}
    if place == "batch norm":
        return {"after_norm": True}
    with driver.preserved(model, x):
        return {"layer": LayerFinder().sites(model, x, None)[0].name}


def curves(model: nn.Module, batches: list[tuple[Tensor, Tensor]], place: str, step: int) -> dict[str, FilterRemoval]:
    """The curves of all measures at one place."""
    options = place_options(model, batches[0][0][:1], place)
    scorer = FilterScorer(list(FILTER_MEASURES), **options)
    return filter_removal_curves(model, batches, lambda x, y: scorer(model, x, y).scores, step=step, **options)


def rows_of(found: Mapping[str, Mapping[str, FilterRemoval]]) -> list[dict[str, Any]]:
    """A row per measure, a column per place: the area, with a 95 % interval, lower is better."""
    rows = []
    for name in FILTER_MEASURES:
        row: dict[str, Any] = {"measure": name}
        for place, by_measure in found.items():
            row[place] = area(by_measure[name])
        rows.append(row)
    return rows


def area(result: FilterRemoval) -> str:
    """The value and its interval over samples."""
    along = result.counts.double() / result.counts[-1]
    each = torch.trapezoid(result.correct.double(), along, dim=1) / result.accuracy[0]
    interval = bootstrap_interval(each)
    return f"{result.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, nn.Module, list[tuple[Tensor, Tensor]]]]:
    """Title, network, batches."""
    photos = [photograph.picture for photograph in packaged()]
    plain = digits.train(photos, limit=100) if arguments.quick else digits.trained(arguments.weights, photos)
    models = {"plain network": plain, "residual network": residual(arguments.weights, photos, arguments.quick)}
    data = digits.held_out(photos, 40 if arguments.quick else None)
    sizes = (data.inputs.split(_BATCH), torch.from_numpy(data.labels).split(_BATCH))
    for name, model in models.items():
        title = f"Digits, {name}: {len(data.labels)} held-out pictures, true classes"
        yield title, model, list(zip(*sizes, strict=True))
    photographs = find_photographs(arguments.photos)
    photographs = photographs[:2] if arguments.quick else photographs
    for network in networks():
        x = torch.cat([network.preprocess(photograph.picture) for photograph in photographs])
        with torch.no_grad():
            y = torch.cat([network.model(some).argmax(1) for some in x.split(_BATCH)])
        sizes = (x.split(_BATCH), y.split(_BATCH))
        yield f"{network.name}: {len(x)} photographs, predicted classes", network.model, list(zip(*sizes, strict=True))


def main() -> None:
    """Measure and print."""
    options = parser("filter_removal", __doc__)
    add_options(options)
    options.add_argument("--weights", type=Path, metavar="FILE", help="the digits' network, read or written here")
    options.add_argument("--step", type=int, default=16, metavar="N", help="filters that go at a time (default: 16)")
    arguments = options.parse_args()
    tables, details = {}, {}
    for title, model, batches in cases(arguments):
        found = {place: curves(model, batches, place, arguments.step) for place in PLACES}
        first = found[PLACES[0]]["random"]
        tables[f"{title}, {int(first.counts[-1])} filters, accuracy {float(first.accuracy[0]):.1%}"] = rows_of(found)
        details[title] = {
            place: {name: [round(float(value), 4) for value in each.curve] for name, each in by_measure.items()}
            for place, by_measure in found.items()
        }
        print(f"done: {title}", flush=True)
    notes = [
        f"Area under the normalised accuracy, {arguments.step} filters at a time, most important first; lower is "
        "better. In brackets the 95 % bootstrap interval over pictures.",
        said(find_photographs(arguments.photos), []),
        f"midgrain {mg.__version__}, torch {torch.__version__}.",
    ]
    report(arguments, tables, notes, details)


if __name__ == "__main__":
    main()
