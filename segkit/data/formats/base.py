"""What every format gives: class names, and labelled photos whose masks are drawn when asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Literal, Optional, Union

import numpy as np

from segkit.errors import InputError, counted
from segkit.options import option
from segkit.polygons import BACKGROUNDS, is_background

IGNORED = 255
MOST_CLASSES = 255
BACKGROUND = "background"


@dataclass
class ReadOptions:
    """How `segkit data convert` reads its source."""

    images: Optional[str] = option(None, "folder of the photos, where the labels do not lead to them")
    class_names: Optional[str] = option(
        None, "text file of class names, one a line in class order; default: labels.txt and the like in SOURCE"
    )
    palette: Optional[str] = option(
        None, "colour masks: file of colours, a line `name r g b` a class, or JSON {name: [r, g, b]}"
    )
    unknown: Literal["error", "ignore", "background"] = option(
        "error", "what becomes of shapes whose label the class names lack"
    )
    stray: Literal["error", "ignore", "nearest"] = option(
        "error", "colour masks: what becomes of pixels of other colours, such as smoothed edges"
    )
    threshold: Optional[int] = option(None, "binary masks: from this gray level on a pixel is foreground")
    class_property: Optional[str] = option(None, "GeoJSON: the property that holds the class")


@dataclass
class Photo:
    """One labelled photo.

    `draw()` gives uint8 [H, W] class numbers, 255 ignored, in the frame that viewers show (EXIF orientation applied),
    or raises `InputError`. `image` is a file, or gives the bytes of one. `source` is the file that messages name.
    """

    name: str
    image: Union[Path, Callable[[], bytes]]
    draw: Callable[[], np.ndarray]
    source: str
    part: Optional[str] = None
    """train, val or test, where the source says so."""


@dataclass
class Labelled:
    """What a source holds."""

    class_names: list[str]
    photos: list[Photo]
    problems: list[str] = field(default_factory=list)
    """Files that cannot be used: `file: reason`."""
    notes: list[str] = field(default_factory=list)
    palette: Optional[np.ndarray] = None
    """uint8 [n, 3] where the source has colours of its own."""


def natural(text: object) -> list[tuple[int, int, str]]:
    """Sort key by which 2.jpg stands before 10.jpg."""
    parts = re.split(r"(\d+)", str(text))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def tidy_names(names: list[str], where: str, background: bool = True) -> list[str]:
    """Class names as a data set has them: no `__ignore__`, none twice; with `background`, one of them is that.

    Errors: a name twice, or more than 255 classes.
    """
    kept = [name for name in names if name and name != "__ignore__"]
    twice = sorted({name for name in kept if kept.count(name) > 1})
    if twice:
        raise InputError(f"{where}: class names stand there twice ({', '.join(twice)}). Write each name once.")
    if background and not any(is_background(name) for name in kept):
        kept.insert(0, BACKGROUND)
    kept = [BACKGROUND if is_background(name) else name for name in kept]
    if len(kept) > MOST_CLASSES:
        raise InputError(
            f"{where}: too many classes (got {len(kept)} with the background, expected at most {MOST_CLASSES}, what "
            "8-bit masks hold). Merge some, or give the ones you want with --class_names."
        )
    return kept


def numbers_of(names: list[str]) -> dict[str, int]:
    """Class number of every name, with `_background_` and `__ignore__`."""
    numbers = {name: index for index, name in enumerate(names)}
    background = next((index for name, index in numbers.items() if is_background(name)), 0)
    return {**dict.fromkeys(BACKGROUNDS, background), **numbers, "__ignore__": IGNORED}


def unknown_labels(found: dict[str, list[str]], known: dict[str, int], where: str, unknown: str) -> list[str]:
    """Notes on labels that the class names lack, which `known` gets as --unknown says.

    `found`: label -> files. Errors: such labels, all of them listed, where `unknown` is "error".
    """
    strange = sorted((label for label in found if label not in known), key=natural)
    if not strange:
        return []
    rows = [f"'{label}' in {counted(len(found[label]), 'file')}, such as {found[label][0]}" for label in strange]
    if unknown == "error":
        raise InputError(
            f"{where}: {len(strange)} labels of the source are not among the class names ({', '.join(list(known)[:8])}"
            ", ...). Add them, mend the labels, or say --unknown ignore or --unknown background:\n  "
            + "\n  ".join(rows)
        )
    known.update(dict.fromkeys(strange, IGNORED if unknown == "ignore" else known["_background_"]))
    return [f"labels that are not among the class names, taken as {unknown}: {row}" for row in rows]
