"""Pascal VOC folders: JPEGImages/, SegmentationClass/ (palette PNGs or VOC colours) and ImageSets/Segmentation/."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from segkit.data.formats.base import Labelled, ReadOptions
from segkit.data.formats.files import PARTS
from segkit.data.formats.index import read_numbers
from segkit.data.formats.pairs import Pairs, find_pairs
from segkit.datasets.lists import read_text
from segkit.errors import InputError, counted
from segkit.palette import voc_palette

NAME = "voc"
_LABELS = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    root = _root(source)
    if root is None:
        return 0.0, "no JPEGImages/ beside masks"
    return (0.8 if root == source else 0.4), f"JPEGImages/ and SegmentationClass/ in {root}"


def _root(source: Path) -> Optional[Path]:
    for folder in (source, *sorted(source.glob("*")), *sorted(source.glob("*/*"))) if source.is_dir() else ():
        if (folder / "JPEGImages").is_dir() and any((folder / name).is_dir() for name in _LABELS):
            return folder
    return None


def read(source: Path, options: ReadOptions) -> Labelled:
    """Masks by their indices, or by the VOC colours where they are saved as RGB."""
    root = _root(source) or source
    pairs = find_pairs(root, options.images)
    _parts(pairs, root / "ImageSets" / "Segmentation")
    return read_numbers(root if options.class_names is None else source, options, pairs, voc_palette(256))


def _parts(pairs: Pairs, lists: Path) -> None:
    """The parts that ImageSets/Segmentation says; photos that no list names are left out where lists exist."""
    part_of: dict[str, str] = {}
    for path in sorted(lists.glob("*.txt")):
        part = PARTS.get(path.stem.lower())
        if part:
            part_of.update(dict.fromkeys(read_text(path, "list of samples").split(), part))
    if not part_of:
        return
    kept = [(name, image, label, part_of.get(image.stem)) for name, image, label, _ in pairs.items]
    pairs.items = [item for item in kept if item[3]]
    pairs.notes.append(
        f"parts: {lists}; {counted(len(kept) - len(pairs.items), 'photo')} are left out, which it does not name"
    )
    if not pairs.items:
        raise InputError(f"{lists}: its lists name none of the photos. Mend or remove them.")
