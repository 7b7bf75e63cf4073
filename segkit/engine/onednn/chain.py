"""Convolution, BatchNorm and ReLU after one another as one step of the graph.

Between them the maps stay in oneDNN's layout, in bf16 once `context.CHAINS_IN_BF16` lets it; only what goes into the
first and comes out of the last is in Paddle's. Kept for the backward pass: each convolution's input and output once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from segkit.engine.onednn.convolution import Convolution, Geometry
from segkit.engine.onednn.functional import (
    ONEDNN,
    Fallback,
    Kernel,
    address,
    cached,
    check_tensors,
    counts,
    geometry,
    paddles_gradients,
    saved,
    unchanged,
)
from segkit.engine.onednn.library import F32, Library
from segkit.engine.onednn.normalisation import BatchNormalisation
from segkit.engine.onednn.primitives import Descriptor, Reorder, array

CHAIN = "oneDNN, convolution + BatchNorm"
PARAMETERS = 4  # of each stage: the convolution's weight and bias (None where it has none), the BatchNorm's


class Stage(NamedTuple):
    """A convolution, the BatchNorm after it and whether a ReLU follows."""

    convolution: paddle.nn.Conv2D
    norm: paddle.nn.BatchNorm2D
    relu: bool

    def parameters(self) -> list[Any]:
        """The `PARAMETERS`."""
        return [self.convolution.weight, self.convolution.bias, self.norm.weight, self.norm.bias]


class _Kept(NamedTuple):
    """What the backward pass of one stage needs; `source` None: the input of the stage itself."""

    source: paddle.Tensor | None
    convolved: paddle.Tensor
    mean: paddle.Tensor
    variance: paddle.Tensor
    passed: paddle.Tensor | None


class Chain:
    """The primitives of stages of fixed shapes. Methods run inside `library.session()`."""

    def __init__(self, library: Library, stages: Sequence[tuple[Geometry, float, bool]]):
        """`stages`: the convolution, the BatchNorm's epsilon, whether a ReLU follows."""
        self._stages = stages
        self.convolutions: list[Convolution] = []
        self.norms: list[BatchNormalisation] = []
        layout = None
        for shapes, epsilon, relu in stages:
            convolution = Convolution(library, shapes, layout, free_y=True)
            layout = convolution.y
            self.convolutions.append(convolution)
            self.norms.append(BatchNormalisation(library, layout, shapes.y[1], epsilon, relu))
        self._shape = list(shapes.y)
        plain = Descriptor.of(library, self._shape, F32)
        self._out, self._in = Reorder(library, layout, plain), Reorder(library, plain, layout)

    def prepare(self, into_x: bool, first: int, into_weights: Sequence[bool]) -> None:
        """Make what `backward` will need: as for a convolution."""
        for i, convolution in enumerate(self.convolutions):
            if i >= first:
                convolution.prepare_backward(into_x or i > first, into_weights[i])

    def forward(self, x: paddle.Tensor, parameters: Sequence[Any]) -> tuple[paddle.Tensor, list[_Kept]]:
        """The output in Paddle's layout, and what each stage keeps."""
        kept = []
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            weight, bias, scale, shift = (address(t) for t in parameters[i * PARAMETERS : (i + 1) * PARAMETERS])
            convolved, source = convolution.forward(x.data_ptr(), weight, bias)
            direct = i == len(self.norms) - 1 and not self._out.needed
            target = paddle.empty(self._shape, dtype="float32") if direct else None
            normalised = norm.forward(convolved.data_ptr(), scale, shift, target)
            kept.append(_Kept(x if source is None else source, convolved, *normalised[1:]))
            x = normalised.y
        if not self._out.needed:
            return x, kept
        y = paddle.empty(self._shape, dtype="float32")
        self._out.into(x.data_ptr(), y.data_ptr())
        return y, kept

    def backward(
        self, gradient: paddle.Tensor, parameters: Sequence[Any], kept: list[_Kept], wants: Sequence[bool], first: int
    ) -> list[Any]:
        """Gradients of x and of the parameters, None from below the stage `first` and where not wanted."""
        results: list[Any] = [None] * (1 + len(parameters))
        scratch = self._in.scratch()
        dy, holder = self._in(gradient.data_ptr(), scratch), (gradient, scratch)
        for i in range(len(kept) - 1, first - 1, -1):
            at = i * PARAMETERS
            weight, _, scale, _ = parameters[at : at + PARAMETERS]
            stage = kept.pop()
            addresses = [address(t) for t in (stage.convolved, stage.mean, stage.variance, scale, stage.passed)]
            into_y, *results[at + 3 : at + 5] = self.norms[i].backward(dy, *addresses)
            del holder
            into_x, into_weights = i > first or wants[0], wants[at + 1] or wants[at + 2]
            results[0], *results[at + 1 : at + 3] = self.convolutions[i].backward(
                into_y.data_ptr(), address(stage.source) if into_weights else None, address(weight) if into_x else None
            )
            holder = results[0]
            dy = address(holder)
        return [g if wanted else None for g, wanted in zip(results, wants)]

    def paddles_backward(
        self, gradient: paddle.Tensor, parameters: Sequence[Any], source: paddle.Tensor, wants: Sequence[bool]
    ) -> list[Any]:
        """`backward` by Paddle's kernels, which compute the stages anew. `source`: what the first one kept."""

        def forward(x: paddle.Tensor, *parameters: Any) -> paddle.Tensor:
            for i, (shapes, epsilon, relu) in enumerate(self._stages):
                weight, bias, scale, shift = parameters[i * PARAMETERS : (i + 1) * PARAMETERS]
                x = shapes.by_paddle(x, weight, bias)
                running = paddle.zeros([shapes.y[1]]), paddle.ones([shapes.y[1]])  # those of the model have moved on
                x = F.batch_norm(x, *running, scale, shift, training=True, epsilon=epsilon)
                x = paddle._C_ops.relu(x) if relu else x
            return x

        x = self.convolutions[0].restored(source)
        return paddles_gradients(forward, [x, *parameters], wants, gradient)


