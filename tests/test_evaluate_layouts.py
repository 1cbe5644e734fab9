"""Data sets read from the folders that they come in."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import layouts_for_tests as stand_in
from midgrain.evaluate.layouts import LAYOUTS, coco, coco_difficult, imagenet, kinetics400, ucf101, voc07
from midgrain.evaluate.layouts.voc import VOC_CLASSES
from midgrain.evaluate.papers.whole_pictures import WholePictures
from midgrain.evaluate.samples import ClassNames, prepare
from midgrain.pictures import Preprocess

BOX = stand_in.BOX


@pytest.mark.parametrize("flat", [None, "kaggle", "devkit"])
def test_imagenet_in_class_folders_and_flat(tmp_path, flat) -> None:
    root = stand_in.imagenet(tmp_path, n=2, flat=flat)
    found = imagenet(root, boxes=True)
    assert found.length == 8
    samples = [entry.read() for entry in found.entries]
    # One of every class, then the second ones.
    assert [sample.target for sample in samples] == [*stand_in.NUMBERS] * 2
    assert [sample.id for sample in samples] == [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 9)]
    assert samples[0].boxes == [[float(side) for side in BOX]]
    assert found.located
    without = imagenet(root)
    assert not without.located
    assert without.entries[0].read().boxes is None


def test_imagenet_as_kaggle_packs_it(tmp_path) -> None:
    stand_in.imagenet(tmp_path / "plain")
    (tmp_path / "ILSVRC/Data/CLS-LOC").mkdir(parents=True)
    (tmp_path / "plain/val").rename(tmp_path / "ILSVRC/Data/CLS-LOC/val")
    (tmp_path / "plain/Annotations").rename(tmp_path / "ILSVRC/Annotations")
    assert len(list(imagenet(tmp_path, boxes=True).entries)) == 4


def test_imagenet_of_some_classes(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path, n=3)
    some = imagenet(root, classes=range(100), per_class=2)
    assert [entry.read().target for entry in some.entries] == [0, 1, 2, 0, 1, 2]
    assert LAYOUTS["imagenet-100"].read(root).length == 9


@pytest.mark.parametrize("source", ["LOC_synset_mapping.txt", "meta.mat"])
def test_numbers_of_a_part_of_the_classes(tmp_path, monkeypatch, source) -> None:
    root = stand_in.imagenet(tmp_path)
    wnids = stand_in.every_wnid()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"needs the file 'LOC_synset_mapping.txt' or 'ILSVRC2012_devkit_t12/"):
        imagenet(root)
    if source == "meta.mat":
        (root / "ILSVRC2012_devkit_t12/data").mkdir(parents=True)
        stand_in.devkit(root / "ILSVRC2012_devkit_t12/data/meta.mat")
    else:
        (root / source).write_text("\n".join(f"{wnid} a thing, another" for wnid in wnids[::-1]))
    assert [entry.read().target for entry in imagenet(root).entries] == [*stand_in.NUMBERS]


def test_a_thousand_folders_need_no_list(tmp_path, monkeypatch) -> None:
    for wnid in stand_in.every_wnid():
        (tmp_path / "val" / wnid).mkdir(parents=True)
        (tmp_path / "val" / wnid / "a.JPEG").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = imagenet(tmp_path, classes=[281])
    assert found.length == 1
    assert found.entries[0].read().target == 281


def test_boxes_that_are_missing_or_of_another_class(tmp_path) -> None:
    root = stand_in.imagenet(tmp_path)
    folder = root / "Annotations/CLS-LOC/val"
    (folder / "ILSVRC2012_val_00000001.xml").unlink()
    (folder / "ILSVRC2012_val_00000002.xml").write_text("<annotation>")
    path = folder / "ILSVRC2012_val_00000003.xml"
    path.write_text(path.read_text().replace(stand_in.WNIDS[2], "n00000000"))
    entries = imagenet(root, boxes=True).entries
    for entry, error, message in zip(
        entries,
        (FileNotFoundError, ValueError, ValueError),
        ("boxes: there is no file", "'ILSVRC2012_val_00000002.xml' cannot be read", "has none of the class n01484850"),
        strict=False,
    ):
        with pytest.raises(error, match=message):
            entry.read()


def test_coco(tmp_path) -> None:
    found = coco(stand_in.coco(tmp_path))
    samples = {sample.id.partition("_val2014_0000")[2]: sample for sample in (e.read() for e in found.entries)}
    assert {name: (sample.target, int(sample.mask.sum())) for name, sample in samples.items()} == {
        # Ranks of the categories 1, 3 and 90; the outline's own pixels are inside.
        "00000000#3": (1, 22 * 20),
        "00000000#90": (2, 48 * 40),
        "00000001#1": (0, 22 * 20),
        "00000002#3": (1, 48 * 40),
    }
    expected = np.zeros((40, 48), bool)
    expected[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    assert np.array_equal(samples["00000000#3"].mask, expected)
    assert np.array_equal(samples["00000001#1"].mask, expected)
    ids = {sample.id for sample in samples.values()}
    # Small, and another category beside it.
    assert coco_difficult(tmp_path, ids) == {"COCO_val2014_000000000000#3"}
    assert coco_difficult(tmp_path, {"COCO_val2014_000000000001#1"}) == set()


@pytest.mark.parametrize(
    ("counts", "message"),
    [("abc", "got a compressed text"), ([3, 4], "expected run lengths of 40 x 48 pixels, got 7")],
)
def test_crowds_that_cannot_be_read(tmp_path, counts, message) -> None:
    path = stand_in.coco(tmp_path) / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["segmentation"]["counts"] = counts
    path.write_text(json.dumps(content))
    entry = next(entry for entry in coco(tmp_path).entries if entry.id.endswith("#1"))
    with pytest.raises(ValueError, match=message):
        entry.read()


def test_voc(tmp_path) -> None:
    root = stand_in.voc07(tmp_path)
    samples = [entry.read() for entry in voc07(root).entries]
    # The person is difficult, and the only one.
    assert [(sample.id, sample.target) for sample in samples] == [("000000#cat", 7), ("000001#dog", 11)]
    assert samples[0].boxes == [[float(side) for side in BOX]]
    (masked,) = voc07(root, masks=True).entries
    inside = np.zeros((40, 48), bool)
    inside[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    assert np.array_equal(masked.read().mask, inside)


def test_voc_below_voc_devkit_and_without_a_folder(tmp_path) -> None:
    stand_in.voc07(tmp_path / "VOCdevkit")
    assert voc07(tmp_path).length == 2
    assert voc07(tmp_path / "VOCdevkit/VOC2007").length == 2


def test_kinetics(tmp_path) -> None:
    entries = kinetics400(stand_in.kinetics400(tmp_path)).entries
    # The first of every class, then the second.
    assert [entry.id for entry in entries] == [
        "abseiling/broken.mp4",
        "air_drumming/a.mkv",
        "abseiling/c.avi",
        "air_drumming/b.mkv",
    ]
    sample = entries[1].read()
    assert (sample.id, sample.target) == ("air_drumming/a.mkv", "air drumming")
    # 16 of 20, from the middle, one after the other.
    assert sample.input.numbers.tolist() == list(range(2, 18))
    with pytest.raises(ValueError, match=r"broken.mp4"):
        entries[0].read()


@pytest.mark.parametrize("layout", ["kinetics400", "ucf101"])
def test_videos_need_a_package(tmp_path, monkeypatch, layout) -> None:
    root = getattr(stand_in, layout)(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"data: the package av is not installed, .* 'midgrain\[video\]'"):
        LAYOUTS[layout].read(root)


@pytest.mark.parametrize("suffix", ["", ".avi"])
def test_ucf101(tmp_path, suffix) -> None:
    found = ucf101(stand_in.ucf101(tmp_path, suffix=suffix))
    # Of 60 frames the action has 4 .. 33, so windows of 16 that begin at multiples of 8 begin at 8 and 16.
    assert [entry.id for entry in found.entries] == [f"Basketball/v_Basketball_g01_c01#{n}" for n in (8, 16)]
    sample = found.entries[1].read()
    assert sample.target == "Basketball"
    assert sample.input.numbers.tolist() == list(range(16, 32))
    # In frame 4 of the video the box begins at 10, 20; it moves by one pixel a frame.
    assert sample.boxes == {n: [[10.0 + n - 4, 20.0, 50.0 + n - 4, 70.0]] for n in range(16, 32)}


def test_classes_of_ucf101(tmp_path) -> None:
    (stand_in.ucf101(tmp_path) / "classInd.txt").write_text("1 ApplyEyeMakeup\n8 Basketball\n")
    assert LAYOUTS["ucf101"].read(tmp_path).entries[0].read().target == 7


@pytest.mark.parametrize(
    ("layout", "make", "gone", "message"),
    [
        ("imagenet", stand_in.imagenet, "val", "needs the folder 'val/' or 'ILSVRC/Data/CLS-LOC/val/'"),
        ("imagenet-boxes", stand_in.imagenet, "Annotations", "the boxes of ImageNet's validation set needs the folder"),
        ("coco2014", stand_in.coco, "val2014", "COCO 2014 needs the folder 'val2014/'"),
        ("coco2014", stand_in.coco, "annotations/instances_val2014.json", "file 'annotations/instances_val2014.json'"),
        ("voc07", stand_in.voc07, "VOC2007", "VOC 2007 needs the folder 'JPEGImages/'"),
        ("voc07", stand_in.voc07, "VOC2007/ImageSets/Main/test.txt", "needs the file 'ImageSets/Main/test.txt'"),
        ("voc07", stand_in.voc07, "VOC2007/Annotations/000001.xml", r"needs the file .*000001.xml', which is missing"),
        ("voc07-masks", stand_in.voc07, "VOC2007/SegmentationClass", "VOC 2007's masks needs the folder"),
        ("ucf101", stand_in.ucf101, "UCF-101", "UCF101's videos needs the folder 'UCF-101/' or 'UCF101/'"),
        ("ucf101", stand_in.ucf101, "finalAnnots.mat", "UCF101's boxes needs the file 'finalAnnots.mat'"),
        ("ucf101", stand_in.ucf101, "testlist01.txt", "UCF101's test list needs the file 'testlist01.txt'"),
        ("kinetics400", stand_in.voc07, "VOC2007", "Kinetics-400 needs the folder 'val/'"),
    ],
)
def test_a_missing_part_is_named(tmp_path, layout, make, gone, message) -> None:
    root = make(tmp_path / "data")
    (root / gone).rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=message):
        LAYOUTS[layout].read(root)


def _no_truth(root: Path) -> Path:
    stand_in.imagenet(root, flat="kaggle")
    (root / "LOC_val_solution.csv").unlink()
    return root


def _half_truth(root: Path) -> Path:
    stand_in.imagenet(root, flat="kaggle")
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    return root


def _odd_truth(root: Path) -> Path:
    stand_in.imagenet(root, flat="devkit")
    (root / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt").write_text("1\ntwo\n")
    return root


def _no_devkit(root: Path) -> Path:
    stand_in.imagenet(root, flat="devkit")
    (root / "ILSVRC2012_devkit_t12/data/meta.mat").write_text("no MATLAB")
    return root


def _unknown_class(root: Path) -> Path:
    stand_in.imagenet(root)
    (root / "val/n00000001").mkdir()
    Image.new("RGB", (8, 8)).save(root / "val/n00000001/a.png")
    return root


def _no_pictures(root: Path) -> Path:
    (root / "val/n01440764").mkdir(parents=True)
    return root


def _broken(make, name: str, content: str):
    def broken(root: Path) -> Path:
        make(root)
        (root / name).write_text(content)
        return root

    return broken


def _other_mat(root: Path) -> Path:
    stand_in.ucf101(root)
    savemat(root / "finalAnnots.mat", {"other": 1})
    return root


@pytest.mark.parametrize(
    ("layout", "make", "message"),
    [
        ("imagenet", _no_truth, r"needs the file '.*ground_truth.txt' or 'LOC_val_solution.csv'"),
        ("imagenet", _half_truth, "does not say the class of 'ILSVRC2012_val_00000001.JPEG'"),
        ("imagenet", _odd_truth, "holds something else than classes' numbers"),
        ("imagenet", _no_devkit, "is not the devkit's meta.mat"),
        ("imagenet", _unknown_class, "n00000001 is none of ImageNet's 1000 classes"),
        ("imagenet", _no_pictures, "expected class folders like n01440764/ or pictures"),
        ("coco2014", _broken(stand_in.coco, "annotations/instances_val2014.json", "{}"), "no instances file of COCO"),
        ("coco2014", _broken(stand_in.coco, "annotations/instances_val2014.json", "["), "no instances file of COCO"),
        ("voc07", _broken(stand_in.voc07, "VOC2007/Annotations/000000.xml", "<a>"), "is no annotation of VOC 2007"),
        (
            "voc07",
            _broken(stand_in.voc07, "VOC2007/Annotations/000000.xml", "<a><object><name>yak</name></object></a>"),
            "expected a class of VOC 2007, got 'yak'",
        ),
        ("voc07", _broken(stand_in.voc07, "VOC2007/ImageSets/Main/test.txt", ""), "found none"),
        ("ucf101", _broken(stand_in.ucf101, "finalAnnots.mat", "no MATLAB"), "holds no annotations of UCF101"),
        ("ucf101", _other_mat, "holds no annotations of UCF101"),
        ("ucf101", _broken(stand_in.ucf101, "testlist01.txt", "Diving/v_Diving_g01_c01.avi"), "found none"),
        ("ucf101", _broken(stand_in.ucf101, "classInd.txt", "one\n"), "is no list of classes"),
    ],
)
def test_what_cannot_be_read(tmp_path, layout, make, message) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        LAYOUTS[layout].read(make(tmp_path))


def test_no_folder(tmp_path) -> None:
    (tmp_path / "file").touch()
    for layout in LAYOUTS.values():
        with pytest.raises(FileNotFoundError, match="data: there is no folder"):
            layout.read(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="data: expected a folder, but"):
            layout.read(tmp_path / "file")


@pytest.mark.parametrize("size", [(48, 40), (40, 90), (32, 32), (300, 20)])
def test_whole_pictures_lose_nothing(size) -> None:
    plain = Preprocess(32, 32, (0.5,) * 3, (0.5,) * 3)
    whole = WholePictures(32, 32, (0.5,) * 3, (0.5,) * 3)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    x = whole(picture)
    assert min(x.shape[2:]) == 32
    assert x.shape[3] == 32 * size[0] // min(size)
    assert x.shape[2] == 32 * size[1] // min(size)
    # What the square crop sees is in the middle of it.
    left, top = ((side - 32) // 2 for side in (x.shape[3], x.shape[2]))
    if (x.shape[3] - 32) % 2 == 0 and (x.shape[2] - 32) % 2 == 0:
        assert np.allclose(x[:, :, top : top + 32, left : left + 32], plain(picture))
    everything = np.array([[0.0, 0.0, *size]])
    assert whole.placed(everything, size).tolist() == [[0.0, 0.0, x.shape[3], x.shape[2]]]
    assert min(whole.shown(picture, 64).shape[:2]) == max(32, min(64, *size))


def test_a_mask_goes_with_a_whole_picture(tmp_path) -> None:
    entry = next(entry for entry in coco(stand_in.coco(tmp_path)).entries if entry.id.endswith("0#3"))
    prepared = prepare(entry.read(), WholePictures(20, 20, (0.5,) * 3, (0.5,) * 3), ClassNames())
    assert prepared.x.shape == (1, 3, 20, 24)
    assert prepared.mask.shape == (1, 20, 24)
    assert prepared.mask[0, 3:13, 4:15].all()
    assert int(prepared.mask.sum()) == 11 * 10


def test_classes_and_boxes_are_those_of_torchray(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is older than the packages it imports.
        peer = pytest.importorskip("torchray.benchmark.datasets", exc_type=ImportError)
    assert tuple(peer.VOC_CLASSES) == VOC_CLASSES
    entry = next(iter(voc07(stand_in.voc07(tmp_path)).entries))
    x0, y0, x1, y1 = BOX
    # As an annotation says it: counted from 1, the last pixel included.
    box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
    size = {"width": stand_in.SIZE[0], "height": stand_in.SIZE[1]}
    label = {"annotation": {"size": size, "object": [{"name": "cat", "bndbox": box}]}}
    expected = peer.voc_as_mask(label, VOC_CLASSES.index("cat"))
    whole = Preprocess(40, 40, (0.5,) * 3, (0.5,) * 3)
    mask = prepare(entry.read(), WholePictures(40, 40, whole.mean, whole.std), ClassNames()).mask[0]
    assert mask.shape == (40, 48)
    assert np.array_equal(mask, expected)
