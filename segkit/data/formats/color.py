"""Colour masks: a colour (or a gray level) a class, named by a palette file or discovered."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit._cv2 import cv2
from segkit.data.formats.base import IGNORED, MOST_CLASSES, Labelled, Photo, ReadOptions, is_background, tidy_names
from segkit.data.formats.files import lines_of, names_file, shown
from segkit.data.formats.index import detect_kind
from segkit.data.formats.pairs import find_pairs
from segkit.datasets.lists import read_text
from segkit.errors import InputError
from segkit.io import read_image

NAME = "color"
_IGNORED_NAMES = ("__ignore__", "void", "ignore", "ignored")


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    return detect_kind(source, images, NAME)


def read(source: Path, options: ReadOptions) -> Labelled:
    """Colours of --palette, or those that fill areas somewhere; colours along edges only are reported, not guessed."""
    pairs = find_pairs(source, options.images)
    masks = [item[2] for item in pairs.items]
    if options.palette:
        table, notes = read_palette(Path(options.palette)), [f"colours of the classes: {options.palette}"]
    else:
        table, notes = _discovered(masks, source, options.stray)
        notes += _named(table, names_file(options.class_names, source))
    if not any(is_background(name) or rgb == (0, 0, 0) for name, rgb in table):
        table.insert(0, ("background", (0, 0, 0)))
        notes.append("what is black is the background, class 0")
    names = tidy_names([name for name, _ in table if name not in _IGNORED_NAMES], str(source), background=False)
    colours, numbers = _numbered(table)
    photos = [
        Photo(name, image, functools.partial(_draw, mask, colours, numbers, options.stray), shown(mask, source), part)
        for name, image, mask, part in pairs.items
    ]
    own = np.array([rgb for name, rgb in table if name not in _IGNORED_NAMES], np.uint8)
    return Labelled(names, photos, pairs.problems, pairs.notes + notes, own)


def _numbered(table: list[tuple[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Packed colours int64 [n] and their class numbers uint8 [n]."""
    colours, numbers, count = [], [], 0
    for name, (red, green, blue) in table:
        colours.append(red << 16 | green << 8 | blue)
        numbers.append(IGNORED if name in _IGNORED_NAMES else count)
        count += name not in _IGNORED_NAMES
    return np.array(colours, np.int64), np.array(numbers, np.uint8)


def read_palette(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """(name, colour) of each class, in class order; a class called `__ignore__` or `void` is ignored.

    Lines `name r g b`, `r g b name`, `name #rrggbb`, or JSON {name: [r, g, b]} (X-AnyLabeling's {"colors": {...}} too).
    Errors: unreadable, or lines without a colour, all of them listed.
    """
    text = read_text(path, "palette")
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: the palette is not JSON ({error}). Mend it.") from None
        rows = (data.get("colors") if isinstance(data.get("colors"), dict) else data).items()
        lines = [f"{name} {value if isinstance(value, int) else ' '.join(map(str, value))}" for name, value in rows]
    else:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("//")]
    found, wrong = [], []
    for line in lines:
        entry = _entry(line)
        found += [entry] if entry else []
        wrong += [] if entry else [line]
    if wrong or not found:
        raise InputError(
            f"{path}: {len(wrong)} lines of the palette have no name and colour (got {wrong[:5]}, expected "
            "`name r g b`, `r g b name` or `name #rrggbb`, 0 to 255). Mend them."
        )
    return found


def _entry(line: str) -> Optional[tuple[str, tuple[int, int, int]]]:
    line = re.sub(r"[,;:\t\[\]()=]+", " ", line).strip()
    if found := re.search(r"(?:#|0x)([0-9a-fA-F]{6})\b", line):
        rgb = tuple(bytes.fromhex(found.group(1)))
    elif found := re.search(r"(?:^|\s)(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})(?=\s|$)", line):
        rgb = tuple(int(value) for value in found.groups())
    elif found := re.search(r"\s(\d{1,3})$", line):  # a gray level
        rgb = (int(found.group(1)),) * 3
    else:
        return None
    name = (line[: found.start()] + " " + line[found.end() :]).strip(" -\"'")
    return (name, rgb) if name and max(rgb) <= 255 else None


