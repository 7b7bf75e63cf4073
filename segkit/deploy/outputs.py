"""Masks and overlays as files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Optional

import numpy as np

from segkit import io
from segkit._cv2 import cv2
from segkit.palette import voc_palette


def full_palette(palette: Optional[np.ndarray]) -> np.ndarray:
    """uint8 [256 or more, 3]: the classes' own colours, PaddleSeg's for the other values."""
    colours = voc_palette(max(256, 0 if palette is None else len(palette)))
    if palette is not None:
        colours[: len(palette)] = palette
    return colours


def write_mask(folder: Path, name: str, mask: np.ndarray, palette: Optional[np.ndarray], classes: list[str]) -> None:
    """`folder/name.png` with the class numbers as pixel values, a palette PNG where a palette is given. Planes
    [C, H, W] (several labels a pixel) become `folder/name/<class>.png` of 0 and 1 each."""
    if mask.ndim == 2:
        io.write_png(folder / f"{name}.png", mask, palette)
        return
    for number, plane in enumerate(mask):
        label = classes[number] if number < len(classes) else str(number)
        colours = None
        if palette is not None:
            colours = full_palette(palette)
            colours[0], colours[1] = 0, palette[number]
        io.write_png(folder / name / f"{_file_name(label)}.png", plane, colours)


def write_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, whole or not at all."""
    buffer = BytesIO()
    np.save(buffer, array)
    io.write_bytes_atomic(path, buffer.getvalue())


def draw_overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, style: str = "filled", opacity: float = 0.4
) -> np.ndarray:
    """The photo [H, W, C] under the colours of its mask, uint8 [H, W, 3]; planes are drawn one over another.

    `style`: filled, contour or both; `opacity`: the share of the colours where they fill. A contour lies inside its
    region, so that neighbours, the background too, set each other off.
    """
    picture = as_rgb(image)
    if mask.ndim == 2:
        return _drawn(picture, mask, mask, palette, style, opacity)
    for number, plane in enumerate(mask):
        inside = plane > 0
        numbers = np.full(plane.shape, number, np.int32)
        coloured = _drawn(picture, numbers, plane, palette, style, opacity)
        picture = np.where(inside[:, :, None], coloured, picture)
    return picture


def _drawn(
    picture: np.ndarray, mask: np.ndarray, regions: np.ndarray, palette: np.ndarray, style: str, opacity: float
) -> np.ndarray:
    drawn = picture.copy() if style == "contour" else io.overlay(picture, mask, palette, 1 - opacity)
    if style != "filled":
        line = _border(regions) & (mask < len(palette))
        drawn[line] = palette[mask[line]]
    return drawn


def _border(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixels beside another value; the wider, the larger the photo."""
    width = max(1, round(min(mask.shape) / 300))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    plain = mask.astype(np.uint16)
    return (cv2.dilate(plain, kernel) != plain) | (cv2.erode(plain, kernel) != plain)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of an image [H, W, C]: its first three bands, or the only one thrice; numbers of other types
    are stretched from their 1st to their 99th percentile (a few glaring pixels must not make the rest black)."""
    picture = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    good = picture[np.isfinite(picture)]
    low, high = np.percentile(good, (1, 99)) if good.size else (0.0, 1.0)
    scaled = (np.nan_to_num(picture.astype(np.float32)) - low) / max(high - low, 1e-6)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _file_name(label: str) -> str:
    return "".join("_" if sign in '/\\:*?"<>|' else sign for sign in label).strip() or "_"
