"""All of one convolution of fixed shapes: forward, gradient of the input, gradients of weights and bias."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from ctypes import byref, c_void_p
from typing import Any, Callable, NamedTuple

import paddle

from segkit.engine.onednn.library import (
    BF16,
    BIAS,
    CONVOLUTION_DIRECT,
    DECONVOLUTION_DIRECT,
    DIFF_BIAS,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    F32,
    FORWARD_TRAINING,
    QUERY_DIFF_DST,
    QUERY_DIFF_SRC,
    QUERY_DIFF_WEIGHTS,
    QUERY_DST,
    QUERY_SRC,
    QUERY_WEIGHTS,
    SRC,
    WEIGHTS,
    Library,
    OneDNNError,
    dims,
)
from segkit.engine.onednn.primitives import Descriptor, Primitive, Reorder, buffer

SPINS = "brgconv_bwd_w"  # AMX: its threads wait for each other in busy loops


class Geometry(NamedTuple):
    """What one convolution is; also its key in the cache. Shapes as Paddle has them, padding (top, left)."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    groups: int
    bias: bool
    transposed: bool
    bf16: bool

    def weight_layout(self) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Shape and strides (None: row-major) of the weights as oneDNN sees them: [groups,] out, in, height, width."""
        groups, (height, width) = self.groups, self.weight[2:]
        if not self.transposed:
            out, into = self.weight[0] // groups, self.weight[1]
            return ((groups,) if groups > 1 else ()) + (out, into, height, width), None
        into, out = self.weight[0] // groups, self.weight[1]
        area = height * width
        shape, strides = (out, into, height, width), (area, out * area, width, 1)
        if groups > 1:
            shape, strides = (groups, *shape), (into * out * area, *strides)
        return shape, strides

    def by_paddle(self, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None) -> paddle.Tensor:
        """The same convolution by Paddle's own kernel, which is reached past every hook."""
        padding = [max(0, pixels) for sides in zip(self.before, self.after) for pixels in sides]  # < 0: output padding
        stride, dilation = list(self.stride), list(self.dilation)
        if self.transposed:
            window = stride, padding, [], list(self.y[2:]), "EXPLICIT", self.groups, dilation, "NCHW"
            y = paddle._C_ops.conv2d_transpose(x, weight, *window)
        else:
            y = paddle._C_ops.conv2d(x, weight, stride, padding, "EXPLICIT", dilation, self.groups, "NCHW")
        return y if bias is None else y + bias.reshape([1, -1, 1, 1])


class Layouts(NamedTuple):
    """Descriptors of a batch: as Paddle keeps the tensors, and as oneDNN may choose."""

    x: Descriptor
    y: Descriptor
    free_x: Descriptor
    free_weight: Descriptor
    free_y: Descriptor


