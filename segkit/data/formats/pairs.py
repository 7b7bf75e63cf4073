"""Photos and masks paired, for the formats that keep labels as pictures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from segkit.data.formats.base import natural
from segkit.data.formats.files import IMAGE_ENDS, IMAGE_FOLDERS, LABEL_ENDS, LABEL_FOLDERS, PARTS, part_of, shown, walk
from segkit.datasets.lists import ListError, read_list
from segkit.errors import InputError
from segkit.io import IMAGE_SUFFIXES

LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")


@dataclass
class Pairs:
    """(name, photo, mask, part) of each labelled photo."""

    items: list[tuple[str, Path, Path, Optional[str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_pairs(source: Path, images: Optional[str] = None) -> Pairs:
    """Pairs by the list files of `source` (train.txt, train_list.txt, ...), or else by folders and names.

    With `images`, `source` holds the masks and `images` the photos.
    Errors: no pair at all.
    """
    if images is None and source.is_dir():
        found = _listed(source)
        if found.items or found.problems:
            return found
    found = _matched(source, Path(images) if images else None)
    if not found.items:
        raise InputError(
            f"{source}: no photo with a mask of the same name was found. Put photos into images/ and masks into "
            "labels/, with the same names; or give the folder of masks as SOURCE and that of the photos as --images."
        )
    return found


def _listed(source: Path) -> Pairs:
    found = Pairs()
    for path in sorted(source.glob("*.txt")):
        part = PARTS.get(re.sub(r"(_?list)$", "", path.stem.lower()))
        if part is None:
            continue
        try:
            rows = read_list(str(path), str(source), labels_optional=part == "test")
        except ListError as error:
            if not any(os.path.isfile(image) for image, _ in error.pairs):
                found.notes.append(f"{path.name} is no list of photos and masks, and was left aside")
                continue
            rows = error.pairs
            found.problems += error.problems
        except InputError as error:
            if "the list has no samples" not in str(error):
                found.notes.append(f"{path.name} is no list of photos and masks, and was left aside")
            continue
        for image, label in ((Path(image), Path(label)) for image, label in rows if label):
            missing = [str(name) for name in (image, label) if not name.is_file()]
            if missing:
                found.problems.append(f"{path.name}: {' and '.join(missing)}: no such file. Mend the list.")
                continue
            found.items.append((_name(image, source), image, label, part))
    if found.items or found.problems:
        found.notes.append("photos, masks and their parts: the list files in it")
    return found


def _name(image: Path, source: Path) -> str:
    """The photo's path without its ending and without the folder that says "images"."""
    relative = image.relative_to(source) if image.is_relative_to(source) else Path(image.name)
    pieces = [*relative.parts[:-1], relative.stem]
    kept = [piece for piece in pieces[:-1] if piece.lower() not in IMAGE_FOLDERS]
    return "/".join([*kept, pieces[-1]])


def _matched(source: Path, images: Optional[Path]) -> Pairs:
    if images is not None:
        photos, masks = walk(images, IMAGE_SUFFIXES), walk(source, LABEL_SUFFIXES)
        if images.resolve() in source.resolve().parents:  # the folder of masks lies in that of photos
            photos = [path for path in photos if source.resolve() not in path.resolve().parents]
        elif source.resolve() in images.resolve().parents:
            masks = [path for path in masks if images.resolve() not in path.resolve().parents]
        return _join([(path, images) for path in photos], [(path, source) for path in masks])
    files = walk(source, LABEL_SUFFIXES)
    masks = [path for path in files if _folder(path.relative_to(source), LABEL_FOLDERS)]
    photos = [path for path in files if path not in set(masks) and path.suffix.lower() in IMAGE_SUFFIXES]
    named = [path for path in photos if _folder(path.relative_to(source), IMAGE_FOLDERS)]
    if not masks:  # a.jpg beside a_mask.png
        stems = {path.with_name(path.stem) for path in photos}
        masks = [p for p in photos if (s := _bare(p.stem, LABEL_ENDS)) != p.stem and (
            p.with_name(s) in stems or any(p.with_name(s + end) in stems for end in IMAGE_ENDS))]  # fmt: skip
        photos = [path for path in photos if path not in set(masks)]
    return _join([(path, source) for path in named or photos], [(path, source) for path in masks])


def _folder(relative: Path, names: tuple[str, ...]) -> Optional[str]:
    return next((piece for piece in relative.parts[:-1] if piece.lower() in names), None)


def _bare(stem: str, ends: tuple[str, ...]) -> str:
    return next((stem[: -len(end)] for end in ends if stem.lower().endswith(end) and len(stem) > len(end)), stem)


def _key(path: Path, root: Path, folders: tuple[str, ...], ends: tuple[str, ...]) -> str:
    relative = path.relative_to(root)
    drop = _folder(relative, folders)
    kept = list(relative.parts[:-1])
    if drop is not None:
        kept.remove(drop)
    return "/".join([*(PARTS.get(piece.lower(), piece) for piece in kept), _bare(path.stem, ends).lower()])


def _join(photos: list[tuple[Path, Path]], masks: list[tuple[Path, Path]]) -> Pairs:
    found = Pairs()
    by_key: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path, root in masks:
        by_key.setdefault(_key(path, root, LABEL_FOLDERS, LABEL_ENDS), []).append(path)
        by_stem.setdefault(_bare(path.stem, LABEL_ENDS).lower(), []).append(path)
    used, alone = set(), []
    for path, root in photos:
        stem = _bare(path.stem, IMAGE_ENDS).lower()
        fits = by_key.get(_key(path, root, IMAGE_FOLDERS, IMAGE_ENDS)) or by_stem.get(stem, [])
        fits = sorted(fits, key=_preference)
        if not fits:
            alone.append(path.name)
            continue
        used.update(fits)
        if len({_preference(fit) for fit in fits[:2]}) == 1 and len(fits) > 1:
            found.problems.append(f"{path}: several masks fit ({fits[0]}, {fits[1]}). Keep one.")
            continue
        found.items.append((_name(path, root), path, fits[0], part_of(path.relative_to(root))))
    left = [path for path, _ in masks if path not in used]
    found.problems += [
        f"{shown(path, masks[0][1])}: a mask without a photo of its name. Add it, or take the mask out."
        for path in left
    ]
    if alone:
        found.notes.append(
            f"photos without a mask, left out: {len(alone)}: {', '.join(sorted(alone, key=natural)[:5])}"
        )
    return found


def _preference(path: Path) -> int:
    """Which of several folders of masks is taken: the first of `LABEL_FOLDERS`."""
    ranks = [LABEL_FOLDERS.index(piece.lower()) for piece in path.parts[:-1] if piece.lower() in LABEL_FOLDERS]
    return min(ranks, default=len(LABEL_FOLDERS))