class _Function(PyLayer):
    """A chain in Paddle's graph."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, statistics: list[_Kept], x: Any, *parameters: Any) -> paddle.Tensor:
        y, kept = kernel.forward(lambda: kernel.primitives.forward(x, parameters))
        statistics.extend(kept)
        ctx.kernel = kernel
        ctx.wants = [t is not None and not t.stop_gradient for t in (x, *parameters)]
        ctx.inputs = [t is not None for t in (x, *parameters)]
        tensors = [*parameters, *(t for stage in kept for t in stage)]
        ctx.there = [t is not None for t in tensors]
        saved(ctx, *(t for t in tensors if t is not None))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        tensors = iter(unchanged(ctx, "a convolution with BatchNorm"))
        tensors = [next(tensors) if there else None for there in ctx.there]
        number = len(ctx.wants) - 1
        parameters, kept = tensors[:number], tensors[number:]
        size = len(_Kept._fields)
        stages = [_Kept(*kept[i : i + size]) for i in range(0, len(kept), size)]
        del tensors, kept
        gradient = gradient if gradient.is_contiguous() else gradient.contiguous()
        chain, source = ctx.kernel.primitives, stages[0].source
        results = ctx.kernel.backward(
            lambda: chain.backward(gradient, parameters, stages, ctx.wants, _first(ctx.wants)),
            lambda: chain.paddles_backward(gradient, parameters, source, ctx.wants),
            gradient,
        )
        return tuple(g for g, there in zip(results, ctx.inputs) if there)


def _first(wants: Sequence[bool]) -> int:
    """The first stage that has anything to learn, or hands a gradient down."""
    return 0 if wants[0] else (wants.index(True) - 1) // PARAMETERS


def run(library: Library, bf16: bool, stages: Sequence[Stage], x: Any) -> paddle.Tensor | None:
    """The stages after one another in training mode, their running statistics moved on. None where no gradient is
    wanted. Raises `Fallback` where it is not for oneDNN."""
    parameters = [t for stage in stages for t in stage.parameters()]
    wants = [t is not None and not t.stop_gradient for t in (x, *parameters)]
    if not paddle.is_grad_enabled() or not any(wants):
        return None
    description, shape = [], x.shape
    for stage in stages:
        description.append(_described(stage, shape, x, bf16))
        shape = description[-1][0].y
    key = tuple(description)
    into_weights = [any(wants[1 + i * PARAMETERS :][:2]) for i in range(len(stages))]
    prepare = lambda c: c.prepare(wants[0], _first(wants), into_weights)  # noqa: E731
    kernel = cached(library, ("chain", key), lambda: Chain(library, key), prepare)
    statistics: list[_Kept] = []
    y = _Function.apply(kernel, statistics, x if x.is_contiguous() else x.contiguous(), *parameters)
    counts[ONEDNN] += len(stages)
    counts[CHAIN] += len(stages)
    for stage, kept in zip(stages, statistics):
        momentum = np.float32(stage.norm._momentum)
        for running, batch in ((stage.norm._mean, kept.mean), (stage.norm._variance, kept.variance)):
            values = array(running)
            values *= momentum
            values += array(batch) * (np.float32(1) - momentum)
    return y


def _described(stage: Stage, shape: Sequence[int], x: Any, bf16: bool) -> tuple[Geometry, float, bool]:
    """What `Chain` makes of a stage whose input has `shape`, on the device of x. Raises `Fallback`."""
    convolution, norm = stage.convolution, stage.norm
    what = "convolution + BatchNorm: "
    if any(hooked(layer) for layer in (convolution, norm)):
        raise Fallback(what + "hooks on them")
    if not norm.training or norm._use_global_stats:
        raise Fallback(what + "statistics other than the batch's")
    if norm.weight is None or norm.bias is None:
        raise Fallback(what + "BatchNorm without weight or bias")
    if convolution._padding_mode != "zeros" or not isinstance(norm._momentum, float):
        raise Fallback(what + "padding or momentum of another kind")
    vectors = (norm.weight, norm.bias, norm._mean, norm._variance)
    check_tensors((x, convolution.weight, convolution.bias), convolution._data_format, what)
    check_tensors(vectors, norm._data_format, what, dimensions=False)
    if any(not t.is_contiguous() for t in (*stage.parameters(), *vectors) if t is not None):
        raise Fallback(what + "parameters that are views")
    arguments = {
        "stride": convolution._stride,
        "padding": convolution._updated_padding,
        "algorithm": convolution._padding_algorithm,
        "dilation": convolution._dilation,
        "groups": convolution._groups,
    }
    shapes = geometry(shape, convolution.weight.shape, convolution.bias is not None, False, bf16, arguments)
    if norm.weight.shape != [shapes.y[1]] or math.prod(shapes.y) == shapes.y[1]:
        raise Fallback(what + "one number a channel")  # Paddle lets it through as it is
    return shapes, norm._epsilon, stage.relu


def hooked(layer: paddle.nn.Layer) -> bool:
    """Whether calling the layer does more than its class says."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks or "forward" in vars(layer))