class Convolution:
    """The primitives of one geometry; those of the backward pass are made when they are first needed.

    Every method runs inside `library.session()`. Addresses point to contiguous float32 tensors, those of maps to what
    `x` and `y` describe: Paddle's own layout where nothing else is asked for.
    """

    def __init__(self, library: Library, geometry: Geometry, x: Descriptor | None = None, free_y: bool = False):
        """`x`: the layout in which the input comes; `free_y`: the output is left in the layout that oneDNN chooses."""
        self.library, self.geometry = library, geometry
        shape, strides = geometry.weight_layout()
        self.weight = Descriptor.of(library, shape, F32, strides)
        self.free_gradient = Descriptor.of(library, shape, F32, free=True)
        self.bias = Descriptor.of(library, (geometry.y[1],), F32) if geometry.bias else None
        self.batch = self.layouts(geometry.x[0])
        self.forward_descriptor = self.describe_forward(self.batch)
        forward = self._forward = Primitive(library, self.forward_descriptor)
        self.source = forward.layout(QUERY_SRC)
        weight, target = forward.layout(QUERY_WEIGHTS), forward.layout(QUERY_DST)
        arguments = [(SRC, self.source), (WEIGHTS, weight), (DST, target)]
        forward.finish(arguments + ([(BIAS, self.bias)] if self.bias else []))
        self.x, self.y = x or self.batch.x, target if free_y else self.batch.y
        self._x_in = Reorder(library, self.x, self.source)
        self._weight_in = Reorder(library, self.weight, weight)
        self._y_out = Reorder(library, target, self.y)
        self._y_size = target.size
        self._free_y = free_y
        self._data: DataGradient | None = None
        self._weights: dict[bool, WeightGradient] = {}

    def layouts(self, samples: int) -> Layouts:
        """Descriptors for `samples` of the batch."""
        library, geometry = self.library, self.geometry
        dtype = BF16 if geometry.bf16 else F32
        x, y = (samples, *geometry.x[1:]), (samples, *geometry.y[1:])
        return Layouts(
            Descriptor.of(library, x, F32),
            Descriptor.of(library, y, F32),
            Descriptor.of(library, x, dtype, free=True),
            Descriptor.of(library, geometry.weight_layout()[0], dtype, free=True),
            Descriptor.of(library, y, dtype, free=True),
        )

    def describe_forward(self, batch: Layouts) -> c_void_p:
        """A new primitive descriptor of the forward pass (also the hint that the backward ones ask for)."""
        bias = self.bias.pointer if self.bias else None
        tensors = (batch.free_x.pointer, batch.free_weight.pointer, bias, batch.free_y.pointer)
        return self.describe("forward", FORWARD_TRAINING, tensors)

    def describe(self, name: str, kind: int | None, tensors: tuple[Any, ...], hint: c_void_p | None = None) -> c_void_p:
        """A new primitive descriptor: `name` is forward, backward_data or backward_weights."""
        geometry = self.geometry
        prefix, algorithm = ("de", DECONVOLUTION_DIRECT) if geometry.transposed else ("", CONVOLUTION_DIRECT)
        create = getattr(self.library.c, f"dnnl_{prefix}convolution_{name}_primitive_desc_create")
        window = [
            dims(v) for v in (geometry.stride, [d - 1 for d in geometry.dilation], geometry.before, geometry.after)
        ]
        pointer = c_void_p()
        head = (byref(pointer), self.library.engine, *(() if kind is None else (kind,)), algorithm)
        self.library.check(
            create(*head, *tensors, *window, *(() if hint is None else (hint,)), self.library.attributes), name
        )
        return pointer

    def forward(self, x: int, weight: int, bias: int | None) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """The output, and the input in oneDNN's layout for the backward pass (None: it came in that)."""
        y = buffer(self._y_size) if self._free_y else paddle.empty(list(self.geometry.y), dtype="float32")
        source, weights = self._x_in.scratch(), self._weight_in.scratch()
        target = buffer(self._y_size) if self._y_out.needed else y
        pointers = [self._x_in(x, source), self._weight_in(weight, weights), target.data_ptr()]
        self._forward.run(*pointers, *(() if bias is None else (bias,)))
        if self._y_out.needed:
            self._y_out.into(target.data_ptr(), y.data_ptr())
        return y, source

    def restored(self, source: paddle.Tensor) -> paddle.Tensor:
        """The input in Paddle's layout again, from what `forward` kept of it or the input itself."""
        back = Reorder(self.library, self.source, self.batch.x)
        if not back.needed:
            return source
        x = paddle.empty(list(self.geometry.x), dtype="float32")
        back.into(source.data_ptr(), x.data_ptr())
        return x

    def prepare_backward(self, into_x: bool, into_weight: bool) -> None:
        """Make what `backward` will need, so that what oneDNN refuses is known while Paddle can still take over."""
        if into_x and self._data is None:
            self._data = DataGradient(self)
        if into_weight and into_x not in self._weights:
            self._weights[into_x] = WeightGradient(self, self._data.layout if into_x and self._data else None)

    def backward(
        self, gradient: int, source: int | None, weight: int | None
    ) -> tuple[paddle.Tensor | None, paddle.Tensor | None, paddle.Tensor | None]:
        """Gradients of input, weights and bias. `source`: the input as `forward` left it, None: no gradient of
        weights and bias wanted; `weight` None: no gradient of the input wanted."""
        self.prepare_backward(weight is not None, source is not None)
        into_x = reordered = shared = None
        if weight is not None:
            into_x, reordered = self._data.run(gradient, weight)
            shared = gradient if reordered is None else reordered.data_ptr()
        if source is None:
            return into_x, None, None
        return (into_x, *self._weights[weight is not None].run(gradient, shared, source))


