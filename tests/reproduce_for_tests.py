"""Small networks that stand in for those of the papers."""

from __future__ import annotations

from torch import nn

from midgrain.clips import ClipPreprocess
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from models_for_tests import seeded

PREPROCESS = Preprocess(32, 32, (0.5,) * 3, (0.25,) * 3)


def small_net(classes: int) -> nn.Module:
    """For pictures of any size, with two down-samplings."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, classes),
        )

    return seeded(build).eval()


def loaded(classes: int = 1000) -> LoadedModel:
    return LoadedModel(small_net(classes), PREPROCESS, None, "small")


def figures(found, network: str, measure: str) -> dict[str, float | None]:
    return {line.method: line.measured for line in found.lines if (line.network, line.measure) == (network, measure)}


def clip_net(classes: int) -> nn.Module:
    """For clips of any size, as Saliency Tubes take it."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(6, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(12, classes),
        )

    return seeded(build).eval()


def loaded_for_clips(labels: list[str]) -> LoadedModel:
    preprocess = ClipPreprocess(24, 24, (0.5,) * 3, (0.25,) * 3)
    return LoadedModel(clip_net(len(labels)), preprocess, labels, "small, for clips")
