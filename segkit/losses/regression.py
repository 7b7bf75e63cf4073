"""Losses of outputs that are numbers, not classes."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import in_float32
from segkit.registry import LOSSES


def _reduce(error: Tensor, label: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Sum of `error` over the valid pixels, or its mean over them."""
    valid = (label != ignore_index).astype(error.dtype)
    total = (error * valid).sum()
    return total if reduction == "sum" else total / valid.sum().clip(min=1)


def _number_label(logits: Tensor, label: Tensor) -> Tensor:
    """The label in the shape and type of `logits [N, C, H, W]`; `[N, H, W]` goes with one channel."""
    if label.ndim < logits.ndim:
        label = label.unsqueeze(1)
    return paddle.expand_as(label, logits).astype(logits.dtype)


@LOSSES.register
class L1Loss(nn.Layer):
    """Absolute difference of output and label, over the pixels that are not `ignore_index`."""

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", ignore_index: int = 255):
        super().__init__()
        self.reduction = reduction
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits` and `label [N, C, H, W]`; with C = 1 also `label [N, H, W]`."""
        label = _number_label(logits, label)
        return _reduce((logits - label).abs(), label, self.ignore_index, self.reduction)


@LOSSES.register
class MSELoss(nn.Layer):
    """Squared difference of output and label, over the pixels that are not `ignore_index` (which PaddleSeg takes
    but does not heed)."""

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", ignore_index: int = 255):
        super().__init__()
        self.reduction = reduction
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits` and `label [N, C, H, W]`; with C = 1 also `label [N, H, W]`."""
        label = _number_label(logits, label)
        return _reduce(F.mse_loss(logits, label, reduction="none"), label, self.ignore_index, self.reduction)
