"""Data sets: folders, class folders, CSV files, torchvision's; masks and boxes follow the crop."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import midgrain as mg
from evaluate_for_tests import PREPROCESS, picture_net, write_pictures
from midgrain.evaluate import Sample, read_dataset
from midgrain.evaluate.samples import ClassNames, prepare
from midgrain.pictures import Preprocess, open_picture
from models_for_tests import one_thread  # noqa: F401

NAMES = ClassNames(["tabby", "crane", "Crane", "dog"])


def read(dataset, classes=NAMES):
    return [entry.read() for entry in read_dataset(dataset, classes).entries]


def test_a_folder_of_pictures(tmp_path) -> None:
    paths = write_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    found = read_dataset(tmp_path, NAMES)
    assert found.length == 3
    assert not found.located
    assert [(s.id, s.input, s.target) for s in read(tmp_path)] == [(path.name, path, None) for path in paths]


def test_class_folders(tmp_path) -> None:
    for name in ("tabby", "3"):
        write_pictures(tmp_path / name, 2)
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / ".hidden", 1)
    assert [(s.id, s.target) for s in read(tmp_path)] == [
        ("3/0.png", "3"),
        ("tabby/0.png", "tabby"),
        ("3/1.png", "3"),
        ("tabby/1.png", "tabby"),
    ]
    write_pictures(tmp_path / "n01440764", 1)
    with pytest.raises(ValueError, match=r"^dataset: expected class folders named by .* got n01440764; pass classes="):
        read(tmp_path)
    assert len(read(tmp_path, ClassNames({"n01440764": 0, "tabby": 281}))) == 5
    write_pictures(tmp_path, 1)
    with pytest.raises(ValueError, match=r"^dataset: expected pictures or class folders, .* holds both"):
        read(tmp_path)


def test_file_names_of_any_bytes(tmp_path) -> None:
    (path,) = write_pictures(tmp_path / "in", 1)
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9 \xc3\xa9.png"))
    results = mg.evaluate(
        picture_net(), tmp_path / "in", ["vanilla"], ["deletion"], tmp_path / "run", preprocess=PREPROCESS
    )
    assert set(results.frame()["id"]) == {"caf\\xe9 é.png"}
    assert len(results.examples()) == 1
    assert "caf\\xe9 é.png" in results.report().read_text(encoding="utf-8")


def test_mended_pictures_are_tried_again_when_asked(tmp_path) -> None:
    paths = write_pictures(tmp_path / "in", 3)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:100])
    calls = []

    def moody(x, target):
        calls.append(x)
        if len(calls) == 2:
            raise KeyError("not now")
        return x.mean(1)

    def run(**options):
        given = {"measures": ["deletion"], "out": tmp_path / "run", "preprocess": PREPROCESS, "baselines": ["centre"]}
        return mg.evaluate(picture_net(), tmp_path / "in", {"moody": moody}, **given, **options)

    first = run()
    assert first.errors()[["id", "stage"]].to_numpy().tolist() == [["1.png", "read"], ["2.png", "moody"]]
    assert first.errors()["error"][1] == "KeyError: 'not now'"
    paths[1].write_bytes(whole)
    assert len(run().errors()) == 2
    assert len(calls) == 2
    again = run(retry=True)
    assert len(calls) == 4
    assert not len(again.errors())
    assert sorted(zip(again.frame()["id"], again.frame()["explainer"], strict=True)) == [
        (path.name, name) for path in paths for name in ("centre", "moody")
    ]
    assert len(run(retry=True).frame()) == 6
    assert len(calls) == 4


def test_names_of_classes() -> None:
    assert [NAMES.number(label) for label in (2, "2", " Tabby ", "DOG")] == [2, 2, 0, 3]
    for label, said in (("crane", "more than one class"), ("cat", "got 'cat'"), ("-1", "got '-1'")):
        with pytest.raises(ValueError, match=rf"^label: .*{said}"):
            NAMES.number(label)
    with pytest.raises(ValueError, match="the classes have no names here"):
        ClassNames().number("dog")


def test_a_csv_file(tmp_path) -> None:
    write_pictures(tmp_path / "pictures", 2)
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 10:30] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "data.csv").write_text(
        "\ufeffpath,label,boxes,mask,comment\n"
        "pictures/0.png,tabby,10 10 30 20; 0 0 5 5,mask.png,x\n"
        'pictures/0.png,1,"[[10, 10, 30, 20]]",,x\n'
        "pictures/1.png,,,,\n"
        "pictures/1.png,3,1 2 three 4,,\n"
        ",3,,,\n",
        encoding="utf-8",
    )
    found = list(read_dataset(tmp_path / "data.csv", NAMES).entries)
    assert [entry.id for entry in found] == [
        "pictures/0.png",
        "pictures/0.png#2",
        "pictures/1.png",
        "pictures/1.png#2",
        "(no path)",
    ]
    first, second = found[0].read(), found[1].read()
    assert (first.target, first.boxes, first.mask) == ("tabby", [[10, 10, 30, 20], [0, 0, 5, 5]], tmp_path / "mask.png")
    assert (second.target, second.boxes, second.mask) == ("1", [[10, 10, 30, 20]], None)
    for entry, said in zip(found[2:], ("label: ", "boxes: ", "path: "), strict=True):
        with pytest.raises(ValueError, match=f"^{said}"):
            entry.read()


def test_one_class_of_a_mask_of_several(tmp_path) -> None:
    write_pictures(tmp_path, 1)
    classes = np.zeros((40, 48), np.uint8)
    classes[10:20, 10:30], classes[25:30, 5:9], classes[30:] = 7, 15, 255
    mask = Image.fromarray(classes).convert("P")
    mask.putpalette([each for level in range(256) for each in (level, 0, 0)])
    mask.save(tmp_path / "mask.png")
    lines = ["0.png,mask.png,7", "0.png,mask.png,15", "0.png,mask.png,", "0.png,mask.png,3", "0.png,mask.png,dog"]
    (tmp_path / "data.csv").write_text("path,mask,mask_value\n" + "\n".join([*lines, "0.png,none.png,3"]))
    entries = list(read_dataset(tmp_path / "data.csv", NAMES).entries)
    assert np.array_equal(entries[0].read().mask, classes == 7)
    assert np.array_equal(entries[1].read().mask, classes == 15)
    assert entries[2].read().mask == tmp_path / "mask.png"
    for entry, said in zip(entries[3:], ("mask_value: 3 is", "mask_value: expected", "mask: there"), strict=True):
        with pytest.raises((ValueError, FileNotFoundError), match=f"^{said}"):
            entry.read()


def test_a_csv_file_becomes_rows_and_errors(tmp_path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "0.png").write_bytes(b"broken")
    lines = ["0.png,0,1 1 9 9", "1.png,1,1 1 9 9", "2.png,2,40 1 49 9", "2.png,,1 1 9 9", "2.png,4,4 4 40 38"]
    (tmp_path / "data.csv").write_text("path,label,boxes\n" + "\n".join(lines))
    results = mg.evaluate(
        picture_net(), tmp_path / "data.csv", ["vanilla"], ["bbox_score"], tmp_path / "run", preprocess=PREPROCESS
    )
    assert sorted(set(results.frame()["id"])) == ["1.png", "2.png#3"]
    assert results.errors()["id"].tolist() == ["0.png", "2.png", "2.png#2"]
    said = results.errors()["error"].tolist()
    assert [text.split(":")[0] for text in said] == ["picture", "boxes", "label"]
    assert (results.summary().samples, results.summary().skipped) == (2, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "expected a column 'path'"), ("label\n1\n", "expected a column 'path'"), ("path\n", "has no rows")],
)
def test_csv_files_without_samples(content, said, tmp_path) -> None:
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"^dataset: .*{said}"):
        read(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_bytes(b"path\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"^dataset: .* is no CSV file in UTF-8"):
        read(tmp_path / "data.csv")


def test_folders_without_pictures_and_other_files(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"^dataset: the folder .* holds no pictures"):
        read(tmp_path)
    (tmp_path / "data.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"^dataset: expected a folder or a .csv file"):
        read(tmp_path / "data.xlsx")


class Broken(torch.utils.data.Dataset):
    """A torchvision data set of which one sample is broken."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise KeyError("gone")
        return torch.full((3, 32, 32), float(index)), np.int64(index)


