"""The data set of list files, and what all data sets share."""

from __future__ import annotations

import copy
import os
from typing import Any, ClassVar, Literal, Optional, Union

import numpy as np

from segkit.bands import fill_missing
from segkit.datasets.cache import make_cache
from segkit.datasets.labels import check_map, check_range, check_size, edge_map, remap
from segkit.datasets.lists import Pair, read_list
from segkit.datasets.names import Names, as_palette, find_names, fit_names, names_path
from segkit.errors import InputError, list_problems
from segkit.io import read_image, read_label
from segkit.log import logger
from segkit.registry import DATASETS
from segkit.transforms import Compose, Sample
from segkit.transforms.targets import AddMultiLabelAuxiliaryCategory

Classes = tuple[int, Optional[list[str]], Optional[list]]


@DATASETS.register
class Dataset:
    """Photos and label maps named by list files, `train.txt`, `val.txt` and `test.txt` below `dataset_root`.

    Args:
        transforms: built transforms, applied to image and label in training, else to the image alone.
        dataset_root: the folder that names in the lists are relative to.
        num_classes: classes 0..num_classes-1; may be left out where `class_names` tells it.
        mode: which list: train, val or test (where a line may be an image alone).
        train_path, val_path, test_path: the lists, relative to the working directory or `dataset_root`.
        separator: what stands between image and label; by default decided line by line.
        ignore_index: label value that counts for nothing; 255, or 65535 above 255 classes.
        img_channels: channels of `image`, whatever the files have.
        edge: also give `edge` [H, W] in training, 1 within 2 pixels of a border between classes.
        class_names: names, or a text file of one name a line; by default `dataset_root/classes.txt`.
        palette: [r, g, b] a class, for pictures and for masks saved as colours.
        use_multilabel: a pixel may have several classes: labels are binary planes side by side [H, C*W].
        label_map: {value in the file: class}, applied as labels are read, in training and evaluation.
        reduce_zero_label: after `label_map`, 0 becomes the ignored value, and 1, 2, ... become 0, 1, ...
        nodata: pixels whose every band has this value (and those not finite) are ignored, their values filled.
        cache: keep decoded samples for the next epochs, in memory (ram) or among the temporary files (disk).
    """

    NUM_CLASSES: ClassVar[Optional[int]] = None
    CLASS_NAMES: ClassVar[Optional[list[str]]] = None
    PALETTE: ClassVar[Optional[list]] = None
    IGNORE_INDEX: ClassVar[int] = 255
    LISTS: ClassVar[dict[str, str]] = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}

    def __init__(
        self,
        transforms: Optional[list],
        dataset_root: str,
        num_classes: Optional[int] = None,
        mode: Literal["train", "val", "test"] = "train",
        train_path: Optional[str] = None,
        val_path: Optional[str] = None,
        test_path: Optional[str] = None,
        separator: Optional[str] = None,
        ignore_index: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        class_names: Optional[Union[list[str], str]] = None,
        palette: Optional[list[list[int]]] = None,
        use_multilabel: bool = False,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        self.dataset_root = os.fspath(dataset_root)
        self.mode = mode
        self.training: bool = mode.startswith("train")
        """Whether labels go through the transforms too; whoever evaluates on a training list turns it off."""
        self.separator = separator
        self.edge = edge
        self.use_multilabel = use_multilabel
        self.transforms = Compose(list(transforms or []))
        self._label_transforms = [
            t for t in self.transforms.transforms if isinstance(t, AddMultiLabelAuxiliaryCategory)
        ]
        self._warned = False
        self._lists = {"train": train_path, "val": val_path, "test": test_path}
        self._check_arguments(class_names)
        self._take_facts(
            dataset_root=self.dataset_root,
            num_classes=num_classes,
            ignore_index=ignore_index,
            class_names=class_names,
            palette=palette,
            img_channels=img_channels,
            nodata=nodata,
        )
        self.reduce_zero_label = reduce_zero_label
        self.label_map = check_map(label_map, self.num_classes + reduce_zero_label, self.ignore_index)
        # Colours decode a mask only where someone declared them: guessing would hide a wrong file.
        self._label_palette = None if palette is None else as_palette(palette, self.num_classes)
        fits_bytes = self.num_classes <= 255 and 0 <= self.ignore_index <= 255
        self._label_type = np.uint8 if fits_bytes else np.int32
        self._ignored = self._label_type(self.ignore_index)
        self.files: list[Pair] = self.find_files()
        self.check_files()
        if self.num_classes > 255 and not use_multilabel:
            self.transforms = Compose([self._with_own_padding(t) for t in self.transforms.transforms])
        self._cache = make_cache(cache, self.files, self.img_channels)

    def _take_facts(self, **node: Any) -> None:
        facts = self.info(**node)
        self.num_classes: int = facts["num_classes"]
        self.ignore_index: int = facts["ignore_index"]
        self.class_names: list[str] = facts["class_names"]
        self.palette: np.ndarray = facts["palette"]
        self.img_channels: int = facts["img_channels"]
        self.nodata: Optional[float] = facts["nodata"]

    @classmethod
    def info(cls, **node: Any) -> dict[str, Any]:
        """num_classes, ignore_index, class_names, palette [n, 3], img_channels and nodata that a config node's
        arguments give. Looks at no photo, and works where the data set is absent."""
        root, given = node.get("dataset_root"), node.get("class_names")
        count, names, colours = cls.classes(node.get("num_classes"), root, given)
        if count is None or count < 1:
            raise InputError(
                f"{cls.__name__}: num_classes is missing (got {count}, expected a number above 0). "
                "Set it on the data set, background included."
            )
        if node.get("palette") is not None:
            colours = node["palette"]
        ignore = node.get("ignore_index")
        if ignore is None:
            ignore = cls.IGNORE_INDEX if count <= 255 else 65535
        return {
            "num_classes": count,
            "ignore_index": ignore,
            "class_names": fit_names(names, count, given),
            "palette": as_palette(colours, count)[:count],
            "img_channels": node.get("img_channels") or 3,
            "nodata": node.get("nodata"),
        }

    @classmethod
    def classes(cls, num_classes: int | None, root: str | None, names: Names) -> Classes:
        """Their number, their names and their colours, as far as arguments and files tell."""
        if cls.NUM_CLASSES is not None and num_classes not in (None, cls.NUM_CLASSES):
            raise InputError(
                f"{cls.__name__}: it has {cls.NUM_CLASSES} classes (got num_classes: {num_classes}). "
                "Leave num_classes out, or use the type Dataset."
            )
        found = find_names(names, root) if names or cls.CLASS_NAMES is None else list(cls.CLASS_NAMES)
        count = num_classes or cls.NUM_CLASSES or (len(found) if names and found else None)
        return count, found, cls.PALETTE

    def _check_arguments(self, class_names: Names) -> None:
        if self.mode not in self.LISTS:
            raise InputError(f"mode: unknown (got {self.mode!r}, expected {', '.join(self.LISTS)}). Use one of them.")
        if isinstance(class_names, str) and not os.path.isfile(names_path(class_names, self.dataset_root)):
            raise InputError(
                f"{class_names}: the file of class names is not there (also not below {self.dataset_root}). "
                "Mend the path in class_names, or leave it out."
            )

    def find_files(self) -> list[Pair]:
        """(image, label) paths of this mode. The list: as named, below the root, or its default name there."""
        return read_list(self.list_path(), self.dataset_root, self.separator, labels_optional=self.mode == "test")

    def list_path(self) -> str:
        """The list file of this mode; `InputError` where it is not there."""
        given = self._lists.get(self.mode)
        if given is None:
            tried = [os.path.join(self.dataset_root, self.LISTS[self.mode])]
        else:
            tried = [given, os.path.join(self.dataset_root, given)]
        for path in tried:
            if os.path.isfile(path):
                return path
        if not os.path.isdir(self.dataset_root):
            raise self.no_root()
        raise InputError(
            f"{tried[0]}: the list of {self.mode} samples is not there (tried {' and '.join(tried)}). "
            f"Set {self.mode}_path on the data set, or write the list, a line `image label` per sample."
        )

    def no_root(self) -> InputError:
        """What to say where `dataset_root` does not exist."""
        return InputError(
            f"{self.dataset_root}: the data set's folder is not there (working directory: {os.getcwd()}). "
            "Set dataset_root to where the data are."
        )

    def check_files(self) -> None:
        """`InputError` listing every image and label that is not there."""
        missing = []
        for image, label in self.files:
            for kind, path in (("image", image), ("label", label)):
                if path is not None and not os.path.isfile(path):
                    missing.append(f"{path}: {kind}")
        if missing:
            title = (
                f"{self.dataset_root}: of the {self.mode} samples, files that are not there: {len(missing)}. "
                "Mend the list or dataset_root, or restore them:"
            )
            raise InputError(list_problems(title, missing))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Sample:
        """Sample `index`: `image` [H, W, img_channels] as read, `label` [H, W] checked (or [H, W, C] planes of 0 and
        1 with `use_multilabel`; none where the list names none), `path` and an empty `geometry`."""
        kept = None if self._cache is None else self._cache.get(index)
        if kept is not None:
            return {**kept, "path": self.files[index][0], "geometry": []}
        sample = self._decode(index)
        if self._cache is not None:
            self._cache.put(index, sample)
        return sample

    def _decode(self, index: int) -> Sample:
        image_path, label_path = self.files[index]
        image, missing = fill_missing(read_image(image_path, self.img_channels), self.nodata)
        sample: Sample = {"image": image, "path": image_path, "geometry": []}
        if label_path is not None:
            label = self.mapped_label(index)
            if self.use_multilabel:
                sample["label"] = self._planes(image, label, self.files[index])
            else:
                check_size(image, label, image_path, label_path)
                check_range(label, self.num_classes, self.ignore_index, label_path)
                self._warn_of_white_masks(label, label_path)
                label = label.astype(self._label_type, copy=False)
                sample["label"] = label if missing is None else np.where(missing, self._ignored, label)
        return sample

    def read_label(self, index: int) -> np.ndarray:
        """The label map of sample `index` as it lies on disk, [H, W]; subclasses map other ids here."""
        return read_label(self.files[index][1], self._label_palette)

    def mapped_label(self, index: int) -> np.ndarray:
        """`read_label` with `label_map` and `reduce_zero_label` applied; its values are not checked."""
        return remap(self.read_label(index), self.label_map, self.reduce_zero_label, self.ignore_index)

    def get(self, index: int, rng: np.random.Generator) -> Sample:
        """Sample `index`, transformed: image and label in training, else the image alone, its label as on disk."""
        sample = self.read(index)
        label = None if self.training else sample.pop("label", None)
        sample = self.transforms(sample, rng)
        if label is not None:
            sample["label"] = label
            for transform in self._label_transforms:  # they change what a class is, not where it lies
                sample = transform(sample, rng)
        elif "label" in sample:
            self._finish_label(sample)
        return sample

    def _with_own_padding(self, transform: Any) -> Any:
        """With this data set's ignored value for 255, the transforms' default, which is a class here."""
        changes = [name for name in ("label_value", "ignore_index") if getattr(transform, name, None) == 255]
        if changes:
            transform = copy.copy(transform)
            for name in changes:
                setattr(transform, name, self.ignore_index)
        return transform

    def _finish_label(self, sample: Sample) -> None:
        """Padding made by the transforms becomes this data set's ignored value; the edge map is added."""
        label = sample["label"]
        if self.ignore_index != 255 and self.num_classes <= 255 and not self.use_multilabel:
            sample["label"] = label = np.where(label == 255, self.ignore_index, label).astype(self._label_type)
        if self.edge and "edge" not in sample:
            sample["edge"] = edge_map(label)

    def _planes(self, image: np.ndarray, label: np.ndarray, paths: Pair) -> np.ndarray:
        """[H, C*W] planes side by side -> [H, W, C], where C may lack the class that a transform adds."""
        planes = self.num_classes - len(self._label_transforms)
        check_size(image, label, *paths, planes=planes)
        check_range(label, 2, self.ignore_index, paths[1])
        height, width = image.shape[:2]
        return np.ascontiguousarray(label.reshape(height, planes, width).transpose(0, 2, 1)).astype(np.uint8)

    def _warn_of_white_masks(self, label: np.ndarray, path: str) -> None:
        """A 0/255 mask is legal where 255 is ignored, and trains on nothing."""
        if self._warned or self.num_classes != 2 or self.ignore_index != 255 or label.max(initial=0) < 255:
            return
        if not (label == 1).any():
            self._warned = True
            logger.warning(
                f"{path}: the mask has no class but 0, and 255 counts as ignored. If 255 is meant to be the "
                "foreground, divide the masks by 255, or nothing is learnt. (Said for the first such mask only.)"
            )
