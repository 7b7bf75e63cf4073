"""What every transform is made of: the sample, geometry that is recorded, and checks of arguments.

Geometry is applied to the image and to every label-like key alike, labels by nearest neighbour and padded with the
ignore value, and recorded in `sample["geometry"]` so that `segkit.postprocess` can undo it. Arrays are never
changed in place.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError, shown
from segkit.header import max_pixels

Sample = Dict[str, Any]
LABEL_KEYS = ("label", "edge")
INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}


_most: ContextVar[Optional[int]] = ContextVar("most_pixels", default=None)


class TooLarge(InputError):
    """An image that a transform would make larger than allowed."""


@contextlib.contextmanager
def at_most(pixels: int) -> Iterator[None]:
    """Within the block, in this thread, transforms make images of so many pixels at most; by default of as many as a
    picture may have (`header.max_pixels`)."""
    token = _most.set(pixels)
    try:
        yield
    finally:
        _most.reset(token)


def where(sample: Sample) -> str:
    """The sample's file, for messages."""
    return str(sample.get("path") or "sample")


def size_of(sample: Sample) -> tuple[int, int]:
    """(height, width) of the image."""
    return sample["image"].shape[:2]


def resize_array(array: np.ndarray, height: int, width: int, interp: int) -> np.ndarray:
    """[H, W] or [H, W, C] -> the same number of dimensions at [height, width]."""
    if array.shape[:2] == (height, width):
        return array
    if interp == cv2.INTER_AREA and array.ndim == 3 and array.shape[2] > 4:  # OpenCV does at most four bands so
        parts = [array[..., start : start + 4] for start in range(0, array.shape[2], 4)]
        return np.concatenate([resize_array(part, height, width, interp) for part in parts], axis=2)
    resized = cv2.resize(array, (width, height), interpolation=interp)
    return resized if resized.ndim == array.ndim else resized[..., None]


def pad_array(array: np.ndarray, top: int, left: int, size: tuple[int, int], value: Any) -> np.ndarray:
    """`array` placed at (top, left) of a canvas of `size` (h, w) filled with `value`, a number or one a band."""
    fill = np.asarray(value)
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)  # an edge map is 8-bit whatever value the label ignores
        fill = np.clip(np.rint(fill), limits.min, limits.max)
    canvas = np.empty((*size, *array.shape[2:]), array.dtype)
    bottom, right = top + array.shape[0], left + array.shape[1]
    canvas[:top] = canvas[bottom:] = canvas[top:bottom, :left] = canvas[top:bottom, right:] = fill
    canvas[top:bottom, left:right] = array
    return canvas


def resize(sample: Sample, height: int, width: int, interp: str = "LINEAR") -> Sample:
    """Image and labels to [height, width]."""
    if height < 1 or width < 1:
        raise InputError(
            f"{where(sample)}: resizing leaves nothing of the image (got {list(size_of(sample))} -> "
            f"[{height}, {width}]). Use a larger target size or leave out this image."
        )
    check_pixels(sample, height, width)
    step = {"op": "resize", "from": list(size_of(sample)), "to": [height, width]}
    code = INTERPOLATIONS[interp]
    return _apply(
        sample,
        step,
        lambda image: resize_array(image, height, width, code),
        lambda label: resize_array(label, height, width, cv2.INTER_NEAREST),
    )


def pad(sample: Sample, top: int, left: int, size: tuple[int, int], im_value: Any, label_value: int) -> Sample:
    """Image and labels placed at (top, left) of a canvas of `size` (h, w)."""
    if size == size_of(sample):
        return sample
    check_pixels(sample, *size)
    im_value = band_values(sample, im_value)
    step = {"op": "pad", "from": list(size_of(sample)), "top": top, "left": left, "to": list(size)}
    return _apply(
        sample,
        step,
        lambda image: pad_array(image, top, left, size, im_value),
        lambda label: pad_array(label, top, left, size, label_value),
    )


def crop(sample: Sample, top: int, left: int, size: tuple[int, int]) -> Sample:
    """The part of `size` (h, w) at (top, left) of image and labels."""
    if size == size_of(sample):
        return sample
    step = {"op": "crop", "from": list(size_of(sample)), "top": top, "left": left, "to": list(size)}
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return _apply(sample, step, lambda image: image[rows, columns], lambda label: label[rows, columns])


def flip(sample: Sample, axis: int) -> Sample:
    """Image and labels reversed along `axis`: 0 upside down, 1 left to right."""

    def turn(array: np.ndarray) -> np.ndarray:
        return cv2.flip(array, axis).reshape(array.shape)

    return _apply(sample, {"op": "flip", "axis": axis, "from": list(size_of(sample))}, turn, turn)


