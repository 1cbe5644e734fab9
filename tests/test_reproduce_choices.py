"""Networks, timing and bad input of the papers' tables; clips."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import layouts_for_tests as stand_in
import midgrain as mg
from midgrain.clips import ClipPreprocess, open_clip
from midgrain.evaluate import TABLES, Results, reproduce
from midgrain.evaluate.papers.declaration import Measure, Method, Network, Table, printed
from midgrain.evaluate.papers.networks import Weights, choose_networks
from midgrain.models import load_model, load_untrained
from midgrain.pictures import Preprocess
from models_for_tests import one_thread  # noqa: F401
from reproduce_for_tests import figures, loaded, loaded_for_clips


def test_swagv(tmp_path) -> None:
    root = stand_in.kinetics400(tmp_path / "data")
    model = loaded_for_clips(["abseiling", "air drumming", "answering questions"])
    found = reproduce("swagv", root, out=tmp_path / "out", model=model)
    own = [line for line in found.lines if line.network == "R(2+1)D"]
    assert len(own) == 9 * 2
    assert {line.n for line in own} == {3}
    frame = Results(found.folders["R(2+1)D"]).frame()
    assert frame.groupby("id")["label"].first().to_dict() == {
        "abseiling/c.avi": 0,
        "air_drumming/a.mkv": 1,
        "air_drumming/b.mkv": 1,
    }
    assert len(found.errors) == 1
    assert "first on abseiling/broken.mp4" in found.errors[0]
    x = model.preprocess(open_clip(root / "val/abseiling/c.avi", 16))
    heatmap = mg.explainer("saliency-tubes", model.model)(x).heatmap
    expected = float(mg.measures.insertion(model.model, x, heatmap, steps=28).auc[0])
    rows = frame[(frame["id"] == "abseiling/c.avi") & (frame["explainer"] == "Saliency Tubes")]
    assert float(rows["insertion"].iloc[0]) == pytest.approx(expected, abs=1e-6)


def test_swagv_of_a_network_that_has_no_such_classes(tmp_path) -> None:
    root = stand_in.kinetics400(tmp_path / "data")
    for number, labels in enumerate((None, ["cat", "dog"])):
        model = replace(loaded_for_clips(["one", "two"]), labels=labels)
        found = reproduce("swagv", root, out=tmp_path / str(number), model=model, methods="Centre")
        assert {line.n for line in found.lines if line.measured is not None} == {3}
        assert Results(found.folders["R(2+1)D"]).frame()["label"].isna().all()


def test_swagv_localisation(tmp_path) -> None:
    root = stand_in.ucf101(tmp_path / "data")
    model = loaded_for_clips(["ApplyEyeMakeup", "Basketball"])
    names = ["Centre", "SWAG-V I+G"]
    found = reproduce("swagv-localisation", root, out=tmp_path / "out", model=model, methods=names)
    frame = Results(found.folders["R(2+1)D"]).frame()
    assert len(frame) == 2 * 2
    assert set(frame["label"]) == {1}
    for label in ("value", "mean", "energy"):
        for name, value in figures(found, "R(2+1)D", label).items():
            assert (value in (0.0, 50.0, 100.0)) if name in names else value is None
    # The boxes are those of the window's frames, as the network sees them.
    centre = mg.explainer("centre", model.model)(torch.zeros(1, 3, 16, 24, 24)).heatmap
    boxes = np.array([[10.0 + n - 4, 20.0, 50.0 + n - 4, 70.0] for n in range(8, 24)])[None]
    overlaps = mg.measures.weak_localisation(
        centre, [torch.from_numpy(model.preprocess.placed(boxes, (160, 120)))], "value"
    ).iou
    rows = frame[(frame["explainer"] == "Centre") & frame["id"].str.endswith("#8")]
    assert rows["value.iou"].iloc[0] == pytest.approx(overlaps[0].numpy())


def test_untrained_networks_for_clips_can_be_timed(tmp_path) -> None:
    (chosen,) = choose_networks(TABLES["swagv"], ["R(2+1)D"], Weights(random=True))
    assert isinstance(chosen.loaded.preprocess, ClipPreprocess)
    assert chosen.loaded.preprocess.crop == (112, 112)
    small = loaded_for_clips(["one"])
    found = reproduce("timing", out=tmp_path, model=small, networks="C3D", methods=["Grad-CAM", "SWAG-V G"], limit=1)
    assert all(figures(found, "C3D", "seconds")[name] > 0 for name in ("Grad-CAM", "SWAG-V G"))


def test_untrained_networks_of_torchvision() -> None:
    table = TABLES["filters"]
    (chosen,) = choose_networks(table, ["resnet18"], Weights(random=True))
    assert chosen.network.name == "ResNet18"
    assert chosen.what == "torchvision:resnet18 with random weights"
    assert chosen.loaded.preprocess == Preprocess(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert len(chosen.loaded.labels) == 1000
    assert not any(module.training for module in chosen.loaded.model.modules())
    same, other = (load_untrained("torchvision:resnet18", seed).model.fc.weight for seed in (0, 1))
    assert torch.equal(same, chosen.loaded.model.fc.weight)
    assert not torch.equal(same, other)


def test_a_file_of_weights(tmp_path) -> None:
    state = load_untrained("torchvision:resnet18", 5).model.state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    (chosen,) = choose_networks(TABLES["filters"], ["ResNet18"], Weights(file=tmp_path / "weights.pt"))
    assert torch.equal(chosen.loaded.model.fc.weight, state["fc.weight"])
    with pytest.raises(ValueError, match="does not fit the network"):
        choose_networks(TABLES["filters"], ["VGG16"], Weights(file=tmp_path / "weights.pt"))
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"expected a state dict in .*, got list"):
        choose_networks(TABLES["filters"], ["ResNet18"], Weights(file=tmp_path / "list.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="holds no state dict"):
        choose_networks(TABLES["filters"], ["ResNet18"], Weights(file=tmp_path / "text.pt"))
    with pytest.raises(FileNotFoundError, match="weights: there is no file"):
        choose_networks(TABLES["filters"], ["ResNet18"], Weights(file=tmp_path / "none.pt"))


def test_networks_that_only_the_user_has() -> None:
    with pytest.raises(
        ValueError, match="model: expected one for ResNet50 of pointing, got none; the thesis's network is"
    ):
        choose_networks(TABLES["pointing"], None, Weights())
    with pytest.raises(ValueError, match="model: expected one for C3D of gws-removal, got none"):
        choose_networks(TABLES["gws-removal"], ["C3D"], Weights(random=True))
    model = loaded()
    (chosen,) = choose_networks(TABLES["gws-removal"], ["C3D"], Weights(model))
    assert chosen.loaded is model


def test_weights_that_torchvision_has_by_name() -> None:
    with pytest.raises(ValueError, match="expected weights IMAGENET1K_V1 or IMAGENET1K_V2 for resnet50, got 'V9'"):
        load_model("torchvision:resnet50@V9")
    for text in ("resnet18", "timm:resnet18", "torchvision:"):
        with pytest.raises(ValueError, match="model: expected torchvision:NAME"):
            load_untrained(text)


def test_weights_that_cannot_be_fetched_stop_it_before_anything_runs(tmp_path, monkeypatch) -> None:
    import torchvision

    def refuse(*args, **options):
        raise OSError("no network here")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    with pytest.raises(FileNotFoundError, match=r"weights of torchvision:resnet18 are not at .* cannot be fetched"):
        reproduce("filters", root, out=tmp_path / "out", networks="ResNet18")
    assert not (tmp_path / "out").exists()


def test_timing(tmp_path) -> None:
    names = ["Grad-CAM", "LIME", "SISE, mu 0.5", "Jitter-CAM"]
    found = reproduce("timing", out=tmp_path, model=loaded(), networks="ResNet50", methods=names, limit=2)
    lines = {line.method: line for line in found.lines if line.network == "ResNet50"}
    assert list(lines) == TABLES["timing"].rows("ResNet50")
    for name in names:
        assert lines[name].n == 2
        assert 0 < lines[name].low <= lines[name].measured <= lines[name].high
    assert lines["Grad-CAM"].paper.value == 0.03
    assert lines["RISE"].note == "not measured"
    stored = json.loads((tmp_path / "timing" / "timing.json").read_text())
    assert stored["machine"]["cores"] >= 1
    assert stored["lines"][0]["paper"] == 0.03
    assert found.differences[1] == "ResNet50: small, given"


def test_timing_takes_untrained_networks(tmp_path) -> None:
    found = reproduce("timing", out=tmp_path, networks="DenseNet", methods="Grad-CAM", limit=1)
    assert found.networks == {"DenseNet": "torchvision:densenet121 with random weights"}
    assert figures(found, "DenseNet", "seconds")["Grad-CAM"] > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"table": "nope"}, ValueError, "table: expected one of swag-deletion, .*, got 'nope'"),
        ({"limit": 0}, ValueError, "limit"),
        ({"limit": 1.5}, TypeError, "limit"),
        ({"data": None}, ValueError, "data: expected a folder with ImageNet's validation set"),
        ({"data": "nowhere"}, FileNotFoundError, "data: there is no folder 'nowhere'"),
        ({"networks": "VGG19"}, ValueError, "network: expected one of VGG16, ResNet50, got 'VGG19'"),
        ({"networks": []}, TypeError, "networks: expected texts"),
        ({"methods": ["Grad-CAM", "Tea"]}, ValueError, "methods: expected some of .*, got 'Tea'"),
        ({"methods": [3]}, TypeError, "methods: expected texts"),
        ({"networks": ["VGG16", "ResNet50"]}, ValueError, "network: expected one, whose figures stand beside"),
        ({"random_weights": True}, ValueError, "weights: expected at most one of a model, a file"),
        ({"model": "nope"}, ValueError, "model: expected demo"),
        ({"table": "timing"}, ValueError, "data: timing needs none, got"),
        ({"seed": -1}, ValueError, "seed"),
        ({"retry": 1}, TypeError, "retry"),
        ({"engine": "tea"}, ValueError, "engine"),
        ({"workers": 2}, ValueError, "workers"),
        ({"table": "filters", "engine": "ray"}, ValueError, "engine: expected 'local' without workers for filters"),
    ],
)
def test_bad_input(tmp_path, options, error, message) -> None:
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    given = {"table": "swag-deletion", "data": root, "model": loaded(), "out": tmp_path / "out", **options}
    with pytest.raises(error, match=message):
        reproduce(**given)
    assert not (tmp_path / "out").exists()


def test_methods_that_a_network_has_no_figure_of() -> None:
    table = TABLES["timing"]
    assert "Saliency Tubes" not in table.rows("C3D")
    with pytest.raises(ValueError, match="methods: the paper has none of Saliency Tubes for C3D"):
        choose_networks(table, ["C3D"], Weights(loaded()), ["Saliency Tubes"])
    # Not named, networks without the methods are left out: no weights are loaded for nothing.
    (chosen,) = choose_networks(table, None, Weights(random=True), ["Saliency Tubes"])
    assert chosen.network.name == "R(2+1)D"
    (chosen,) = choose_networks(table, None, Weights(loaded()), ["Saliency Tubes"])
    assert chosen.network.name == "R(2+1)D"


def test_a_method_that_midgrain_lacks_keeps_its_figure(tmp_path) -> None:
    figures_ = printed("Grad-CAM 0.1\nUnheard-of 0.2", [("Net", "deletion")])
    TABLES["test"] = Table(
        name="test",
        title="a test",
        source="none",
        layout="imagenet",
        networks=(Network("Net", None, "none"),),
        methods={"Grad-CAM": Method("gradcam")},
        measures={"deletion": Measure("deletion", {"steps": 2})},
        figures=figures_,
        samples="none",
    )
    root = stand_in.imagenet(tmp_path / "data", boxes=False)
    try:
        found = reproduce("test", root, out=tmp_path / "out", model=loaded())
    finally:
        del TABLES["test"]
    assert [(line.method, line.paper.text, line.note) for line in found.lines] == [
        ("Grad-CAM", "0.1", ""),
        ("Unheard-of", "0.2", "not in midgrain"),
    ]
