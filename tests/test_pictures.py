"""Photographs as cameras and editors write them, and preprocessing against torchvision's, run live."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from midgrain.models import load_model
from midgrain.pictures import Preprocess, list_pictures, open_picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def gradient_picture():
    """A picture whose pixels all differ: red grows to the right, green downwards."""
    y, x = np.mgrid[0:90, 0:160]
    return Image.fromarray(np.stack([x, y * 2, (x * y) % 256], -1).astype(np.uint8))


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 224), (640, 481), (1000, 333), (100, 80)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocess_equals_torchvision(size, interpolation):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    theirs = ImageClassification(
        crop_size=224, resize_size=256, mean=MEAN, std=STD, interpolation=InterpolationMode(interpolation)
    )(photo)
    ours = Preprocess(256, 224, MEAN, STD, interpolation)(photo)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_shown_crop_is_what_the_network_sees(gradient_picture):
    preprocess = Preprocess(64, 56, MEAN, STD)
    seen = np.asarray(preprocess.cropped(gradient_picture).resize((78, 78)), np.float32)
    shown = np.asarray(preprocess.shown(gradient_picture, 1024), np.float32)
    assert shown.shape == (79, 79, 3)
    assert np.abs(shown[:78, :78, :2] - seen[..., :2]).mean() < 2.5
    assert preprocess.shown(gradient_picture.resize((4000, 3000)), 500).shape == (500, 500, 3)


def test_camera_orientation_is_applied(tmp_path, gradient_picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    gradient_picture.save(tmp_path / "turned.png", exif=exif)
    assert open_picture(tmp_path / "turned.png").size == (90, 160)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(open_picture(tmp_path / "clear.png")).min() == 255


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    grey = np.asarray(open_picture(tmp_path / "deep.png"))[..., 0].ravel()
    assert (grey[0], grey[-1]) == (0, 255)
    assert np.abs(np.diff(grey.astype(int))).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path, gradient_picture, mode):
    name = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    gradient_picture.convert(mode).save(name)
    assert open_picture(name).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n rest"])
def test_not_a_picture(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png"):
        open_picture(tmp_path / "broken.png")


def test_missing_folder_and_bomb(tmp_path, monkeypatch, gradient_picture):
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_picture(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="not a file"):
        open_picture(tmp_path)
    gradient_picture.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="too large"):
        open_picture(tmp_path / "large.png")


def test_list_pictures_sorts_and_filters(tmp_path, gradient_picture):
    for name in ("b.png", "a.jpg", "c.txt", "D.PNG"):
        (tmp_path / name).touch()
    assert [p.name for p in list_pictures([tmp_path])] == ["D.PNG", "a.jpg", "b.png"]
    with pytest.raises(FileNotFoundError):
        list_pictures([tmp_path / "none"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 10, "crop": 11}, "crop"),
        ({"resize": 10, "crop": 0}, "crop"),
        ({"resize": 10, "crop": 10, "interpolation": "cubic"}, "interpolation"),
    ],
)
def test_preprocess_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(mean=MEAN, std=STD, **arguments)


def test_demo_model_knows_a_cat_from_a_coffee():
    import skimage

    loaded = load_model("demo")
    assert not any(module.training for module in loaded.model.modules())
    names = []
    for photo in ("chelsea.png", "coffee.png"):
        x = loaded.preprocess(open_picture(f"{skimage.__path__[0]}/data/{photo}"))
        assert x.shape == (1, 3, 224, 224)
        names.append(loaded.label(int(loaded.model(x).argmax())))
    assert names == ["tiger cat", "espresso"]
    assert loaded.label(-1) == "class -1"
    assert loaded.label(1000) == "class 1000"
