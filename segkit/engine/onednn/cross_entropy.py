"""Cross entropy over the channels of a map [N, C, H, W], with oneDNN's softmax.

Paddle's own walks through the channels of one pixel after the other on one thread: with 19 classes this one
takes half of its time, with 2 it gains little. Paddle's also takes exp(-64) for every smaller number, so that the loss
of a pixel ends at 64; this one's does not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from segkit.engine.onednn.functional import Fallback, Kernel, cached, check_tensors, counts
from segkit.engine.onednn.library import DST, F32, FORWARD_TRAINING, LOG_SOFTMAX, SRC, Library
from segkit.engine.onednn.primitives import Descriptor, Primitive, array, created

CROSS_ENTROPY = "oneDNN, cross entropy"
LEAST = 1 << 15  # elements of the logits; below, the calls cost what the kernel saves


class LogSoftmax:
    """The primitive for one shape, over the channels. Runs inside `library.session()`."""

    def __init__(self, library: Library, shape: tuple[int, ...]):
        layout = Descriptor.of(library, shape, F32)
        name, pointer = "dnnl_softmax_forward_primitive_desc_create", layout.pointer
        descriptor = created(library, name, FORWARD_TRAINING, LOG_SOFTMAX, pointer, pointer, 1)
        self._primitive = Primitive(library, descriptor)
        self._primitive.finish([(SRC, layout), (DST, layout)])

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:
        """Of a contiguous float32 tensor."""
        y = paddle.empty(x.shape, dtype="float32")
        self._primitive.run(x.data_ptr(), y.data_ptr())
        return y


class _Function(PyLayer):
    """The loss of every pixel [N, 1, H, W] in Paddle's graph; `probability` is left in `results`."""

    @staticmethod
    def forward(ctx: Any, x: Any, kernel: Kernel, where: np.ndarray, kept: np.ndarray, results: list) -> Any:
        loss, probability = _forward(x, kernel, where, kept)
        ctx.where, ctx.kept = where, kept
        ctx.save_for_backward(probability)
        results.append(probability)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> paddle.Tensor:
        probability = ctx.saved_tensor()[0]
        gradient = np.where(ctx.kept, gradient.numpy().reshape(ctx.kept.shape), np.float32(0))
        result = paddle.empty(probability.shape, dtype="float32")
        n, c, h, w = probability.shape
        shape = (n, c, h * w)
        np.multiply(array(probability).reshape(shape), gradient[:, None], out=array(result).reshape(shape))
        array(result)[ctx.where.ravel()] -= gradient.ravel()
        return result


def _forward(x: Any, kernel: Kernel, where: np.ndarray, kept: np.ndarray) -> tuple[paddle.Tensor, paddle.Tensor]:
    logarithm = kernel.forward(lambda: kernel.primitives(x))
    loss = np.where(kept, -array(logarithm)[where], np.float32(0))
    n, _, h, w = x.shape
    return paddle.to_tensor(loss.reshape(n, 1, h, w), place=paddle.CPUPlace()), paddle.exp(logarithm)


def cross_entropy(library: Library, x: Any, label: Any, arguments: tuple[Any, ...]) -> Any:
    """`cross_entropy_with_softmax` with Paddle's own `arguments` after the label: softmax and loss, None where the map
    is too small to be worth it.

    Raises `Fallback` where it is not for oneDNN.
    """
    soft_label, use_softmax, _, ignored, axis = arguments
    if x.ndim != 4 or axis not in (1, -3):
        return None  # not the classes of pixels
    what = "cross entropy: "
    if soft_label or not use_softmax:
        raise Fallback(what + "soft labels or probabilities")
    check_tensors((x,), "NCHW", what)
    n, channels, height, width = x.shape
    if label.shape != [n, 1, height, width] or label.dtype not in (paddle.int64, paddle.int32, paddle.uint8):
        raise Fallback(what + "labels of another shape or type")
    if math.prod(x.shape) < LEAST:
        return None
    classes = label.numpy().reshape(n, height * width)
    kept = classes != ignored
    classes = np.where(kept, classes, 0).astype(np.int64)
    if classes.min() < 0 or classes.max() >= channels:
        raise Fallback(what + "labels that are no class")  # Paddle says what is wrong with them
    where = classes * (height * width)
    where += np.arange(height * width) + np.arange(n)[:, None] * (channels * height * width)
    shape = tuple(x.shape)
    kernel = cached(library, ("log softmax", *shape), lambda: LogSoftmax(library, shape))
    x = x if x.is_contiguous() else x.contiguous()
    if not paddle.is_grad_enabled() or x.stop_gradient:
        loss, probability = _forward(x, kernel, where, kept)
    else:
        results: list[paddle.Tensor] = []
        loss = _Function.apply(x, kernel, where, kept, results)
        (probability,) = results
    counts[CROSS_ENTROPY] += 1
    return probability, loss
