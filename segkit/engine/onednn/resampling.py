"""Bilinear interpolation of Paddle tensors through oneDNN, with its gradient."""

from __future__ import annotations

import math
from ctypes import c_float
from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from segkit.engine.onednn.convolution import Convolution, Geometry
from segkit.engine.onednn.functional import Fallback, Kernel, cached, check_tensors, counts, paddles_gradients
from segkit.engine.onednn.library import (
    BLOCKED,
    DIFF_DST,
    DIFF_SRC,
    DST,
    F32,
    FORWARD_TRAINING,
    RESAMPLING_LINEAR,
    SRC,
    Library,
    OneDNNError,
)
from segkit.engine.onednn.primitives import Descriptor, Primitive, Reorder, array, buffer, created

BILINEAR = "oneDNN, bilinear"
LEAST = 1 << 15  # elements of the larger map; below, the calls cost what the kernel saves


class Resampling:
    """The primitives of one pair of shapes. Methods run inside `library.session()`, on contiguous float32 tensors.

    From half a block on the maps are put into blocks of channels (8 or 16) for it: there oneDNN's kernel has vectors,
    and with both reorders it takes half of Paddle's time or less. Fewer channels would be padded too much.
    """

    def __init__(self, library: Library, x: tuple[int, ...], y: tuple[int, ...]):
        self._shapes = list(x), list(y)
        outer = [Descriptor.of(library, shape, F32) for shape in (x, y)]
        tag = BLOCKED[library.block] if x[1] >= library.block // 2 else None
        inner = [Descriptor.of(library, shape, F32, tag=tag) for shape in (x, y)]
        pointers = [d.pointer for d in inner]
        head = (RESAMPLING_LINEAR, None, *pointers)
        name = "dnnl_resampling_forward_primitive_desc_create"
        self._forward = Primitive(library, created(library, name, FORWARD_TRAINING, *head))
        self._forward.finish([(SRC, inner[0]), (DST, inner[1])])
        try:
            self._enlarged: Enlarged | None = Enlarged(library, x, y)
        except OneDNNError:
            self._enlarged = None
        name = "dnnl_resampling_backward_primitive_desc_create"
        self._backward = Primitive(library, created(library, name, *head, self._forward.descriptor))
        self._backward.finish([(DIFF_SRC, inner[0]), (DIFF_DST, inner[1])])
        self._into = [Reorder(library, a, b) for a, b in zip(outer, inner)]
        self._out = [Reorder(library, b, a) for a, b in zip(outer, inner)]
        self._sizes = [d.size for d in inner]

    def forward(self, x: int) -> paddle.Tensor:
        """The map of the other size."""
        source, result, target = self._tensors(0, 1)
        address = self._into[0](x, source)
        self._forward.run(address, target.data_ptr())
        return self._finish(1, target, result)

    def backward(self, gradient: int) -> paddle.Tensor:
        """The gradient of the input."""
        if self._enlarged is not None:
            return self._enlarged.backward(gradient)
        source, result, target = self._tensors(1, 0)
        address = self._into[1](gradient, source)
        self._backward.run(target.data_ptr(), address)
        return self._finish(0, target, result)

    def paddles_backward(self, gradient: paddle.Tensor) -> paddle.Tensor:
        """The same by Paddle's own kernel, which is reached past every hook."""
        x, y = self._shapes
        rest = None, None, None, "NCHW", -1, *y[2:], [], "bilinear", False, 0
        enlarged = lambda x: paddle._C_ops.bilinear_interp(x, *rest)  # noqa: E731
        return paddles_gradients(enlarged, [paddle.zeros(x)], [True], gradient)[0]

    def _tensors(self, before: int, after: int) -> tuple[Any, paddle.Tensor, paddle.Tensor]:
        result = paddle.empty(self._shapes[after], dtype="float32")
        target = buffer(self._sizes[after]) if self._out[after].needed else result
        return self._into[before].scratch(), result, target

    def _finish(self, after: int, target: paddle.Tensor, result: paddle.Tensor) -> paddle.Tensor:
        if self._out[after].needed:
            self._out[after].into(target.data_ptr(), result.data_ptr())
        return result


