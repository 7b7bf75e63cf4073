"""Folders of labelme's json_to_dataset: img.png, label.png and label_names.txt, one folder a photo.

The numbers in label.png differ from folder to folder; label_names.txt says what they mean.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data.formats.base import (
    IGNORED,
    Labelled,
    Photo,
    ReadOptions,
    is_background,
    natural,
    numbers_of,
    tidy_names,
    unknown_labels,
)
from segkit.data.formats.files import lines_of, names_file, part_of, shown, walk
from segkit.errors import InputError
from segkit.io import IMAGE_SUFFIXES, read_label

NAME = "labelme_folders"


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    count = len(_folders(source)) if source.is_dir() else 0
    others = len(walk(source, (".json",))) if count else 0  # files beside them that nobody exported
    return (
        0.0 if not count else 0.95 if count >= others else 0.85
    ), f"{count} folders with img.png, label.png and label_names.txt"


def _folders(source: Path) -> list[Path]:
    found = [path.parent for path in walk(source, ("label.png",)) if path.name == "label.png"]
    return sorted((folder for folder in found if _photo(folder)), key=natural)


def _photo(folder: Path) -> Path | None:
    found = [folder / f"img{suffix}" for suffix in IMAGE_SUFFIXES]
    return next((path for path in found if path.is_file()), None)


def read(source: Path, options: ReadOptions) -> Labelled:
    """Numbers are mapped by name; classes are those of all folders together."""
    found: dict[str, list[str]] = {}
    photos, problems = [], []
    numbers: dict[str, int] = {}
    for folder in _folders(source):
        where = shown(folder, source)
        names_here = folder / "label_names.txt"
        if not names_here.is_file():
            problems.append(f"{where}: no label_names.txt, so its numbers mean nothing. Export it again from the JSON.")
            continue
        labels = lines_of(names_here)
        for label in dict.fromkeys(labels):
            found.setdefault(label, []).append(where)
        draw = functools.partial(_draw, folder / "label.png", labels, numbers)
        name = "photo" if folder == source else folder.relative_to(source).as_posix()
        photos.append(Photo(name, _photo(folder), draw, f"{where}/label.png", part_of(folder.relative_to(source))))
    path = (
        names_file(options.class_names, source) if options.class_names or not (source / "label.png").is_file() else None
    )
    if path is not None:
        names, notes = tidy_names(lines_of(path), str(path)), [f"class names and their order: {path}"]
    else:
        labels = sorted((name for name in found if not is_background(name)), key=natural)
        names, notes = tidy_names(labels, str(source)), ["class names: those of all label_names.txt together, sorted"]
    numbers.update(numbers_of(names))
    notes += unknown_labels(found, numbers, str(path or source), options.unknown)
    return Labelled(names, photos, problems, notes)


def _draw(path: Path, labels: list[str], numbers: dict[str, int]) -> np.ndarray:
    label = read_label(path)
    outside = [int(value) for value in np.unique(label) if value >= len(labels) and value != IGNORED]
    if outside:
        raise InputError(
            f"label values {outside[:10]} have no name in label_names.txt (it names 0..{len(labels) - 1}). "
            "Export the folder again from the JSON."
        )
    table = np.full(256, IGNORED, np.uint8)
    table[: len(labels)] = [numbers[name] for name in labels]
    return table[label]