def _packed(path: Path) -> np.ndarray:
    """int64 [H, W], red << 16 | green << 8 | blue."""
    image = read_image(path).astype(np.int64) if path.suffix.lower() != ".gif" else _gif(path)
    return image[..., 0] << 16 | image[..., 1] << 8 | image[..., 2]


def _gif(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(np.int64)


def _discovered(masks: list[Path], source: Path, stray: str) -> tuple[list[tuple[str, Any]], list[str]]:
    """Colours that fill at least one 3x3 square in some mask; black first, then by colour.

    Errors: colours that never do (smoothed edges, JPEG), with their counts, unless --stray says what they become.
    """
    counts: dict[int, int] = {}
    solid: set[int] = set()
    for path in masks:
        try:
            packed = _packed(path)
        except InputError:  # said when it is drawn
            continue
        values, number = np.unique(packed, return_counts=True)
        for value, count in zip(values.tolist(), number.tolist()):
            counts[value] = counts.get(value, 0) + count
        solid |= set(np.unique(packed[_inside(packed)]).tolist())
        if len(counts) > 100_000:
            break
    strange = sorted(set(counts) - solid, key=lambda value: -counts[value])
    ordered = sorted(solid, key=lambda value: (value != 0, value))
    if len(ordered) > MOST_CLASSES or not ordered:
        raise InputError(
            f"{source}: its masks have {len(ordered)} colours that fill areas (expected at most {MOST_CLASSES}), which "
            "looks like photos or JPEG masks. Give the colours of the classes with --palette FILE."
        )
    table = [(_hex(value), (value >> 16, value >> 8 & 255, value & 255)) for value in ordered]
    if strange and stray == "error":
        lines = [f"{name}: {counts[value]} pixels" for (name, _), value in zip(table, ordered)]
        raise InputError(
            f"{source}: besides {len(ordered)} colours that fill areas its masks have {len(strange)} that occur along "
            f"edges only ({sum(counts[value] for value in strange)} pixels; {', '.join(map(_hex, strange[:5]))}, ...): "
            "smoothed edges or JPEG, which name no class. Write the classes into a file for --palette, or say "
            "--stray nearest (the nearest of these colours) or --stray ignore. Colours that fill areas:\n  "
            + "\n  ".join(lines)
        )
    return table, [f"colours found in the masks: {', '.join(name for name, _ in table)}"]


def _inside(packed: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixel and its eight neighbours have one colour."""
    values = packed.astype(np.float32)  # 24 bits fit
    square = np.ones((3, 3), np.uint8)
    same = cv2.dilate(values, square) == cv2.erode(values, square)
    same[[0, -1]] = same[:, [0, -1]] = False
    return same


def _hex(value: int) -> str:
    return f"#{value:06x}"


def _named(table: list[tuple[str, Any]], path: Optional[Path]) -> list[str]:
    """Puts names of a file, in the order of the colours, where there are as many; black is the background."""
    names = lines_of(path) if path else []
    if len(names) == len(table):
        table[:] = [(name, rgb) for name, (_, rgb) in zip(names, table)]
        return [f"names of the colours, in this order: {path}"]
    if table[0][1] == (0, 0, 0):
        table[0] = ("background", (0, 0, 0))
    return ["classes are called by their colours: give names and colours with --palette FILE to change that"]


def _draw(path: Path, colours: np.ndarray, numbers: np.ndarray, stray: str) -> np.ndarray:
    packed = _packed(path)
    order = np.argsort(colours)
    at = order[np.clip(np.searchsorted(colours[order], packed), 0, len(colours) - 1)]
    known = colours[at] == packed
    label = np.where(known, numbers[at], IGNORED).astype(np.uint8)
    if known.all() or stray == "ignore":
        return label
    values, number = np.unique(packed[~known], return_counts=True)
    if stray == "error":
        most = values[np.argsort(-number)][:5]
        raise InputError(
            f"{int(number.sum())} pixels of {len(values)} colours that the palette lacks ({', '.join(map(_hex, most))}"
            f"{', ...' if len(values) > 5 else ''}). Add them to the palette, or say --stray nearest or --stray ignore."
        )
    split = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1)
    wanted = np.stack([values >> 16, values >> 8 & 255, values & 255], 1)
    nearest = np.array([numbers[((split - rgb) ** 2).sum(1).argmin()] for rgb in wanted], np.uint8)
    label[~known] = nearest[np.searchsorted(values, packed[~known])]
    return label
