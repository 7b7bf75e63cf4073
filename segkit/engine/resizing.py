"""Bilinear resizing by OpenCV while a model is applied on the CPU: Paddle's kernel there is several times slower."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from segkit._cv2 import cv2

_LEAST_PIXELS = 512  # of a plane; below, calling OpenCV for each plane costs more than it saves
_lock = threading.Lock()
_open: list[Any] = []  # Paddle's own function, once for each open context


@contextlib.contextmanager
def bilinear_by_opencv() -> Iterator[None]:
    """Inside, `F.interpolate` to a given size, bilinear with half-pixel centres, is computed by OpenCV.

    That goes for float32 [N, C, H, W] on the CPU where no gradient is wanted; all else is Paddle's. Results differ by
    float32 rounding. Nothing changes where this Paddle cannot share a tensor's memory with numpy.
    """
    with _lock:
        if not _open:
            _open.append(F.interpolate)
            F.interpolate = _instead_of(F.interpolate)
        else:
            _open.append(_open[0])
    try:
        yield
    finally:
        with _lock:
            original = _open.pop()
            if not _open:
                F.interpolate = original


def _instead_of(original: Any) -> Any:
    @paddle.jit.not_to_static
    @functools.wraps(original)
    def interpolate(
        x: Any,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool = False,
        align_mode: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        other = [align_corners, align_mode, scale_factor, *args, *(v for v in kwargs.values() if v != "NCHW")]
        if mode == "bilinear" and not any(other) and _suits(x, size):
            return _resized(x, int(size[0]), int(size[1]))
        return original(x, size, scale_factor, mode, align_corners, align_mode, *args, **kwargs)

    return interpolate


def _suits(x: Any, size: Any) -> bool:
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        return False
    if not (paddle.in_dynamic_mode() and isinstance(x, paddle.Tensor) and hasattr(x, "__dlpack__")):
        return False
    if x.dtype != paddle.float32 or x.ndim != 4 or not x.place.is_cpu_place() or 0 in x.shape:
        return False
    return size[0] * size[1] >= _LEAST_PIXELS and (x.stop_gradient or not paddle.is_grad_enabled())


def _resized(x: paddle.Tensor, height: int, width: int) -> paddle.Tensor:
    out = paddle.empty([*x.shape[:2], height, width], dtype="float32")
    sources = np.from_dlpack(x.detach().contiguous()).reshape(-1, *x.shape[2:])
    # numpy 1 would share it for reading only.
    memory = np.ctypeslib.as_array((ctypes.c_float * out.size).from_address(out.data_ptr()))
    targets = memory.reshape(-1, height, width)
    for source, target in zip(sources, targets):
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return out
