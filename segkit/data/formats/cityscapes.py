"""Cityscapes trees: leftImg8bit/ and gtFine/ with *_labelIds.png or *_labelTrainIds.png."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data.formats.base import IGNORED, Labelled, Photo, ReadOptions
from segkit.data.formats.files import part_of, shown, walk
from segkit.datasets.cityscapes import IMAGE_END, LABEL_END, LABELS, TRAIN_END, TRAINED
from segkit.errors import InputError
from segkit.io import read_label

NAME = "cityscapes"


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    count = len(walk(source, (LABEL_END.lower(), TRAIN_END.lower()))) if source.is_dir() else 0
    return (0.95 if count else 0.0), f"{count} files *_labelIds.png or *_labelTrainIds.png"


def read(source: Path, options: ReadOptions) -> Labelled:
    """The 19 classes that are evaluated; all other label ids are ignored."""
    photos, problems = [], []
    labels = walk(source, (LABEL_END.lower(), TRAIN_END.lower()))
    stems = {str(path)[: -len(_end(path))]: path for path in sorted(labels, key=lambda path: _end(path) == LABEL_END)}
    for image in walk(Path(options.images) if options.images else source, (f"{IMAGE_END.lower()}.png", ".jpg")):
        stem = image.stem[: -len(IMAGE_END)]
        fits = [key for key in stems if Path(key).name == stem]
        if not fits:
            problems.append(f"{shown(image, source)}: no {stem}{LABEL_END} in the tree. Add it, or take the photo out.")
            continue
        label = stems[fits[0]]
        where = image.relative_to(source) if image.is_relative_to(source) else Path(image.name)
        draw = functools.partial(_draw, label)
        photos.append(Photo(stem, image, draw, shown(label, source), part_of(where)))
    names = [name for name, _, _ in TRAINED]
    notes = ["classes: the 19 that Cityscapes evaluates; the data set type Cityscapes also trains with no conversion"]
    return Labelled(names, photos, problems, notes, np.array([colour for _, _, colour in TRAINED], np.uint8))


def _end(path: Path) -> str:
    return LABEL_END if path.name.endswith(LABEL_END) else TRAIN_END


def _draw(path: Path) -> np.ndarray:
    label = read_label(path)
    train_ids = _end(path) == TRAIN_END
    top = len(TRAINED) if train_ids else len(LABELS)
    wrong = [int(value) for value in np.unique(label) if value >= top and value != IGNORED]
    if wrong:
        raise InputError(f"values that are no Cityscapes ids (got {wrong[:10]}, expected 0..{top - 1}). Mend the mask.")
    if train_ids:
        return label.astype(np.uint8)
    table = np.full(256, IGNORED, np.uint8)
    table[: len(LABELS)] = [train_id for _, train_id, _ in LABELS]
    return table[label]
