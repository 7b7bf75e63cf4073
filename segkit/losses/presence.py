"""Which classes an image holds (Zhang et al., Context Encoding, CVPR 2018, https://arxiv.org/abs/1803.08904)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import in_float32, to_int
from segkit.registry import LOSSES


@LOSSES.register
class SECrossEntropyLoss(nn.Layer):
    """Binary cross entropy of a vector that says, class by class, whether it occurs in the image."""

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C]` or `[N, C, 1, 1]`, `label [N, H, W]`."""
        logits = logits.flatten(1)
        label = to_int(label).flatten(1)
        valid = label != self.ignore_index
        columns = [paddle.logical_and(label == number, valid).any(axis=1) for number in range(logits.shape[1])]
        return F.binary_cross_entropy_with_logits(logits, paddle.stack(columns, axis=1).astype(logits.dtype))
