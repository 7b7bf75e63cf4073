"""The gradient of a ReLU through oneDNN: Paddle's own takes three times as long. Forward, Paddle's is as fast."""

from __future__ import annotations

from ctypes import c_float
from typing import Any

import paddle
from paddle.autograd import PyLayer

from segkit.engine.onednn.functional import (
    Kernel,
    cached,
    check_tensors,
    counts,
    paddles_gradients,
    saved,
    unchanged,
)
from segkit.engine.onednn.library import DIFF_DST, DIFF_SRC, DST, F32, FORWARD_TRAINING, RELU_BY_OUTPUT, Library
from segkit.engine.onednn.primitives import Descriptor, Primitive, created

RELU = "oneDNN, ReLU"
LEAST = 1 << 17  # elements; below, the calls cost what the kernel saves


class ReluGradient:
    """The primitive for so many elements. Runs inside `library.session()`, on contiguous float32 tensors."""

    def __init__(self, library: Library, size: int):
        layout = Descriptor.of(library, (size,), F32)
        kind, pointer, slope = RELU_BY_OUTPUT, layout.pointer, (c_float(0), c_float(0))
        name = "dnnl_eltwise_forward_primitive_desc_create"
        hint = Primitive(library, created(library, name, FORWARD_TRAINING, kind, pointer, pointer, *slope))
        name = "dnnl_eltwise_backward_primitive_desc_create"
        descriptor = created(library, name, kind, pointer, pointer, pointer, *slope, hint.descriptor)
        self._primitive = Primitive(library, descriptor)
        self._primitive.finish([(DST, layout), (DIFF_DST, layout), (DIFF_SRC, layout)])

    def __call__(self, y: paddle.Tensor, gradient: paddle.Tensor) -> paddle.Tensor:
        """The gradient of the input by the output `y`."""
        result = paddle.empty(y.shape, dtype="float32")
        self._primitive.run(y.data_ptr(), gradient.data_ptr(), result.data_ptr())
        return result


class _Function(PyLayer):
    """A ReLU in Paddle's graph."""

    @staticmethod
    def forward(ctx: Any, x: Any, kernel: Kernel) -> paddle.Tensor:
        y = paddle._C_ops.relu(x)
        ctx.kernel = kernel
        saved(ctx, y.detach())  # y itself would hold the graph that holds it
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> paddle.Tensor:
        (y,) = unchanged(ctx, "a ReLU")
        gradient = gradient if gradient.is_contiguous() else gradient.contiguous()
        instead = lambda: paddles_gradients(paddle._C_ops.relu, [y], [True], gradient)[0]  # noqa: E731
        return ctx.kernel.backward(lambda: ctx.kernel.primitives(y, gradient), instead, y)


def relu(library: Library, x: Any, arguments: tuple[Any, ...]) -> Any:
    """`relu` of a tensor of any shape, None where no gradient is wanted or it is too small to be worth it.

    Raises `Fallback` where it is not for oneDNN.
    """
    if x.size < LEAST or x.stop_gradient or not paddle.is_grad_enabled():
        return None
    check_tensors((x,), "NCHW", "ReLU: ", dimensions=False)
    size = x.size
    kernel = cached(library, ("relu", size), lambda: ReluGradient(library, size))
    counts[RELU] += 1
    return _Function.apply(x if x.is_contiguous() else x.contiguous(), kernel)
