"""Outlines of masks, and labelme's JSON of them. No paddle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Optional

import numpy as np

from segkit import io
from segkit._cv2 import cv2

BACKGROUNDS = ("_background_", "background", "__background__")
_VERSION = "5.0.0"  # of labelme, whose files have looked alike since


def is_background(name: str) -> bool:
    """Whether a label means "nothing": `_background_`, or the plain word."""
    return name.lower() in BACKGROUNDS


def outlines(mask: np.ndarray, background: Optional[int] = None) -> list[tuple[int, np.ndarray]]:
    """(class number, corners int32 [n, 2] as x, y) of every region of `mask` [H, W], in the order of painting.

    Filled in this order, the outline included, they give the mask again, pixel for pixel: a region inside another
    one comes after it. Regions of `background` are left out where they lie in no other one.
    """
    found = []
    for value in np.unique(mask):
        found += [(int(value), corners) for corners in _regions((mask == value).view(np.uint8))]
    found.sort(key=lambda item: cv2.contourArea(item[1]), reverse=True)
    if background is None:
        return found
    painted = np.zeros(mask.shape, np.uint8)
    for value, corners in found:
        if value != background:
            cv2.fillPoly(painted, [corners], 1)
    return [(value, corners) for value, corners in found if value != background or painted[tuple(corners[0][::-1])]]


def _regions(plane: np.ndarray) -> list[np.ndarray]:
    """The outer outline of each region, whose pixels share sides: what lies inside it lies there wholly."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(plane, connectivity=4)
    found = []
    for number in range(1, count):
        left, top, width, height = (int(side) for side in boxes[number][:4])
        part = (numbers[top : top + height, left : left + width] == number).view(np.uint8)
        (outline, *_), _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
        found.append(outline[:, 0])
    return found


def write_labelme(path: Path, mask: np.ndarray, classes: list[str], photo: Optional[str] = None) -> None:
    """A labelme JSON of a mask [H, W]. Pixels of no class (below a threshold, say) become `__ignore__`.

    Class 0 is what no shape covers if that is what its name says, or if it has none. `photo`: the picture's path.
    """
    background = 0 if not classes or is_background(classes[0]) else None
    shapes = []
    for value, corners in outlines(mask, background):
        points = corners.tolist()
        points += points[:1] * (3 - len(points))  # a polygon of labelme has three at least
        if value == background:
            label = BACKGROUNDS[0]
        else:
            label = classes[value] if value < len(classes) else str(value) if value < 255 else "__ignore__"
        shapes.append({"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}})
    content = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": None if photo is None else _from(path.parent, photo),
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    io.write_bytes_atomic(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def _from(folder: Path, photo: str) -> str:
    """The photo's path as seen from `folder`, with slashes on every system."""
    try:
        return os.path.relpath(photo, folder).replace(os.sep, "/")
    except ValueError:  # on another drive of Windows
        return os.path.abspath(photo)
