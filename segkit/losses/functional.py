"""What the losses share: float32 arithmetic, label shapes and types, masks, class weights."""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional, Sequence, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from segkit.errors import InputError


def in_float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator of a loss's `forward`: low-precision arguments (mixed precision) are cast to float32 and no operator
    inside is cast back, so that sums over millions of pixels do not lose their small terms."""

    @functools.wraps(forward)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        with paddle.amp.auto_cast(enable=False):
            return forward(self, *to_float32(args), **to_float32(kwargs))

    return wrapped


def to_float32(x: Any) -> Any:
    """float16 and bfloat16 tensors as float32, also inside lists, tuples and dicts; anything else as it is."""
    if isinstance(x, dict):
        return {key: to_float32(item) for key, item in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(to_float32(item) for item in x)
    return x.astype("float32") if isinstance(x, Tensor) and x.dtype in (paddle.float16, paddle.bfloat16) else x


def to_int(label: Tensor) -> Tensor:
    """`label` itself where it is int32 or int64, else an int32 copy (uint8 cannot hold -1 or 256)."""
    return label if label.dtype in (paddle.int32, paddle.int64) else label.astype("int32")


def class_label(logits: Tensor, label: Tensor, channel_axis: int = 1) -> Tensor:
    """Integer label `[N, H, W]` of `logits [N, C, H, W]`; a label `[N, 1, H, W]` is taken too."""
    if label.ndim == logits.ndim and label.shape[channel_axis] == 1:
        label = label.squeeze(channel_axis)
    expected = list(logits.shape)
    del expected[channel_axis]
    if list(label.shape) != expected:
        raise InputError(
            f"loss: the label does not fit the model's output (got label {list(label.shape)}, expected {expected} for "
            f"output {list(logits.shape)}). Label planes (use_multilabel) need BCELoss, DiceLoss, FocalLoss or "
            "LovaszHingeLoss; other shapes a model whose output has the size of its input."
        )
    return to_int(label)


def is_planes(logits: Tensor, label: Tensor) -> bool:
    """Whether each channel has its own 0/1 label: multi-label `[N, C, H, W]`, or one channel."""
    return logits.shape[1] == 1 or (label.ndim == logits.ndim and label.shape[1] == logits.shape[1])


def planes(logits: Tensor, label: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """0/1 targets `[N, C, H, W]` and the mask of valid pixels `[N, C or 1, H, W]`, both of the logits' type.

    `label`: `[N, H, W]` or `[N, 1, H, W]` classes (one-hot encoded; with one channel, 1 is the foreground), or
    planes `[N, C, H, W]` of 0, 1 and `ignore_index`. Ignored pixels have target 0.
    """
    if is_planes(logits, label):
        if label.ndim < logits.ndim:
            label = label.unsqueeze(1)
        classes: Any = 1
    else:
        label = class_label(logits, label).unsqueeze(1)
        classes = paddle.arange(logits.shape[1], dtype=label.dtype).reshape([1, -1, 1, 1])
    if label.shape[2:] != logits.shape[2:] or label.shape[0] != logits.shape[0]:
        class_label(logits, label)  # raises
    valid = label != ignore_index
    target = label == classes
    if 0 <= ignore_index < max(2, logits.shape[1]):
        target = paddle.logical_and(target, valid)
    return target.astype(logits.dtype), valid.astype(logits.dtype)


def check_weight(name: str, weight: Union[str, Sequence[float], None]) -> Union[str, list[float], None]:
    """Class weights as a list of floats, or "auto"; `InputError` for anything that is not a row of numbers >= 0."""
    if weight is None or weight == "auto":
        return weight
    try:
        values = [float(value) for value in weight]
    except (TypeError, ValueError):
        values = []
    if isinstance(weight, str) or not values or min(values) < 0:
        raise InputError(
            f"{name}: weight is not a list of numbers >= 0 (got {weight!r}, expected one number per class). "
            "Write it as weight: [1.0, 2.0], or weight: auto, or leave it out."
        )
    return values


def weight_tensor(name: str, weight: Union[str, Sequence[float]], logits: Tensor, channel_axis: int = 1) -> Tensor:
    """Class weights `[C]` of the logits' type, on their device; `InputError` where their number is not C."""
    if isinstance(weight, str):
        raise InputError(
            f"{name}: weight: {weight} is not a number a class yet (got a loss without a data set, expected numbers). "
            "segkit.train takes them from the training labels; elsewhere give numbers."
        )
    channels = logits.shape[channel_axis]
    if len(weight) != channels:
        raise InputError(
            f"{name}: weight has the wrong length (got {len(weight)} numbers, expected {channels}, one for each class "
            f"of the model's output). Give {channels} numbers in the order of the classes."
        )
    return paddle.to_tensor(list(weight), dtype=logits.dtype)


def pixel_cross_entropy(
    logits: Tensor, label: Tensor, ignore_index: int, weight: Optional[Tensor] = None, channel_axis: int = 1
) -> tuple[Tensor, Tensor, Optional[Tensor]]:
    """Cross entropy of each pixel `[N, H, W]` (0 where ignored; times its class weight), the mask of valid pixels
    as float `[N, H, W]`, and the class weight of each pixel (`None` without weights; of class 0 where ignored)."""
    if logits.shape[channel_axis] < 2:
        raise InputError(
            "loss: cross entropy needs a channel per class (got a model with 1 output channel, expected at least 2). "
            "Use DiceLoss, BCELoss or FocalLoss with num_classes: 1, or set num_classes: 2."
        )
    label = class_label(logits, label, channel_axis)
    valid = label != ignore_index
    loss = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction="none", axis=channel_axis)
    if loss.ndim > label.ndim:
        loss = loss.squeeze(channel_axis)
    mask = valid.astype(logits.dtype)
    if weight is None:
        return loss, mask, None
    each = F.embedding(label * valid.astype(label.dtype), weight.unsqueeze(1)).squeeze(-1)
    return loss * each, mask, each
