"""BatchNorm folded into the convolution before it while a model is only applied: one pass over the image less."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn

from segkit.log import logger

# Of the largest score: float32 rounding stays far below, a pair that is none lies far above.
MAX_DIFFERENCE = 1e-4
_BATCH_NORMS = nn.layer.norm._BatchNormBase

Pair = tuple[nn.Conv2D, Any]


@contextlib.contextmanager
def folded(model: nn.Layer, x: paddle.Tensor) -> Iterator[int]:
    """Inside, convolutions of `model` compute their BatchNorms too; the number of pairs is given.

    w' = w g / sqrt(v + eps) and b' = (b - m) g / sqrt(v + eps) + beta, with the BatchNorm's weight g, bias beta, mean
    m and variance v. Pairs are found by applying the model to x [N, C, H, W] (a small one will do); where the scores
    of x then differ, or x cannot be applied, nothing is folded. Parameters are not touched: folded weights hide them
    for this while. The model must be in evaluation mode and stay in it.
    """
    undo = contextlib.ExitStack()
    try:
        with paddle.no_grad():
            pairs = _fold_checked(model, x, undo)
        yield pairs
    finally:
        undo.close()


def _fold_checked(model: nn.Layer, x: paddle.Tensor, undo: contextlib.ExitStack) -> int:
    if not any(isinstance(layer, _BATCH_NORMS) for layer in model.sublayers()):
        return 0
    try:
        expected, pairs = _traced(model, x)
        for convolution, norm in pairs:
            _fold(convolution, norm, undo)
        found = model(x)[0] if pairs else expected
    except Exception as error:  # a model that takes other sizes only, say: it works as it is
        logger.debug("BatchNorm is not folded: %s", error)
        undo.close()
        return 0
    difference = float((found - expected).abs().max()) if pairs else 0.0
    if not difference <= MAX_DIFFERENCE * max(1e-6, float(expected.abs().max())):
        logger.debug("BatchNorm is not folded: scores would differ by %g", difference)
        undo.close()
        return 0
    return len(pairs)


def _traced(model: nn.Layer, x: paddle.Tensor) -> tuple[paddle.Tensor, list[Pair]]:
    """The scores of x, and the BatchNorms that a convolution's output goes into, both used once."""
    made: dict[int, tuple[nn.Conv2D, Any]] = {}  # the outputs are kept, so that no other tensor takes their identity
    found: list[Pair] = []
    calls: Counter[int] = Counter()
    dynamic = [True]

    def convolved(layer: nn.Conv2D, _inputs: Any, output: Any) -> None:
        dynamic[0] &= paddle.in_dynamic_mode()
        calls[id(layer)] += 1
        made[id(output)] = (layer, output)

    def normalised(layer: Any, inputs: Any) -> None:
        calls[id(layer)] += 1
        if id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], layer))

    with contextlib.ExitStack() as hooks:
        for layer in model.sublayers():
            if type(layer) is nn.Conv2D and layer._data_format == "NCHW":
                hooks.callback(layer.register_forward_post_hook(convolved).remove)
            elif isinstance(layer, _BATCH_NORMS) and not layer.training and layer._use_global_stats is not False:
                hooks.callback(layer.register_forward_pre_hook(normalised).remove)
        scores = model(x)[0]
    if not dynamic[0]:  # a graph being recorded would keep the folded weights
        return scores, []
    return scores, [pair for pair in found if all(calls[id(layer)] == 1 for layer in pair)]


def _fold(convolution: nn.Conv2D, norm: Any, undo: contextlib.ExitStack) -> None:
    scale = paddle.rsqrt(norm._variance + norm._epsilon)
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm._mean if convolution.bias is None else convolution.bias - norm._mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    _hide(convolution, "weight", convolution.weight * scale.reshape([-1, 1, 1, 1]), undo)
    _hide(convolution, "bias", bias, undo)
    _hide(norm, "forward", _same, undo)


def _same(x: paddle.Tensor) -> paddle.Tensor:
    return x


def _hide(layer: nn.Layer, name: str, value: Any, undo: contextlib.ExitStack) -> None:
    """An attribute of the object itself, which Python finds before Paddle looks among the parameters."""
    own = vars(layer)
    before = own.get(name, _hide)
    own[name] = value

    def put_back() -> None:
        if before is _hide:
            del own[name]
        else:
            own[name] = before

    undo.callback(put_back)
