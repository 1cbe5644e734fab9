"""What does measuring cost: beside the passes through the network, and beside other libraries' measures?

Two networks with ImageNet weights from packages on photographs of 224 x 224. Where a peer has the same measure it gets
the same maps, steps and fill, and first has to give the same numbers.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import midgrain as mg
from benchmarks.cam_quality import Network, networks
from benchmarks.common import parser, photographs, report

#: A peer whose module is not installed is left out.
MODULES = {"torchcam": "torchcam", "grad-cam": "pytorch_grad_cam", "Quantus": "quantus"}
STEPS = 28
PERCENTILES = [10, 20, 30, 40, 50, 60, 70, 80, 90]
#: Heat maps with few, some and no pixels of one value.
MAPS = ("swag-ig", "gradcam", "vanilla")
#: Measures of a network -> options.
MEASURES: dict[str, dict[str, Any]] = {
    "combined": {"steps": STEPS},
    "deletion": {"steps": STEPS},
    "insertion": {"steps": STEPS},
    "aopc": {},
    "n_morf": {},
    "average_drop": {},
    "drop_increase": {},
}


class Watched(nn.Module):
    """A network that counts its passes and the processor time in them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.start()

    def start(self) -> None:
        """From here on."""
        self.seconds, self.passes = 0.0, 0

    def forward(self, x: Tensor) -> Tensor:
        """The network's own."""
        start = time.process_time()
        outputs: Tensor = self.model(x)
        self.seconds += time.process_time() - start
        self.passes += len(x)
        return outputs


class Given:
    """In torchcam an explainer hands the maps to the metric: one that hands out these."""

    def __init__(self, model: nn.Module, maps: Tensor):
        self.model, self.maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        """The maps."""
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """Of one there is nothing to fuse."""
        return cams[0]

    def _hooks_off(self) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass(frozen=True)
class Case:
    """What both libraries get."""

    model: Watched
    x: Tensor
    #: In 0 .. 1, no two values of a map equal.
    maps: Tensor
    classes: list[int]
    #: Where an object might be.
    masks: Tensor
    steps: int


@dataclass(frozen=True)
class Pair:
    """A measure of ours and a peer's."""

    measure: str
    peer: str
    ours: Callable[[Case], Any]
    theirs: Callable[[Case], Any]
    #: How far the numbers may be apart; None where the peer's definition is another.
    close: float | None = 1e-5


def inputs(network: Network, count: int) -> Tensor:
    """Photographs as the network takes them, [B, 3, 224, 224]."""
    pictures = [Image.fromarray(photo) for photo in list(photographs().values())[:count]]
    return torch.cat([network.preprocess(picture).reshape(1, 3, 224, 224) for picture in pictures])


def shares_of_the_network(network: Network, x: Tensor, kind: str) -> list[dict[str, Any]]:
    """A row per measure: its passes, and its time over the time in them."""
    maps = mg.explainer(kind, network.model)(x).heatmap
    rows = []
    for name, options in MEASURES.items():
        measure = getattr(mg.measures, name)
        watched = Watched(network.model)
        expected = measure(network.model, x[:1], maps[:1], **options).value
        assert torch.equal(measure(watched, x[:1], maps[:1], **options).value, expected)
        ratios, passes, seconds = [], [], []
        for index in range(len(x)):
            watched.start()
            start = time.process_time()
            measure(watched, x[index : index + 1], maps[index : index + 1], **options)
            ratios.append((time.process_time() - start) / watched.seconds)
            seconds.append(watched.seconds / watched.passes)
            passes.append(watched.passes)
        rows.append(
            {
                "network": network.name,
                "heat maps": kind,
                "measure": name,
                "passes": statistics.median(passes),
                "a pass [ms]": 1e3 * statistics.median(seconds),
                "besides the passes": f"{100 * (statistics.median(ratios) - 1):.1f} %",
                "at most": f"{100 * (max(ratios) - 1):.1f} %",
            }
        )
    return rows


def ours(name: str, **options: Any) -> Callable[[Case], Any]:
    """A measure of the network, its value [B]."""

    def call(case: Case) -> Any:
        more = {"steps": case.steps} if name in ("combined", "deletion") else {}
        return getattr(mg.measures, name)(case.model, case.x, case.maps, case.classes, **more, **options).value.numpy()

    return call


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(1)


