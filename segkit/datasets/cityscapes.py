"""Cityscapes: street scenes as leftImg8bit/ and gtFine/ trees. https://www.cityscapes-dataset.com"""

from __future__ import annotations

import glob
import os

import numpy as np

from segkit.datasets.dataset import Classes, Dataset
from segkit.datasets.labels import check_range
from segkit.datasets.lists import Pair
from segkit.datasets.names import Names, find_names
from segkit.errors import InputError
from segkit.registry import DATASETS

# Label id (the position), name, train id (255: ignored) and colour, of the data set's own label table.
LABELS = [
    ("unlabeled", 255, (0, 0, 0)),
    ("ego vehicle", 255, (0, 0, 0)),
    ("rectification border", 255, (0, 0, 0)),
    ("out of roi", 255, (0, 0, 0)),
    ("static", 255, (0, 0, 0)),
    ("dynamic", 255, (111, 74, 0)),
    ("ground", 255, (81, 0, 81)),
    ("road", 0, (128, 64, 128)),
    ("sidewalk", 1, (244, 35, 232)),
    ("parking", 255, (250, 170, 160)),
    ("rail track", 255, (230, 150, 140)),
    ("building", 2, (70, 70, 70)),
    ("wall", 3, (102, 102, 156)),
    ("fence", 4, (190, 153, 153)),
    ("guard rail", 255, (180, 165, 180)),
    ("bridge", 255, (150, 100, 100)),
    ("tunnel", 255, (150, 120, 90)),
    ("pole", 5, (153, 153, 153)),
    ("polegroup", 255, (153, 153, 153)),
    ("traffic light", 6, (250, 170, 30)),
    ("traffic sign", 7, (220, 220, 0)),
    ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)),
    ("sky", 10, (70, 130, 180)),
    ("person", 11, (220, 20, 60)),
    ("rider", 12, (255, 0, 0)),
    ("car", 13, (0, 0, 142)),
    ("truck", 14, (0, 0, 70)),
    ("bus", 15, (0, 60, 100)),
    ("caravan", 255, (0, 0, 90)),
    ("trailer", 255, (0, 0, 110)),
    ("train", 16, (0, 80, 100)),
    ("motorcycle", 17, (0, 0, 230)),
    ("bicycle", 18, (119, 11, 32)),
]
TRAINED = [row for row in LABELS if row[1] != 255]
IMAGE_END, TRAIN_END, LABEL_END = "_leftImg8bit", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"


@DATASETS.register
class Cityscapes(Dataset):
    """leftImg8bit/<mode>[/<city>]/*_leftImg8bit.png with gtFine/<mode>[/<city>]/*_gtFine_labelIds.png.

    19 train ids, made on the fly of the label ids, or read from *_labelTrainIds.png where only those exist;
    `num_classes: 34` keeps the raw label ids. With `train_path` and so on, the list decides instead of the
    folders; the end of a label's name tells which ids it holds.
    """

    NUM_CLASSES = 19

    @classmethod
    def classes(cls, num_classes: int | None, root: str | None, names: Names) -> Classes:
        if num_classes not in (None, 19, 34):
            raise InputError(
                f"Cityscapes: num_classes is wrong (got {num_classes}, expected 19, the train ids, or 34, the "
                "label ids). Set one of them."
            )
        rows = LABELS if num_classes == 34 else TRAINED
        return len(rows), find_names(names, root) if names else [row[0] for row in rows], [list(row[2]) for row in rows]

    def find_files(self) -> list[Pair]:
        if self._lists.get(self.mode) is not None:
            return super().find_files()
        if not os.path.isdir(self.dataset_root):
            raise self.no_root()
        folder = os.path.join(self.dataset_root, "leftImg8bit", self.mode)
        pattern = os.path.join(glob.escape(folder), "**", f"*{IMAGE_END}.*")
        images = sorted(glob.glob(pattern, recursive=True))
        if not images:
            raise InputError(
                f"{folder}: no photos named *{IMAGE_END}.png in it or below. dataset_root must hold leftImg8bit/ and "
                f"gtFine/ with a folder {self.mode}; or set {self.mode}_path to a list file."
            )
        return [(image, self._label_of(image)) for image in images]

    def _label_of(self, image: str) -> str | None:
        """The label file of a photo; where there is none, the name it should have (nothing in mode test)."""
        relative = os.path.relpath(image, os.path.join(self.dataset_root, "leftImg8bit"))
        stem = os.path.join(self.dataset_root, "gtFine", relative[: relative.rindex(IMAGE_END)])
        ends = [LABEL_END] if self.num_classes == 34 else [LABEL_END, TRAIN_END]
        for end in ends:
            if os.path.isfile(stem + end):
                return stem + end
        return None if self.mode == "test" else stem + ends[0]

    def read_label(self, index: int) -> np.ndarray:
        label = super().read_label(index)
        path = self.files[index][1]
        if path.endswith("labelTrainIds.png"):
            if self.num_classes == 34:
                raise InputError(
                    f"{path}: it holds the 19 train ids (expected *{LABEL_END} for num_classes: 34). "
                    "List the label-id files, or set num_classes: 19."
                )
            return label
        if self.num_classes == 34 or not path.endswith("labelIds.png"):
            return label
        check_range(label, len(LABELS), 255, path)
        table = np.full(256, self.ignore_index, dtype=self._label_type)
        for label_id, (_, train_id, _) in enumerate(LABELS):
            if train_id != 255:
                table[label_id] = train_id
        return table[label]
