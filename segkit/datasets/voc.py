"""Folders as Pascal VOC and labelme lay them out."""

from __future__ import annotations

import os
from typing import Literal, Optional, Union

import numpy as np

from segkit.datasets.dataset import Classes, Dataset
from segkit.datasets.lists import Pair, read_list, read_text
from segkit.datasets.names import Names, find_names
from segkit.errors import InputError
from segkit.registry import DATASETS

IMAGE_ENDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy")
LABEL_FOLDERS = ("SegmentationClassPNG", "SegmentationClass")
NAME_FILES = ("labels.txt", "class_names.txt", "classes.txt")


@DATASETS.register
class VOC(Dataset):
    """JPEGImages/ with SegmentationClassPNG/ or SegmentationClass/, matched by the names without endings.

    The split is that of ImageSets/Segmentation/{train,val,test}.txt, or of `train_path` and so on (a name a
    line, or a pair as in any list file); where there is no such list, `val_fraction` of the labelled photos,
    drawn by a shuffle with a fixed seed, is the val (and test) part, the rest the train part. `num_classes` may be
    left out where `class_names`, or labels.txt, class_names.txt or classes.txt below the root, tells it.
    """

    def __init__(
        self,
        transforms: Optional[list],
        dataset_root: str,
        num_classes: Optional[int] = None,
        mode: Literal["train", "val", "test"] = "train",
        val_fraction: float = 0.15,
        train_path: Optional[str] = None,
        val_path: Optional[str] = None,
        test_path: Optional[str] = None,
        separator: Optional[str] = None,
        ignore_index: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        class_names: Optional[Union[list[str], str]] = None,
        palette: Optional[list[list[int]]] = None,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        if not 0 < val_fraction < 1:
            raise InputError(f"val_fraction: got {val_fraction}, expected a number between 0 and 1. Set 0.15, say.")
        self.val_fraction = val_fraction
        super().__init__(
            transforms,
            dataset_root,
            num_classes,
            mode,
            train_path=train_path,
            val_path=val_path,
            test_path=test_path,
            separator=separator,
            ignore_index=ignore_index,
            img_channels=img_channels,
            edge=edge,
            class_names=class_names,
            palette=palette,
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            nodata=nodata,
            cache=cache,
        )

    @classmethod
    def classes(cls, num_classes: int | None, root: str | None, names: Names) -> Classes:
        found = find_names(names, root, NAME_FILES)
        return num_classes or (len(found) if found else None), found, cls.PALETTE

    def find_files(self) -> list[Pair]:
        if not os.path.isdir(self.dataset_root):
            raise self.no_root()
        standard = os.path.join(self.dataset_root, "ImageSets", "Segmentation", f"{self.mode}.txt")
        if self._lists.get(self.mode) is not None:
            path = self.list_path()
        elif os.path.isfile(standard):
            path = standard
        else:
            return self._split()
        return self._listed(path)

    def _folder(self, names: tuple[str, ...]) -> str:
        for name in names:
            folder = os.path.join(self.dataset_root, name)
            if os.path.isdir(folder):
                return folder
        raise InputError(
            f"{self.dataset_root}: no folder {' or '.join(names)} in it. dataset_root must hold JPEGImages/ and "
            f"{' or '.join(LABEL_FOLDERS)}/."
        )

    def _images(self) -> dict[str, str]:
        """Name without ending -> photo."""
        folder = self._folder(("JPEGImages",))
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_ENDS))
        return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in names}

    def _split(self) -> list[Pair]:
        images, folder = self._images(), self._folder(LABEL_FOLDERS)
        stems = sorted(os.path.splitext(name)[0] for name in os.listdir(folder) if name.lower().endswith(".png"))
        if len(stems) < 2:
            raise InputError(
                f"{folder}: {len(stems)} PNG masks (expected 2 or more, to have a train and a val part). "
                "Add some, or give train_path and val_path."
            )
        order = np.random.RandomState(0).permutation(len(stems))
        held_out = min(max(round(len(stems) * self.val_fraction), 1), len(stems) - 1)
        chosen = order[held_out:] if self.training else order[:held_out]
        return [self._pair(stems[i], images, folder) for i in sorted(chosen)]

    def _listed(self, path: str) -> list[Pair]:
        lines = [line.strip() for line in read_text(path, "list of samples").splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        images, folder = self._images(), self._folder(LABEL_FOLDERS)
        if lines and all(self._is_name(line, images, folder) for line in lines):
            return [self._pair(line, images, folder) for line in lines]
        return read_list(path, self.dataset_root, self.separator, labels_optional=self.mode == "test")

    @staticmethod
    def _is_name(line: str, images: dict[str, str], folder: str) -> bool:
        """A line is one name, not a pair, where photo or mask has that name, or nothing could be split."""
        known = line in images or os.path.isfile(os.path.join(folder, f"{line}.png"))
        return known or not any(sep in line for sep in " \t,|/")

    def _pair(self, stem: str, images: dict[str, str], folder: str) -> Pair:
        label = os.path.join(folder, f"{stem}.png")
        missing = os.path.join(self.dataset_root, "JPEGImages", f"{stem}.jpg")
        if self.mode == "test" and not os.path.isfile(label):
            return images.get(stem, missing), None
        return images.get(stem, missing), label


@DATASETS.register
class PascalVOC(VOC):
    """Pascal VOC 2012, below `dataset_root` or its VOC2012/. 20 classes and the background.

    Modes as in PaddleSeg: train, trainval, val, and trainaug: train.txt, and the names of aug.txt with the masks
    of SegmentationClassAug/ (the Berkeley annotations).
    """

    NUM_CLASSES = 21
    # fmt: off
    CLASS_NAMES = [
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ]
    # fmt: on
    LISTS = {mode: f"{mode}.txt" for mode in ("train", "trainval", "trainaug", "val", "test")}

    def __init__(
        self,
        transforms: Optional[list],
        dataset_root: str,
        num_classes: Optional[int] = None,
        mode: Literal["train", "trainval", "trainaug", "val", "test"] = "train",
        ignore_index: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        below = os.path.join(dataset_root, "VOC2012")
        root = below if os.path.isdir(below) else dataset_root
        super().__init__(
            transforms,
            root,
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

    @classmethod
    def classes(cls, num_classes: int | None, root: str | None, names: Names) -> Classes:
        return Dataset.classes.__func__(cls, num_classes, root, names)

    def _split(self) -> list[Pair]:
        raise InputError(
            f"{self.dataset_root}: no ImageSets/Segmentation/{self.mode}.txt. dataset_root must be the VOCdevkit or "
            "VOC2012 folder; for another data set in this layout use the type VOC."
        )

    def find_files(self) -> list[Pair]:
        if self.mode != "trainaug":
            return super().find_files()
        lists = os.path.join(self.dataset_root, "ImageSets", "Segmentation")
        train = self._listed(os.path.join(lists, "train.txt"))
        folder = self._folder(("SegmentationClassAug",))
        images = self._images()
        names = read_text(os.path.join(lists, "aug.txt"), "list of samples").split()
        return train + [self._pair(name, images, folder) for name in names]
