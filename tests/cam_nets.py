"""Small networks cut in two at a layer, for the tests of class activation maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models_for_tests import CONV, NORM, POOL, seeded

CLASSES = 5


def curved_net(dims: int = 2, *, dtype: torch.dtype = torch.float64, hidden: int = 9) -> nn.Sequential:
    """Layer "4" gives both signs and is followed by an in-place ReLU, "5"; no score is affine in either of them."""

    def build() -> nn.Sequential:
        net = nn.Sequential(
            CONV[dims](3, 6, 3, stride=2, padding=1),
            NORM[dims](6),
            nn.ReLU(inplace=True),
            CONV[dims](6, 7, 3, stride=2, padding=1),
            NORM[dims](7),
            nn.ReLU(inplace=True),
            POOL[dims](2),
            nn.Flatten(),
            nn.Linear(7 * 2**dims, hidden),
            nn.ReLU(),
            nn.Linear(hidden, CLASSES),
        )
        for norm in (net[1], net[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        return net.to(dtype).eval()

    return seeded(build)


def cut(net: nn.Sequential, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The network up to a layer, and from there on."""
    place = int(layer) + 1
    return net[:place], net[place:]


def seen_at(net: nn.Sequential, layer: str, x: Tensor, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradients of a layer, float64 [B, K, *m], by running the two halves."""
    trunk, head = cut(net, layer)
    with torch.no_grad():
        activations = trunk(x.clone()).clone()
    activations.requires_grad_(True)
    scores = head(activations.clone())[torch.arange(len(x)), list(classes)]
    (gradients,) = torch.autograd.grad(scores.sum(), activations)
    return activations.detach().double().numpy(), gradients.double().numpy()


def score_from(net: nn.Sequential, layer: str, target: int):
    """The rest of the network as a function from one sample's activations to a number."""
    head = cut(net, layer)[1]

    def score_of(activations: np.ndarray) -> float:
        with torch.no_grad():
            return float(head(torch.tensor(activations)[None])[0, target])

    return score_of


class Counting(nn.Module):
    """Counts the passes through a network and the samples in them."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.passes = 0
        self.samples = 0

    def forward(self, x):
        self.passes += 1
        self.samples += len(x)
        return self.inner(x)


class TinyTransformer(nn.Module):
    """A class token, 3 x 4 patches of 8 pixels, two attention blocks, and a head that reads the class token."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        options = {"dim_feedforward": 12, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.first = nn.TransformerEncoderLayer(width, 2, activation=nn.functional.gelu, **options)
        self.second = nn.TransformerEncoderLayer(width, 2, activation=nn.functional.gelu, **options)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        return self.rest(self.first(tokens))

    def rest(self, tokens):
        return self.head(self.second(tokens)[:, 0])
