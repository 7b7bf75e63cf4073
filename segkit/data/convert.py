"""`segkit data convert`: a source in any of `FORMATS` becomes a data set that trains.

OUT gets images/, labels/ (8-bit palette PNGs of class numbers), train.txt, val.txt, test.txt, classes.txt and
segkit.yml. It is written beside and renamed into place when all is there, so that it is whole or absent.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import numpy as np

from segkit.data import duplicates
from segkit.data.facts import Facts
from segkit.data.formats import find_format
from segkit.data.formats.base import Labelled, Photo, ReadOptions
from segkit.data.previous import free_name
from segkit.data.recipe import CONFIG, Device, choose, write_config
from segkit.data.samples import each, seen
from segkit.data.split import Sample, divide, write_lists
from segkit.data.thickness import of_labels
from segkit.errors import InputError, counted, list_problems
from segkit.io import decode_image, write_bytes_atomic, write_png
from segkit.log import logger
from segkit.options import option
from segkit.palette import voc_palette

SIGNATURES = {
    b"\xff\xd8": ".jpg",
    b"\x89P": ".png",
    b"BM": ".bmp",
    b"RI": ".webp",
    b"II": ".tif",
    b"MM": ".tif",
    b"GI": ".gif",
}


@dataclass
class ConvertOptions(ReadOptions):
    """Settings of `segkit data convert`."""

    format: Optional[Literal["labelme", "coco", "cityscapes", "voc", "geojson", "color", "binary", "index"]] = option(
        None, "what SOURCE holds; default: guessed of the files in it, and said"
    )
    link: bool = option(False, "link photos instead of copying them (they must then stay where they are)")
    skip_bad: bool = option(False, "leave out files that cannot be used, instead of refusing them all")
    overwrite: bool = option(False, "where OUT exists, keep it as OUT.previous_N and write a new one")
    val: float = option(0.2, "share of the photos for val, where SOURCE has no parts of its own")
    test: float = option(0.0, "share of the photos for test")
    seed: int = option(0, "seed of the division into parts")


@dataclass
class Report:
    """What `convert` did."""

    out: str
    format: str
    class_names: list[str]
    photos: int
    parts: dict[str, int]
    """Photos in train, val and test."""
    problems: list[str] = field(default_factory=list)
    """Files left out, each with its reason."""
    notes: list[str] = field(default_factory=list)


def convert(source: str, out: str, options: Optional[ConvertOptions] = None) -> tuple[Report, Facts]:
    """Write the data set OUT of SOURCE, a folder or a single annotation file.

    Errors: OUT is there already; nothing can be read; files that cannot be used (all of them listed), unless
    `skip_bad`.
    """
    options = options or ConvertOptions()
    target, root = Path(out), Path(source)
    old = _room(target, options.overwrite)
    if options.images is not None and not os.path.isdir(options.images):
        raise InputError(f"--images {options.images}: no such folder. Give the folder of the photos.")
    if old is not None and options.link and _inside(root if options.images is None else Path(options.images), target):
        raise InputError(
            f"--link: the photos lie in {target}, which --overwrite moves aside, so that the links would lead nowhere. "
            "Leave out --link, or give another folder with --to."
        )
    reader, why = find_format(root, options.format, options.images)
    logger.info("%s is read as %s", source, why)
    labelled = reader.read(root, options)
    for note in labelled.notes:
        logger.info("%s: %s", source, note)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Choose another folder.") from None
    try:
        samples, problems = _write(labelled, beside, options)
        problems = labelled.problems + problems
        _refuse(source, problems, samples, options.skip_bad)
        report = Report(str(target), why, labelled.class_names, len(samples), {}, problems, labelled.notes)
        facts = _finish(labelled, samples, beside, target, options, report)
        if old is not None:
            os.rename(target, old)
            logger.info("%s: what was there is now %s", target, old)
        elif target.is_dir():
            target.rmdir()
        os.chmod(beside, 0o777 & ~_umask())
        os.rename(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report, facts


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in (path.resolve(), *path.resolve().parents)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _room(target: Path, overwrite: bool) -> Optional[Path]:
    """Where an existing OUT is moved to; None where there is none. Errors: it exists, and --overwrite was not said."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    if not overwrite:
        raise InputError(
            f"{target}: it exists already, and is not overwritten. Give another folder with --to, or --overwrite, "
            f"which keeps the old one as {target}.previous_1."
        )
    return free_name(target.with_name(f"{target.name}.previous"))


