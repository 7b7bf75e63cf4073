"""The label formats that `segkit data convert` reads, one file each.

A format is a file with `NAME`, `detect(source, images) -> (how sure, why)` and `read(source, options) -> Labelled`.
A new one is its file and its name here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Optional

from segkit.data.formats.files import walk
from segkit.data.formats.foreign import tool_of
from segkit.data.formats.labelme import read_json
from segkit.errors import InputError

# What people call a format -> the files that may read it. The order decides where two are equally sure.
FORMATS = {
    "labelme": ("json_folders", "labelme"),
    "coco": ("coco",),
    "cityscapes": ("cityscapes",),
    "voc": ("voc",),
    "geojson": ("geojson",),
    "color": ("color",),
    "binary": ("binary",),
    "index": ("index",),
}


def find_format(source: Path, name: Optional[str] = None, images: Optional[str] = None) -> tuple[ModuleType, str]:
    """The format of a source (file or folder), and why it was taken for that.

    With `name`, one of `FORMATS`, only that is looked at. `images`: the folder of the photos, if not in `source`.
    Errors: the source is not there, or nothing reads it; other tools' files are named.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Mend the path.")
    looked = []
    for title in [name] if name else FORMATS:
        files = [importlib.import_module(f"segkit.data.formats.{file}") for file in FORMATS[title]]
        if name and len(files) == 1:
            return files[0], f"{title}, as --format says"
        for file in files:
            if source.is_file() and title in ("color", "binary", "index", "voc", "cityscapes"):
                continue
            sure, why = file.detect(source, images)
            looked.append((sure, title, file, why))
    sure, title, file, why = max(looked, key=lambda item: item[0], default=(0.0, "", None, ""))
    if name and (sure == 0.0 or file is None):
        return files[-1], f"{name}, as --format says"
    if sure == 0.0:
        raise InputError(_nothing(source))
    if title in ("voc", "color", "binary", "index"):
        strange = [f"{path.name} is {tool}" for path in walk(source, (".json",))[:20] if (tool := _tool(path))]
        why += "".join(f"; {text}" for text in strange[:3])
    return file, f"{title}: {why}"


def _tool(path: Path) -> Optional[str]:
    """What made a JSON file that is not read, as far as that is known."""
    try:
        return tool_of(read_json(path))
    except InputError:
        return None


def _nothing(source: Path) -> str:
    """What to say of a source that no format reads."""
    rows = []
    for path in [source] if source.is_file() else walk(source, (".json",))[:5]:
        try:
            reason = tool_of(read_json(path)) if path.suffix.lower() in (".json", ".geojson") else None
        except InputError as error:
            reason = str(error)
        rows += [f"\n  {path}: {reason}"] if reason else []
    others = {path.suffix.lower() for path in ([source] if source.is_file() else walk(source, (".xml", ".txt")))}
    if not rows and ".xml" in others:
        rows.append(" Its XML files (Pascal VOC boxes, CVAT) hold no masks: export masks or COCO instead.")
    elif not rows and ".txt" in others:
        rows.append(" Its .txt files look like YOLO's: export COCO or labelme instead.")
    return (
        f"{source}: no labels that can be read were found (looked for {', '.join(FORMATS)}). Give the folder "
        f"that holds both photos and labels, or say --format.{''.join(rows)}"
    )
