"""What `segkit data check|stats|preview` look at: the data sets of a config, or of a folder as people have it."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from segkit import build, runtime
from segkit.config import Config
from segkit.datasets import Dataset
from segkit.datasets.lists import ListError, Pair
from segkit.datasets.names import find_names
from segkit.datasets.voc import NAME_FILES, VOC
from segkit.errors import InputError
from segkit.io import IMAGE_SUFFIXES
from segkit.registry import DATASETS

OWN_CONFIG = "segkit.yml"
PARTS = ("train", "val", "test")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "photos")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "SegmentationClassPNG", "SegmentationClass")
ENDS = ("", "_mask", "_label", "_labels", "_gt", "-mask", "_seg")  # what a label's name adds to its photo's


@dataclass
class Part:
    """One part of a data set, `train` say. `problems`: what is wrong with its list; `unlabelled`, `unused`: photos
    and labels of a folder that have no partner."""

    name: str
    dataset: Any
    problems: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


@dataclass
class Source:
    """The parts of a data set. `declared`: whether the number of classes is known, rather than found in labels."""

    path: str
    parts: list[Part]
    declared: bool
    config: Optional[Config] = None

    @property
    def root(self) -> str:
        """The folder that shorter names of files are relative to."""
        return self.parts[0].dataset.dataset_root

    def short(self, path: str) -> str:
        """`path` relative to the data set's folder where it lies in it."""
        relative = os.path.relpath(path, self.root)
        return path if relative.startswith(os.pardir) else relative


class _Lenient:
    """A registry of data sets whose classes keep what is wrong with their files instead of raising it."""

    kind = DATASETS.kind

    def get(self, name: str) -> type:
        return lenient(DATASETS.get(name))


@functools.cache
def lenient(cls: type) -> type:
    """A subclass of a data set that does not look whether its files are there, and has `problems`, lines of text."""

    def find_files(self: Any) -> list[Pair]:
        self.problems = []
        try:
            return cls.find_files(self)
        except ListError as error:
            self.problems = error.problems
            return error.pairs
        except InputError as error:
            self.problems = [str(error)]
            return []

    return type(cls.__name__, (cls,), {"find_files": find_files, "check_files": lambda self: None})


def open_source(path: str, opts: Optional[list[str]] = None) -> Source:
    """The data sets of a config file, or of a folder: one that holds segkit.yml, lists, a VOC or Cityscapes layout,
    or two folders of photos and labels with the same names.

    Errors: nothing of that sort there; a config that cannot be used.
    """
    if os.path.isfile(path):
        return _of_config(path, opts)
    if not os.path.isdir(path):
        raise InputError(f"{path}: there is no such config or folder. Give a YAML config, or the data set's folder.")
    own = os.path.join(path, OWN_CONFIG)
    if os.path.isfile(own):
        return _of_config(own, opts)
    return _of_folder(path)


def _of_config(path: str, opts: Optional[list[str]]) -> Source:
    if importlib.util.find_spec("paddle") is not None:  # the check of a config asks it: load it without its noise
        runtime.require_paddle()
    cfg = Config(path, opts or [])
    parts = []
    for name in ("train", "val"):
        if cfg.data.get(f"{name}_dataset") is not None:
            cfg.data[f"{name}_dataset"].pop("cache", None)  # every file is looked at once
            dataset = build.build_dataset(cfg, name, registry=_Lenient())
            parts.append(Part(name, dataset, dataset.problems))
    return Source(path, parts, True, cfg)


def _of_folder(root: str) -> Source:
    names = find_names(None, root, NAME_FILES)
    declared = bool(names)
    # Without names 0..254 are classes until the labels have been seen.
    facts = {"num_classes": len(names) if names else 255, "ignore_index": 255, "class_names": names}
    below = set(os.listdir(root))
    lists = {part: name for part in PARTS for name in (f"{part}.txt", f"{part}_list.txt") if name in below}
    parts = []
    if {"leftImg8bit", "gtFine"} <= below:
        cls, facts, declared = DATASETS.get("Cityscapes"), {}, True
        lists = {part: None for part in PARTS if os.path.isdir(os.path.join(root, "leftImg8bit", part))}
    elif "JPEGImages" in below and not lists:
        cls, lists = VOC, dict.fromkeys(("train", "val"))
    elif lists:
        cls = Dataset
    else:
        images, labels = _two_folders(root)
        pairs, alone, unused = _by_name(images, labels)
        cls = type("Folder", (Dataset,), {"find_files": lambda self: pairs})
        dataset = lenient(cls)(None, root, **facts)
        return Source(root, [Part("all", dataset, dataset.problems, alone, unused)], declared)
    for part, name in lists.items():
        given = {f"{part}_path": os.path.join(root, name)} if name else {}
        dataset = lenient(cls)(None, root, mode=part, **facts, **given)
        parts.append(Part(part, dataset, dataset.problems))
    return Source(root, parts, declared)


def _two_folders(root: str) -> tuple[str, str]:
    found = {name.lower(): os.path.join(root, name) for name in sorted(os.listdir(root))}
    found = {name: path for name, path in found.items() if os.path.isdir(path)}
    images = [found[name.lower()] for name in IMAGE_FOLDERS if name.lower() in found]
    labels = [found[name.lower()] for name in LABEL_FOLDERS if name.lower() in found]
    if not images or not labels:
        raise InputError(
            f"{root}: no data set is recognised there (expected train.txt, images/ and labels/, JPEGImages/ and "
            "SegmentationClass/, or leftImg8bit/ and gtFine/). Give a config, or make one of what is there with "
            "segkit data convert."
        )
    return images[0], labels[0]


def _by_name(images: str, labels: str) -> tuple[list[Pair], list[str], list[str]]:
    """(pairs, photos without a label, labels without a photo) of two folders, matched by names without endings."""
    masks = {path.relative_to(labels).with_suffix("").as_posix(): str(path) for path in _pictures(labels)}
    pairs: list[Pair] = []
    alone = []
    for path in _pictures(images):
        stem = path.relative_to(images).with_suffix("").as_posix()
        label = next((masks[stem + end] for end in ENDS if stem + end in masks), None)
        if label is None:
            alone.append(str(path))
        else:
            pairs.append((str(path), label))
    taken = {label for _, label in pairs}
    return pairs, alone, [path for path in masks.values() if path not in taken]


def _pictures(folder: str) -> list[Path]:
    return [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