class Enlarged:
    """The gradient of an enlargement by whole numbers: every pixel of the input gathers a triangle of the output's
    gradient, which is a convolution of each channel by itself with that stride. oneDNN's own kernel has no vectors.

    The pixels of the border gather what those beyond it would, too.
    """

    def __init__(self, library: Library, x: tuple[int, ...], y: tuple[int, ...]):
        """Raises `OneDNNError` where it is none such or has no fast kernel."""
        self._scales = scales = [after // before for before, after in zip(x[2:], y[2:])]
        if min(scales) < 2 or any(b * s != a for b, s, a in zip(x[2:], scales, y[2:])):
            raise OneDNNError("no enlargement by whole numbers")
        n, channels = (x[0], x[1]) if x[1] >= library.block // 2 else (1, x[0] * x[1])
        taps = [_triangle(s) for s in scales]
        before = tuple(s // 2 for s in scales)
        shapes = (n, channels, *y[2:]), (channels, 1, *(t.size for t in taps)), (n, channels, *x[2:])
        window = tuple(scales), (1, 1), before, before
        self._convolution = Convolution(library, Geometry(*shapes, *window, channels, False, False, False))
        if not library.implementation(self._convolution.forward_descriptor).startswith("jit"):
            raise OneDNNError("no fast kernel for the gradient of an enlargement")
        weight = np.broadcast_to(np.outer(*taps), shapes[1])
        self._weight = paddle.to_tensor(np.ascontiguousarray(weight, "float32"), place=paddle.CPUPlace())
        self._shape = list(x)

    def backward(self, gradient: int) -> paddle.Tensor:
        """The gradient of the input."""
        result = self._convolution.forward(gradient, self._weight.data_ptr(), None)[0].reshape(self._shape)
        (high, wide), (n, c, height, width) = self._scales, self._shape
        given = np.ctypeslib.as_array((c_float * (result.size * high * wide)).from_address(gradient))
        given = given.reshape(n * c, height * high, width * wide)
        gathered = array(result).reshape(n * c, height, width)
        for edge, rows in ((0, given), (-1, given[:, ::-1])):
            beyond = _beyond(rows, high)
            line = _gathered(beyond, wide)
            line[:, 0] += _beyond(beyond.T, wide)
            line[:, -1] += _beyond(beyond.T[::-1], wide)
            gathered[:, edge] += line
        for edge, columns in ((0, given), (-1, given[:, :, ::-1])):
            gathered[:, :, edge] += _gathered(_beyond(columns.transpose(0, 2, 1), wide), high)
        return result


def _triangle(scale: int) -> np.ndarray:
    """What a pixel takes of those that it was enlarged to, and of their neighbours."""
    size = 2 * scale - scale % 2
    return (1 - np.abs(np.arange(size) - (size - 1) / 2) / scale).astype("float32")


def _beyond(lines: np.ndarray, scale: int) -> np.ndarray:
    """What the pixel before the first would take of the `lines` [..., n, m] or [n, m]: [..., m]."""
    weights = (0.5 - (np.arange(scale // 2) + 0.5) / scale).astype("float32")
    return sum(weight * lines[..., i, :] for i, weight in enumerate(weights))


def _gathered(lines: np.ndarray, scale: int) -> np.ndarray:
    """The gradient along lines [k, n scale], the border apart: [k, n]."""
    n, half = lines.shape[1] // scale, scale // 2
    padded = np.pad(lines, ((0, 0), (half, half)))
    return sum(tap * padded[:, i : i + (n - 1) * scale + 1 : scale] for i, tap in enumerate(_triangle(scale)))


class _Function(PyLayer):
    """An interpolation in Paddle's graph."""

    @staticmethod
    def forward(ctx: Any, x: Any, kernel: Kernel) -> paddle.Tensor:
        ctx.kernel = kernel
        return kernel.forward(lambda: kernel.primitives.forward(x.data_ptr()))

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> paddle.Tensor:
        gradient = gradient if gradient.is_contiguous() else gradient.contiguous()
        resampling = ctx.kernel.primitives
        compute, instead = resampling.backward, resampling.paddles_backward
        return ctx.kernel.backward(lambda: compute(gradient.data_ptr()), lambda: instead(gradient), gradient)


def interpolate(library: Library, x: Any, arguments: tuple[Any, ...]) -> Any:
    """`bilinear_interp` with Paddle's own `arguments` after x, None where it is too small to be worth it.

    Raises `Fallback` where it is not for oneDNN.
    """
    *tensors, data_format, _, height, width, scale, _, align_corners, align_mode = arguments
    if any(t is not None for t in tensors):
        raise Fallback("bilinear interpolation: size as a tensor")
    if align_corners or align_mode != 0:
        raise Fallback("bilinear interpolation: corners aligned" if align_corners else "bilinear interpolation: mode 1")
    check_tensors((x,), data_format, "bilinear interpolation: ")
    size = x.shape[2:]
    if scale:
        exact = [n * s for n, s in zip(size, scale)]
        height, width = (math.floor(n) for n in exact)
        if exact != [height, width]:  # Paddle then takes 1 / scale for the step, oneDNN the ratio of the sizes
            raise Fallback("bilinear interpolation: a scale that the size is no multiple of")
    if min(height, width) < 1:
        raise Fallback("bilinear interpolation: no size")
    shapes = tuple(x.shape), (*x.shape[:2], height, width)
    if max(math.prod(shape) for shape in shapes) < LEAST:
        return None
    kernel = cached(library, ("bilinear", *shapes), lambda: Resampling(library, *shapes))
    x = x if x.is_contiguous() else x.contiguous()
    if paddle.is_grad_enabled() and not x.stop_gradient:
        y = _Function.apply(x, kernel)
    else:
        y = kernel.forward(lambda: kernel.primitives.forward(x.data_ptr()))
    counts[BILINEAR] += 1
    return y
