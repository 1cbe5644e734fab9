"""Is a network better for having been trained without the regions that surprise it?

    python -m benchmarks.without_surprises [--weights FILE]

The network of `benchmarks.failures`, which learnt that a patch means a 3, is trained further on the same kind of
pictures: as they are, without what surprises, and without what speaks against the class. The patch stands beside 2 %
of the other digits there; where it is masked, and where the patch of the 3s is, the network may unlearn or learn it
better. Accuracy is measured where the patch misleads or is missing.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import parser, report
from benchmarks.failures import NORMALISATION, Teaching, accuracy, pictures_with_patches, shortcut_network
from benchmarks.photographs import packaged
from midgrain.evaluate.synthetic import misleading, predicted
from midgrain.failures import FilterStatistics, WithoutSurprises, without_surprises

_SEEDS = (101,)
_EPOCHS, _BATCH, _RATE = 2, 50, 5e-4
# 400 training pictures of a class are enough for these.
_LOW, _HIGH = 0.5, 99.5


def main() -> None:
    """Mask, train further, and measure."""
    options = parser("without_surprises", __doc__)
    options.add_argument("--weights", type=Path, metavar="FILE", help="read the trained network here, or write it")
    arguments = options.parse_args()
    photos = [photograph.picture for photograph in packaged()]
    limit = 200 if arguments.quick else None
    started = time.process_time()
    model = shortcut_network(arguments.weights, photos, limit)
    training = Teaching(photos, limit, _SEEDS)
    stats = FilterStatistics.fit(model, training)
    near: dict[str, Any] = {"low": 25, "high": 75} if arguments.quick else {"low": _LOW, "high": _HIGH}
    held = misleading(photos, limit)
    patched = np.array([training.patch(number).any() for number in range(len(training))])
    rows, masks = [], []
    for name in ("not trained further", "as they are", "surprising", "against"):
        data: Any = training
        if name in ("surprising", "against"):
            data = without_surprises(training, model, stats, filters=name, **near, **NORMALISATION)
            masks.append({"masked": name, **_covered(data, training, patched)})
        network = model if name == "not trained further" else _trained_further(model, data)
        found = accuracy(held, predicted(network, held.data.inputs).numpy())
        rows.append({"training pictures": name, **{row["pictures"]: row["right"] for row in found}})
    seconds = f"CPU seconds: {time.process_time() - started:.0f}."
    report(arguments, {"What is masked": masks, "Accuracy on held-out pictures": rows}, [seconds])


def _trained_further(model: nn.Module, data: Any) -> nn.Module:
    network = copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=0.01)
    random = torch.Generator().manual_seed(0)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(data), generator=random).split(_BATCH):
            items = [data[number] for number in rows.tolist()]
            optimiser.zero_grad()
            inputs, labels = torch.stack([x for x, _ in items]), torch.tensor([label for _, label in items])
            F.cross_entropy(network(inputs), labels).backward()
            optimiser.step()
    return network.eval()


def _covered(data: WithoutSurprises, training: Teaching, patched: np.ndarray) -> dict[str, str]:
    """How many pictures lose something, and how many of the patches go, beside the class and beside others."""
    labels = np.array([training.label(number) for number in range(len(training))])
    hits = np.zeros(len(training), bool)
    for number in np.flatnonzero(patched & data.changed.numpy()):
        patch = training.patch(int(number))
        hits[number] = (data.mask(int(number)).numpy() & patch).sum() >= patch.sum() / 2
    own, other = pictures_with_patches(labels, patched)
    share = {"pictures": data.changed.numpy(), "patches of 3s": hits[own], "patches of others": hits[other]}
    return {name: f"{100 * float(np.mean(flags)):.1f} %" if len(flags) else "-" for name, flags in share.items()}


if __name__ == "__main__":
    main()