def test_a_data_set_in_torchvisions_manner(tmp_path) -> None:
    results = mg.evaluate(picture_net(), Broken(), ["vanilla"], ["deletion"], tmp_path / "run", baselines=())
    assert results.frame()["label"].tolist() == [0, 1, 3]
    assert results.errors()[["id", "stage"]].to_numpy().tolist() == [["000002", "read"]]


def test_torchvisions_folder_and_fake_data(tmp_path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    write_pictures(tmp_path / "in" / "a", 2)
    write_pictures(tmp_path / "in" / "b", 1)
    found = [prepare(sample, PREPROCESS, NAMES) for sample in read(datasets.ImageFolder(str(tmp_path / "in")))]
    assert [each.label for each in found] == [0, 0, 1]
    own = PREPROCESS(open_picture(tmp_path / "in" / "b" / "0.png"))
    assert torch.equal(found[2].x, own)


def test_an_iterator_is_read_once_and_goes_on(tmp_path) -> None:
    taken = []

    def stream():
        for index in range(4):
            taken.append(index)
            yield torch.full((3, 32, 32), float(index)), index

    options = {"measures": ["deletion"], "out": tmp_path / "run", "baselines": ()}
    assert len(mg.evaluate(picture_net(), stream(), ["vanilla"], limit=2, **options).frame()) == 2
    results = mg.evaluate(picture_net(), stream(), ["vanilla"], progress=True, **options)
    assert results.frame()["label"].tolist() == [0, 1, 2, 3]


def test_labels_that_are_none() -> None:
    x = torch.rand(3, 8, 8)
    found = read([(x, None), (x, "dog"), (x, torch.tensor(2)), x])
    assert [sample.target for sample in found] == [None, "dog", 2, None]
    for label in (1.5, True, [1, 2], torch.tensor(True), object()):
        (entry,) = read_dataset([(x, label)], NAMES).entries
        with pytest.raises(TypeError, match=r"^label: "):
            entry.read()


@settings(max_examples=40)
@given(
    width=st.integers(12, 90),
    height=st.integers(12, 90),
    crop=st.integers(8, 24),
    more=st.integers(0, 9),
    data=st.data(),
)
def test_masks_and_boxes_follow_the_crop(width, height, crop, more, data) -> None:
    """A coloured rectangle, its mask and its box land on each other, to a pixel."""
    x0, y0 = data.draw(st.integers(0, width - 6)), data.draw(st.integers(0, height - 6))
    x1, y1 = data.draw(st.integers(x0 + 5, width)), data.draw(st.integers(y0 + 5, height))
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    picture = Image.fromarray(np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, 2))
    preprocess = Preprocess(crop + more, crop, (0.0,) * 3, (1.0,) * 3)
    seen = preprocess(picture)[0, 0].numpy() >= 0.5
    samples = (Sample("mask", picture, mask=mask), Sample("box", picture, boxes=[[x0, y0, x1, y1]]))
    if not seen.any():
        return
    by_mask, by_box = (prepare(sample, preprocess, NAMES) for sample in samples)
    assert np.array_equal(by_mask.mask[0].numpy(), seen)
    assert by_mask.boxes.shape == by_box.boxes.shape == (1, 4)
    assert (by_mask.boxes - by_box.boxes).abs().max() <= 1.0
    assert (by_box.boxes >= 0).all()
    assert (by_box.boxes <= crop).all()


