"""labelme 3.x to 5.x and X-AnyLabeling: one JSON a photo with a list of shapes. labelme itself is not needed."""

from __future__ import annotations

import base64
import binascii
import functools
import json
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from segkit.data.formats.base import (
    Labelled,
    Photo,
    ReadOptions,
    is_background,
    natural,
    numbers_of,
    tidy_names,
    unknown_labels,
)
from segkit.data.formats.files import Finder, lines_of, names_file, part_of, shown, walk
from segkit.data.formats.foreign import is_colour_table, tool_of
from segkit.data.shapes import draw_shapes, kind_of
from segkit.errors import InputError
from segkit.io import PathLike, decode_image, image_size

NAME = "labelme"
_ENCODINGS = ("utf-8-sig", "gb18030")


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    files = [source] if source.is_file() else walk(source, (".json",))[:20]
    fits = sum(_is_labelme(path) for path in files)
    return (0.9 if fits else 0.0), f"{fits} of the first {len(files)} JSON files hold labelme shapes"


def _is_labelme(path: Path) -> bool:
    try:
        data = read_json(path)
    except InputError:
        return False
    return isinstance(data, dict) and isinstance(data.get("shapes"), list)


def read(source: Path, options: ReadOptions) -> Labelled:
    """Every JSON file below `source` (or the file itself); classes are those of all files together."""
    root = source if source.is_dir() else source.parent
    finder = Finder([Path(options.images)] if options.images else [root])
    found: dict[str, list[str]] = {}
    photos, problems, notes, empty, dropped = [], [], [], [], 0
    numbers: dict[str, int] = {}
    for path in walk(source, (".json",)) if source.is_dir() else [source]:
        where = shown(path, root)
        try:
            if is_colour_table(read_json(path)):
                notes.append(f"{where}: a table of mask colours, left aside")
                continue
            data = annotation(path)
            image = _image(path, data, finder)
            labels = [_label(shape, index) for index, shape in enumerate(data["shapes"])]
        except InputError as error:
            problems.append(f"{where}: {error}")
            continue
        for label in dict.fromkeys(labels):
            found.setdefault(label, []).append(where)
        empty += [] if labels else [where]
        dropped += sum(kind_of(shape) in ("line", "linestrip", "point") for shape in data["shapes"])
        name = str(path.relative_to(root).with_suffix("")).replace("\\", "/")
        draw = functools.partial(_draw, path, image, numbers)
        photos.append(Photo(name, image, draw, where, part_of(path.relative_to(root))))
    if photos and len(empty) == len(photos):
        raise InputError(
            f"{source}: none of its {len(photos)} labelme files has a shape (flags or an empty list only), so there "
            "is nothing to learn. Draw shapes, or give the folder that has them."
        )
    names, said = _names(found, options, root)
    numbers.update(numbers_of(names))
    notes += said
    notes += unknown_labels(found, numbers, str(names_file(options.class_names, root) or root), options.unknown)
    if empty:
        notes.append(f"files without a shape, which become background: {len(empty)}: {', '.join(empty[:5])}")
    if dropped:
        notes.append(f"{dropped} lines and points are drawn 10 pixels wide, as labelme does")
    return Labelled(names, photos, problems, notes)


def _names(found: dict[str, list[str]], options: ReadOptions, root: Path) -> tuple[list[str], list[str]]:
    """Class names of the file that has them (labelme's labels.txt may also lie one folder up), else of all labels."""
    path = names_file(options.class_names, root)
    if path is None and (above := names_file(None, root.parent)) and set(found) <= set(numbers_of(lines_of(above))):
        path = above
    if path is not None:
        return tidy_names(lines_of(path), str(path)), [f"class names and their order: {path}"]
    labels = sorted((name for name in found if not is_background(name)), key=natural)
    return tidy_names(labels, str(root)), ["class names: all labels of all files, sorted (no labels.txt there)"]


def _label(shape: Any, index: int) -> str:
    if not isinstance(shape, dict) or shape.get("label") in (None, ""):
        raise InputError(f"shape {index + 1} has no label. Name or delete it in the tool.")
    return str(shape["label"])


def read_json(path: PathLike) -> Any:
    """The contents of a JSON file, UTF-8 or, as old labelme on Chinese Windows wrote, GB 18030.

    Errors: unreadable, or no JSON.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}). Mend the path or the access rights.") from None
    problem: Optional[Exception] = None
    for encoding in _ENCODINGS:
        try:
            return json.loads(data.decode(encoding))
        except (ValueError, RecursionError) as error:
            problem = problem or error
    raise InputError(f"not JSON ({problem}). Save it again, or take it out of the folder.")


def annotation(path: Path) -> dict[str, Any]:
    """A labelme file. Errors: no JSON, or another tool's, by its name."""
    data = read_json(path)
    tool = tool_of(data)
    if tool:
        raise InputError(tool)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise InputError("not a labelme file (no list `shapes` in it). Take it out of the folder.")
    return data


def _image(path: Path, data: dict[str, Any], finder: Finder) -> Any:
    """The photo: what is embedded, as that was labelled; else imagePath; else a photo of the JSON's own name."""
    if data.get("imageData"):
        return functools.partial(_embedded, path)
    given = data.get("imagePath")
    try:
        return finder.find(str(given), path.parent)
    except InputError:
        beside = finder.beside(path)
        if beside is None or not given:
            raise
        return beside


def _embedded(path: Path) -> bytes:
    try:
        return base64.b64decode(annotation(path)["imageData"])
    except (binascii.Error, TypeError, ValueError):
        raise InputError("its embedded imageData is damaged. Save the file again in the tool.") from None


def _draw(path: Path, image: Union[Path, Any], numbers: dict[str, int]) -> np.ndarray:
    data = annotation(path)
    size = image_size(image) if isinstance(image, Path) else decode_image(image(), "its imageData").shape[:2]
    said = (data.get("imageHeight"), data.get("imageWidth"))
    if None not in said and tuple(said) != size:
        turned = " The photo was turned since, or its EXIF orientation changed." if said == size[::-1] else ""
        raise InputError(
            f"its shapes are of another photo (got {said[1]}x{said[0]}, expected {size[1]}x{size[0]}, width x height)."
            f"{turned} Restore the photo that was labelled, or label this one."
        )
    return draw_shapes(data["shapes"], numbers, size)
