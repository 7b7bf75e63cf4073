"""Label files of tools that are not read, told by their contents, with what to do about each."""

from __future__ import annotations

from typing import Any

_EXPORT = "Export from it as COCO or labelme and convert that."


def tool_of(data: Any) -> str | None:
    """What made this JSON and what to do; None where nothing is known about it."""
    if isinstance(data, list):
        return _list(next((item for item in data if isinstance(item, dict)), {}), bool(data))
    if not isinstance(data, dict):
        return "a single value, not an annotation. Take it out of the folder."
    keys = set(data)
    if isinstance(data.get("shapes"), list):
        return None
    if "outputs" in keys and ("labeled" in keys or "time_labeled" in keys):
        return f"made by jingling (精灵标注助手), not by labelme. {_EXPORT}"
    if {"images", "annotations"} <= keys or {"images", "categories"} <= keys:
        return "a COCO file. Convert it with --format coco."
    if data.get("type") in ("FeatureCollection", "Feature"):
        return "a GeoJSON file. Convert it with --format geojson."
    if is_colour_table(data):
        return "a table of mask colours (X-AnyLabeling). Give it as --palette with --format color."
    if "_via_img_metadata" in keys or (all(isinstance(v, dict) and "regions" in v for v in data.values()) and data):
        return f"made by VIA (VGG Image Annotator), not by labelme. {_EXPORT}"
    if "objects" in keys and "size" in keys:
        return f"made by Supervisely, not by labelme. {_EXPORT}"
    if {"imgHeight", "objects"} <= keys:
        return "polygons of Cityscapes. Use its label PNGs: --format cityscapes reads *_gtFine_labelIds.png."
    return None


def is_colour_table(data: Any) -> bool:
    """Whether this is what X-AnyLabeling writes beside exported masks: the colour of each class."""
    return isinstance(data, dict) and data.get("type") in ("rgb", "grayscale") and isinstance(data.get("colors"), dict)


def _list(first: dict, filled: bool) -> str:
    if {"labelIdx", "points"} <= set(first):
        return f"made by EISeg, not by labelme. {_EXPORT}"
    if "completions" in first or {"annotations", "data"} <= set(first):
        return f"made by Label Studio, not by labelme. {_EXPORT}"
    if "Labeled Data" in first or "data_row" in first:
        return f"made by Labelbox, not by labelme. {_EXPORT}"
    if {"transcription", "points"} <= set(first):
        return "texts of PaddleOCR, which are no masks. Take it out of the folder."
    what = "a list of something else than annotations" if filled else "an empty list"
    return f"{what}, not a file of labelme. Take it out of the folder."
