"""Colours of classes."""

from __future__ import annotations

import struct
import zlib
from typing import Sequence

import numpy as np

from segkit.errors import InputError


def voc_palette(n: int = 256) -> np.ndarray:
    """uint8 [n, 3], the PASCAL VOC colours in class order, 0 black: PaddleSeg's `get_color_map_list`.

    The bits of the class number are dealt out to red, green and blue in turn, from the highest bit of each down.
    Source: the colour map of the PASCAL VOC 2012 development kit.
    """
    classes = np.arange(n, dtype=np.int64)
    palette = np.zeros((n, 3), np.int64)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= ((classes >> (3 * step + channel)) & 1) << (7 - step)
    return palette.astype(np.uint8)


def parse_custom_color(values: Sequence[int], num_classes: int) -> np.ndarray:
    """uint8 [num_classes, 3] of the flat list that `--custom_color R G B R G B ...` gives.

    Errors: not three numbers a class, or a number outside 0-255.
    """
    flat = [int(value) for value in values]
    if len(flat) != 3 * num_classes:
        raise InputError(
            f"--custom_color: wrong number of values (got {len(flat)}, expected 3 for each of {num_classes} classes = "
            f"{3 * num_classes}). Give red, green and blue of every class in class order."
        )
    bad = [value for value in flat if not 0 <= value <= 255]
    if bad:
        raise InputError(f"--custom_color: colours out of range (got {bad}, expected 0 to 255). Mend these values.")
    return np.array(flat, np.uint8).reshape(num_classes, 3)


def check_palette(palette: object, name: str) -> np.ndarray:
    """uint8 [n, 3] of a list of colours as a config gives them: `[[0, 0, 0], [255, 0, 0], ...]`.

    Errors: not a list of triples, or values outside 0-255; `name` says where it stands.
    """
    try:
        array = np.asarray(palette)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise InputError(
            f"{name}: not a palette (got {palette!r:.80}, expected a list of [red, green, blue], each 0 to 255, "
            "one colour a class). Write one triple for each class, class 0 first."
        )
    return array.astype(np.uint8)


def palette_png(array: np.ndarray, palette: np.ndarray) -> bytes:
    """An 8-bit palette PNG (PNG specification, 11.2) of uint8 [H, W]; OpenCV cannot write these. Classes that the
    palette lacks get VOC colours."""
    colours = voc_palette(256)
    colours[: len(palette)] = palette[:256]
    height, width = array.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter type, 0: none
    rows[:, 1:] = array
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 4)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
