"""The labelled photos of a data set in segkit's own layout, with what dividing and describing it needs."""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import numpy as np

from segkit.bands import decode_npy, fill_missing, tiff_facts
from segkit.data import duplicates
from segkit.data.formats.pairs import find_pairs
from segkit.data.split import Sample
from segkit.errors import InputError, counted, list_problems
from segkit.io import read_image, read_label

T, R = TypeVar("T"), TypeVar("R")


def each(work: Callable[[T], R], items: list[T], title: str, names: Callable[[T], str]) -> tuple[list[R], list[str]]:
    """`work` of every item, in threads, with a progress bar; results in order, and `name: reason` of those that raise
    `InputError`."""
    from tqdm import tqdm

    results: list[R] = []
    problems = []
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for item, job in zip(items, tqdm(jobs, desc=title, unit="photo", disable=None, leave=False)):
                try:
                    results.append(job.result())
                except InputError as error:
                    problems.append(f"{names(item)}: {error}")
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    return results, problems


def seen(path: Path) -> dict[str, Any]:
    """What decoding a photo tells about it: `size`, `look`, `bands`, `moments` and `nodata` of a `Sample`.

    8-bit pictures of one band count as ordinary photos, which are read as three.
    """
    bands, nodata = 3, None
    if path.suffix.lower() in (".tif", ".tiff"):
        facts = _tiff_facts(path)
        bands, nodata = facts["shape"][2], facts["nodata"]
    elif path.suffix.lower() == ".npy":
        shape = decode_npy(path.read_bytes(), str(path)).shape
        bands = shape[2] if len(shape) == 3 else 1
    image = read_image(path, bands)
    if bands == 1 and image.dtype == np.uint8:
        bands = 3
    known: dict[str, Any] = {"size": image.shape[:2], "bands": bands, "nodata": nodata, "moments": None}
    if bands != 3 or image.dtype != np.uint8:
        image = fill_missing(image, nodata)[0]
        values = image.reshape(-1, image.shape[2]).astype(np.float64)
        known["moments"] = np.stack([values.mean(axis=0), (values**2).mean(axis=0)])
    return {**known, "look": duplicates.look(image)}


def _tiff_facts(path: Path) -> dict[str, Any]:
    """The header of a TIFF; that of an ordinary photo where tifffile is absent, as only such can be read then."""
    if importlib.util.find_spec("tifffile") is None:
        return {"shape": (0, 0, 3), "nodata": None}
    return tiff_facts(str(path))


def load_samples(folder: Path) -> list[Sample]:
    """Every labelled photo below `folder`, by its list files or by the names of photos and masks.

    Errors: no photos, or some that cannot be used, all of them listed.
    """
    pairs = find_pairs(folder)
    items = list({(image, label): part for _, image, label, part in pairs.items}.items())

    def work(item: tuple[tuple[Path, Path], Optional[str]]) -> Sample:
        (image, label), part = item
        known = seen(image)
        size = known["size"]
        mask = read_label(label)
        if mask.shape != size or mask.dtype != np.uint8:
            raise InputError(
                f"its mask {label} does not fit (got {mask.shape[1]}x{mask.shape[0]} {mask.dtype}, expected "
                f"{size[1]}x{size[0]}, width x height, 8 bits). See segkit data check."
            )
        return Sample(
            _relative(image, folder),
            _relative(label, folder),
            np.bincount(mask.ravel(), minlength=256),
            part=part,
            **known,
        )

    samples, problems = each(work, items, "read", lambda item: str(item[0][0]))
    if pairs.problems or problems:
        rows = pairs.problems + problems
        raise InputError(
            list_problems(f"{folder}: {counted(len(rows), 'file')} cannot be used. Mend them:", rows, limit=len(rows))
        )
    return samples


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