def torchcam_curves(batch_size: int) -> Callable[[Case], Any]:
    """Deletion + (1 - insertion), the mean over the batch."""

    def call(case: Case) -> Any:
        from torchcam.metrics import DeletionInsertionMetric

        given = Given(case.model, case.maps)
        metric = DeletionInsertionMetric(given, _softmax, steps=case.steps, batch_size=batch_size)
        metric.update(case.x, case.classes)
        found = metric.summary()
        return found["deletion_auc"] + 1 - found["insertion_auc"]

    return call


def torchcam_drop(case: Case) -> Any:
    """Average drop, the mean over the batch."""
    from torchcam.metrics import ClassificationMetric

    metric = ClassificationMetric(Given(case.model, case.maps), _softmax)
    metric.update(case.x, case.classes)
    return metric.summary()["avg_drop"]


def _gradcam_targets(case: Case) -> list[Any]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    return [ClassifierOutputSoftmaxTarget(each) for each in case.classes]


def gradcam_drop(case: Case) -> Any:
    """What is left of the probability behind the map; the drop is worked out from it."""
    from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange

    change, pictures = CamMultImageConfidenceChange()(
        case.x, case.maps.numpy(), _gradcam_targets(case), case.model, return_visualization=True
    )
    assert pictures.shape == case.x.shape
    return change


def our_change(case: Case) -> Any:
    """The change behind the soft mask, as grad-cam gives it."""
    found = mg.measures.average_drop(case.model, case.x, case.maps, case.classes)
    return (found.after - found.before).numpy()


def gradcam_removal(case: Case) -> Any:
    """Mean change while the top 10, 20, ... 90 % turn 0."""
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        AveragerAcrossThresholds,
        PerturbationConfidenceMetric,
        RemoveMostRelevantFirst,
    )

    def at(percentile: int) -> Any:
        return PerturbationConfidenceMetric(RemoveMostRelevantFirst(percentile, lambda picture, mask: picture * mask))

    return AveragerAcrossThresholds(at, PERCENTILES)(case.x, case.maps.numpy(), _gradcam_targets(case), case.model)


def gradcam_road(case: Case) -> Any:
    """Likewise, filled by noisy linear imputation."""
    from pytorch_grad_cam.metrics.road import ROADMostRelevantFirstAverage

    return ROADMostRelevantFirstAverage(PERCENTILES)(case.x, case.maps.numpy(), _gradcam_targets(case), case.model)


def our_removal(case: Case) -> Any:
    """The same shares: the curve's points but the first, less the first."""
    options = {"steps": len(PERCENTILES), "share": 0.9, "output": "probability"}
    found = mg.measures.aopc(case.model, case.x, case.maps, case.classes, **options)
    return (found.curve[:, 1:].mean(1) - found.curve[:, 0]).numpy()


def _quantus(case: Case, metric: Any, masks: bool = False) -> Any:
    given = {"s_batch": case.masks[:, None].numpy()} if masks else {}
    return np.array(
        metric(
            model=case.model.eval(),
            x_batch=case.x.numpy(),
            y_batch=np.array(case.classes),
            a_batch=case.maps[:, None].numpy(),
            device="cpu",
            batch_size=4,
            **given,
        )
    )


def quantus_flipping(case: Case) -> Any:
    """The curve without its first point."""
    from quantus.metrics.faithfulness import PixelFlipping

    class AnyStep(PixelFlipping):  # type: ignore[misc]
        def custom_preprocess(self, *_: Any, **__: Any) -> None:
            """It wants steps that divide the pixels, though it takes them from all values."""

    step = case.x[0].numel() // case.steps
    options = {"features_in_step": step, "perturb_baseline": 0.0, "normalise": False, "disable_warnings": True}
    return _quantus(case, AnyStep(**options))


def our_deletion(case: Case) -> Any:
    """Likewise."""
    return mg.measures.deletion(case.model, case.x, case.maps, case.classes, case.steps).curve[:, 1:].numpy()


def quantus_of_masks(name: str) -> Callable[[Case], Any]:
    """A metric of localisation."""

    def call(case: Case) -> Any:
        import quantus.metrics.localisation as metrics

        return _quantus(case, getattr(metrics, name)(normalise=False, abs=False, disable_warnings=True), masks=True)

    return call


def of_masks(name: str, **options: Any) -> Callable[[Case], Any]:
    """A measure of ours that asks no network."""
    return lambda case: getattr(mg.measures, name)(case.maps, case.masks, **options).numpy()


def _mean(call: Callable[[Case], Any]) -> Callable[[Case], Any]:
    return lambda case: float(np.mean(call(case)))


