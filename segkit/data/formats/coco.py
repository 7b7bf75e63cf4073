"""COCO JSON: instances and stuff (polygons, run lengths), and panoptic (JSON with PNGs). Needs pycocotools."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit.data.formats.base import IGNORED, Labelled, Photo, ReadOptions, numbers_of, tidy_names, unknown_labels
from segkit.data.formats.files import PARTS, Finder, lines_of, names_file, part_of, roots_around, shown, walk
from segkit.data.formats.labelme import read_json
from segkit.errors import InputError, list_problems
from segkit.io import read_image

NAME = "coco"
_KEYS = {"images", "annotations", "categories"}


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    files = _files(source)[0]
    return (0.9 if files else 0.0), f"{len(files)} JSON files with images, annotations and categories"


_FIELDS = {  # what every entry needs, and which of that are numbers
    "images": (("id", "file_name", "height", "width"), ("height", "width")),
    "categories": (("id", "name"), ("id",)),
    "annotations": (("image_id",), ()),
}
_PLAIN = {  # what is looked up or written, where it is there, and so is a number or text
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "file_name"),
}


def _files(source: Path) -> tuple[list[tuple[Path, dict]], list[str]]:
    found, problems = [], []
    for path in [source] if source.is_file() else walk(source, (".json",)):
        try:
            data = read_json(path)
        except InputError as error:
            problems.append(f"{shown(path, source)}: {error}")
            continue
        if isinstance(data, dict) and set(data) >= _KEYS:
            found.append((path, data))
    return found, problems


def _fault(data: dict) -> Optional[str]:
    """What a COCO file lacks, so that nothing can be made of it."""
    for key, (fields, numbers) in _FIELDS.items():
        if not isinstance(data[key], list):
            return f"its {key} are no list"
        if key == "annotations" and any(isinstance(item, dict) and "segments_info" in item for item in data[key]):
            fields = (*fields, "file_name")  # panoptic: the PNG of the segments
        for number, item in enumerate(data[key], start=1):
            lacking = [name for name in fields if not isinstance(item, dict) or item.get(name) is None]
            if lacking:
                return f"entry {number} of its {key} lacks {', '.join(lacking)}"
            nested = [name for name in _PLAIN[key] if not isinstance(item.get(name), (str, int, float, type(None)))]
            if nested:
                name = nested[0]
                return f"entry {number} of its {key} has no number or text as {name} (got {str(item[name])[:60]})"
            strange = [name for name in numbers if not str(item[name]).isdigit()]
            if strange:
                return f"entry {number} of its {key} has no whole number as {', '.join(strange)}"
    return None


def read(source: Path, options: ReadOptions) -> Labelled:
    """Categories of all files by name; larger shapes are drawn first; crowds are ignored where nothing covers them."""
    _tools()
    root = source if source.is_dir() else source.parent
    files, problems = _files(source)
    faults = {path: fault for path, data in files if (fault := _fault(data)) is not None}
    problems += [f"{shown(path, root)}: {fault}. Export it again." for path, fault in faults.items()]
    files = [(path, data) for path, data in files if path not in faults]
    if not files and problems:
        raise InputError(list_problems(f"{source}: no COCO file that can be used is in it. Mend them:", problems))
    if not files:
        raise InputError(f"{source}: no COCO file (JSON with images, annotations and categories) in it. Mend the path.")
    names, panoptic, notes = _names(files, options, root)
    finder = Finder([Path(options.images)] if options.images else roots_around(root))
    labels = {str(item["name"]): [shown(path, root)] for path, data in files for item in data["categories"]}
    known = numbers_of(names)
    if options.class_names:
        notes += unknown_labels(labels, known, options.class_names, options.unknown)
    photos: list[Photo] = []
    for path, data in files:
        made, bad = _photos(path, data, known, finder, panoptic, root)
        photos += made
        problems += bad
    twice = [name for name, count in Counter(photo.name for photo in photos).items() if count > 1]
    if twice:
        raise InputError(
            f"{source}: {len(twice)} photos are annotated by several of its JSON files, such as {twice[0]}. Give the "
            "one JSON file that you want as SOURCE."
        )
    return Labelled(names, photos, problems, notes)


def _names(files: list[tuple[Path, dict]], options: ReadOptions, root: Path) -> tuple[list[str], bool, list[str]]:
    """Class names, whether the files are panoptic, and what to say."""
    panoptic = all(any("segments_info" in item for item in data["annotations"]) for _, data in files)
    given = names_file(options.class_names, root) if options.class_names else None
    if given is not None:
        return tidy_names(lines_of(given), str(given)), panoptic, [f"class names and their order: {given}"]
    categories: dict[str, dict] = {}
    for _, data in files:
        for item in sorted(data["categories"], key=lambda item: int(item["id"])):
            categories.setdefault(str(item["name"]), item)
    used: set[str] = set()
    for _, data in files:
        ids = {item.get("category_id") for item in data["annotations"]}
        used |= {str(item["name"]) for item in data["categories"] if panoptic or item["id"] in ids}
    parents = {str(item.get("supercategory")) for item in categories.values() if item["name"] in used}
    notes = ["class names and their order: the categories by their ids"]
    for name in [name for name in categories if name not in used and parents == {name}]:
        del categories[name]  # the heading that Roboflow writes as a category
        notes.append(f"category '{name}' is only the heading of the others and was left out")
    if panoptic:
        return list(categories), True, [*notes, "panoptic: what no segment covers is ignored, there is no background"]
    return tidy_names(list(categories), str(root)), False, notes


def _photos(
    path: Path, data: dict[str, Any], known: dict[str, int], finder: Finder, panoptic: bool, root: Path
) -> tuple[list[Photo], list[str]]:
    where = shown(path, root)
    numbers = {item["id"]: known.get(str(item["name"]), IGNORED) for item in data["categories"]}
    problems = []
    of_image: dict[Any, list[dict]] = {}
    for item in data["annotations"]:
        of_image.setdefault(item.get("image_id"), []).append(item)
    shapes = [item for item in data["annotations"] if item.get("segmentation") not in (None, [], [[]]) or panoptic]
    if data["annotations"] and not shapes:
        return [], [f"{where}: boxes only, no shapes to make masks of. Export it with segmentation."]
    photos = []
    for image in data["images"]:
        said = f"{where}: {image.get('file_name')}"
        try:
            file = finder.find(str(image["file_name"]), path.parent, path.with_suffix("") if panoptic else None)
        except InputError as error:
            problems.append(f"{said}: {error}")
            continue
        size = (int(image["height"]), int(image["width"]))
        items = of_image.get(image["id"], [])
        draw = functools.partial(_draw_panoptic if panoptic else _draw, items, numbers, size, path, finder)
        name = re.sub(r"\.\w+$", "", str(image["file_name"]).replace("\\", "/").lstrip("./"))
        photos.append(Photo(name, file, draw, said, _part(path, root)))
    return photos, problems


def _part(path: Path, root: Path) -> Optional[str]:
    found = re.findall(r"train|valid|val|test", path.stem.lower())
    return PARTS[found[-1]] if found else part_of(path.relative_to(root))


def _tools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            f"COCO labels need pycocotools ({error}). Install it: pip install pycocotools (the extra coco)"
        ) from error
    return mask


def _draw(items: list[dict], numbers: dict, size: tuple[int, int], path: Path, finder: Finder) -> np.ndarray:
    """uint8 [H, W]: crowds first, then larger shapes before smaller ones."""
    shapes = []
    for item in items:
        where = f"annotation {item.get('id')}"
        if item.get("category_id") not in numbers:
            raise InputError(f"{where}: category {item.get('category_id')} is not in the list of categories. Mend it.")
        mask = _decode(item.get("segmentation"), size, where)
        number = IGNORED if item.get("iscrowd") else numbers[item["category_id"]]
        shapes.append((not item.get("iscrowd"), -int(mask.sum()), number, mask))
    label = np.full(size, 0, np.uint8)
    for _, _, number, mask in sorted(shapes, key=lambda shape: shape[:2]):
        label[mask] = number
    return label


def _decode(segmentation: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """bool [H, W] of polygons or run lengths."""
    tools = _tools()
    try:
        if isinstance(segmentation, dict):
            code = segmentation
            if isinstance(code["counts"], list):
                code = tools.frPyObjects(code, *size)
            if list(code["size"]) != list(size):
                raise InputError(
                    f"{where}: its run lengths are of another photo (got {code['size']}, expected {list(size)})."
                )
        else:
            if not segmentation or any(len(ring) < 6 or len(ring) % 2 for ring in segmentation):
                raise InputError(f"{where}: a polygon of fewer than 3 points. Draw it again, or delete it.")
            code = tools.merge(tools.frPyObjects(segmentation, *size))
        return tools.decode(code).astype(bool)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{where}: its segmentation cannot be read ({error}). Export the file again.") from None


def _draw_panoptic(items: list[dict], numbers: dict, size: tuple[int, int], path: Path, finder: Finder) -> np.ndarray:
    """uint8 [H, W] of the PNG whose colours are segment ids, red + 256 green + 65536 blue."""
    label = np.full(size, IGNORED, np.uint8)
    for item in items:
        colours = read_image(finder.find(str(item["file_name"]), path.parent / path.stem)).astype(np.int32)
        if colours.shape[:2] != size:
            raise InputError(f"{item['file_name']}: its size differs (got {colours.shape[:2]}, expected {size}).")
        ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
        try:
            for segment in item["segments_info"]:
                if not isinstance(segment["id"], int):
                    raise TypeError
                crowd = segment.get("iscrowd")
                label[ids == segment["id"]] = IGNORED if crowd else numbers[segment["category_id"]]
        except (AttributeError, KeyError, TypeError):
            raise InputError(
                f"{item['file_name']}: a segment without id, or whose category is not in the list of categories "
                f"(got {item.get('segments_info')}). Export it again."
            ) from None
    return label
