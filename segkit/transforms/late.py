"""Normalisation put off until images are bytes no longer: in the batch, or on the device.

A loader that normalises itself asks for it by `postponed()`, of data sets whose samples it gets straight from
`Compose`. Then that leaves out a `Normalize` that nothing which looks at pixel values follows, and the sample has
`normalize`, float32 [256, C]: what to put for each value of each band. Everyone else gets float32 images from the
transforms, as always: also what stands around a `Compose`, be it another one or a data set's own `get`.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Iterator

import numpy as np

from segkit._cv2 import cv2

_wanted: ContextVar[bool] = ContextVar("normalize_late", default=False)


@contextmanager
def postponed() -> Iterator[None]:
    """Within this block, and this thread, samples of 8-bit images may come with `normalize` still to be done."""
    yield from _wanting(True)


@contextmanager
def at_once() -> Iterator[None]:
    """Within this block every Normalize is done where it stands."""
    yield from _wanting(False)


def _wanting(value: bool) -> Iterator[None]:
    token = _wanted.set(value)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_postponed() -> bool:
    """Whether the caller of the transforms normalises itself."""
    return _wanted.get()


def planes_first(image: np.ndarray, out: np.ndarray) -> None:
    """`image` [H, W, C] into `out` [C, H, W], of the same or a wider number type."""
    if image.dtype == out.dtype == np.uint8 and 1 < image.shape[2] <= 4:
        cv2.split(np.ascontiguousarray(image), list(out))  # several times faster than a transposed copy
    else:
        np.copyto(out, image.transpose(2, 0, 1))


def look_up(planes: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """float32 `table` [256, C] of the uint8 `planes` [C, H, W] into `out` [C, H, W]."""
    for band, (plane, result) in enumerate(zip(planes, out)):
        cv2.LUT(plane, np.ascontiguousarray(table[:, band]), result)
