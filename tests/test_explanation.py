"""Explanations: normalising, drawing, plotting, saving and loading."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

import midgrain as mg
from midgrain import plots
from midgrain.maps import min_max
from models_for_tests import METHODS, SPATIAL, batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread
from oracles.overlay import borders

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["image", "clip"])
FIELDS = ("heatmap", "segments", "scores", "counts", "target", "outputs", "image")


def explain(name="swag-ig", dims=2, *, size=None, target=None):
    options = {"n_segments": 20} if name.startswith("swag") else {}
    return quick_explainer(name, tiny_net(dims), **options)(batch_for(dims, size=size), target)


# The object.


@DIMS
def test_length_and_repr(dims) -> None:
    explanation = explain(dims=dims, target=[3, 1])
    counts = explanation.counts.tolist()
    assert len(explanation) == 2
    shape = [2, *SPATIAL[dims]]
    assert repr(explanation) == f"Explanation('swag-ig', heatmap={shape}, target=[3, 1], superpixels={counts})"
    assert repr(explain("sobel", dims, target=lambda out: out[:, 0])) == f"Explanation('sobel', heatmap={shape})"


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        explain().method = "other"


@DIMS
@pytest.mark.parametrize("name", METHODS)
def test_normalised_maps_span_0_to_1_per_sample(name, dims) -> None:
    explanation = explain(name, dims)
    normalised = explanation.normalised()
    assert normalised.dtype == torch.float32
    assert normalised.shape == explanation.heatmap.shape
    assert normalised.flatten(1).amin(1).tolist() == [0.0, 0.0]
    assert normalised.flatten(1).amax(1).tolist() == [1.0, 1.0]
    low, high = explanation.heatmap[0].min(), explanation.heatmap[0].max()
    assert torch.allclose(normalised[0], (explanation.heatmap[0] - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 4.0], [0.0, 0.25, 1.0]),
        ([-3.0, -2.0, -1.0], [0.0, 0.5, 1.0]),
        ([-3e38, 0.0, 3e38], [0.0, 0.5, 1.0]),
        ([0.0, 1e-37, 2e-37], [0.0, 0.5, 1.0]),
        ([7.0, 7.0, 7.0], [0.0, 0.0, 0.0]),
        ([-3e38, -3e38, -3e38], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_min_max(values, expected) -> None:
    assert torch.allclose(min_max(torch.tensor([[values]])), torch.tensor([[expected]]), atol=1e-7)


# Overlays.


@DIMS
def test_overlay_blends_and_outlines(dims) -> None:
    explanation = explain(dims=dims)
    for i in range(2):
        picture, heat = explanation.image[i].numpy(), explanation.normalised()[i].numpy()
        colours = colormaps["magma"](heat)[..., :3] * 255
        assert np.array_equal(explanation.overlay(i, alpha=0, contours=False), picture)
        assert np.abs(explanation.overlay(i, alpha=1, contours=False, colormap="magma") - colours).max() <= 0.51
        half = explanation.overlay(i, alpha=0.5, contours=False, colormap="magma")
        assert np.abs(half - (picture / 2 + colours / 2)).max() <= 0.51
        outlined = explanation.overlay(i, alpha=0.5, colormap="magma")
        labels = explanation.segments[i].numpy().reshape(-1, *SPATIAL[dims][-2:])
        on_border = np.stack([borders(frame) for frame in labels]).reshape(heat.shape)
        assert 0 < on_border.sum() < on_border.size
        assert np.array_equal(outlined[~on_border], half[~on_border])
        assert (outlined[on_border] >= half[on_border]).all()
        assert (outlined[on_border] > half[on_border]).any()


def test_details_are_saved_too(tmp_path) -> None:
    details = {"passes": torch.tensor([3, 4]), "masks": torch.arange(6).reshape(2, 3).float()}
    saved = mg.Explanation(torch.rand(2, 4, 5), details=details)
    loaded = mg.Explanation.load(saved.save(tmp_path / "one.npz"))
    assert loaded.details.keys() == details.keys()
    assert all(torch.equal(loaded.details[name], details[name]) for name in details)
    assert mg.Explanation.load(mg.Explanation(saved.heatmap).save(tmp_path / "none.npz")).details == {}


@DIMS
@pytest.mark.parametrize("name", METHODS)
def test_overlays_have_the_pictures_size_and_type(name, dims) -> None:
    overlay = explain(name, dims).overlay(np.int64(1))
    assert overlay.dtype == np.uint8
    assert overlay.shape == (*SPATIAL[dims], 3)


@DIMS
@pytest.mark.parametrize("scale", [(2, 3), (1, 1), (0.5, 0.25), (1.4, 2.7)], ids=str)
def test_overlay_on_a_picture_of_another_size(scale, dims) -> None:
    explanation = explain(dims=dims)
    height, width = (round(n * s) for n, s in zip(SPATIAL[dims][-2:], scale, strict=True))
    larger = np.full((*SPATIAL[dims][:-2], height, width, 3), 90, np.uint8)
    before = larger.copy()
    overlay = explanation.overlay(image=larger)
    assert overlay.shape == larger.shape
    assert np.array_equal(larger, before)
    colours = explanation.overlay(image=larger, alpha=1, contours=False)
    own = explanation.overlay(alpha=1, contours=False)
    rows = [int((y + 0.5) * own.shape[-3] / height) for y in range(height)]
    columns = [int((x + 0.5) * own.shape[-2] / width) for x in range(width)]
    assert np.array_equal(colours, own[..., rows, :, :][..., columns, :])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"i": 2}, IndexError, r"i: expected 0 \.\. 1, got 2"),
        ({"i": -1}, IndexError, r"i: expected 0 \.\. 1, got -1"),
        ({"i": 0.5}, TypeError, "i: expected an int, got float"),
        ({"i": True}, TypeError, "i: expected an int, got bool"),
        ({"i": "0"}, TypeError, "i: expected an int, got str"),
        ({"alpha": 1.5}, ValueError, r"alpha: expected 0 \.\. 1, got 1.5"),
        ({"alpha": -0.1}, ValueError, r"alpha: expected 0 \.\. 1"),
        ({"alpha": np.nan}, ValueError, r"alpha: expected 0 \.\. 1, got nan"),
        ({"alpha": "half"}, TypeError, "alpha: expected a number, got str"),
        ({"alpha": None}, TypeError, "alpha: expected a number, got NoneType"),
        ({"colormap": "rainbow road"}, ValueError, "colormap: Matplotlib has no colour map 'rainbow road'"),
        ({"colormap": ["turbo"]}, TypeError, "colormap: expected a name, got list"),
        ({"image": "cat.png"}, TypeError, "image: expected a uint8 NumPy array, got str"),
        ({"image": torch.zeros(24, 32, 3, dtype=torch.uint8)}, TypeError, "image: .* NumPy array, got Tensor"),
        ({"image": np.zeros((24, 32, 3))}, TypeError, "image: .* got dtype float64"),
        ({"image": np.zeros((24, 32), np.uint8)}, ValueError, r"image: expected RGB .* got shape \[24, 32\]"),
        ({"image": np.zeros((24, 32, 4), np.uint8)}, ValueError, r"got shape \[24, 32, 4\]"),
        ({"image": np.zeros((3, 24, 32), np.uint8)}, ValueError, r"got shape \[3, 24, 32\]"),
        ({"image": np.zeros((2, 24, 32, 3), np.uint8)}, ValueError, r"got shape \[2, 24, 32, 3\]"),
        ({"image": np.zeros((0, 32, 3), np.uint8)}, ValueError, "image: expected at least one pixel"),
        ({"colour": "red"}, TypeError, "unexpected keyword argument 'colour'"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, dict) else "",
)
def test_bad_overlay_arguments(options, error, match) -> None:
    explanation = explain()
    with pytest.raises(error, match=match):
        explanation.overlay(**options)
    with pytest.raises(error, match=match):
        explanation.plot(**options)


def test_a_clips_picture_needs_as_many_frames() -> None:
    with pytest.raises(ValueError, match=r"RGB for a heat map \[4, 12, 16\], got shape \[3, 12, 16, 3\]"):
        explain(dims=3).overlay(image=np.zeros((3, 12, 16, 3), np.uint8))


def test_without_a_picture_one_must_be_given() -> None:
    explanation = mg.explainer("vanilla", tiny_net(channels=4))(batch_for(channels=4))
    for draw in (explanation.overlay, explanation.plot):
        with pytest.raises(ValueError, match="image: this explanation holds no picture to draw on; pass one"):
            draw()
    given = np.zeros((48, 64, 3), np.uint8)
    assert explanation.overlay(image=given).shape == given.shape
    assert isinstance(explanation.plot(image=given), Figure)


# Plots.


def rendered(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


@DIMS
@pytest.mark.parametrize("name", ["swag-ig", "vanilla", "constant"])
def test_plot(name, dims) -> None:
    explanation = explain(name, dims)
    figure = explanation.plot(1, colormap="magma")
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    *panels, bar = figure.axes
    assert len(panels) == (2 if dims == 2 else 2 * SPATIAL[3][0])
    assert bar.get_ylim() == pytest.approx((float(explanation.heatmap[1].min()), float(explanation.heatmap[1].max())))
    shown = [panel.images[0].get_array() for panel in panels]
    pictures = explanation.image[1].numpy().reshape(-1, *SPATIAL[dims][-2:], 3)
    overlays = explanation.overlay(1, colormap="magma").reshape(pictures.shape)
    assert np.array_equal(np.stack(shown), np.concatenate([pictures, overlays]))
    assert min(rendered(figure).size) > 100


def test_a_flat_map_can_be_plotted() -> None:
    flat = dataclasses.replace(explain(), heatmap=torch.full((2, 24, 32), -2.5))
    assert min(rendered(flat.plot()).size) > 100


@pytest.mark.parametrize(
    ("max_frames", "frames"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, range(10)), (99, range(10))]
)
def test_frames_are_spread_evenly(max_frames, frames) -> None:
    figure = explain("centre", 3, size=(10, 8, 8)).plot(max_frames=max_frames)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title] == [f"frame {frame}" for frame in frames]


@DIMS
@pytest.mark.parametrize(
    ("max_frames", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_bad_max_frames(max_frames, error, dims) -> None:
    with pytest.raises(error, match="max_frames: expected"):
        explain("centre", dims).plot(max_frames=max_frames)


def test_comparison_of_several_overlays() -> None:
    explanation = explain()
    overlays = {"one": explanation.overlay(), "two": explanation.overlay(alpha=1)}
    figure = plots.plot_comparison(explanation.image[0].numpy(), overlays, "title")
    assert [axes.get_title() for axes in figure.axes] == ["input", "one", "two"]
    assert figure.get_suptitle() == "title"
    assert min(rendered(figure).size) > 100


# Saving and loading.


def check_equal(loaded: mg.Explanation, saved: mg.Explanation) -> None:
    assert loaded.method == saved.method
    for name in FIELDS:
        one, other = getattr(loaded, name), getattr(saved, name)
        if other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype
            assert torch.equal(one.nan_to_num(-1.0), other.nan_to_num(-1.0))
            assert one.isnan().equal(other.isnan())


@DIMS
@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["swag-ig", "vanilla", "constant"])
def test_round_trip(name, kind, dims, tmp_path) -> None:
    saved = explain(name, dims)
    path = tmp_path / "one.npz"
    assert saved.save(kind(path)) == path
    loaded = mg.Explanation.load(kind(path))
    check_equal(loaded, saved)
    assert np.array_equal(loaded.overlay(1), saved.overlay(1))
    assert os.listdir(tmp_path) == ["one.npz"]


def test_round_trip_of_what_may_be_missing(tmp_path) -> None:
    saved = mg.explainer("sobel", tiny_net(channels=4)[:4])(batch_for(channels=4), lambda out: out.mean((1, 2, 3)))
    assert (saved.target, saved.outputs, saved.image, saved.segments) == (None, None, None, None)
    check_equal(mg.Explanation.load(saved.save(tmp_path / "bare.npz")), saved)


def test_bfloat16_logits_are_saved_as_single_precision(tmp_path) -> None:
    saved = mg.explainer("vanilla", tiny_net().bfloat16())(batch_for().bfloat16())
    loaded = mg.Explanation.load(saved.save(tmp_path / "half.npz"))
    assert saved.outputs.dtype == torch.bfloat16
    assert torch.equal(loaded.outputs, saved.outputs.float())


@pytest.mark.parametrize("name", ["no suffix", "two.dots.npz", "naïve.npz", "heat.dat"])
def test_the_name_is_kept(name, tmp_path) -> None:
    path = explain().save(tmp_path / name)
    assert path == tmp_path / name
    assert os.listdir(tmp_path) == [name]
    check_equal(mg.Explanation.load(path), explain())


def test_an_older_file_is_replaced(tmp_path) -> None:
    path = tmp_path / "one.npz"
    path.write_text("old")
    check_equal(mg.Explanation.load(explain("vanilla").save(path)), explain("vanilla"))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".pdf"])
def test_pictures_are_not_what_save_writes(suffix, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"path: save\(\) writes an .npz archive, .* use plot\(\)\.savefig\(path\)"):
        explain().save(tmp_path / f"map{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["missing/one.npz", "file/one.npz", "folder"])
def test_what_cannot_be_written_leaves_nothing(path, tmp_path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"\[Errno"):
        explain().save(tmp_path / path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            explain().save(tmp_path / "one.npz")
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_keeps_the_older_file(error, tmp_path, monkeypatch) -> None:
    def half(file, **arrays):
        file.write(b"half an archive")
        raise error

    path = explain().save(tmp_path / "one.npz")
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(type(error)):
        explain("vanilla").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["one.npz"]


def archive(path: Path, header: object = None, **arrays: object) -> None:
    """An archive with a proper header, some entries of it altered, and these arrays."""
    entries = {"format": "midgrain-explanation", "version": 1, "method": "vanilla"} | (header or {})
    np.savez(path, header=np.array(json.dumps({k: v for k, v in entries.items() if v is not None})), **arrays)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


MAP = np.zeros((1, 4, 4), np.float32)
GARBAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an archive"),
    "zip start": lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"heatmap": MAP})),
    "npy": lambda path: path.write_bytes(npy(MAP)),
    "npy of objects": lambda path: path.write_bytes(npy(np.array([{}], object))),
    "other npz": lambda path: np.savez(path, heatmap=MAP),
    "other header": lambda path: np.savez(path, heatmap=MAP, header=MAP),
    "other format": lambda path: archive(path, {"format": "something else"}, heatmap=MAP),
    "header is a list": lambda path: np.savez(path, heatmap=MAP, header=np.array("[1]")),
    "no version": lambda path: archive(path, {"version": None}, heatmap=MAP),
    "version is text": lambda path: archive(path, {"version": "new"}, heatmap=MAP),
    "no method": lambda path: archive(path, {"method": None}, heatmap=MAP),
    "method is a number": lambda path: archive(path, {"method": 3}, heatmap=MAP),
    "no heat map": lambda path: archive(path, target=np.zeros(1, np.int64)),
    "heat map of objects": lambda path: archive(path, heatmap=np.array([[[None]]])),
    "heat map of text": lambda path: archive(path, heatmap=np.array([[["a"]]])),
    "heat map is a number": lambda path: archive(path, heatmap=np.float32(1)),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused(kind, tmp_path) -> None:
    path = tmp_path / "bad.npz"
    GARBAGE[kind](path)
    with pytest.raises(ValueError, match=r"path: '.*bad.npz' is not an explanation saved by midgrain"):
        mg.Explanation.load(path)


def test_pickles_are_never_run(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "sprung", "!"))

    for arrays in ({"heatmap": np.array([[[Trap()]]])}, {"heatmap": MAP, "segments": np.array([[[Trap()]]])}):
        archive(tmp_path / "trap.npz", **arrays)
        with pytest.raises(ValueError, match="not an explanation saved by midgrain"):
            mg.Explanation.load(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_damaged_archives_are_refused_or_read(tmp_path) -> None:
    whole = explain().save(tmp_path / "one.npz").read_bytes()
    rng, path, refusals = np.random.default_rng(0), tmp_path / "two.npz", []
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), rng.integers(1, 20))] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, 2 * len(damaged))].tobytes())
        try:
            mg.Explanation.load(path)
        except ValueError as error:
            refusals.append(str(error))
    assert set(refusals) == {f"path: {str(path)!r} is not an explanation saved by midgrain"}
    assert len(refusals) > 250


def test_a_newer_format_is_named(tmp_path) -> None:
    archive(tmp_path / "new.npz", {"version": 2}, quite_different=MAP)
    with pytest.raises(ValueError, match="has format version 2, this midgrain reads up to 1"):
        mg.Explanation.load(tmp_path / "new.npz")


def test_what_cannot_be_read(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        mg.Explanation.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        mg.Explanation.load(tmp_path)
    with pytest.raises(TypeError):
        mg.Explanation.load(None)