def test_a_box_that_is_cropped_away_and_other_preprocessing(tmp_path) -> None:
    picture = Image.new("RGB", (100, 20), "white")
    preprocess = Preprocess(20, 20, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match=r"^boxes: none of them is in what the network sees"):
        prepare(Sample("a", picture, boxes=[[0, 0, 10, 10]]), preprocess, NAMES)
    mask = np.zeros((20, 100), bool)
    mask[:, :10] = True
    with pytest.raises(ValueError, match=r"^mask: no pixel of the object is in what the network sees"):
        prepare(Sample("a", picture, mask=mask), preprocess, NAMES)
    kept = prepare(Sample("a", picture, boxes=[[0, 0, 10, 10], [45, 0, 55, 20]]), preprocess, NAMES)
    assert kept.boxes.tolist() == [[5, 0, 15, 20]]
    assert kept.mask[0].nonzero()[:, 1].unique().tolist() == list(range(5, 15))

    def own(picture):
        return torch.zeros(3, 8, 8)

    assert prepare(Sample("a", picture), own, NAMES).x.shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"^preprocess: expected a midgrain.pictures.Preprocess"):
        prepare(Sample("a", picture, boxes=[[0, 0, 10, 10]]), own, NAMES)
    with pytest.raises(ValueError, match=r"^preprocess: expected one for pictures, got None"):
        prepare(Sample("a", picture), None, NAMES)
    with pytest.raises(TypeError, match=r"^preprocess: expected floats"):
        prepare(Sample("a", picture), lambda picture: 3, NAMES)


@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16", "RGB", "RGBA"])
def test_masks_in_files(mode, tmp_path) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[4:9, 5:15] = 3
    if mode == "P":
        picture = Image.fromarray(mask).convert("P")
        picture.putpalette([0] * 3 * 4 + [255] * 3 * 252)  # Object 3 is painted black.
    elif mode == "I;16":
        picture = Image.fromarray(mask.astype(np.uint16))
    else:
        picture = Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "mask.png")
    sample = Sample("a", torch.rand(3, 20, 20), mask=tmp_path / "mask.png")
    assert np.array_equal(prepare(sample, None, NAMES).mask[0].numpy(), mask > 0)
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^mask: .* is not a picture that can be read"):
        prepare(sample, None, NAMES)
    with pytest.raises(FileNotFoundError, match=r"^mask: there is no file"):
        prepare(Sample("a", torch.rand(3, 20, 20), mask="none.png"), None, NAMES)
