"""Data sets as they come: the folders and files that each is read from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from midgrain.evaluate.datasets import Dataset
from midgrain.evaluate.layouts.coco import coco, coco_difficult
from midgrain.evaluate.layouts.imagenet import imagenet
from midgrain.evaluate.layouts.kinetics import kinetics400
from midgrain.evaluate.layouts.ucf101 import ucf101
from midgrain.evaluate.layouts.voc import voc07

__all__ = ["LAYOUTS", "Layout", "coco", "coco_difficult", "imagenet", "kinetics400", "ucf101", "voc07"]


@dataclass(frozen=True)
class Layout:
    """How a data set lies in a folder."""

    title: str
    #: What is looked for, in words.
    places: str
    #: From the folder to its samples.
    read: Callable[[Path], Dataset]
    #: Name -> function from the folder and samples' ids to those in the subset.
    subsets: Mapping[str, Callable[[Path, Collection[str]], set[str]]] = field(default_factory=dict)


_VAL = (
    "val/n01440764/*.JPEG, or val/*.JPEG with LOC_val_solution.csv or ILSVRC2012_devkit_t12/data; or Kaggle's "
    "ILSVRC/Data/CLS-LOC/val"
)
_VOC = "VOC2007/JPEGImages/*.jpg, VOC2007/Annotations/*.xml, VOC2007/ImageSets/"

#: Name -> layout.
LAYOUTS: dict[str, Layout] = {
    "imagenet": Layout("ImageNet's validation set (ILSVRC 2012)", _VAL, imagenet),
    "imagenet-boxes": Layout(
        "ImageNet's validation set with boxes", f"{_VAL}; Annotations/CLS-LOC/val/*.xml", partial(imagenet, boxes=True)
    ),
    "imagenet-100": Layout(
        "the first 100 classes of ImageNet's validation set",
        _VAL,
        partial(imagenet, classes=range(100), per_class=50),
    ),
    "coco2014": Layout(
        "COCO 2014's validation set",
        "val2014/*.jpg, annotations/instances_val2014.json",
        coco,
        {"difficult": coco_difficult},
    ),
    "voc07": Layout("VOC 2007's test set", f"{_VOC}Main/test.txt", voc07),
    "voc07-masks": Layout(
        "the pictures of VOC 2007's test set with masks",
        f"{_VOC}Segmentation/test.txt, VOC2007/SegmentationClass/*.png",
        partial(voc07, masks=True),
    ),
    "kinetics400": Layout("Kinetics-400's validation videos", "val/abseiling/*.mp4", kinetics400),
    "ucf101": Layout(
        "UCF101's test videos with boxes",
        "UCF-101/Basketball/*.avi, finalAnnots.mat, testlist01.txt",
        ucf101,
    ),
}
