"""Outlines of masks, through the centres of their pixels (labelme's JSON) or along their edges. No paddle."""

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


def column_runs(plane: np.ndarray) -> np.ndarray:
    """Lengths of the runs of a plane of 0 and 1 down its columns as COCO counts them, the zeros first: int64 [n]."""
    flat = np.concatenate([np.zeros(1, plane.dtype), plane.ravel(order="F")])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(ends, prepend=0, append=plane.size)


def rings(plane: np.ndarray, tolerance: float = 0.0) -> list[list[list[list[int]]]]:
    """Closed rings [x, y] along the edges of the pixels of a plane of 0 and 1: for each part its outline, then holes.

    OpenCV's contours run through the centres of pixels. On the plane enlarged twice they run through the outer halves
    of the border pixels, outlines and holes alike, which tells the edges.
    """
    twice = plane.repeat(2, axis=0).repeat(2, axis=1)
    found, hierarchy = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list[list[list[int]]]] = {}
    gone = set()  # outlines that the tolerance left nothing of: their holes go with them
    for index, ring in enumerate(_corners([contour[:, 0] for contour in found])):
        if tolerance > 0:
            ring = cv2.approxPolyDP(np.array(ring, np.int32)[:, None], tolerance, True)[:, 0].tolist()
        outer = int(hierarchy.reshape(-1, 4)[index, 3])
        if outer < 0 and len(ring) > 2:
            parts.setdefault(index, []).insert(0, [*ring, ring[0]])
        elif len(ring) > 2:
            parts.setdefault(outer, []).append([*ring, ring[0]])
        elif outer < 0:
            gone.add(index)
    return [part for index, part in parts.items() if index not in gone]


def pieces(plane: np.ndarray) -> list[list[list[int]]]:
    """Rings as of `rings`, not closed and none in another one, that together cover a plane of 0 and 1: it is cut into
    strips along columns that meet all of its holes, as few as that takes."""
    if plane.all():  # specks, of which there may be very many
        height, width = plane.shape
        return [[[0, 0], [width, 0], [width, height], [0, height]]]
    holes = [[x for x, _ in hole] for _, *holes in rings(plane) for hole in holes]
    cuts = [0]
    for right, left in sorted((max(columns), min(columns)) for columns in holes):
        if left > cuts[-1]:
            cuts.append(right)
    found = []
    for begin, end in zip(cuts, [*cuts[1:], plane.shape[1]]):
        found += [[[x + begin, y] for x, y in ring[:-1]] for (ring,) in rings(plane[:, begin:end])]
    return found


def _corners(contours: list[np.ndarray]) -> list[list[list[int]]]:
    """Contours [n, 2] of the enlarged plane -> corners on the edges of the pixels: no point twice in a row, none on a
    straight line. All at once, for there may be very many."""
    points = (np.concatenate([np.zeros((0, 2), np.int32), *contours]) + 1) // 2
    ring = np.repeat(np.arange(len(contours)), [len(contour) for contour in contours])
    before, _ = _neighbours(ring)
    kept = (points != points[before]).any(axis=1)
    points, ring = points[kept], ring[kept]
    before, after = _neighbours(ring)
    come, go = points - points[before], points[after] - points
    kept = come[:, 0] * go[:, 1] != come[:, 1] * go[:, 0]
    rows, ends = points[kept].tolist(), np.searchsorted(ring[kept], np.arange(len(contours) + 1))
    return [rows[begin:end] for begin, end in zip(ends[:-1], ends[1:])]


def _neighbours(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the point before and after each, going round its ring; `ring`: the ring's number of each point."""
    order = np.arange(len(ring))
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    last = np.append(first[1:], len(ring))[: len(first)] - 1
    before, after = order - 1, order + 1
    before[first], after[last] = last, first
    return before, after


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
        "imagePath": None if photo is None else seen_from(path.parent, photo),
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    io.write_bytes_atomic(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def seen_from(folder: Path, photo: str) -> str:
    """The photo's path as seen from `folder`, with slashes on every system."""
    try:
        return os.path.relpath(photo, folder).replace(os.sep, "/")
    except ValueError:  # on another drive of Windows
        return os.path.abspath(photo)
