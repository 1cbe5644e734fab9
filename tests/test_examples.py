"""The worked examples run, with random weights, from the command line's arguments to a picture."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models_for_tests import one_thread as one_thread

pytest.importorskip("torchvision")
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "methods", "size"),
    [("segmentation", ["gradcam", "swag-ig"], 96), ("detection", ["gradcam", "occlusion"], 96)],
)
def test_example(name, methods, size, photos, tmp_path, monkeypatch, capsys) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    Image.fromarray(photos["chelsea"]).save(tmp_path / "photo.png")
    drawn = tmp_path / "out.png"
    maps = module.main([str(tmp_path / "photo.png"), "--untrained", "--size", str(size), "-o", str(drawn)])
    assert list(maps) == methods
    for heatmap in maps.values():
        assert heatmap.shape == (size, size)
        assert np.isfinite(heatmap).all()
        assert np.abs(heatmap).max() > 0
    with Image.open(drawn) as picture:
        assert picture.size == (2 * size, size)
    assert capsys.readouterr().out.strip()
