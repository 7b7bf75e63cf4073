"""Photos and labels as small pictures, for pages and contact sheets."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit._cv2 import cv2
from segkit.palette import voc_palette

WRONG = (255, 0, 255)  # values that are no classes
IGNORED = (255, 255, 255)


def class_colours(dataset: Any, declared: bool = True) -> np.ndarray:
    """uint8 [n, 3]: the data set's colours, or VOC's where its classes are not known."""
    return np.array(dataset.palette if declared else voc_palette(256), np.uint8)


def overlay(photo: np.ndarray, label: np.ndarray, dataset: Any, declared: bool = True) -> np.ndarray:
    """The photo (uint8 [H, W, 3]) under its label [H, W]: classes above 0 in their colours, ignored pixels whitened,
    values that are no classes magenta."""
    colours = class_colours(dataset, declared)
    count = dataset.num_classes if declared else 255
    classes = (label > 0) & (label < count) & (label != dataset.ignore_index)
    ignored = label == dataset.ignore_index
    wrong = ((label < 0) | (label >= count)) & ~ignored
    drawn = photo.copy()
    for mask, colour, share in ((classes, colours[np.where(classes, label, 0)], 0.5), (ignored, IGNORED, 0.45)):
        drawn[mask] = (photo * share + np.asarray(colour) * (1 - share)).astype(np.uint8)[mask]
    drawn[wrong] = WRONG
    return drawn


def thumbnail(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture made no larger than `side` on its long side."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def sheet(tiles: list[np.ndarray], columns: int, gap: int = 6) -> np.ndarray:
    """Pictures of any sizes in rows on a white ground, uint8 [H, W, 3]."""
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    width = max(sum(tile.shape[1] + gap for tile in row) for row in rows) + gap
    height = sum(max(tile.shape[0] for tile in row) + gap for row in rows) + gap
    canvas = np.full((height, width, 3), 255, np.uint8)
    top = gap
    for row in rows:
        left = gap
        for tile in row:
            canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            left += tile.shape[1] + gap
        top += max(tile.shape[0] for tile in row) + gap
    return canvas
