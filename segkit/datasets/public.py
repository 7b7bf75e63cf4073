"""Published data sets by PaddleSeg's names and folder layouts. None is downloaded: the error says where each is had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, Optional

import numpy as np

from segkit.datasets.cityscapes import IMAGE_END
from segkit.datasets.dataset import Classes, Dataset
from segkit.datasets.labels import remap
from segkit.datasets.lists import Pair, read_text
from segkit.datasets.names import Names
from segkit.errors import InputError
from segkit.io import image_size
from segkit.registry import DATASETS

_BUCKET = "https://paddleseg.bj.bcebos.com/dataset"


class Published(Dataset):
    """A data set with a home and a layout, which its errors tell. Lists given as train_path and so on come first."""

    NUM_CLASSES = 2
    HOME: ClassVar[str] = ""
    LAYOUT: ClassVar[str] = ""
    FOREGROUND: ClassVar[bool] = False
    """whether every value above 0 is class 1"""

    def find_files(self) -> list[Pair]:
        try:
            listed = self._lists.get(self.mode) is not None
            files = super().find_files() if listed else self.by_layout()
            if not files:
                raise InputError(f"{self.dataset_root}: no photo of the {self.mode} part is there.")
            return files
        except InputError as error:
            raise InputError(
                f"{type(self).__name__}: {error} Expected layout below dataset_root: {self.LAYOUT}. "
                f"The data are to be had at {self.HOME}."
            ) from error

    def by_layout(self) -> list[Pair]:
        """The pairs that the layout gives; by default those of the lists that `LISTS` names."""
        return super().find_files()

    def names_of(self, *parts: str) -> list[str]:
        """The lines of a list of names below the root."""
        path = os.path.join(self.dataset_root, *parts)
        return [line.strip() for line in read_text(path, "list of samples").splitlines() if line.strip()]

    def matched(self, images: str, labels: str, image_end: str = ".jpg", label_end: str = ".png") -> list[Pair]:
        """Photos below the folder `images` with labels at the same place below `labels`, by name."""
        top = Path(self.dataset_root, images)
        found = sorted(path for path in top.rglob(f"*{image_end}"))
        return [
            (
                str(path),
                os.path.join(self.dataset_root, labels, str(path.relative_to(top))[: -len(image_end)] + label_end),
            )
            for path in found
        ]

    def read_label(self, index: int) -> np.ndarray:
        label = super().read_label(index)
        if not self.FOREGROUND:
            return label
        ignored = label == self.ignore_index if 0 < self.ignore_index < 255 else False
        return np.where(ignored, label, (label > 0).astype(np.uint8)).astype(label.dtype)


@DATASETS.register
class ADE20K(Published):
    """MIT Scene Parsing, 150 classes; 0 in the files is no class and ignored, 1..150 become 0..149."""

    NUM_CLASSES = 150
    HOME = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    LAYOUT = "images/{training,validation}/*.jpg, annotations/{training,validation}/*.png"

    @classmethod
    def classes(cls, num_classes: int | None, root: str | None, names: Names) -> Classes:
        count, found, colours = super().classes(num_classes, root, names)
        table = os.path.join(root or "", "objectInfo150.txt")
        if found is None and os.path.isfile(table):  # comes with the photos: a name is the last of the tabbed columns
            rows = read_text(table, "table of classes").splitlines()[1:]
            found = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]
        return count, found if found is None or len(found) == count else None, colours

    def by_layout(self) -> list[Pair]:
        part = "training" if self.mode == "train" else "validation"
        return self.matched(f"images/{part}", f"annotations/{part}")

    def read_label(self, index: int) -> np.ndarray:
        return remap(super().read_label(index), {}, True, self.ignore_index)


@DATASETS.register
class PascalContext(Published):
    """Pascal Context, 59 classes and the background."""

    NUM_CLASSES = 60
    HOME = "https://www.cs.stanford.edu/~roozbeh/pascal-context/ (photos: VOC2010)"
    LAYOUT = "JPEGImages/*.jpg, Context/*.png, ImageSets/SegmentationContext/{train,val,trainval}_context.txt"
    LISTS = {mode: f"{mode}_context.txt" for mode in ("train", "val", "trainval", "test")}

    def __init__(
        self,
        transforms: Optional[list],
        dataset_root: str,
        num_classes: Optional[int] = None,
        mode: Literal["train", "trainval", "val", "test"] = "train",
        ignore_index: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        super().__init__(
            transforms,
            dataset_root,
            num_classes,
            mode,
            ignore_index=ignore_index,
            img_channels=img_channels,
            edge=edge,
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            nodata=nodata,
            cache=cache,
        )

    def by_layout(self) -> list[Pair]:
        name = self.LISTS["val" if self.mode == "test" else self.mode]
        root = self.dataset_root
        return [
            (os.path.join(root, "JPEGImages", f"{stem}.jpg"), os.path.join(root, "Context", f"{stem}.png"))
            for stem in self.names_of("ImageSets", "SegmentationContext", name)
        ]


@DATASETS.register
class CocoStuff(Published):
    """COCO-Stuff, 171 classes."""

    NUM_CLASSES = 171
    HOME = "https://github.com/nightrome/cocostuff"
    LAYOUT = "images/{train2017,val2017}/*.jpg, annotations/{train2017,val2017}/*.png"

    def by_layout(self) -> list[Pair]:
        part = "train2017" if self.mode == "train" else "val2017"
        return self.matched(f"images/{part}", f"annotations/{part}")


@DATASETS.register
class SUPERVISELY(Published):
    """Supervisely's persons: background and person."""

    CLASS_NAMES = ["background", "person"]
    HOME = f"{_BUCKET}/Supervisely_face.zip"
    LAYOUT = "supervisely_face_{train,test}_easy.txt, whose lines name <top folder>/.../img/*, and masks in .../ann/*"
    FOREGROUND = True

    def by_layout(self) -> list[Pair]:
        part = "train" if self.mode == "train" else "test"
        below = [line.split("/", 1)[-1] for line in self.names_of(f"supervisely_face_{part}_easy.txt")]
        return [
            (os.path.join(self.dataset_root, name), os.path.join(self.dataset_root, name.replace("/img/", "/ann/")))
            for name in below
        ]


