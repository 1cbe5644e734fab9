"""Programs saved by torch.export, loaded with the layers of the network that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from midgrain import driver
from midgrain.cams.base import CAM
from midgrain.models import load_model
from midgrain.network.capture import run_from
from midgrain.network.resume import Resume
from models_for_tests import batch_for, relative_deviation, seeded
from models_for_tests import one_thread as one_thread


class Transformer(nn.Module):
    """Patches, a class token, one block of attention, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.head = nn.Linear(16, 48), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1)
        q, k, v = self.qkv(self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.norm2(tokens)[:, 0])


class Pooled(nn.Module):
    """Its last spatial layer is a pooling, which does not count; its ReLU works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 12 * 16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def exported(model: nn.Module, x: Tensor, folder: Path, *, dynamic: bool) -> Any:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    program = torch.export.export(model, (x,), dynamic_shapes=shapes)
    torch.export.save(program, folder / "net.pt2")
    return load_model(str(folder / "net.pt2")).model


@pytest.mark.parametrize(
    ("build", "layer"), [(Pooled, "features.2"), (Transformer, "norm1")], ids=["convolutions", "transformer"]
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_program_is_explained_like_its_network(build: Any, layer: str, tmp_path: Path) -> None:
    """For batches of other sizes than it was exported with."""
    network = seeded(build).eval()
    program = exported(network, batch_for(batch=2), tmp_path, dynamic=True)
    for batch in (1, 2, 3):
        x = batch_for(batch=batch)
        assert torch.allclose(program(x), network(x), atol=1e-6)
        expected = mg.explainer("hirescam", network)(x)
        actual = mg.explainer("hirescam", program)(x)
        assert relative_deviation(actual.heatmap, expected.heatmap) < 1e-5
        named = mg.explainer("hirescam", program, layer=layer)(x)
        assert relative_deviation(named.heatmap, expected.heatmap) < 1e-5
    x = batch_for(batch=1)
    with driver.preserved(program, x), torch.no_grad():
        cam = CAM()
        (site,) = cam.sites(program, x, None)
        assert site.name == layer
        resume = Resume(program, cam.trace(program, x, None), site, x)
        values = torch.rand(3, *(n for n in cam.trace(program, x, None).of(site.module)[0].shapes[0][1:]))
        assert torch.allclose(resume(values), run_from(program, x.expand(3, -1, -1, -1), site, values), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_program_for_one_batch_size(batch: int, tmp_path: Path) -> None:
    """It works at that size, and says which size it wants at others."""
    network, x = seeded(Pooled).eval(), batch_for(batch=batch)
    program = exported(network, x, tmp_path, dynamic=False)
    expected = mg.explainer("gradcam", network)(x)
    assert relative_deviation(mg.explainer("gradcam", program)(x).heatmap, expected.heatmap) < 1e-5
    with pytest.raises(RuntimeError, match=rf"shape\[0\] to be equal to {batch}"):
        mg.explainer("gradcam", program)(batch_for(batch=3))


def test_pixel_scorers_as_well(tmp_path: Path) -> None:
    network, x = seeded(Pooled).eval(), batch_for(batch=2)
    program = exported(network, x, tmp_path, dynamic=True)
    for method in ("vanilla", "guided", "swag-ig"):
        expected = mg.explainer(method, network)(x).heatmap
        assert relative_deviation(mg.explainer(method, program)(x).heatmap, expected) < 1e-5


def test_a_program_that_cannot_be_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(program: Any) -> Any:
        raise AssertionError("some reason")

    monkeypatch.setattr(torch.export, "unflatten", fails)
    network, x = seeded(Pooled).eval(), batch_for(batch=2)
    with pytest.warns(UserWarning, match="layers cannot be told apart .some reason."):
        program = exported(network, x, tmp_path, dynamic=True)
    assert torch.allclose(program(x), network(x), atol=1e-6)
    with pytest.raises(ValueError, match="layer: no layer of the network has a spatial output"):
        mg.explainer("gradcam", program)(x)