def _refuse(source: str, problems: list[str], samples: list[Sample], skip_bad: bool) -> None:
    if not samples and not problems:
        raise InputError(f"{source}: no labelled photos in it. Give the folder that holds them.")
    if problems and (not skip_bad or not samples):
        title = f"{source}: {counted(len(problems), 'file')} cannot be used"
        mend = "Mend them" if not samples else "Mend them, or leave them out with --skip_bad"
        raise InputError(list_problems(f"{title}, {len(samples)} can. {mend}:", problems, limit=len(problems)))
    if problems:
        logger.warning(
            list_problems(f"{source}: left out: {counted(len(problems), 'file')}:", problems, limit=len(problems))
        )


def _write(labelled: Labelled, out: Path, options: ConvertOptions) -> tuple[list[Sample], list[str]]:
    """Photos and masks into `out`; samples in the order of the source, and what was wrong."""
    palette = voc_palette(256)
    if labelled.palette is not None:
        palette[: len(labelled.palette)] = labelled.palette[:256]
    items = list(zip(labelled.photos, _unique([photo.name for photo in labelled.photos])))
    return each(lambda item: _one(*item, out, palette, options.link), items, "convert", lambda item: item[0].source)


def _one(photo: Photo, name: str, out: Path, palette: np.ndarray, link: bool) -> Sample:
    """One photo and its mask on disk."""
    data = None if isinstance(photo.image, Path) else photo.image()
    if data is None:
        suffix = photo.image.suffix.lower()
        known = seen(photo.image)
    else:
        suffix = SIGNATURES.get(data[:2], ".png")
        image = decode_image(data, f"{photo.source} (its imageData)")
        known = {"size": image.shape[:2], "look": duplicates.look(image)}
    size, mask = known["size"], photo.draw()
    if mask.shape != size:
        raise InputError(
            f"its mask does not fit its photo (got {mask.shape[1]}x{mask.shape[0]}, expected {size[1]}x{size[0]}, "
            "width x height). Check that they belong together and that none was turned or resized."
        )
    image_name, label_name = f"images/{name}{suffix}", f"labels/{name}.png"
    if data is not None:
        write_bytes_atomic(out / image_name, data)
    else:
        (out / image_name).parent.mkdir(parents=True, exist_ok=True)
        if link:
            os.symlink(photo.image.resolve(), out / image_name)
        else:
            shutil.copyfile(photo.image, out / image_name)
    write_png(out / label_name, mask, palette)
    return Sample(image_name, label_name, np.bincount(mask.ravel(), minlength=256), part=photo.part, **known)


def _unique(names: list[str]) -> list[str]:
    """File names without characters that list files and systems stumble over, no two alike (in any case)."""
    taken: set[str] = set()
    result = []
    for name in names:
        plain = re.sub(r"[\t\r\n|,<>:\"?*\\]", "_", name).strip("/ ")
        plain = "/".join(piece for piece in plain.split("/") if piece not in ("", ".", "..")) or "photo"
        number, candidate = 1, plain
        while candidate.lower() in taken:
            number += 1
            candidate = f"{plain}-{number}"
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def _finish(
    labelled: Labelled, samples: list[Sample], beside: Path, target: Path, options: ConvertOptions, report: Report
) -> Facts:
    """Lists, class names and config into the folder that is not yet in place."""
    own = {sample.part for sample in samples} - {None}
    if "train" in own and ("val" in own or "test" in own):
        parts = [sample.part or "train" for sample in samples]
        report.notes.append("parts: those of the source")
    else:
        parts = divide(samples, options.val, options.test, options.seed)
        report.notes.append(f"parts: drawn with seed {options.seed}, rare classes and near-identical photos minded")
    report.parts = write_lists(beside, samples, parts)
    if len(samples) == 1:
        logger.warning("%s: a single photo, which is train and val part both: its scores mean nothing.", target)
    text = "".join(f"{name}\n" for name in labelled.class_names)
    write_bytes_atomic(beside / "classes.txt", text.encode("utf-8"))
    colours = None if labelled.palette is None else labelled.palette[: len(labelled.class_names)].tolist()
    facts = Facts.of(target, labelled.class_names, samples, parts, colours)
    facts.thickness = of_labels(beside, samples, parts, len(labelled.class_names))
    write_config(target / CONFIG, facts, choose(facts, Device.here()), beside)
    return facts
