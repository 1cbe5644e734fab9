"""The papers' tables on stand-ins of their data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import layouts_for_tests as stand_in
import midgrain as mg
from midgrain.evaluate import LAYOUTS, TABLES, Results, reproduce
from midgrain.evaluate.papers.declaration import Figure
from midgrain.evaluate.papers.random_regions import RandomRegions
from midgrain.failures import filter_scores
from midgrain.models import LoadedModel
from models_for_tests import batch_for, one_thread  # noqa: F401
from reproduce_for_tests import PREPROCESS, figures, loaded, small_net


def test_a_table_beside_its_paper(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", n=2, boxes=False)
    options = {"out": tmp_path / "out", "model": loaded(), "methods": ["Grad-CAM", "SWAG I", "Random"]}
    first = reproduce("swag-deletion", root, limit=3, **options)
    folder = first.folders["VGG16"]
    assert folder == tmp_path / "out" / "swag-deletion" / "vgg16"
    assert (folder / "report.html").is_file()
    before = Results(folder).frame()
    assert len(before) == 3 * 3
    found = reproduce("swag-deletion", root, **options)
    frame = Results(folder).frame()
    assert len(frame) == 8 * 3
    assert frame.iloc[:9].equals(before)

    measured = figures(found, "VGG16", "deletion")
    means = frame.groupby("explainer")["deletion"].mean()
    assert {name for name, value in measured.items() if value is not None} == {"Grad-CAM", "SWAG I", "Random"}
    for line in found.lines:
        if line.measured is not None:
            assert line.measured == pytest.approx(means[line.method])
            assert line.low < line.measured < line.high
            assert line.n == 8
            assert line.difference == pytest.approx(line.measured - line.paper.value)
        else:
            assert line.note == "not measured"
            assert line.difference is None
    # The paper's other network stands there with its figures alone.
    assert len([line for line in found.lines if line.network == "ResNet50"]) == len(TABLES["swag-deletion"].methods)
    assert list(found.networks) == ["VGG16"]
    assert found.differences[0] == "samples: 8 here; in the paper 50,000 pictures, ImageNet's validation set"
    assert "VGG16: small, given" in found.differences
    assert json.loads(json.dumps(found.to_dict()))["lines"][0]["as printed"] == "0.274"
    assert len(found.frame()) == len(found.lines)
    # What was declared is what ran.
    configuration = Results(folder).configuration["configuration"]
    assert configuration["explainers"]["SWAG I"]["options"]["compactness"] == 10.0
    assert configuration["measures"]["deletion"]["options"]["steps"] == 28
    assert configuration["target"] == "predicted"


def test_its_numbers_are_those_of_the_measure(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    model = loaded()
    found = reproduce("jitter-deletion", root, out=tmp_path / "out", model=model, methods="Jitter-CAM", limit=2)
    expected = []
    for path in sorted((root / "val").rglob("*.JPEG"), key=lambda path: path.name)[:2]:
        x = PREPROCESS(Image.open(path).convert("RGB"))
        heatmap = mg.explainer("jittercam", model.model, shared_trunk=False)(x).heatmap
        expected.append(float(mg.measures.insertion(model.model, x, heatmap, steps=28).auc[0]))
    assert figures(found, "ResNet50", "insertion")["Jitter-CAM"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_localisation_of_the_pictures_own_class(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data")
    model = loaded()
    found = reproduce(
        "jitter-localisation", root, out=tmp_path / "out", model=model, networks="inception", methods=["Centre"]
    )
    frame = Results(found.folders["Inception"]).frame()
    assert frame["target"].tolist() == frame["label"].tolist() == [*stand_in.NUMBERS]
    centre = mg.explainer("centre", model.model)(torch.zeros(1, 3, 32, 32)).heatmap
    box = PREPROCESS.placed(np.array([stand_in.BOX], float), stand_in.SIZE)
    for label in ("value", "mean", "energy"):
        overlaps = mg.measures.weak_localisation(centre, torch.from_numpy(box), label).iou
        expected = 100.0 * mg.measures.localisation_error(overlaps)
        assert figures(found, "Inception", label)["Centre"] == pytest.approx(expected)


def test_the_pointing_game_and_its_difficult_subset(tmp_path) -> None:
    root = stand_in.coco(tmp_path / "data")
    found = reproduce("pointing", root, out=tmp_path / "out", model=loaded(80), methods=["Centre", "Grad-CAM"])
    frame = Results(found.folders["ResNet50"]).frame().set_index(["id", "explainer"])["all"]
    every = [line for line in found.lines if line.measure == "all" and line.measured is not None]
    assert {line.n for line in every} == {4}
    difficult = {line.method: line for line in found.lines if line.measure == "difficult"}
    assert difficult["Centre"].n == 1
    for name in ("Centre", "Grad-CAM"):
        alone = 100.0 * frame["COCO_val2014_000000000000#3", name]
        assert difficult[name].measured == pytest.approx(alone)
        assert figures(found, "ResNet50", "all")[name] == pytest.approx(100.0 * frame.xs(name, level=1).mean())
    # A whole picture: nothing of it is cut off.
    configuration = Results(found.folders["ResNet50"]).configuration["configuration"]
    assert configuration["preprocess"]["class"].endswith("WholePictures")


@pytest.mark.parametrize(("table", "samples"), [("sise", 2), ("sise-masks", 1)])
def test_sise(tmp_path, table, samples) -> None:
    root = stand_in.voc07(tmp_path / "data")
    found = reproduce(table, root, out=tmp_path / "out", model=loaded(20), methods=["Grad-CAM", "FullGrad", "SISE"])
    frame = Results(found.folders["ResNet-50"]).frame()
    assert frame["id"].nunique() == samples
    for label, column in (("EBPG", "EBPG"), ("Drop", "Drop"), ("Increase", "Drop.increase")):
        measured = figures(found, "ResNet-50", label)
        means = frame.groupby("explainer")[column].mean()
        for name in ("Grad-CAM", "FullGrad", "SISE"):
            assert measured[name] == pytest.approx(100.0 * means[name])
    assert {line.better for line in found.lines if line.measure == "Drop"} == {"lower"}


def test_the_constant_map_beats_the_others(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    found = reproduce("jitter-faithfulness", root, out=tmp_path / "out", model=loaded())
    drops = figures(found, "ResNet50", "average drop")
    assert drops["Constant"] < drops["Grad-CAM"]
    frame = Results(found.folders["ResNet50"]).frame()
    share = frame[frame["explainer"] == "Constant"]["average drop.increase"].mean()
    assert figures(found, "ResNet50", "increase")["Constant"] == pytest.approx(100.0 * share)


def test_superpixel_removal(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    names = ["Random", "LIME 50", "Guided Vanilla"]
    found = reproduce("gws-removal", root, out=tmp_path / "out", model=loaded(), methods=names, limit=2)
    for order in ("worst", "best"):
        measured = figures(found, "VGG16", order)
        assert all(0.0 < measured[name] <= 100.0 for name in names)
    # All rank the same superpixels.
    frame = Results(found.folders["VGG16"]).frame()
    assert frame["worst"].notna().all()
    configuration = Results(found.folders["VGG16"]).configuration["configuration"]
    own = configuration["explainers"]["Random"]["_regions"]["_normalisation"]
    assert own["mean"] == configuration["explainers"]["Guided Vanilla"]["options"]["mean"] == [0.5] * 3
    # C3D's figures stand there alone.
    assert {line.note for line in found.lines if line.network == "C3D"} == {"not measured"}


def test_random_regions_are_a_fair_ranking() -> None:
    x = batch_for(batch=3, size=(40, 48))
    explainer = RandomRegions(small_net(5))
    found = explainer(x)
    assert found.method == "random-regions"
    expected = mg.explainer("gws", small_net(5), scorer="sobel")(x)
    assert torch.equal(found.segments, expected.segments)
    # LIME's, with which it is compared, are the same.
    assert torch.equal(found.segments, mg.explainer("lime", small_net(5), n_samples=10)(x).segments)
    assert torch.equal(found.scores.isnan(), expected.scores.isnan())
    known = found.scores[~found.scores.isnan()]
    assert known.min() >= 0.0
    assert known.max() <= 1.0
    for i in range(3):
        assert torch.equal(found.heatmap[i], found.scores[i][found.segments[i].long()])
    # The same alone and in a batch, of a seed; and another of another seed.
    alone = explainer(x[1:2])
    count = alone.scores.shape[1]
    assert torch.equal(alone.scores[0], found.scores[1, :count]) or bool(alone.scores.isnan().any())
    assert torch.equal(alone.heatmap[0], found.heatmap[1])
    assert not torch.equal(RandomRegions(small_net(5), seed=1)(x).heatmap, found.heatmap)


def test_deepmaps_runs_methods_without_a_figure(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", n=3, boxes=False)
    names = ["Random", "Gradients", "DeepMaps"]
    options = {"networks": "ResNet-50", "methods": names, "limit": 4}
    found = reproduce("deepmaps", root, out=tmp_path / "out", model=loaded(), **options)
    # Of the first hundred classes alone.
    frame = Results(found.folders["ResNet-50"]).frame()
    assert frame[frame["explainer"] == "Random"]["label"].tolist() == [0, 1, 2, 0]
    for label in TABLES["deepmaps"].measures:
        measured = figures(found, "ResNet-50", label)
        assert all(math.isfinite(measured[name]) for name in names)
    lines = {(line.method, line.measure): line for line in found.lines if line.network == "ResNet-50"}
    assert lines["Random", "n MoRF"].paper == Figure(23.0, "~23")
    assert lines["DeepMaps", "n MoRF"].paper is None
    assert lines["DeepMaps", "n MoRF"].difference is None
    # Without a figure and not measured is no line.
    assert ("FullGrad", "AOPC") not in lines
    assert lines["Gradients", "delta n MoRF"].measured == pytest.approx(
        100.0 * frame[frame["explainer"] == "Gradients"]["delta n MoRF"].mean()
    )


def test_filters(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", n=2, boxes=False)
    model = loaded()
    # Every other picture is right.
    right = []
    for index, entry in enumerate(LAYOUTS["imagenet"].read(root).entries):
        sample = entry.read()
        x = PREPROCESS(Image.open(sample.input).convert("RGB"))
        if index % 2 == 0:
            right.append((x, sample.target))
    with torch.no_grad():
        for _, label in right:
            model.model[-1].bias[label] += 3.0
    out = tmp_path / "out"
    options = {"out": out, "model": model, "methods": ["Grad-AMap", "Random", "Taylor"]}
    reproduce("filters", root, limit=2, **options)
    found = reproduce("filters", root, **options)
    frame = Results(found.folders["VGG16"]).frame()
    assert len(frame) == 8 * 3
    entries = [entry.read() for entry in LAYOUTS["imagenet"].read(root).entries]
    x = torch.cat([PREPROCESS(Image.open(entry.input).convert("RGB")) for entry in entries])
    y = torch.tensor([entry.target for entry in entries])
    for name, kind in (("Grad-AMap", "grad-amap"), ("Taylor", "taylor")):
        scores = filter_scores(model.model, x, y, kind)
        expected = mg.measures.filter_removal(model.model, x, scores, y, step=16).value
        assert figures(found, "VGG16", "removal")[name] == pytest.approx(expected)
    line = next(line for line in found.lines if line.method == "Grad-AMap" and line.network == "VGG16")
    assert line.n == 8
    assert line.low <= line.measured <= line.high
    with pytest.raises(ValueError, match="another configuration"):
        reproduce("filters", root, **{**options, "methods": ["Random"]})


def test_filters_of_broken_pictures_and_networks(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", n=2, boxes=False)
    first = sorted((root / "val").rglob("*.JPEG"))[0]
    first.write_text("broken")
    found = reproduce("filters", root, out=tmp_path / "out", model=loaded(), methods=["l1-norm"])
    assert len(found.errors) == 1
    assert found.errors[0].startswith("VGG16: read failed on 1 sample, first on ILSVRC2012_val_00000001.JPEG: picture")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1000))
    without = LoadedModel(linear.eval(), PREPROCESS, None, "linear")
    with pytest.raises(ValueError, match=r"VGG16: failed on each of the first samples: .*convolution"):
        reproduce("filters", root, out=tmp_path / "other", model=without, methods=["l1-norm"])


def test_samples_that_are_broken_are_counted(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    sorted((root / "val").rglob("*.JPEG"))[1].write_text("broken")
    found = reproduce("swag-deletion", root, out=tmp_path / "out", model=loaded(), methods="Centre")
    assert {line.n for line in found.lines if line.measured is not None} == {3}
    assert len(found.errors) == 1
    assert "VGG16: read failed on 1 sample" in found.errors[0]


def test_nothing_that_can_be_read(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    for path in (root / "val").rglob("*.JPEG"):
        path.write_text("broken")
    for table in ("swag-deletion", "filters"):
        with pytest.raises(ValueError, match="data: no sample could be evaluated; the first, ILSVRC"):
            reproduce(table, root, out=tmp_path / table, model=loaded())


@pytest.mark.slow
def test_several_workers_find_the_same(tmp_path) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    options = {"model": loaded(), "methods": ["Random", "LIME 50", "Grad-CAM"]}
    alone = reproduce("gws-removal", root, out=tmp_path / "alone", **options)
    shared = reproduce("gws-removal", root, out=tmp_path / "shared", engine="ray", workers=2, **options)
    assert shared.lines == alone.lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "classes", "make"),
    [
        ("swag-deletion", 1000, stand_in.imagenet),
        ("jitter-localisation", 1000, stand_in.imagenet),
        ("gws-removal", 1000, stand_in.imagenet),
        ("deepmaps", 1000, stand_in.imagenet),
        ("pointing", 80, stand_in.coco),
    ],
)
def test_every_method_of_a_table(tmp_path, table, classes, make) -> None:
    root = make(tmp_path / "data", n=3) if make is stand_in.imagenet else make(tmp_path / "data")
    found = reproduce(table, root, out=tmp_path / "out", model=loaded(classes), limit=2)
    assert found.errors == []
    network = TABLES[table].networks[0].name
    own = [line for line in found.lines if line.network == network]
    assert own
    assert all(line.measured is not None for line in own)
