"""Class names and palettes of a data set, from its arguments and the small files beside the photos."""

from __future__ import annotations

import os
from typing import Optional, Union

import numpy as np

from segkit.datasets.lists import read_text
from segkit.errors import InputError
from segkit.palette import check_palette, voc_palette

Names = Optional[Union[list[str], str]]


def names_path(given: str, root: str | None) -> str:
    """Where the file of class names is: below `root`, else as it stands."""
    below = os.path.join(root or "", given)
    return below if os.path.isfile(below) else given


def read_names(path: str) -> list[str]:
    """One name a line; blank lines and labelme's `__ignore__` are left out."""
    lines = (line.strip() for line in read_text(path, "file of class names").splitlines())
    return [line for line in lines if line and line != "__ignore__"]


def find_names(given: Names, root: str | None, files: tuple[str, ...] = ("classes.txt",)) -> list[str] | None:
    """The names given as a list or a file that is there; else those of the first of `files` below `root`."""
    if isinstance(given, (list, tuple)):
        return [str(name) for name in given]
    candidates = (given,) if given else files if root else ()
    for name in candidates:
        path = names_path(name, root)
        if os.path.isfile(path):
            return read_names(path)
    return None


def fit_names(names: list[str] | None, count: int, given: Names) -> list[str]:
    """`names` where there are `count` of them, else `class 0`, `class 1`, ...; `given` ones must fit."""
    if names is not None and len(names) == count:
        return names
    if names is not None and given:
        raise InputError(
            f"class_names: {len(names)} names for {count} classes (got {', '.join(names[:8])}...). "
            "Give as many names as num_classes."
        )
    return [f"class {index}" for index in range(count)]


def as_palette(given: list | None, count: int) -> np.ndarray:
    """uint8 [count, 3] or longer, of `[[r, g, b], ...]`; None is the VOC colours."""
    if given is None:
        return voc_palette(count)
    colours = check_palette(given, "palette")
    if len(colours) < count:
        raise InputError(f"palette: {len(colours)} colours for {count} classes. Give one [r, g, b] a class.")
    return colours
