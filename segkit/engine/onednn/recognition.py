"""Finds convolutions with a BatchNorm (and a ReLU) after them among a model's layers; computes each run at once."""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import paddle.nn.functional as F
from paddle import nn

from segkit.engine.onednn.chain import Stage, hooked, run
from segkit.engine.onednn.functional import Fallback, fell_back
from segkit.engine.onednn.library import Library
from segkit.models.layers import ConvBN, ConvBNReLU, DepthwiseConvBN, SeparableConvBNReLU

LAYERS = (ConvBN, DepthwiseConvBN, SeparableConvBNReLU, nn.Sequential)  # with their subclasses: whose calls are watched


class _Run(NamedTuple):
    """Layers to be called one after another, and the stages that they are (none: they are no such thing)."""

    layers: list[nn.Layer]
    stages: list[Stage]


def compute(library: Library, bf16: bool, layer: nn.Layer, x: Any) -> Any:
    """What calling a layer of `LAYERS` in training mode gives, None where there is nothing to gain."""
    if hooked(layer):
        return None
    stages = _stages(layer)
    if stages is not None:
        return _at_once(library, bf16, stages, x)
    if type(layer).forward is not nn.Sequential.forward:
        return None
    runs = list(_runs(list(layer)))
    if not any(len(layers) > 1 for layers, _ in runs):
        return None  # each by itself, which calls this function
    for layers, stages in runs:
        y = _at_once(library, bf16, stages, x) if len(layers) > 1 else None
        if y is None:
            for one in layers:
                x = one(x)
        else:
            x = y
    return x


def _at_once(library: Library, bf16: bool, stages: Sequence[Stage], x: Any) -> Any:
    try:
        return run(library, bf16, stages, x)
    except Fallback as reason:
        fell_back(str(reason), x, stages[0].convolution.weight, instead="convolution and BatchNorm one by one")
        return None


def _stages(layer: nn.Layer) -> list[Stage] | None:
    """The stages that the whole layer is, None where it is anything else."""
    kind = type(layer)
    if hooked(layer):
        return None
    if kind in (ConvBN, ConvBNReLU):
        convolution, norm = (getattr(layer, name) for name in layer._names)
        if not _pair(convolution, norm) or layer._act not in (None, F.relu):
            return None
        return [Stage(convolution, norm, kind is ConvBNReLU or layer._act is F.relu)]
    if kind is DepthwiseConvBN:
        return _stages(layer.depthwise_conv)
    if kind is SeparableConvBNReLU:
        runs = list(_runs([layer.depthwise_conv, layer.piontwise_conv]))
    elif kind.forward is nn.Sequential.forward:
        runs = list(_runs(list(layer)))
    else:
        return None
    return runs[0].stages if len(runs) == 1 and runs[0].stages else None


def _runs(layers: list[nn.Layer]) -> Iterator[_Run]:
    """The layers in groups, as long as each group can be computed at once."""
    found = _Run([], [])
    at = 0
    while at < len(layers):
        layer = layers[at]
        stages, number = _stages(layer), 1
        if stages is None and _pair(*layers[at : at + 2]):
            stages, number = [Stage(layer, layers[at + 1], False)], 2
        if stages is not None:
            found.layers.extend(layers[at : at + number])
            found.stages.extend(stages)
        elif type(layer) is nn.ReLU and not hooked(layer) and found.stages and not found.stages[-1].relu:
            found.layers.append(layer)
            found.stages[-1] = found.stages[-1]._replace(relu=True)
        else:
            if found.layers:
                yield found
            yield _Run([layer], [])
            found = _Run([], [])
        at += number
    if found.layers:
        yield found


def _pair(convolution: Any = None, norm: Any = None) -> bool:
    return type(convolution) is nn.Conv2D and type(norm) is nn.BatchNorm2D
