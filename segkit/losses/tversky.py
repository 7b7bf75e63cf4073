"""Tversky losses: Dice with separate prices for false positives and false negatives."""

from __future__ import annotations

from typing import List, Literal, Union

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import check_weight, in_float32, is_planes, planes, weight_tensor
from segkit.registry import LOSSES


@LOSSES.register
class TverskyLoss(nn.Layer):
    """1 - Tversky index of each image and class, averaged (Salehi et al., 2017, https://arxiv.org/abs/1706.05721).

    `alpha` is the price of false positives, `beta` of false negatives: `beta` above `alpha` finds more of a rare class.
    Both 0.5 make it `DiceLoss`. One channel and label planes are taken as there.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        weight: Union[Literal["auto"], List[float], None] = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
    ):
        super().__init__()
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise InputError(
                f"{type(self).__name__}: alpha and beta are prices (got {alpha} and {beta}, expected numbers of at "
                "least 0, not both 0). Take 0.3 and 0.7 to find more of a rare class."
            )
        self.alpha = alpha
        self.beta = beta
        self.weight = check_weight(type(self).__name__, weight)
        self.ignore_index = ignore_index
        self.smooth = smooth

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]` or planes `[N, C, H, W]`."""
        target, mask = planes(logits, label, self.ignore_index)
        probability = (F.sigmoid(logits) if is_planes(logits, label) else F.softmax(logits, axis=1)) * mask
        hit = (probability * target).sum([2, 3])
        false_positive = (probability * (1 - target)).sum([2, 3])
        false_negative = ((1 - probability) * target).sum([2, 3])
        # Halved smoothing, for Dice counts the overlap twice.
        smooth = self.smooth / 2
        index = (hit + smooth) / (hit + self.alpha * false_positive + self.beta * false_negative + smooth + 1e-8)
        loss = self._price(1 - index)  # [N, C]
        if self.weight is not None:
            loss = loss * weight_tensor(type(self).__name__, self.weight, logits)
        return loss.mean() * mask.max()

    def _price(self, loss: Tensor) -> Tensor:
        return loss


@LOSSES.register
class FocalTverskyLoss(TverskyLoss):
    """`TverskyLoss` to the power 1 / `gamma` per image and class: with `gamma` above 1 classes that are found badly
    weigh more (Abraham and Khan, ISBI 2019, https://arxiv.org/abs/1810.07842)."""

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        weight: Union[Literal["auto"], List[float], None] = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
    ):
        super().__init__(alpha, beta, weight, ignore_index, smooth)
        if gamma <= 0:
            raise InputError(
                f"FocalTverskyLoss: gamma is not above 0 (got {gamma}, expected 1 to 3). The paper takes 4/3."
            )
        self.gamma = gamma

    def _price(self, loss: Tensor) -> Tensor:
        # The root's slope is infinite at 0.
        return loss.clip(min=1e-7) ** (1 / self.gamma)
