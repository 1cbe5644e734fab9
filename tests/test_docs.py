"""The pages under docs: their examples run, their links and references hold, nothing that exists is left out."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

import midgrain as mg
from models_for_tests import one_thread as one_thread

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What makes an example one that is not run: `<!-- not run: why -->` above it.
FENCE = re.compile(r"(?:^<!-- not run: (?P<why>.+?) -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

if not (ROOT / "docs" / "img").is_dir():
    pytest.skip("the pages and their pictures are not part of this copy", allow_module_level=True)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> list[str]:
    return [match["code"] for match in FENCE.finditer(page.read_text(encoding="utf-8")) if not match["why"]]


def small_network(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(channels, 6, 3, 2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return nn.Sequential(*layers, nn.Linear(8, 4)).eval()


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, Any]:
    """What examples take for granted; files that they write go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    photo = Image.fromarray(data.chelsea())
    photo.save("photo.jpg")
    frames = np.random.default_rng(0).integers(0, 256, (20, 36, 48, 3), np.uint8)
    mg.clips.write_clip(frames, "clip.mp4", rate=15)
    model = small_network()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3] * 4)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loader = [(images[:8], y[:8]), (images[8:], y[8:])]
    many = torch.randn(1000, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    dataset = list(zip(images, y.tolist(), strict=True))
    e = mg.explainer("gradcam", model)(x)
    return {
        "mg": mg,
        "torch": torch,
        "model": model,
        "x": x,
        "e": e,
        "photo": photo,
        "image": data.chelsea()[:96, :128],
        "saliency": data.chelsea()[:96, :128].mean(2) / 255,
        "values": data.chelsea()[:96, :128].mean(2),
        "true_class": (e.target + 1) % 4,  # Both predictions are wrong.
        "true_classes": torch.tensor([1, 2]),
        "class_": 1,
        "filter_": 2,
        "loader": loader,
        "train_loader": [(many, torch.full((1000,), number)) for number in range(4)],
        "val_loader": loader,
        "train_data": dataset,
        # Of two-stream networks: eight frames, and the motion between them.
        "clip_x": torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(3)),
        "rgb_network": nn.Sequential(
            nn.Conv3d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4)
        ).eval(),
        "flow_network": small_network(channels=14),
        "__name__": "example",
    }


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=name_of)
def test_examples_run(page, names) -> None:
    for number, code in enumerate(examples(page)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Small random networks deserve several.
            exec(compile(code, f"{name_of(page)}, example {number + 1}", "exec"), names)


def test_an_example_that_fails_is_noticed(tmp_path, names) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nmg.nothing\n```\n<!-- not run: why -->\n```python\n1 / 0\n```\n", encoding="utf-8")
    (code,) = examples(page)
    with pytest.raises(AttributeError):
        exec(code, names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_every_method_has_its_page_and_picture() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "methods").glob("*.md"))
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for name in mg.methods():
        assert f"`{name}`" in pages
        assert f"(img/methods/{name}.jpg)" in gallery


def test_the_gallery_is_what_its_script_writes(monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.gallery() == (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_every_measure_has_its_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "measures").glob("*.md"))
    for name in mg.measures.__all__:
        assert f"::: midgrain.measures.{name}\n" in pages


def test_the_menu_has_every_page() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert re.search(rf"[ -]{page.relative_to(ROOT / 'docs').as_posix()}$", menu, re.MULTILINE), page


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (extra docs)")
def test_the_site_is_built_without_a_warning(tmp_path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "api" / "explainers" / "index.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" in reference  # Examples are code, not quotations.
    assert not re.search(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)', reference)
