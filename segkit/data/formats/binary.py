"""Black and white masks: 0 is the background, the one other gray level (255, say) the foreground."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data.formats.base import Labelled, Photo, ReadOptions
from segkit.data.formats.files import lines_of, names_file, shown
from segkit.data.formats.index import detect_kind
from segkit.data.formats.pairs import find_pairs
from segkit.errors import InputError
from segkit.io import read_label

NAME = "binary"


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    return detect_kind(source, images, NAME)


def read(source: Path, options: ReadOptions) -> Labelled:
    """Two classes, called background and foreground where no file of two names is there."""
    pairs = find_pairs(source, options.images)
    path = names_file(options.class_names, source)
    names = ["background", "foreground"]
    if path is not None and len(lines_of(path)) in (1, 2):
        names = [*names[:1], *lines_of(path)][-2:]
    elif options.class_names:
        raise InputError(f"{path}: black and white masks have 2 classes (got {len(lines_of(path))} names). Mend it.")
    photos = [
        Photo(name, image, functools.partial(_draw, mask, options.threshold), shown(mask, source), part)
        for name, image, mask, part in pairs.items
    ]
    return Labelled(names, photos, pairs.problems, pairs.notes)


def _draw(path: Path, threshold: Optional[int]) -> np.ndarray:
    label = read_label(path)
    if threshold is not None:
        return (label >= threshold).astype(np.uint8)
    values, counts = np.unique(label, return_counts=True)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        between = int(counts[(values > 0) & (values < values[-1])].sum())
        raise InputError(
            f"not black and white (got {len(values)} gray levels, {values[0]} to {values[-1]}; {between} pixels "
            "between, as smoothed edges have). Give --threshold 128, or --format index or color for several classes."
        )
    return (label > 0).astype(np.uint8)