class DataGradient:
    """Gradient of the input."""

    def __init__(self, convolution: Convolution):
        library, batch, x = convolution.library, convolution.batch, convolution.x
        tensors = (batch.free_x.pointer, batch.free_weight.pointer, batch.free_y.pointer)
        hint = convolution.forward_descriptor
        self._primitive = Primitive(library, convolution.describe("backward_data", None, tensors, hint))
        target, weight = self._primitive.layout(QUERY_DIFF_SRC), self._primitive.layout(QUERY_WEIGHTS)
        self.layout = self._primitive.layout(QUERY_DIFF_DST)
        self._primitive.finish([(DIFF_SRC, target), (WEIGHTS, weight), (DIFF_DST, self.layout)])
        self._gradient_in = Reorder(library, convolution.y, self.layout)
        self._weight_in = Reorder(library, convolution.weight, weight)
        self._out = Reorder(library, target, x)
        self._size, self._result_size = target.size, x.size
        self._shape = list(convolution.geometry.x) if x is batch.x else None

    def run(self, gradient: int, weight: int) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """The gradient, and the output's gradient in this primitive's layout (None: it came in that)."""
        result = buffer(self._result_size) if self._shape is None else paddle.empty(self._shape, dtype="float32")
        reordered, weights = self._gradient_in.scratch(), self._weight_in.scratch()
        target = buffer(self._size) if self._out.needed else result
        pointers = (self._weight_in(weight, weights), self._gradient_in(gradient, reordered))
        self._primitive.run(target.data_ptr(), *pointers)
        if self._out.needed:
            self._out.into(target.data_ptr(), result.data_ptr())
        return result, reordered