def warp(
    sample: Sample, matrix: np.ndarray, size: tuple[int, int], im_value: float | Sequence[float], label_value: int
) -> Sample:
    """Image (linear) and labels (nearest) through the affine `matrix` [2, 3] onto `size` (h, w). Not undoable."""
    values = np.broadcast_to(np.asarray(band_values(sample, im_value), float), sample["image"].shape[2:])

    def moved(array: np.ndarray, interp: int, fill: Sequence[float]) -> np.ndarray:
        planes = array if array.ndim == 3 else array[..., None]
        parts = []
        for start in range(0, planes.shape[2], 4):  # OpenCV's border value has four numbers
            part = np.ascontiguousarray(planes[..., start : start + 4])
            border = [float(value) for value in fill[start : start + 4]]
            done = cv2.warpAffine(part, matrix, size[::-1], flags=interp, borderValue=border)
            parts.append(done.reshape(*size, -1))
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, 2)
        return whole.reshape(*size, *array.shape[2:])

    return _apply(
        sample,
        {"op": "warp", "from": list(size_of(sample)), "to": list(size)},
        lambda image: moved(image, cv2.INTER_LINEAR, values),
        lambda label: moved(label, cv2.INTER_NEAREST, [label_value] * (label.shape[2] if label.ndim == 3 else 1)),
    )


def check_pixels(sample: Sample, height: int, width: int) -> None:
    """`TooLarge` for a size that could fill the memory."""
    most = _most.get() or max_pixels()
    if height * width > most:
        was = size_of(sample)
        raise TooLarge(
            f"{where(sample)}: the transforms would make too many pixels of it (got {was[1]} x {was[0]} -> {width} x "
            f"{height}, expected at most {most:,} in all). Leave out photos that are that long and narrow, or bound "
            "the size: max_size of ResizeByShort, or Resize."
        )


def record(sample: Sample, step: dict) -> None:
    """Append one geometric step, without touching a list that others may hold."""
    sample["geometry"] = [*sample.get("geometry", ()), step]


def _apply(sample: Sample, step: dict, on_image: Callable, on_label: Callable) -> Sample:
    if "instances" in sample:
        raise InputError(
            f"{where(sample)}: the image is moved after its instance masks were made. Put GenerateInstanceTargets last "
            "in the transforms."
        )
    sample["image"] = on_image(sample["image"])
    for key in LABEL_KEYS:
        if sample.get(key) is not None:
            sample[key] = on_label(sample[key])
    record(sample, step)
    return sample


def band_values(sample: Sample, value: Any) -> Any:
    """A padding value that fits the image: one number, or one a band."""
    values = np.atleast_1d(np.asarray(value, float))
    bands = sample["image"].shape[2]
    if len(values) not in (1, bands) and (values != values[0]).any():
        raise InputError(
            f"{where(sample)}: im_padding_value does not fit the image (got {values.tolist()}, expected one number or "
            f"{bands}, one a band). Mend im_padding_value."
        )
    return values if len(values) == bands else values[0]


def require(holds: bool, owner: object, name: str, got: Any, expected: str) -> None:
    """Refuse a wrong argument, naming the transform and the argument."""
    if not holds:
        raise InputError(
            f"{type(owner).__name__}: wrong value of `{name}` (got {shown(got)}, expected {expected}). Mend it in the "
            "config."
        )


def check_size(owner: object, name: str, value: Any) -> tuple[int, int]:
    """[width, height] of two positive whole numbers."""
    good = isinstance(value, (list, tuple)) and len(value) == 2
    good = good and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v > 0 for v in value)
    require(good, owner, name, value, "[width, height], two positive whole numbers")
    require(value[0] * value[1] <= max_pixels(), owner, name, value, f"at most {max_pixels():,} pixels in all")
    return int(value[0]), int(value[1])


def check_at_least(owner: object, name: str, value: float, low: float) -> None:
    """A number not below `low`."""
    require(_number(value) and value >= low, owner, name, value, f"a number of at least {low}")


def check_positive(owner: object, name: str, value: float) -> None:
    """A number above 0."""
    require(_number(value) and value > 0, owner, name, value, "a number above 0")


def check_order(owner: object, low_name: str, low: float, high_name: str, high: float) -> None:
    """`low` not above `high`."""
    require(low <= high, owner, low_name, low, f"at most {high_name}, which is {high}")


def check_choice(owner: object, name: str, value: Any, choices: Sequence[str]) -> None:
    """One of `choices`."""
    require(value in choices, owner, name, value, f"one of {', '.join(choices)}")


def check_padding(owner: object, im_value: Any, label_value: Any) -> None:
    """`im_padding_value`: one number or one a band; `label_padding_value`: one whole number."""
    numbers = im_value if isinstance(im_value, (list, tuple)) else [im_value]
    good = len(numbers) > 0 and all(_number(value) for value in numbers)
    require(good, owner, "im_padding_value", im_value, "a number or a list of one number a band")
    whole = isinstance(label_value, (int, np.integer)) and label_value >= 0
    require(
        whole, owner, "label_padding_value", label_value, "a whole number of at least 0, the data set's ignore_index"
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
