"""Batch normalisation by the statistics of the batch, with the ReLU after it, in the convolution's layout."""

from __future__ import annotations

from ctypes import c_float
from typing import NamedTuple

import paddle

from segkit.engine.onednn.library import (
    BACKWARD,
    DIFF_DST,
    DIFF_SCALE,
    DIFF_SHIFT,
    DIFF_SRC,
    DST,
    F32,
    FORWARD_TRAINING,
    FUSE_NORM_RELU,
    MEAN,
    QUERY_WORKSPACE,
    SCALE,
    SHIFT,
    SRC,
    USE_SCALE_AND_SHIFT,
    VARIANCE,
    WORKSPACE,
    Library,
    OneDNNError,
)
from segkit.engine.onednn.primitives import Descriptor, Primitive, buffer, created


class Normalised(NamedTuple):
    """What the forward pass gives: the map, mean and variance [C] of the batch, and where the ReLU let through."""

    y: paddle.Tensor
    mean: paddle.Tensor
    variance: paddle.Tensor
    passed: paddle.Tensor | None


class BatchNormalisation:
    """The primitives for maps of one layout. Methods run inside `library.session()`; addresses are of such maps, of
    weight and bias [C]."""

    def __init__(self, library: Library, layout: Descriptor, channels: int, epsilon: float, relu: bool):
        self._channels, self._size = channels, layout.size
        vector = Descriptor.of(library, (channels,), F32)
        flags = USE_SCALE_AND_SHIFT | (FUSE_NORM_RELU if relu else 0)
        pointer, attributes = layout.pointer, (c_float(epsilon), flags)
        name = "dnnl_batch_normalization_forward_primitive_desc_create"
        forward = Primitive(library, created(library, name, FORWARD_TRAINING, pointer, pointer, *attributes))
        name = "dnnl_batch_normalization_backward_primitive_desc_create"
        descriptor = created(library, name, BACKWARD, pointer, pointer, pointer, *attributes, forward.descriptor)
        backward = Primitive(library, descriptor)
        if any(library.implementation(p.descriptor).startswith("ref") for p in (forward, backward)):
            raise OneDNNError("oneDNN: batch normalisation: no fast kernel")
        places = forward.layout(QUERY_WORKSPACE)
        self._places = places.size if relu else 0
        extra = [(WORKSPACE, places)] if relu else []
        given = [(SRC, layout), (MEAN, vector), (VARIANCE, vector), (SCALE, vector)]
        forward.finish([*given, (SHIFT, vector), (DST, layout), *extra])
        results = [(DIFF_SRC, layout), (DIFF_SCALE, vector), (DIFF_SHIFT, vector)]
        backward.finish([*given, (DIFF_DST, layout), *results, *extra])
        self._forward, self._backward = forward, backward

    def forward(self, x: int, weight: int, bias: int, y: paddle.Tensor | None = None) -> Normalised:
        """Of the map x, into y if there is one."""
        y, passed = buffer(self._size) if y is None else y, buffer(self._places) if self._places else None
        mean, variance = (paddle.empty([self._channels], dtype="float32") for _ in range(2))
        results = [t.data_ptr() for t in (y, passed) if t is not None]
        self._forward.run(x, mean.data_ptr(), variance.data_ptr(), weight, bias, *results)
        return Normalised(y, mean, variance, passed)

    def backward(
        self, gradient: int, x: int, mean: int, variance: int, weight: int, passed: int | None
    ) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Gradients of the map x, of weight and bias."""
        into_x = buffer(self._size)
        vectors = [paddle.empty([self._channels], dtype="float32") for _ in range(2)]
        results = [t.data_ptr() for t in (into_x, *vectors)]
        extra = () if passed is None else (passed,)
        self._backward.run(x, mean, variance, weight, gradient, *results, *extra)
        return into_x, *vectors