class WeightGradient:
    """Gradients of weights and bias: the batch is divided among Python threads with one kernel thread each.

    oneDNN's own threads wait for each other in busy loops in this pass: once another process takes one core
    (a loader worker does) it becomes up to a hundred times slower. Parts of the batch that only meet at the end
    do not, and their sum, taken in order, is the same every time.
    """

    def __init__(self, convolution: Convolution, shared: Descriptor | None):
        """`shared`: layout in which the output's gradient may be at hand."""
        library = self._library = convolution.library
        self._shape = list(convolution.geometry.weight)
        self._channels = convolution.geometry.y[1] if convolution.bias else 0
        samples = convolution.geometry.x[0]
        number = min(library.threads, samples)
        bounds = [samples * i // number for i in range(number + 1)]
        self._threads = 1
        with library.threads_set_to(1):
            parts = [_Part(convolution, shared, bounds[i], bounds[i + 1], i) for i in range(number)]
        if 2 * number <= library.threads and not parts[0].name.startswith(SPINS):  # few samples on many cores
            self._threads = library.threads
            parts = [_Part(convolution, shared, 0, samples, 0)]
        self._parts = parts

    def run(self, gradient: int, shared: int | None, source: int) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Gradients of weights and (where there is one) bias."""
        sums = [paddle.empty(self._shape, dtype="float32") for _ in self._parts]
        biases = [paddle.empty([self._channels], dtype="float32") for _ in self._parts] if self._channels else []
        jobs = []
        for i, part in enumerate(self._parts):
            bias = biases[i].data_ptr() if biases else None
            jobs.append(part.prepare(gradient, shared, source, sums[i].data_ptr(), bias))
        with self._library.threads_set_to(self._threads):
            _together(jobs, self._library)
        for tensors in (sums, biases):
            for other in tensors[1:]:
                tensors[0].add_(other)
        return sums[0], (biases[0] if biases else None)


class _Part:
    """Gradients of weights and bias from samples `first` to `last` of the batch."""

    def __init__(self, convolution: Convolution, shared: Descriptor | None, first: int, last: int, stream: int):
        library, geometry = convolution.library, convolution.geometry
        samples = geometry.x[0]
        divided = (first, last) != (0, samples)
        batch = convolution.layouts(last - first) if divided else convolution.batch
        hint_owner = Primitive(library, convolution.describe_forward(batch)) if divided else None
        hint = hint_owner.descriptor if hint_owner else convolution.forward_descriptor
        bias = convolution.bias.pointer if convolution.bias else None
        tensors = (batch.free_x.pointer, convolution.free_gradient.pointer, bias, batch.free_y.pointer)
        descriptor = convolution.describe("backward_weights", None, tensors, hint)
        self.name = library.implementation(descriptor)
        self._primitive = Primitive(library, descriptor, stream)
        source, layout = self._primitive.layout(QUERY_SRC), self._primitive.layout(QUERY_DIFF_DST)
        target = self._primitive.layout(QUERY_DIFF_WEIGHTS)
        arguments = [(SRC, source), (DIFF_WEIGHTS, target), (DIFF_DST, layout)]
        self._primitive.finish(arguments + ([(DIFF_BIAS, convolution.bias)] if convolution.bias else []))
        saved, self._source_offset = _samples(convolution.source, geometry.x, first, last)
        self._source_in = Reorder(library, saved, source, stream)
        given, self._gradient_offset = _samples(convolution.y, geometry.y, first, last)
        self._gradient_in = Reorder(library, given, layout, stream)
        self._out, self._size = Reorder(library, target, convolution.weight, stream), target.size
        self._shared_offset: int | None = None
        if shared is not None:
            part, offset = _samples(shared, geometry.y, first, last)
            self._shared_offset = offset if part == layout else None

    def prepare(
        self, gradient: int, shared: int | None, source: int, target: int, bias: int | None
    ) -> Callable[[], None]:
        """A function that does the work in whatever thread calls it."""
        source_scratch = self._source_in.scratch()
        use_shared = shared is not None and self._shared_offset is not None
        scratch = None if use_shared else self._gradient_in.scratch()
        own = buffer(self._size) if self._out.needed else None

        def work() -> None:
            x = self._source_in(source + self._source_offset, source_scratch)
            if use_shared:
                dy = shared + self._shared_offset
            else:
                dy = self._gradient_in(gradient + self._gradient_offset, scratch)
            result = target if own is None else own.data_ptr()
            self._primitive.run(x, result, dy, *(() if bias is None else (bias,)))
            if own is not None:
                self._out.into(result, target)

        return work


def _samples(layout: Descriptor, shape: tuple[int, ...], first: int, last: int) -> tuple[Descriptor, int]:
    """Layout of samples `first` to `last` of a batch of `shape`, and where they begin in bytes."""
    samples, *rest = shape
    if (first, last) == (0, samples):
        return layout, 0
    size = layout.first((1, *rest)).size
    if size * samples != layout.size:
        raise OneDNNError("a layout that mixes samples")
    return layout.first((last - first, *rest)), size * first


_workers: dict[int, ThreadPoolExecutor] = {}


def _together(jobs: list[Callable[[], None]], library: Library) -> None:
    """Run the jobs at once, the first in this thread, each of the others on one kernel thread."""
    if len(jobs) == 1:
        return jobs[0]()
    if os.getpid() not in _workers:  # threads do not survive a fork
        _workers.clear()
        _workers[os.getpid()] = ThreadPoolExecutor(library.threads, "onednn", library.set_threads, (1,))
    futures = [_workers[os.getpid()].submit(job) for job in jobs[1:]]
    try:
        jobs[0]()
    finally:
        wait(futures)  # also where one fails: nobody may use their memory and streams before
    for future in futures:
        future.result()
