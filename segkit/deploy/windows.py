"""Sliding windows over photos too big for one pass: what is held grows with the photo's width, not with its height."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from segkit.errors import InputError
from segkit.options import check_idle
from segkit.transforms import late

KEYS = ("is_slide", "crop_size", "stride")  # of test_config and of the flags
# Windows go through the engine together up to so many, and up to so many pixels.
_AT_ONCE, _PIXELS = 16, 2**20


@dataclass(frozen=True)
class Windows:
    """`size` and `stride` as (width, height)."""

    size: tuple[int, int]
    stride: tuple[int, int]


def windows_as(options: Any, test_config: Optional[Mapping[str, Any]] = None) -> Optional[Windows]:
    """The flags `is_slide`, `crop_size` and `stride` over those of `test_config`, checked; None without windows."""
    config = test_config or {}
    slide, crop_size, stride = (
        config.get(name) if getattr(options, name) is None else getattr(options, name) for name in KEYS
    )
    check_idle(options, "is_slide", bool(slide), ("crop_size", "stride"))
    return windows_of(crop_size, stride) if slide else None


def kept(test_config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config's `test_config` goes for an exported model too: its windows."""
    return {key: test_config[key] for key in KEYS if key in test_config}


def windows_of(crop_size: Any, stride: Any) -> Windows:
    """Of a number or two (width, height) each; a stride of two thirds of the window where none is given."""
    if crop_size is None:
        raise InputError("is_slide needs crop_size. Give the window as --crop_size W H, such as --crop_size 512 512.")
    size = _pair("crop_size", crop_size)
    step = _pair("stride", stride) if stride is not None else (max(1, size[0] * 2 // 3), max(1, size[1] * 2 // 3))
    if step[0] > size[0] or step[1] > size[1]:
        raise InputError(
            f"stride {list(step)} is larger than crop_size {list(size)}: pixels between the windows would be left "
            "out. Give a stride of at most the window."
        )
    return Windows(size, step)


def _pair(name: str, value: Any) -> tuple[int, int]:
    values = value if isinstance(value, (list, tuple)) else [value, value]
    if len(values) != 2 or not all(isinstance(item, int) and item > 0 for item in values):
        raise InputError(f"{name}: expected two integers above 0, width and height (got {value}). Give both.")
    return values[0], values[1]


def strips(
    run: Callable[[np.ndarray], np.ndarray], x: np.ndarray, windows: Windows, table: Optional[np.ndarray] = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, mean of the scores of all windows that cover a pixel, float32 [N, classes, rows, W]) from the top
    down, each strip as soon as no later window reaches it.

    `x`: float32 [N, C, H, W], or uint8 that `table`, float32 [256, C], turns into the engine's numbers window by
    window. Windows are as large as the photo where that is smaller.
    """
    number, _, height, width = x.shape
    wide, high = min(windows.size[0], width), min(windows.size[1], height)
    rows, columns = _starts(height, high, windows.stride[1]), _starts(width, wide, windows.stride[0])
    corners = [(top, left) for top in rows for left in columns]
    at_once = min(_AT_ONCE, max(1, _PIXELS // (number * wide * high)))
    over_rows, over_columns = _covering(height, rows, high), _covering(width, columns, wide)
    first, held = 0, None
    for start in range(0, len(corners), at_once):
        group = corners[start : start + at_once]
        found = run(
            np.concatenate([_crop(x[:, :, top : top + high, left : left + wide], table) for top, left in group])
        )
        if found.dtype.kind in "iu":
            raise InputError(
                "--is_slide averages scores, but the model was exported with --output_op argmax. Export it with "
                "--output_op none."
            )
        held = _extended(held, (number, found.shape[1], group[-1][0] + high - first, width))
        for index, (top, left) in enumerate(group):
            part = held[:, :, top - first : top - first + high, left : left + wide]
            part += found[index * number : (index + 1) * number]
        end = corners[start + at_once][0] if start + at_once < len(corners) else height
        if end > first:
            done, held = held[:, :, : end - first], held[:, :, end - first :]
            done /= over_rows[first:end, None] * over_columns
            yield first, done
            first = end


def one(x: np.ndarray, windows: Windows, table: Optional[np.ndarray] = None, at: float = 0.0) -> np.ndarray:
    """A window as `strips` runs them: the first, or the one at the share `at` of the way to the last."""
    wide, high = windows.size
    top, left = (int(at * max(0, side - window)) for side, window in zip(x.shape[2:], (high, wide)))
    return _crop(x[:, :, top : top + high, left : left + wide], table)


def scores(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray, windows: Windows) -> np.ndarray:
    """All `strips` of float32 [N, C, H, W] together, float32 [N, classes, H, W]."""
    whole: Optional[np.ndarray] = None
    for top, strip in strips(run, x, windows):
        if whole is None:
            whole = np.empty((*strip.shape[:2], *x.shape[2:]), np.float32)
        whole[:, :, top : top + strip.shape[2]] = strip
    assert whole is not None  # a photo has a pixel
    return whole


def _starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last window is moved back to end with the photo."""
    if length <= window:
        return [0]
    count = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(count)]


def _covering(length: int, starts: list[int], window: int) -> np.ndarray:
    """float32 [length]: how many windows cover each pixel of a side."""
    count = np.zeros(length, np.float32)
    for start in starts:
        count[start : start + window] += 1
    return count


def _crop(part: np.ndarray, table: Optional[np.ndarray]) -> np.ndarray:
    if table is None:
        return part
    found = np.empty(part.shape, np.float32)
    for planes, out in zip(part, found):
        late.look_up(np.ascontiguousarray(planes), table, out)
    return found


def _extended(held: Optional[np.ndarray], shape: tuple[int, int, int, int]) -> np.ndarray:
    """`held` with rows of zeros below it."""
    if held is not None and held.shape[2] >= shape[2]:
        return held
    larger = np.zeros(shape, np.float32)
    if held is not None:
        larger[:, :, : held.shape[2]] = held
    return larger
