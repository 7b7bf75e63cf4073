"""Legends, rows `input | label | prediction` and pages of them. Needs Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from segkit._cv2 import cv2
from segkit.deploy.fonts import font_for, readable

_INK, _PAPER, _RIM = (20, 20, 20), (255, 255, 255), (120, 120, 120)
_GAP = 8
_NARROWEST = 200  # pixels that a legend needs
_LARGE, _SMALL = 640, 240  # the long side of a panel: larger ones are shrunk, smaller ones enlarged


@dataclass(frozen=True)
class Entry:
    """A class in a legend: number, name and RGB colour."""

    number: int
    name: str
    colour: tuple[int, int, int]


def entries(masks: list[np.ndarray], classes: list[str], palette: np.ndarray) -> list[Entry]:
    """The classes that occur in any of the masks, [H, W] of numbers or planes [C, H, W] of 0 and 1, in their order."""
    found: set[int] = set()
    for mask in masks:
        occurs = np.flatnonzero(mask.any(axis=(1, 2))) if mask.ndim == 3 else np.unique(mask)
        found |= {int(number) for number in occurs}
    return [
        Entry(number, classes[number], tuple(map(int, palette[number])))  # type: ignore[arg-type]
        for number in sorted(found)
        if number < len(classes)
    ]


def legend(items: list[Entry], width: int, size: Optional[int] = None) -> np.ndarray:
    """uint8 [H, width, 3]: a coloured square and the name of each class, in as many lines as it takes. `size`: of the
    letters, pixels."""
    from PIL import Image, ImageDraw

    size = size or int(np.clip(width // 64, 14, 48))
    font = font_for("".join(item.name for item in items), size)
    names = readable([item.name for item in items], [item.number for item in items], font)
    line, box = size + _GAP, size - 2
    places, x, y = [], _GAP, _GAP
    for index, name in enumerate(names):
        names[index] = name = _shortened(name, font, width - box - 3 * _GAP)
        wide = box + _GAP + round(font.getlength(name))
        if x > _GAP and x + wide > width - _GAP:
            x, y = _GAP, y + line
        places.append((x, y))
        x += wide + 2 * _GAP
    canvas = Image.new("RGB", (width, y + line if items else 0), _PAPER)
    pencil = ImageDraw.Draw(canvas)
    for item, name, (x, y) in zip(items, names, places):
        pencil.rectangle([x, y, x + box, y + box], fill=item.colour, outline=_RIM)
        pencil.text((x + box + _GAP, y + box / 2), name, fill=_INK, font=font, anchor="lm")
    return np.array(canvas)


def _shortened(name: str, font: object, width: int) -> str:
    """The name as far as it fits into `width` pixels."""
    short = name
    while len(short) > 1 and font.getlength(short) > width:  # type: ignore[attr-defined]
        short = short[:-2] + "."
    return short


def with_legend(picture: np.ndarray, items: list[Entry], size: Optional[int] = None) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with a strip below; a narrow one gets white beside it. `size`: see `legend`."""
    width = max(picture.shape[1], _NARROWEST)
    return np.concatenate([_widened(picture, width), legend(items, width, size)])


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    canvas = np.full((picture.shape[0], width, 3), _PAPER, np.uint8)
    canvas[:, : picture.shape[1]] = picture
    return canvas


def row(panels: list[tuple[str, np.ndarray]], items: list[Entry]) -> np.ndarray:
    """Titled pictures of one size, uint8 [H, W, 3], side by side, and the legend below."""
    fitted = [_fitted(picture) for _, picture in panels]
    size = int(np.clip(max(fitted[0].shape) // 21, 14, 30))  # the same in all rows of a page whose photos are large
    shown = [_titled(title, picture, size) for (title, _), picture in zip(panels, fitted)]
    gap = np.full((shown[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    line = np.concatenate([part for picture in shown for part in (picture, gap)][:-1], axis=1)
    return with_legend(line, items, size)


def _fitted(picture: np.ndarray) -> np.ndarray:
    """Large pictures made smaller, small ones enlarged so many times as is whole."""
    height, width = picture.shape[:2]
    side = max(height, width)
    if side > _LARGE:
        size = (max(1, round(width * _LARGE / side)), max(1, round(height * _LARGE / side)))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    times = max(1, _SMALL // side)
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _titled(title: str, picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    font = font_for(title, size)
    width = max(picture.shape[1], round(font.getlength(title)))
    strip = Image.new("RGB", (width, size + _GAP), _PAPER)
    ImageDraw.Draw(strip).text((0, size // 2 + 2), title, fill=_INK, font=font, anchor="lm")
    return np.concatenate([np.array(strip), _widened(picture, width)])


def page(rows: list[np.ndarray]) -> np.ndarray:
    """Rows below each other on white, uint8 [H, W, 3]."""
    width = max(picture.shape[1] for picture in rows) + 2 * _GAP
    canvas = []
    for picture in rows:
        margin = np.pad(picture, ((_GAP, _GAP), (_GAP, 0), (0, 0)), constant_values=255)
        canvas.append(_widened(margin, width))
    return np.concatenate(canvas)
