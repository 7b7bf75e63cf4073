"""Every photo and label decoded once, in parallel: what check and stats need to know of each."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from segkit import exif
from segkit._cv2 import cv2
from segkit.bands import fill_missing
from segkit.data.duplicates import Look, look
from segkit.data.source import Part
from segkit.errors import InputError
from segkit.io import ColourLabel, WrongBands, read_image
from segkit.progress import progress

SIDE = 512  # pixels of the long side on which turned photos are compared with their labels
TURN_TAGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass
class Scan:
    """One sample. Sizes are (height, width); `faults` are (kind, text): missing, empty, unreadable, bands, colour."""

    part: str
    image: str
    label: Optional[str]
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    """(kind, file, text)"""
    image_size: Optional[tuple[int, int]] = None
    label_size: Optional[tuple[int, int]] = None
    mode: str = ""
    """bands as stored, by Pillow's names (L, RGB, ...); empty where Pillow does not know"""
    dtype: str = ""
    label_jpeg: bool = False
    turned: int = 1
    """EXIF orientation of the photo"""
    fit: Optional[tuple[float, float]] = None
    """of a turned photo: how well its label tells light from dark, in the turned and in the stored frame"""
    counts: dict[int, int] = field(default_factory=dict)
    """label value, after label_map and so on -> pixels"""
    mean: Optional[np.ndarray] = None
    std: Optional[np.ndarray] = None
    pixels: int = 0
    """pixels with data, those that mean and std are of"""
    digest: str = ""
    label_digest: str = ""
    look: Optional[Look] = None


def scan(parts: list[Part], title: str = "check", workers: Optional[int] = None) -> list[Scan]:
    """Every sample of every part, in order."""
    jobs = [(part, index) for part in parts for index in range(len(part.dataset.files))]
    workers = workers or min(16, os.cpu_count() or 1)
    found = []
    with progress(len(jobs), title) as bar, ThreadPoolExecutor(workers) as pool:
        # map would ask for all at once and keep going after Ctrl-C: chunks end soon.
        for start in range(0, len(jobs), 8 * workers):
            for item in pool.map(lambda job: scan_one(*job), jobs[start : start + 8 * workers]):
                found.append(item)
                bar.update()
    return found


def scan_one(part: Part, index: int) -> Scan:
    """One sample; whatever is wrong with its files becomes a fault."""
    dataset = part.dataset
    image_path, label_path = dataset.files[index]
    result = Scan(part.name, image_path, label_path)
    image = _read(result, image_path, lambda: read_image(image_path, dataset.img_channels))
    if image is not None:
        _note_image(result, image, dataset)
    label = None
    if label_path is not None:
        label = _read(result, label_path, lambda: dataset.mapped_label(index))
    if label is not None:
        result.label_size = label.shape[:2]
        result.counts = counts(label)
        result.label_jpeg = _starts(label_path, b"\xff\xd8")
        result.label_digest = hashlib.blake2b(np.ascontiguousarray(label).tobytes(), digest_size=16).hexdigest()
        if image is not None and result.turned in (2, 3, 4) and label.shape == image.shape[:2]:
            result.fit = _fits(image, label, result.turned, dataset.ignore_index)
    return result


def _read(result: Scan, path: str, read: Any) -> Optional[np.ndarray]:
    """The array, or None and a fault."""
    try:
        size = os.path.getsize(path)
    except OSError:
        result.faults.append(("missing", path, "no such file"))
        return None
    if size == 0:
        result.faults.append(("empty", path, "0 bytes"))
        return None
    try:
        return read()
    except InputError as error:
        kind = "unreadable"
        if isinstance(error, WrongBands):
            kind = "bands"
        elif isinstance(error, ColourLabel):
            kind = "colour"
        result.faults.append((kind, path, str(error)))
    return None


def _note_image(result: Scan, image: np.ndarray, dataset: Any) -> None:
    result.image_size = image.shape[:2]
    result.dtype = image.dtype.name
    result.mode, result.turned = _header(result.image)
    result.digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
    filled, missing = fill_missing(image, dataset.nodata)
    result.look = look(filled)
    result.mean, result.std = band_statistics(filled, missing)
    result.pixels = image.shape[0] * image.shape[1] - (0 if missing is None else int(missing.sum()))


def band_statistics(image: np.ndarray, missing: Optional[np.ndarray] = None) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation), float64 [bands], of the pixels of [H, W, bands] that are not `missing` [H, W]."""
    mask = None if missing is None else (~missing).astype(np.uint8)
    parts = [
        cv2.meanStdDev(np.ascontiguousarray(image[..., start : start + 4]), mask=mask)
        for start in range(0, image.shape[2], 4)  # OpenCV does at most four bands
    ]
    return np.concatenate([part[0][:, 0] for part in parts]), np.concatenate([part[1][:, 0] for part in parts])


def counts(label: np.ndarray) -> dict[int, int]:
    """Pixels of each value of a label map."""
    if label.dtype == np.uint8:
        found = np.bincount(label.ravel(), minlength=256)
        return {int(value): int(found[value]) for value in np.flatnonzero(found)}
    values, numbers = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist()))


def _header(path: str) -> tuple[str, int]:
    """Pillow's name of the bands as stored, and the EXIF orientation."""
    from PIL import Image

    if path.lower().endswith(".npy"):
        return "", 1
    try:
        with Image.open(path) as picture:
            mode = picture.mode
        with open(path, "rb") as file:
            turned = exif.orientation(file.read(1 << 17)) if path.lower().endswith(TURN_TAGS) else 1
    except (OSError, ValueError, SyntaxError):
        return "", 1
    return mode, turned


def _starts(path: str, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _fits(image: np.ndarray, label: np.ndarray, turned: int, ignore: int) -> tuple[float, float]:
    """Share of the photo's variance that the classes explain (eta squared), with the label as it is read and with
    the label turned back into the frame in which the photo is stored."""
    step = max(1, max(label.shape) // SIDE)
    small, classes = image[::step, ::step].reshape(-1, image.shape[2]).astype(np.float64), label
    # Orientations 2, 3 and 4 are their own inverses.
    return tuple(
        _explained(small, np.ascontiguousarray(item[::step, ::step]).ravel(), ignore)
        for item in (classes, exif.apply(classes, turned))
    )


def _explained(pixels: np.ndarray, classes: np.ndarray, ignore: int) -> float:
    kept = classes != ignore
    pixels, classes = pixels[kept], classes[kept]
    if not len(pixels):
        return 0.0
    total = pixels.var(axis=0).sum()
    within = sum(pixels[classes == value].var(axis=0).sum() * (classes == value).sum() for value in np.unique(classes))
    return float(1 - within / len(pixels) / max(total, 1e-9))
