"""Masks of class numbers, ready but for their lists: gray, palette or 1-bit pictures, 255 ignored."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data.formats.base import IGNORED, Labelled, Photo, ReadOptions, tidy_names
from segkit.data.formats.files import lines_of, names_file, shown
from segkit.data.formats.mask_kind import KINDS, mask_kind
from segkit.data.formats.pairs import Pairs, find_pairs
from segkit.errors import InputError
from segkit.io import read_label

NAME = "index"


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    return detect_kind(source, images, NAME)


def detect_kind(source: Path, images: Optional[str], kind: str) -> tuple[float, str]:
    """For all formats of pictures: whether there are pairs, and masks of this kind."""
    try:
        pairs = find_pairs(source, images)
    except InputError:
        return 0.0, "no photos with masks of the same names"
    found = mask_kind([item[2] for item in pairs.items])
    return (0.5 if found == kind else 0.0), f"{len(pairs.items)} photos with {KINDS[found]}"


def read(source: Path, options: ReadOptions) -> Labelled:
    """Class names of the file that has them, else `class 1`, `class 2`, ..."""
    pairs = find_pairs(source, options.images)
    return read_numbers(source, options, pairs, None)


def read_numbers(source: Path, options: ReadOptions, pairs: Pairs, palette: Optional[np.ndarray]) -> Labelled:
    """Masks of class numbers, colours decoded by `palette` where there is one.

    Errors: values that the class names lack are a problem of each file.
    """
    path = names_file(options.class_names, source)
    names: list[str] = []
    if path is not None:
        names, notes = tidy_names(lines_of(path), str(path), background=False), [f"class names and their order: {path}"]
    else:
        top = _top([item[2] for item in pairs.items], palette)
        names, notes = (
            ["background", *(f"class {index}" for index in range(1, top + 1))],
            ["no class names found: classes are called by their numbers. Give them with --class_names FILE"],
        )
    photos = [
        Photo(name, image, functools.partial(_draw, label, len(names), palette), shown(label, source), part)
        for name, image, label, part in pairs.items
    ]
    return Labelled(names, photos, pairs.problems, pairs.notes + notes)


def _top(paths: list[Path], palette: Optional[np.ndarray]) -> int:
    """The largest class number of all masks."""
    top = 1
    for path in paths:
        try:
            label = read_label(path, palette)
        except InputError:  # said when it is drawn
            continue
        values = label[label < IGNORED]
        top = max(top, int(values.max(initial=0)))
    return top


def _draw(path: Path, count: int, palette: Optional[np.ndarray]) -> np.ndarray:
    label = read_label(path, palette)
    wrong = [int(value) for value in np.unique(label) if value >= count and value != IGNORED]
    if wrong:
        raise InputError(
            f"values that no class has (got {wrong[:10]}, expected 0..{count - 1} or {IGNORED}). Mend the mask, or add "
            "names; for black and white masks say --format binary, for gray levels or colours --format color."
        )
    return label.astype(np.uint8)
