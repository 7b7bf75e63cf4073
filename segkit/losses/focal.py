"""Focal losses (Lin et al., Focal Loss for Dense Object Detection, 2017)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import in_float32, is_planes, pixel_cross_entropy, planes
from segkit.registry import LOSSES

SMALL = 1e-12  # a power below 1 has an infinite gradient at 0


@LOSSES.register
class FocalLoss(nn.Layer):
    """Binary focal loss, averaged over the valid pixels and the channels.

    `alpha` weighs the positives, 1 - alpha the negatives; the higher `gamma`, the less the easy pixels count.
    Takes 2 channels with classes 0 and 1 (as PaddleSeg), one channel, or a label plane a channel.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, ignore_index: int = 255):
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, 1 or 2, H, W]`, `label [N, H, W]`; or planes: `logits` and `label [N, C, H, W]`."""
        if not is_planes(logits, label) and logits.shape[1] != 2:
            raise InputError(
                f"FocalLoss: the model has too many classes (got {logits.shape[1]} output channels, expected 1 or 2, "
                "or a label plane a class). Use MultiClassFocalLoss."
            )
        target, mask = planes(logits, label, self.ignore_index)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        p = F.sigmoid(logits)
        miss = p + target - 2 * p * target  # 1 - probability of the true answer
        loss = loss * miss.clip(min=SMALL) ** self.gamma * (self.alpha * target + (1 - self.alpha) * (1 - target))
        return (loss * mask).mean() / (mask.mean() + 1e-10)


@LOSSES.register
class MultiClassFocalLoss(nn.Layer):
    """Focal loss over a softmax, averaged over the valid pixels; `alpha` multiplies it.

    `num_class` is accepted for PaddleSeg's configs; the channels of the logits say it.
    """

    def __init__(self, num_class: int = 0, alpha: float = 1.0, gamma: float = 2.0, ignore_index: int = 255):
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        loss, mask, _ = pixel_cross_entropy(logits, label, self.ignore_index)
        focal = self.alpha * (-paddle.expm1(-loss)).clip(min=SMALL) ** self.gamma * loss
        return (focal * mask).mean() / (mask.mean() + 1e-10)
