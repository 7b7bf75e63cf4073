"""Dice loss."""

from __future__ import annotations

from typing import List, Literal, Union

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import check_weight, in_float32, is_planes, planes, weight_tensor
from segkit.registry import LOSSES


@LOSSES.register
class DiceLoss(nn.Layer):
    """1 - Dice of each image and class, averaged (Milletari et al., V-Net, 2016; with Laplace smoothing).

    Class labels go with a softmax over the channels; one channel, or a label plane a channel (multi-label), with a
    sigmoid. Unlike PaddleSeg's, the label is left as it is, and the one-channel and multi-label cases work.
    """

    def __init__(
        self, weight: Union[Literal["auto"], List[float], None] = None, ignore_index: int = 255, smooth: float = 1.0
    ):
        super().__init__()
        self.weight = check_weight("DiceLoss", weight)
        self.ignore_index = ignore_index
        self.smooth = smooth

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]` or planes `[N, C, H, W]`."""
        target, mask = planes(logits, label, self.ignore_index)
        probability = F.sigmoid(logits) if is_planes(logits, label) else F.softmax(logits, axis=1)
        probability = probability * mask
        overlap = (probability * target).sum([2, 3])
        total = probability.sum([2, 3]) + target.sum([2, 3])
        loss = 1 - (2 * overlap + self.smooth) / (total + self.smooth + 1e-8)  # [N, C]
        if self.weight is not None:
            loss = loss * weight_tensor("DiceLoss", self.weight, logits)
        return loss.mean() * mask.max()
