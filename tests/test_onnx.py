"""Networks from real .onnx files, as torch writes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from midgrain.models import load_model
from models_for_tests import batch_for, relative_deviation, seeded
from models_for_tests import one_thread as one_thread

onnx = pytest.importorskip("onnx", reason="needs onnx (extra 'onnx')")
pytest.importorskip("onnx2torch", reason="needs onnx2torch (extra 'onnx')")

pytestmark = pytest.mark.filterwarnings("ignore")  # Exporting warns of its own future.


class Residual(nn.Module):
    """Convolutions whose biases are all zero and so are written once, a shortcut, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(8, 5)
        for layer in (self.first, self.second, self.third):
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = self.first(x).relu()
        x = self.relu(self.third(self.second(x).relu() + x))
        return self.linear(x.mean((2, 3)))


@pytest.fixture(scope="module", params=["torch.jit", pytest.param("torch.export", marks=pytest.mark.slow)])
def networks(request, tmp_path_factory):
    """A network, and what is read back from its file."""
    model, path = seeded(Residual).eval(), tmp_path_factory.mktemp("onnx") / "model.onnx"
    options = {"dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"]}
    if request.param == "torch.export":
        pytest.importorskip("onnxscript")
        options = {"dynamic_shapes": ({0: "batch"},), "verbose": False}
    torch.onnx.export(model, (batch_for(batch=2),), str(path), dynamo=request.param == "torch.export", **options)
    onnx.checker.check_model(str(path))
    return model, load_model(str(path)).model


def test_it_computes_the_same(networks) -> None:
    model, read = networks
    for batch in (1, 3):
        assert torch.allclose(read(batch_for(batch=batch)), model(batch_for(batch=batch)), atol=1e-5)
    assert not any(module.training for module in read.modules())


@pytest.mark.parametrize(
    "method", ["gradcam", "gradcam++", "ablationcam", "guided", "swag-ig", "fullgrad", "occlusion"]
)
def test_it_is_explained_the_same(networks, method) -> None:
    model, read = networks
    x, classes = batch_for(batch=2), [3, 0]
    here, there = (mg.explainer(method, each)(x, classes).heatmap for each in (read, model))
    assert there.abs().max() > 0
    assert relative_deviation(here, there) < 1e-4


def test_no_such_program(tmp_path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(np.arange(50, dtype=np.uint8).tobytes())
    with pytest.raises(ValueError, match="cannot be converted from ONNX"):
        load_model(str(broken))
