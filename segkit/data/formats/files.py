"""Finding photos, masks and class names in the folders that people have."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterable, Optional

from segkit.data.formats.base import natural
from segkit.datasets.lists import read_text
from segkit.errors import InputError
from segkit.io import IMAGE_SUFFIXES

NAME_FILES = ("labels.txt", "classes.txt", "class_names.txt", "label_names.txt")
CONVERTED = "segkit_data"
SKIPPED = ("__MACOSX", "node_modules")
IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "jpegimages", "photos", "photo", "pictures", "inputs", "input", "x"),
    *("originals", "original", "origin", "raw_images", "leftimg8bit", "source", "sources", "rgb"),
)
LABEL_FOLDERS = (
    *("labels", "label", "masks", "mask", "segmentationclasspng", "segmentationclass", "annotations", "annotation"),
    *("gt", "ground_truth", "groundtruth", "targets", "target", "segmentation", "segmentations", "y", "anns", "ann"),
    *("seg", "labelids", "trainannot", "1st_manual", "label_images", "mask_images"),
)
PARTS = {
    **{"train": "train", "training": "train", "trn": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
LABEL_ENDS = ("_mask", "_label", "_labels", "_seg", "_gt", "_segmentation", "_annotation", "-mask", "_manual1", "_l")
IMAGE_ENDS = ("_image", "_img", "_leftimg8bit", "_sat", "_rgb")


def walk(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """All files below `folder` with these endings (any case), in natural order. Hidden ones, and what `segkit init`
    made there before, are left out; a link back to a folder above is not followed."""
    ends = tuple(suffixes)
    found: list[Path] = []
    been: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in been:
            folders[:] = []
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", CONVERTED)) and name not in SKIPPED)
        found += [Path(here, name) for name in files if not name.startswith(".") and name.lower().endswith(ends)]
    return sorted(found, key=natural)


def shown(path: Path, root: Path) -> str:
    """A path as messages give it."""
    return os.path.relpath(path, root) if root.is_dir() and path.is_relative_to(root) else str(path)


def part_of(path: Path) -> Optional[str]:
    """train, val or test, where a folder of a relative path is called so."""
    return next((PARTS[piece.lower()] for piece in path.parts if piece.lower() in PARTS), None)


def names_file(given: Optional[str], root: Path) -> Optional[Path]:
    """The file of class names: as given, else one of the usual names in `root`.

    Errors: the given one is not there.
    """
    if given is not None:
        for path in (Path(given).expanduser(), root / given):
            if path.is_file():
                return path
        raise InputError(f"--class_names {given}: no such file. Give a text file of one class name a line.")
    return next((root / name for name in NAME_FILES if (root / name).is_file()), None)


def lines_of(path: Path) -> list[str]:
    """The names in a file of class names; colours behind a name, as PaddleLabel writes them, are left out."""
    rows = (line.strip() for line in read_text(path, "file of class names").splitlines())
    return [re.sub(r"\s+-\s+\d+\s+\d+\s+\d+$", "", row) for row in rows if row]


def roots_around(root: Path) -> list[Path]:
    """Where the photos of annotation files in `root` may lie: there, or beside it: all of the folder above where `root`
    is called annotations or the like, else its folders of photos. Other data sets beside it are left alone."""
    here = root.absolute()
    if here.name.lower() in LABEL_FOLDERS:
        return [root, here.parent]
    beside = sorted(path for path in here.parent.iterdir() if path.name.lower() in IMAGE_FOLDERS and path.is_dir())
    return [root, *beside]


class Finder:
    """Photos by the names that annotation files give them, whatever folder, slashes and case they are written with.
    What lies below an earlier one of `roots` is preferred."""

    def __init__(self, roots: list[Path]):
        self.roots = [root for root in roots if root.is_dir()]
        self._indexes: dict[Path, dict[str, list[Path]]] = {}

    def find(self, given: str, near: Path, avoid: Optional[Path] = None) -> Path:
        """The photo that `given` means, in an annotation file of the folder `near`; nothing of the folder `avoid`.

        Errors: none, or several that fit equally well.
        """
        plain = given.replace("\\", "/")
        base = plain.rsplit("/", 1)[-1]
        for folder in (near, near.parent, *self.roots):
            for name in (plain.lstrip("/"), base):
                path = folder / name
                if name.lower().endswith(IMAGE_SUFFIXES) and path.is_file():
                    return path
        found: list[Path] = []
        for root in self.roots:
            found = list(dict.fromkeys(path.resolve() for path in self._index(root).get(base.lower(), [])))
            found = [path for path in found if avoid is None or avoid.resolve() not in path.parents]
            if found:
                break
        same_folder = [path for path in found if path.parent == near.resolve()]
        found = same_folder or found
        if len(found) > 1:
            tail = plain.lower().split("/")
            alike = [_common(tail, path) for path in found]
            found = [path for path, score in zip(found, alike) if score == max(alike)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"its photo '{given}' may be any of {len(found)} files ({found[0]}, {found[1]}, ...). Give the right "
                "folder with --images."
            )
        raise InputError(f"its photo '{given}' is not there. Put it beside, or give its folder with --images.")

    def _index(self, root: Path) -> dict[str, list[Path]]:
        """The photos below a root by their names in small letters."""
        if root not in self._indexes:
            index = self._indexes[root] = {}
            for path in walk(root, IMAGE_SUFFIXES):
                index.setdefault(path.name.lower(), []).append(path)
        return self._indexes[root]

    def beside(self, path: Path) -> Optional[Path]:
        """A photo of the same name as an annotation file, but for the ending."""
        for folder in (path.parent, *self.roots):
            if folder.is_dir():
                for found in sorted(folder.glob(f"{_escaped(path.stem)}.*")):
                    if found.suffix.lower() in IMAGE_SUFFIXES:
                        return found
        return None


def _escaped(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def _common(tail: list[str], path: Path) -> int:
    """How many of the last pieces of a path are the same."""
    pieces = [piece.lower() for piece in path.parts]
    count = 0
    while count < min(len(tail), len(pieces)) and tail[-1 - count] == pieces[-1 - count]:
        count += 1
    return count