class _Vessels(Published):
    """Blood vessels in eye-ground photos, in the lists train_list.txt and val_list.txt."""

    CLASS_NAMES = ["background", "vessel"]
    LAYOUT = "train_list.txt and val_list.txt, a line `image label` per photo, labels of 0 and 1"
    LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "val_list.txt"}


@DATASETS.register
class DRIVE(_Vessels):
    """DRIVE, 40 eye-ground photos."""

    HOME = "https://bj.bcebos.com/paddleseg/dataset/drive/drive.zip"


@DATASETS.register
class STARE(_Vessels):
    """STARE, 20 eye-ground photos."""

    HOME = "https://bj.bcebos.com/paddleseg/dataset/stare/stare.zip"


@DATASETS.register
class CHASEDB1(_Vessels):
    """CHASE_DB1, 28 eye-ground photos."""

    HOME = "https://bj.bcebos.com/paddleseg/dataset/chase_db1/chase_db1.zip"


@DATASETS.register
class HRF(_Vessels):
    """HRF, 45 eye-ground photos of high resolution."""

    HOME = "https://bj.bcebos.com/paddleseg/dataset/hrf/hrf.zip"


@DATASETS.register
class EG1800(Published):
    """EG1800, portraits: background and person."""

    CLASS_NAMES = ["background", "person"]
    HOME = f"{_BUCKET}/EG1800.zip"
    LAYOUT = "Images/*, Labels/*, eg1800_train.txt and eg1800_test.txt with a file name a line"

    def by_layout(self) -> list[Pair]:
        names = self.names_of("eg1800_train.txt" if self.mode == "train" else "eg1800_test.txt")
        return [
            (os.path.join(self.dataset_root, "Images", name), os.path.join(self.dataset_root, "Labels", name))
            for name in names
        ]

    def read_label(self, index: int) -> np.ndarray:
        label = super().read_label(index)
        return np.where(label > 1, 0, label).astype(label.dtype)  # as PaddleSeg reads it


@DATASETS.register
class PPHumanSeg14K(Published):
    """PP-HumanSeg14K, persons in video conferences: background and person."""

    CLASS_NAMES = ["background", "person"]
    HOME = "https://github.com/PaddlePaddle/PaddleSeg, contrib/PP-HumanSeg"
    LAYOUT = "train.txt, val.txt and test.txt, a line `image label` per photo, labels of 0 and 1"


@DATASETS.register
class MiniDeepGlobeRoadExtraction(Published):
    """A part of DeepGlobe's roads seen from above: background and road."""

    CLASS_NAMES = ["background", "road"]
    HOME = f"{_BUCKET}/MiniDeepGlobeRoadExtraction.zip"
    LAYOUT = "train.txt and val.txt, a line `image|label` per photo, labels of 0 and 1"
    LISTS = {"train": "train.txt", "val": "val.txt", "test": "val.txt"}


@DATASETS.register
class AutoNUE(Published):
    """India Driving Dataset of the AutoNUE challenge, 26 classes (its level-3 ids)."""

    NUM_CLASSES = 26
    HOME = "https://idd.insaan.iiit.ac.in"
    LAYOUT = (
        "leftImg8bit/{train,val}/<drive>/*_leftImg8bit.{png,jpg}, gtFine/{train,val}/<drive>/"
        "*_gtFine_labellevel3Ids.png"
    )

    def by_layout(self) -> list[Pair]:
        images, labels = f"leftImg8bit/{self.mode}", f"gtFine/{self.mode}"
        ends = (f"{IMAGE_END}.png", f"{IMAGE_END}.jpg")
        return [pair for end in ends for pair in self.matched(images, labels, end, "_gtFine_labellevel3Ids.png")]


@DATASETS.register
class MVTec_AD(Published):
    """MVTec AD: good and defect, of one category (`dataset_root: mvtec/bottle`).

    Only its test photos have masks: of each kind of defect, and of the good ones, the first 70 % are the train part
    here, the rest the val (and test) part.
    """

    CLASS_NAMES = ["good", "defect"]
    HOME = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    LAYOUT = "test/<defect>/*.png, test/good/*.png, ground_truth/<defect>/*_mask.png, as in a category's folder"
    FOREGROUND = True
    SHARE = 0.7

    def by_layout(self) -> list[Pair]:
        pairs = []
        for kind in sorted(path.name for path in Path(self.dataset_root, "test").glob("*") if path.is_dir()):
            found = self.matched(f"test/{kind}", f"ground_truth/{kind}", ".png", "_mask.png")
            if kind == "good":  # no masks: nothing is wrong there
                found = [(image, image) for image, _ in found]
            cut = round(len(found) * self.SHARE)
            pairs += found[:cut] if self.training else found[cut:]
        return pairs

    def read_label(self, index: int) -> np.ndarray:
        image, label = self.files[index]
        return np.zeros(image_size(image), np.uint8) if image == label else super().read_label(index)