PAIRS = [
    Pair("deletion + insertion", "torchcam, its batches of 32", _mean(ours("combined")), torchcam_curves(32)),
    Pair("deletion + insertion", "torchcam, batches of 4", _mean(ours("combined")), torchcam_curves(4)),
    Pair("deletion", "Quantus, PixelFlipping", our_deletion, quantus_flipping),
    Pair("average_drop", "torchcam, ClassificationMetric", _mean(ours("average_drop")), torchcam_drop, 1e-4),
    Pair("average_drop", "grad-cam, CamMultImageConfidenceChange", our_change, gradcam_drop),
    Pair("aopc, 9 steps", "grad-cam, 9 percentiles filled with 0", our_removal, gradcam_removal, 1e-2),
    Pair("aopc, 9 steps", "grad-cam, ROAD", our_removal, gradcam_road, None),
    Pair(
        "energy_pointing_game",
        "Quantus, RelevanceMassAccuracy",
        of_masks("energy_pointing_game"),
        quantus_of_masks("RelevanceMassAccuracy"),
    ),
    Pair(
        "bbox_score",
        "Quantus, RelevanceRankAccuracy",
        of_masks("bbox_score"),
        quantus_of_masks("RelevanceRankAccuracy"),
    ),
    Pair(
        "pointing_game, tolerance 0",
        "Quantus, PointingGame",
        of_masks("pointing_game", tolerance=0),
        quantus_of_masks("PointingGame"),
    ),
]


def case_of(network: Network, x: Tensor, steps: int) -> Case:
    """Grad-CAM's maps, a little of the pixel's place added so that no two values are equal, and boxes."""
    maps = mg.explainer("gradcam", network.model)(x).heatmap.double()
    order = maps.flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
    ranks = (order.reshape(maps.shape) / (maps[0].numel() - 1)).float()
    masks = torch.zeros(ranks.shape, dtype=torch.bool)
    masks[:, 60:160, 40:180] = True
    return Case(Watched(network.model).eval(), x, ranks, network.model(x).argmax(1).tolist(), masks, steps)


def compared(case: Case, pair: Pair, runs: int) -> dict[str, Any]:
    """One row: images per second of both, the fastest of some runs in turn."""
    mine, its = pair.ours(case), pair.theirs(case)
    if pair.close is not None:
        assert np.allclose(mine, its, rtol=0, atol=pair.close), f"{pair.measure} is not {pair.peer}: {mine} {its}"
    best: dict[str, float] = {}
    passes: dict[str, float] = {}
    for _ in range(runs):
        for name, call in (("ours", pair.ours), ("theirs", pair.theirs)):
            case.model.start()
            start = time.process_time()
            call(case)
            best[name] = min(best.get(name, np.inf), time.process_time() - start)
            passes[name] = case.model.passes / len(case.x)
    return {
        "measure": pair.measure,
        "peer": pair.peer,
        "passes per image": f"{passes['ours']:g}; {passes['theirs']:g}",
        "midgrain [images/s]": len(case.x) / best["ours"],
        "peer [images/s]": len(case.x) / best["theirs"],
        "ratio": best["theirs"] / best["ours"],
    }


def main() -> None:
    """Print the tables."""
    found = parser("measures_speed", __doc__)
    found.add_argument("--photographs", type=int, default=4, metavar="N", help="how many (default 4)")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    runs = 1 if quick else 2
    both = networks()[: 1 if quick else None]
    tables = {}
    with warnings.catch_warnings(), torch.no_grad():
        # Of average_drop's constant map, and the peers' own.
        warnings.simplefilter("ignore")
        count = 1 if quick else arguments.photographs
        tables["Beside the passes through the network"] = [
            row
            for network in both
            for kind in (MAPS[:1] if quick else MAPS)
            for row in shares_of_the_network(network, inputs(network, count), kind)
        ]
        for network in both:
            case = case_of(network, inputs(network, count), 4 if quick else STEPS)
            one = case_of(network, inputs(network, 1), case.steps)
            tables[f"Beside other libraries, {network.name}"] = [
                # ROAD solves an equation for every pixel: one photograph, one run.
                compared(one if pair.close is None else case, pair, 1 if pair.close is None else runs)
                for pair in PAIRS
                if importlib.util.find_spec(MODULES[pair.peer.partition(",")[0]])
            ]
    report(
        arguments,
        tables,
        [
            f"Processor time of one thread, {count} photograph(s). Besides the passes: the whole measure's time over "
            "that in the network, less one; median and greatest of the photographs. Passes: midgrain's; the peer's."
        ],
    )


if __name__ == "__main__":
    main()
