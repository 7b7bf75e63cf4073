"""Part of a resized image, made without the rest of it.

Pixel x of the target looks at (x + 0.5) * source / target - 0.5 of the source. With source / target = p / q in lowest
terms, the pattern repeats every q target and p source pixels: so whole blocks of it, resized for themselves, give the
pixels that resizing everything gives there. One block more on each side keeps the image's border out.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from segkit._cv2 import cv2
from segkit.transforms import base
from segkit.transforms.base import Sample

_WORTH = 0.8  # of the pixels of the whole; two more slices and their bookkeeping cost some too


def pays(sample: Sample, target: tuple[int, int, str], crop: tuple[int, int]) -> bool:
    """Whether resizing what a crop of that size (h, w) keeps is the same as, and cheaper than, resizing everything."""
    height, width, interp = target
    image = sample["image"]
    if interp != "LINEAR" or image.dtype != np.uint8 or min(height, width) < 1 or "instances" in sample:
        return False
    if image.shape[:2] == (height, width):
        return False
    part = min(height, crop[0]), min(width, crop[1])
    needed = 1
    for source, to, length in zip(image.shape[:2], (height, width), part):
        _, block = _blocks(source, to)
        needed *= min(to, length + 3 * block)
    return needed < _WORTH * height * width


def resize_and_crop(
    sample: Sample,
    size: tuple[int, int],
    canvas: tuple[int, int],
    place: tuple[int, int],
    crop: tuple[int, int],
    im_value: Any,
    label_value: int,
) -> Sample:
    """Image and labels resized to `size` (h, w), padded right and bottom to `canvas` and cut to `crop` at `place`.

    Recorded as the three steps that it stands for.
    """
    (top, left), before = place, base.size_of(sample)
    part = min(size[0], crop[0]), min(size[1], crop[1])  # a side that is padded is kept whole
    fill = base.band_values(sample, im_value) if part != crop else 0

    def moved(array: np.ndarray, interp: int, value: Any) -> np.ndarray:
        done = resize_window(array, size, place, part, interp)
        return done if part == crop else base.pad_array(done, 0, 0, crop, value)

    sample["image"] = moved(sample["image"], cv2.INTER_LINEAR, fill)
    for key in base.LABEL_KEYS:
        if sample.get(key) is not None:
            sample[key] = moved(sample[key], cv2.INTER_NEAREST, label_value)
    base.record(sample, {"op": "resize", "from": list(before), "to": list(size)})
    if canvas != size:
        base.record(sample, {"op": "pad", "from": list(size), "top": 0, "left": 0, "to": list(canvas)})
    if canvas != crop:
        base.record(sample, {"op": "crop", "from": list(canvas), "top": top, "left": left, "to": list(crop)})
    return sample


def resize_window(
    array: np.ndarray, size: tuple[int, int], place: tuple[int, int], part: tuple[int, int], interp: int
) -> np.ndarray:
    """Rows and columns from `place` (top, left) on, `part` (h, w) of them, of `array` resized to `size` (h, w).

    INTER_NEAREST: exactly those; INTER_LINEAR of uint8: within 1, where OpenCV's fixed-point numbers round apart.
    """
    spans = [_span(*axis, interp == cv2.INTER_NEAREST) for axis in zip(array.shape[:2], size, place, part)]
    (top, bottom, height, above), (left, right, width, before) = spans
    resized = base.resize_array(array[top:bottom, left:right], height, width, interp)
    return resized[above : above + part[0], before : before + part[1]]


def _blocks(source: int, target: int) -> tuple[int, int]:
    """(p, q): so many source and target pixels after which the pattern repeats."""
    common = math.gcd(source, target)
    return source // common, target // common


def _span(source: int, target: int, start: int, length: int, exact: bool) -> tuple[int, int, int, int]:
    """First and last source pixel of the blocks around target[start : start + length], how many target pixels they
    make, and where `start` is among these."""
    p, q = _blocks(source, target)
    first = max(0, start // q - 1)
    last = min(source // p, -(-(start + length) // q) + 1)
    if exact and not _same_choice(source, target, p, first, last):
        return 0, source, target, start
    return first * p, last * p, (last - first) * q, start - first * q


@functools.lru_cache(maxsize=4096)
def _same_choice(source: int, target: int, p: int, first: int, last: int) -> bool:
    """Whether nearest neighbour chooses the same pixels in the blocks alone as in the whole.

    Where a target pixel looks exactly at the border of two source pixels, the rounding of x * (source / target)
    decides, and that depends on x.
    """
    q = p * target // source
    whole = _chosen(source, target)[first * q : last * q]
    return np.array_equal(whole, _chosen((last - first) * p, (last - first) * q) + first * p)


@functools.lru_cache(maxsize=256)
def _chosen(source: int, target: int) -> np.ndarray:
    """The source pixel of every target pixel, by nearest neighbour."""
    row = np.arange(source, dtype=np.float32)[None]
    return cv2.resize(row, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
