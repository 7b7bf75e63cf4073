"""What kind of masks a folder holds, told by a sample of their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segkit.errors import InputError
from segkit.io import ColourLabel, read_label

SAMPLE = 12
APART = 20  # gray levels this far apart are meant for the eye
KINDS = {
    "index": "masks of class numbers",
    "binary": "black and white masks",
    "color": "masks whose colours or gray levels are the classes",
}


def mask_kind(paths: list[Path]) -> str:
    """`index`, `binary` or `color`, by up to 12 of the masks."""
    step = max(1, len(paths) // SAMPLE)
    counts = np.zeros(256, np.int64)
    for path in paths[::step][:SAMPLE]:
        try:
            label = read_label(path)
        except ColourLabel:
            return "color"
        except InputError:  # said when it is drawn
            continue
        if label.dtype == np.uint8:
            counts += np.bincount(label.ravel(), minlength=256)
    return kind_of_counts(counts)


def kind_of_counts(counts: np.ndarray) -> str:
    """The kind by the pixels of each gray level, int [256]."""
    values = np.flatnonzero(counts).tolist()
    if len(values) == 2 and values[0] == 0 and values[1] >= APART:
        return "binary"
    ends = counts[0] + counts[255]
    if len(values) > 2 and counts[0] and counts[255] and ends > 0.9 * counts.sum() and values[-2] >= APART:
        between = np.diff(values)
        if len(values) > 8 or between.min() < APART:  # a few pixels of all levels between: smoothed edges
            return "binary" if len(values) > 40 else "index"
    steps = np.diff(values)
    return "color" if len(values) > 2 and steps.min() >= APART else "index"
