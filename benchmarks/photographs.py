"""Real photographs: those in Python packages, and those of Debian's `opencv-doc` and `labelme-examples`.

    apt-get download opencv-doc labelme-examples    # and dpkg -x FILE.deb DIR, or install them

One of each scene: of stereo pairs and of a film's frames the first. Nothing of it comes with this repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from midgrain.evaluate.synthetic import packaged_photographs
from midgrain.pictures import Preprocess, list_pictures, open_picture

OPENCV_DOC = Path("/usr/share/doc/opencv-doc/examples")
LABELME_EXAMPLES = Path("/usr/share/doc/labelme-examples/examples")

_OPENCV_NAMES = (
    *(
        f"data/{name}"
        for name in (
            "aloeL.jpg",
            "apple.jpg",
            "baboon.jpg",
            "basketball1.png",
            "building.jpg",
            "butterfly.jpg",
            "chicky_512.png",
            "fruits.jpg",
            "home.jpg",
            "leuvenA.jpg",
            "messi5.jpg",
            "orange.jpg",
            "squirrel_cls.jpg",
        )
    ),
    "alphamat/input_images/plant.jpg",
    *(f"hfs/data/00{index}.jpg" for index in range(3)),
    "text/scenetext01.jpg",
)
_LABELME_NAMES = (
    "classification/data_annotated/0001.jpg",
    "classification/data_annotated/0002.jpg",
    "semantic_segmentation/data_annotated/2011_000003.jpg",
    "semantic_segmentation/data_annotated/2011_000006.jpg",
    "semantic_segmentation/data_annotated/2011_000025.jpg",
    "tutorial/apc2016_obj3.jpg",
    "video_annotation/data_annotated/00000100.jpg",
)
# Folders known by one of their files: not every picture in them is a photograph.
_KNOWN = (("data/baboon.jpg", _OPENCV_NAMES), ("semantic_segmentation/labels.txt", _LABELME_NAMES))

_VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor"""
VOC_CLASSES = tuple(_VOC.split())
#: VOC class -> ImageNet classes that are kinds of it; the network's highest logit among them is explained. Classes of
#: VOC that ImageNet has no kind of (person, potted plant) are left out. Made by hand.
IMAGENET_OF_VOC: dict[str, tuple[int, ...]] = {
    "aeroplane": (404, 895),
    "bicycle": (444, 671),
    "bird": tuple(range(7, 25)) + tuple(range(80, 101)) + tuple(range(127, 147)),
    "boat": (472, 484, 554, 576, 625, 724, 780, 814, 871, 914),
    "bottle": (440, 720, 737, 898, 901, 907),
    "bus": (654, 779, 874),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817),
    "cat": tuple(range(281, 286)),
    "chair": (423, 559, 765),
    "cow": (345, 346, 347),
    "diningtable": (532,),
    "dog": tuple(range(151, 269)),
    "horse": (339,),
    "motorbike": (665, 670),
    "sheep": (348, 349),
    "sofa": (831,),
    "train": (466, 547, 705, 820, 829),
    "tvmonitor": (664, 851),
}


@dataclass(frozen=True)
class Photograph:
    """A photograph of its own scene."""

    name: str
    source: str
    picture: Image.Image


@dataclass(frozen=True)
class Labelled:
    """A photograph with the class of every pixel, uint8 [H, W], as Pascal VOC stores them (255: not said)."""

    name: str
    picture: Image.Image
    classes: np.ndarray

    def mask(self, name: str, preprocess: Preprocess) -> np.ndarray:
        """Where the class is in what the network sees, bool [crop, crop]."""
        stencil = Image.fromarray(np.where(self.classes == VOC_CLASSES.index(name), 255, 0).astype(np.uint8))
        return np.asarray(preprocess.cropped(stencil)) >= 128

    def names(self) -> list[str]:
        """The classes in it that are also ImageNet's."""
        present = set(np.unique(self.classes).tolist())
        return [name for index, name in enumerate(VOC_CLASSES) if index in present and name in IMAGENET_OF_VOC]


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--photos` and `--voc`."""
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        action="append",
        help="a folder of photographs, or opencv-doc's or labelme-examples' `examples`, wherever they lie; may be "
        f"repeated (default: {OPENCV_DOC} and {LABELME_EXAMPLES}, as far as they are installed)",
    )
    parser.add_argument(
        "--voc",
        type=Path,
        metavar="DIR",
        help="photographs with masks: labelme-examples' `examples`, or a Pascal VOC folder with JPEGImages and "
        f"SegmentationClass (default: {LABELME_EXAMPLES} if installed)",
    )


def packaged() -> list[Photograph]:
    """The photographs that come with scikit-image, scikit-learn and Matplotlib."""
    return [Photograph(*each) for each in packaged_photographs()]


def find_photographs(folders: Sequence[Path] | None) -> list[Photograph]:
    """The packages' photographs and the folders'.

    Raises:
        FileNotFoundError, ValueError: a folder asked for that is not there or holds no pictures.
    """
    found = packaged()
    for folder in (
        folders if folders is not None else [each for each in (OPENCV_DOC, LABELME_EXAMPLES) if each.exists()]
    ):
        names = next((names for sign, names in _KNOWN if (folder / sign).exists()), None)
        if names is None:
            paths = list_pictures([folder])
        else:
            paths = [folder / name for name in names if (folder / name).exists()]
        found += [Photograph(path.stem, _source(folder), open_picture(path)) for path in paths]
    return found


def find_labelled(folder: Path | None) -> list[Labelled]:
    """The photographs with masks; none where no folder is named and none is installed.

    Raises:
        FileNotFoundError: a folder asked for that has no masks.
    """
    if folder is None:
        if not LABELME_EXAMPLES.exists():
            return []
        folder = LABELME_EXAMPLES
    inside = folder / "semantic_segmentation" / "data_dataset_voc"
    root = inside if inside.exists() else folder
    masks = next(
        (root / name for name in ("SegmentationClassPNG", "SegmentationClass") if (root / name).exists()), None
    )
    if masks is None or not (root / "JPEGImages").exists():
        raise FileNotFoundError(f"--voc: {folder} holds no JPEGImages with SegmentationClass beside them")
    return [
        Labelled(path.stem, open_picture(root / "JPEGImages" / f"{path.stem}.jpg"), np.asarray(Image.open(path)))
        for path in sorted(masks.glob("*.png"))
    ]


def said(photographs: Sequence[Photograph], labelled: Sequence[Labelled]) -> str:
    """What was found, in one sentence."""
    sources = [photograph.source for photograph in photographs]
    counts = ", ".join(f"{sources.count(source)} of {source}" for source in dict.fromkeys(sources))
    return f"{len(photographs)} photographs: {counts}; {len(labelled)} with masks of their objects."


def _source(folder: Path) -> str:
    return folder.parent.name if folder.name == "examples" else folder.name
