"""Shapes of annotation tools drawn into masks, pixel for pixel as labelme draws them (measured: polygons by Pillow,
outline and filling, in the order of the list)."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np

from segkit.errors import InputError

LINE_WIDTH, POINT_RADIUS = 10, 5  # labelme's own
POLYGONS = ("polygon", "rotation", "quadrilateral", "oriented_rectangle")
LINES = ("line", "linestrip")
KINDS = (*POLYGONS, "rectangle", "circle", *LINES, "point", "mask")


def draw_shapes(shapes: list[Any], numbers: dict[str, int], size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W] of labelme shapes, later ones over earlier ones; what no shape covers is the background.

    `numbers`: class number of every label; `size`: (height, width).
    Errors: a shape of unknown kind, or without the points that its kind needs.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (size[1], size[0]), numbers["_background_"])
    pencil = ImageDraw.Draw(canvas)
    for index, shape in enumerate(shapes):
        number = numbers[str(shape.get("label"))]
        where = f"shape {index + 1} ('{shape.get('label')}')"
        kind = kind_of(shape)
        points = _points(shape, where)
        if kind == "mask":
            _paste(canvas, shape, points, number, where)
        else:
            _draw(pencil, kind, points, number, where)
    return np.array(canvas)


def kind_of(shape: dict) -> str:
    """The kind of a labelme shape; files of version 3 and older do not say it, and hold polygons."""
    return str(shape.get("shape_type") or "polygon")


def _points(shape: dict, where: str) -> list[tuple[float, float]]:
    try:
        points = [(float(x), float(y)) for x, y in shape.get("points") or []]
    except (TypeError, ValueError):
        raise InputError(f"{where}: its points are not pairs of numbers. Draw the shape again.") from None
    if not all(math.isfinite(value) and abs(value) < 1e7 for point in points for value in point):
        raise InputError(f"{where}: a point is not finite. Draw the shape again.")
    return points


def _draw(pencil: Any, kind: str, points: list[tuple[float, float]], number: int, where: str) -> None:
    if kind in POLYGONS:
        _need(len(points) >= 3, kind, points, "3 or more", where)
        pencil.polygon(points, outline=number, fill=number)
    elif kind == "rectangle":
        _need(len(points) in (2, 4), kind, points, "2 corners, or all 4", where)
        (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
        pencil.rectangle([left, top, right, bottom], outline=number, fill=number)
    elif kind == "circle":
        _need(len(points) == 2, kind, points, "the centre and one of the rim", where)
        (x, y), rim = points
        radius = math.hypot(x - rim[0], y - rim[1])
        pencil.ellipse([x - radius, y - radius, x + radius, y + radius], outline=number, fill=number)
    elif kind in LINES:
        _need(len(points) >= 2, kind, points, "2 or more", where)
        pencil.line(points, fill=number, width=LINE_WIDTH)
    elif kind == "point":
        _need(len(points) == 1, kind, points, "1", where)
        x, y = points[0]
        box = [x - POINT_RADIUS, y - POINT_RADIUS, x + POINT_RADIUS, y + POINT_RADIUS]
        pencil.ellipse(box, outline=number, fill=number)
    else:
        raise InputError(f"{where}: shapes of this kind are not known (got {kind}, expected {', '.join(KINDS)}).")


def _need(right: bool, kind: str, points: list, expected: str, where: str) -> None:
    if not right:
        raise InputError(
            f"{where}: a {kind} of {len(points)} points (expected {expected}). Mend or delete the shape in the tool."
        )


def _paste(canvas: Any, shape: dict, points: list[tuple[float, float]], number: int, where: str) -> None:
    """A mask shape: a small PNG whose pixels above 0 belong to it, its top-left corner at the first point."""
    from PIL import Image

    _need(len(points) == 2, "mask", points, "2 corners", where)
    try:
        stamp = np.array(Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or ""))))
    except (OSError, TypeError, ValueError, SyntaxError, binascii.Error):
        raise InputError(f"{where}: its mask is not a readable PNG. Draw the shape again.") from None
    stamp = stamp if stamp.ndim == 2 else stamp[..., 0]
    corner = (int(points[0][0]), int(points[0][1]))
    canvas.paste(number, (*corner, corner[0] + stamp.shape[1], corner[1] + stamp.shape[0]),
                 Image.fromarray((stamp > 0).astype(np.uint8) * 255))  # fmt: skip
