"""Masks as a COCO file: polygons along the edges of the pixels, exact when drawn again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from segkit import io
from segkit._cv2 import cv2
from segkit.polygons import column_runs, is_background, pieces, seen_from


class CocoFile:
    """Collects the masks of photos; `write` makes the file. An annotation is a connected region of a class.

    The category's id is the class number. Class 0 is what nothing covers if that is what its name says; pixels of no
    class (below a threshold, say) are a crowd, which is not trained on.
    """

    def __init__(self, path: Path, classes: list[str]):
        # PaddleSeg's deploy.yaml names no classes: then their numbers stand for them.
        self.path, self.classes = path, classes or [str(number) for number in range(255)]
        self._found: dict[str, tuple[tuple[int, int], list[dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    def add(self, photo: str, mask: np.ndarray) -> None:
        """The mask [H, W] of the photo of that path; from any thread."""
        found = [_annotation(value, *region) for value in self._values(mask) for region in _regions(mask == value)]
        outside = mask >= len(self.classes)
        if outside.any():
            found.append(_crowd(outside, len(self.classes) - 1))
        with self._lock:
            self._found[seen_from(self.path.parent, photo)] = (mask.shape, found)

    def _values(self, mask: np.ndarray) -> list[int]:
        values = [int(value) for value in np.unique(mask) if value < len(self.classes)]
        return [value for value in values if value or not is_background(self.classes[0])]

    def write(self) -> None:
        """Write the file, photos in the order of their names."""
        images, annotations = [], []
        for number, name in enumerate(sorted(self._found), start=1):
            (height, width), found = self._found[name]
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for item in found:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **item})
        categories = [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in enumerate(self.classes)
            if number or not is_background(name)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        io.write_bytes_atomic(self.path, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def _regions(plane: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """(plane of 0 and 1, x, y of its corner) of every region, whose pixels share sides."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(plane.view(np.uint8), connectivity=4)
    found = []
    for number in range(1, count):
        x, y, width, height = (int(side) for side in boxes[number][:4])
        found.append(((numbers[y : y + height, x : x + width] == number).view(np.uint8), x, y))
    return found


def _annotation(value: int, plane: np.ndarray, x: int, y: int) -> dict[str, Any]:
    rings = [[place + start for corner in ring for place, start in zip(corner, (x, y))] for ring in pieces(plane)]
    box = [x, y, plane.shape[1], plane.shape[0]]
    return {"category_id": value, "segmentation": rings, "area": int(plane.sum()), "bbox": box, "iscrowd": 0}


def _crowd(plane: np.ndarray, category: int) -> dict[str, Any]:
    """Run lengths: crowds have no polygons in COCO."""
    x, y, width, height = cv2.boundingRect(plane.view(np.uint8))
    return {
        "category_id": category,
        "segmentation": {"counts": column_runs(plane).tolist(), "size": list(plane.shape)},
        "area": int(plane.sum()),
        "bbox": [x, y, width, height],
        "iscrowd": 1,
    }
