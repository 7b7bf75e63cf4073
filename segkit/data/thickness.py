"""How thick the parts of a class are, which tells how far photos may be shrunk before thin ones vanish."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segkit._cv2 import cv2
from segkit.data.samples import each
from segkit.data.split import Sample
from segkit.io import read_label

KEPT = 0.75  # share of a class's pixels that must be in parts of the thickness, so that specks and tips do not count
LABELS = 16  # of a data set, which are looked at
LONG = 2048  # pixels: larger labels are thinned out to it, as photos are shrunk to it at most for thin parts
WIDTHS = [2.0 * 1.15**step for step in range(30)]  # up to 115 pixels; thicker parts bear any shrinking


def thickness(mask: np.ndarray) -> float:
    """Pixels, to within about one: the widest disk of `WIDTHS` of which copies inside `mask` (bool [H, W], not
    empty) cover `KEPT` of it. What the border of the picture cuts goes on beyond it.

    This is granulometry by opening (Matheron 1975), with the disks from distance transforms.
    """
    across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = (slice(max(down[0] - 1, 0), down[-1] + 2), slice(max(across[0] - 1, 0), across[-1] + 2))
    inside = mask[box].astype(np.uint8)
    if inside.all():
        return WIDTHS[-1]
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    low, high = 0, len(WIDTHS)  # WIDTHS[low] fits: every pixel is as thick
    while high - low > 1:
        middle = (low + high) // 2
        if _covered(inside, depth, WIDTHS[middle]) >= KEPT:
            low = middle
        else:
            high = middle
    return WIDTHS[low]


def _covered(inside: np.ndarray, depth: np.ndarray, width: float) -> float:
    """Share of `inside` that disks of this width cover. `depth` is in pixels from centre to centre."""
    outside = (depth < width / 2).astype(np.uint8)
    if outside.all():
        return 0.0
    near = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) < width / 2
    return float((near & (inside > 0)).sum() / inside.sum())


def of_labels(root: Path, samples: list[Sample], parts: list[str], classes: int) -> np.ndarray:
    """float [classes]: the median thickness of each class over some train labels below `root`, as a share of the
    photo's long side; NaN for class 0 and for classes that are not seen."""
    train = [sample for sample, part in zip(samples, parts) if part == "train"]
    chosen = [train[k] for k in np.unique(np.linspace(0, len(train) - 1, LABELS).astype(int))]

    def work(sample: Sample) -> np.ndarray:
        label = read_label(root / sample.label)
        step = -(-max(label.shape) // LONG)
        label = label[::step, ::step]
        found = np.full(classes, np.nan)
        for number in np.unique(label[(label > 0) & (label < classes)]):
            found[number] = thickness(label == number) / max(label.shape)
        return found

    rows = np.stack(each(work, chosen, "thickness", lambda sample: sample.label)[0])
    return np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in rows.T])
