"""Two-dimensional max-pooling of Paddle tensors through oneDNN, with its gradient.

The forward pass notes which pixel was the largest; Paddle's own looks for it again in the backward pass, on one thread.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np
import paddle
from paddle.autograd import PyLayer

from segkit.engine.onednn.functional import Fallback, Kernel, cached, check_tensors, counts
from segkit.engine.onednn.library import (
    BLOCKED,
    DIFF_DST,
    DIFF_SRC,
    DST,
    F32,
    FORWARD_TRAINING,
    POOLING_MAX,
    QUERY_WORKSPACE,
    S32,
    SRC,
    WORKSPACE,
    Library,
    OneDNNError,
    dims,
)
from segkit.engine.onednn.primitives import Descriptor, Primitive, Reorder, buffer, created

MAX_POOLING = "oneDNN, max-pooling"
LEAST = 1 << 16  # elements of the larger map; below, the calls cost what the kernel saves


class MaxPooling:
    """The primitives of one pair of shapes. Methods run inside `library.session()`, on contiguous float32 tensors.

    Where oneDNN has only its slow kernel for Paddle's layout (big maps), blocks of channels and reorders serve.
    """

    def __init__(self, library: Library, x: tuple[int, ...], y: tuple[int, ...], window: tuple[Sequence[int], ...]):
        """`window`: strides, size, padding before (top, left) and after."""
        self._shapes, self._window = (list(x), list(y)), window
        outer = [Descriptor.of(library, shape, F32) for shape in (x, y)]
        strides, size, before, after = (dims(pair) for pair in window)
        window_dims = strides, size, dims([0, 0]), before, after
        name = "dnnl_pooling_forward_primitive_desc_create"
        for tag in (None, BLOCKED[library.block]):
            inner = [Descriptor.of(library, shape, F32, tag=tag) for shape in (x, y)]
            head = (POOLING_MAX, *(d.pointer for d in inner), *window_dims)
            self._forward = Primitive(library, created(library, name, FORWARD_TRAINING, *head))
            if library.implementation(self._forward.descriptor).startswith("jit"):
                break
        else:
            raise OneDNNError("oneDNN: max-pooling: no fast kernel")
        if tag is not None and x[1] < library.block // 2:
            raise OneDNNError("oneDNN: max-pooling: no fast kernel for few channels")
        places = self._forward.layout(QUERY_WORKSPACE)
        self._places = places.size
        self._forward.finish([(SRC, inner[0]), (DST, inner[1]), (WORKSPACE, places)])
        name = "dnnl_pooling_backward_primitive_desc_create"
        self._backward = Primitive(library, created(library, name, *head, self._forward.descriptor))
        self._backward.finish([(DIFF_SRC, inner[0]), (DIFF_DST, inner[1]), (WORKSPACE, places)])
        self._into = [Reorder(library, a, b) for a, b in zip(outer, inner)]
        self._out = [Reorder(library, b, a) for a, b in zip(outer, inner)]

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The pooled map, and where its pixels come from."""
        places = buffer(self._places)
        return self._between(0, 1, x, lambda a, b: self._forward.run(a, b, places.data_ptr())), places

    def backward(self, gradient: paddle.Tensor, places: paddle.Tensor) -> paddle.Tensor:
        """The gradient of the input."""
        return self._between(1, 0, gradient, lambda a, b: self._backward.run(b, a, places.data_ptr()))

    def scattered(self, gradient: paddle.Tensor, places: paddle.Tensor) -> paddle.Tensor:
        """`backward` by numpy: Paddle's kernel wants the input, which nobody has kept."""
        (n, c, height, width), (*_, rows, columns) = self._shapes
        within = paddle.empty(self._shapes[1], dtype="int32")
        plain = Descriptor.of(self._forward.library, self._shapes[1], S32)
        Reorder(self._forward.library, self._forward.layout(QUERY_WORKSPACE), plain).into(
            places.data_ptr(), within.data_ptr()
        )
        strides, (_, wide), (top, left), _ = self._window
        down, right = np.divmod(within.numpy(), wide)
        down += (np.arange(rows) * strides[0] - top)[:, None].astype("int32")
        right += (np.arange(columns) * strides[1] - left).astype("int32")
        pixels = np.arange(n * c).reshape(n, c, 1, 1) * (height * width) + down * width + right
        sums = np.bincount(pixels.ravel(), gradient.numpy().ravel(), n * c * height * width)
        return paddle.to_tensor(sums.astype("float32").reshape(self._shapes[0]), place=paddle.CPUPlace())

    def _between(self, before: int, after: int, tensor: Any, run: Callable[[int, int], None]) -> paddle.Tensor:
        """The tensor that `run` makes from the address of one into that of another, both in oneDNN's layout."""
        result, into, out = paddle.empty(self._shapes[after], dtype="float32"), self._into[before], self._out[after]
        source, target = into.scratch(), buffer(self._into[after].size) if out.needed else result
        run(into(tensor.data_ptr(), source), target.data_ptr())
        if out.needed:
            out.into(target.data_ptr(), result.data_ptr())
        return result


class _Function(PyLayer):
    """A max-pooling in Paddle's graph."""

    @staticmethod
    def forward(ctx: Any, x: Any, kernel: Kernel) -> paddle.Tensor:
        ctx.kernel = kernel
        y, places = kernel.forward(lambda: kernel.primitives.forward(x))
        ctx.save_for_backward(places)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> paddle.Tensor:
        gradient = gradient if gradient.is_contiguous() else gradient.contiguous()
        pooling, arguments = ctx.kernel.primitives, (gradient, ctx.saved_tensor()[0])
        return ctx.kernel.backward(
            lambda: pooling.backward(*arguments), lambda: pooling.scattered(*arguments), gradient
        )


def max_pool(library: Library, x: Any, arguments: tuple[Any, ...]) -> Any:
    """`pool2d` with Paddle's own `arguments` after x, None for averages and for maps too small to be worth it.

    Raises `Fallback` where it is not for oneDNN.
    """
    size, stride, padding, ceil_mode, _, data_format, kind, whole, adaptive, algorithm = arguments
    if kind != "max" or x.ndim != 4 or x.size < LEAST:
        return None
    what = "max-pooling: "
    if whole or adaptive or ceil_mode or algorithm != "EXPLICIT":
        raise Fallback(what + "adaptive, rounded up or padded by a rule")
    if any(not isinstance(n, int) for pair in (size, stride, padding) for n in pair) or len(padding) not in (2, 4):
        raise Fallback(what + "size or padding of another kind")
    check_tensors((x,), data_format, what)
    before, after = (padding[::2], padding[1::2]) if len(padding) == 4 else (padding, padding)
    out = [(n + b + a - k) // s + 1 for n, b, a, k, s in zip(x.shape[2:], before, after, size, stride)]
    if min(out) < 1 or any(p >= k for p, k in zip((*before, *after), (*size, *size))):
        raise Fallback(what + "a window outside the map")
    shapes = tuple(x.shape), (*x.shape[:2], *out)
    window = tuple(stride), tuple(size), tuple(before), tuple(after)
    kernel = cached(library, ("max", *shapes, *window), lambda: MaxPooling(library, *shapes, window))
    x = x if x.is_contiguous() else x.contiguous()
    if paddle.is_grad_enabled() and not x.stop_gradient:
        y = _Function.apply(x, kernel)
    else:
        y = kernel.forward(lambda: kernel.primitives.forward(x))[0]
    counts[MAX_POOLING] += 1
    return y
