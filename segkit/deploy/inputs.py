"""Which photos `--image_path` means, and under which name each one's results are saved."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segkit.errors import InputError
from segkit.io import IMAGE_SUFFIXES
from segkit.log import warn_once

_STREAMS = ("rtsp://", "rtmp://", "udp://", "http://", "https://")
OVERLAYS = "added_prediction"
_PICTURES = ("prob", "polygons", "grids")  # beside those that a command names
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")


@dataclass(frozen=True)
class Item:
    """One input: `path`, of a camera its number or URL, and `name`, the path of its results below each output folder,
    without a suffix."""

    path: str
    name: str
    is_camera: bool = False

    @property
    def is_video(self) -> bool:
        """Whether it has frames, rather than being a photo."""
        return self.is_camera or self.path.lower().endswith(VIDEOS)


def collect(image_path: str | None, save_dir: str | os.PathLike[str], folders: Iterable[str] = ("",)) -> list[Item]:
    """The inputs that a file, a folder (with its sub-folders), a glob or a .txt list (one path a line, relative
    to the list) names, or the camera of a number or URL, each once. What lies in `save_dir` is left out of folders:
    those are earlier results. `InputError` where a result in one of its `folders` would replace an input."""
    if not image_path:
        raise InputError("--image_path is missing. Give a photo, a folder, a glob, a .txt list or a video.")
    if image_path.isdecimal() and not os.path.exists(image_path):
        return [Item(image_path, f"camera_{int(image_path)}", is_camera=True)]
    if image_path.lower().startswith(_STREAMS):
        return [Item(image_path, "stream", is_camera=True)]
    suffixes = (*IMAGE_SUFFIXES, *VIDEOS)
    if os.path.isdir(image_path):
        own = [os.path.realpath(os.path.join(save_dir, name)) for name in (*folders, *_PICTURES)]
        root, paths = image_path, _walk(image_path, {os.path.realpath(save_dir), *own}, suffixes)
        if not paths:
            raise InputError(
                f"{image_path}: there is no photo in this folder (looked for {', '.join(suffixes)}). "
                "Give the folder that holds the photos."
            )
    elif os.path.isfile(image_path) and image_path.lower().endswith(".txt"):
        root, paths = os.path.dirname(image_path) or ".", _read_list(image_path)
    elif os.path.isfile(image_path):
        root, paths = os.path.dirname(image_path) or ".", [image_path]
        if not image_path.lower().endswith(suffixes):
            raise InputError(
                f"{image_path}: cannot read this kind of file (expected {', '.join(suffixes)} or .txt). Convert it."
            )
    else:
        root, paths = _glob_root(image_path), sorted(glob.glob(image_path, recursive=True))
        paths = [path for path in paths if os.path.isfile(path) and path.lower().endswith(suffixes)]
        if not paths:
            matched = "no photo matches" if glob.has_magic(image_path) else "there is no such file or folder"
            raise InputError(f"{image_path}: {matched} (working directory: {os.getcwd()}). Mend --image_path.")
    items = _named(root, paths)
    _spare(items, os.fspath(save_dir), folders)
    return items


def _spare(items: list[Item], save_dir: str, folders: Iterable[str]) -> None:
    """`InputError` where the result of one item would take the place of another, or of itself."""
    inputs = {_file(item.path): item.path for item in items if os.path.lexists(item.path)}
    for item, folder in itertools.product(items, folders):
        for suffix in _suffixes(item, folder):
            result = os.path.join(save_dir, folder, item.name + suffix)
            if os.path.lexists(result) and _file(result) in inputs:
                raise InputError(
                    f"{inputs[_file(result)]}: the result of {item.path} would overwrite this input. Choose another "
                    "--save_dir."
                )


def _suffixes(item: Item, folder: str) -> tuple[str, ...]:
    """Of the result of an item in a folder; the frames of a video have a folder of their own."""
    if item.is_video:
        return (".mp4",) if folder == OVERLAYS else ()
    return (".png", ".tif") if item.path.lower().endswith((".tif", ".tiff")) else (".png",)


def _file(path: str) -> tuple[int, int]:
    """Device and number of a file, or of a link itself: alike however its path is written."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _walk(folder: str, skip: set[str], suffixes: tuple[str, ...]) -> list[str]:
    """Files below `folder` in name order; linked folders are followed once, hidden files are left out."""
    found: list[str] = []
    seen = skip - {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [
            os.path.join(here, file)
            for file in sorted(files)
            if not file.startswith(".") and file.lower().endswith(suffixes)
        ]
    return found


def _read_list(path: str) -> list[str]:
    """Paths of a list file, relative to its folder or else to the working one; a second field (a label) is left out."""
    folder = os.path.dirname(path)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: this list is not UTF-8 text. Save it as UTF-8.") from None
    found = []
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        fields = next((line.split(sign) for sign in ("\t", ",", "|") if sign in line), [line])
        names = (fields[0].strip(), line.split()[0])
        tried = [os.path.join(folder, name) for name in names] + list(names)
        found.append(next((name for name in tried if os.path.isfile(name)), tried[0]))
    if not found:
        raise InputError(f"{path}: this list is empty. Write the path of a photo on each line.")
    return found


def _glob_root(pattern: str) -> str:
    """The folders before the first wildcard."""
    parts = Path(pattern).parts[:-1]
    plain = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.path.join(*parts[:plain]) if plain else "."


def _named(root: str, paths: Iterable[str]) -> list[Item]:
    """Items with names that do not collide, also where the file system ignores case."""
    items: list[Item] = []
    taken: set[str] = set()
    given = list(paths)
    once = list({os.path.abspath(path): path for path in given}.values())
    if len(once) < len(given):
        warn_once(f"{root}: {len(given) - len(once)} of {len(given)} inputs are named twice, and segmented once.")
    for path in once:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(root))
        if relative.startswith(os.pardir):
            relative = os.path.basename(path)
        stem, suffix = os.path.splitext(relative.replace(os.sep, "/"))
        name, count = stem, 1
        while name.lower() in taken:
            name = f"{stem}_{suffix[1:]}" if count == 1 else f"{stem}_{suffix[1:]}_{count}"
            count += 1
        if name != stem:
            warn_once(f"{path}: its results are saved as {name}, because {stem} is taken by another file.")
        taken.add(name.lower())
        items.append(Item(path, name))
    return items
