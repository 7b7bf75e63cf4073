"""Binary cross entropy: each channel is its own yes-or-no question."""

from __future__ import annotations

from typing import List, Literal, Union

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import check_weight, in_float32, is_planes, planes, weight_tensor
from segkit.registry import LOSSES


@LOSSES.register
class BCELoss(nn.Layer):
    """Mean binary cross entropy with logits over the valid pixels.

    `weight`: None, one factor per channel, "auto" (from the training labels), or "dynamic", which balances the
    positives and negatives of the batch.
    `pos_weight`: None, a factor of the positives, or "dynamic". `edge_label`: the label is the sample's edge map
    (the trainer reads it). A `weight` given as a list works, where PaddleSeg fails.
    """

    def __init__(
        self,
        weight: Union[Literal["auto", "dynamic"], List[float], None] = None,
        pos_weight: Union[str, float, None] = None,
        ignore_index: int = 255,
        edge_label: bool = False,
    ):
        super().__init__()
        self.weight = weight if weight == "dynamic" else check_weight("BCELoss", weight)
        if not (pos_weight is None or pos_weight == "dynamic" or isinstance(pos_weight, (int, float))):
            raise InputError(
                f"BCELoss: pos_weight is neither a number nor 'dynamic' (got {pos_weight!r}). "
                "Write pos_weight: 2.0 or pos_weight: dynamic, or leave it out."
            )
        self.pos_weight = pos_weight
        self.ignore_index = ignore_index
        self.edge_label = edge_label

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]` of classes or planes `[N, C, H, W]` of 0, 1 and the ignore value."""
        target, mask = planes(logits, label, self.ignore_index)
        up, down = self._balance(logits, label, target, mask)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.pos_weight is not None:
            factor = up if self.pos_weight == "dynamic" else float(self.pos_weight)
            loss = loss * (1 + (factor - 1) * target)
        if self.weight == "dynamic":
            loss = loss * (down + (up - down) * target)
        elif self.weight is not None:
            loss = loss * weight_tensor("BCELoss", self.weight, logits).reshape([1, -1, 1, 1])
        return (loss * mask).mean() / (mask.mean() + 1e-10)

    def _balance(self, logits: Tensor, label: Tensor, target: Tensor, mask: Tensor) -> tuple:
        """Factors of the positives and of the negatives under "dynamic", so that both weigh the same in the batch.

        As in PaddleSeg, an ignored pixel of a 0/1 label counts among the negatives here.
        """
        if "dynamic" not in (self.weight, self.pos_weight):
            return None, None
        pixels = float(target.size) if is_planes(logits, label) else mask.sum() * logits.shape[1] + 1e-10
        positives = target.sum() / pixels
        return 2 * (1 - positives), 2 * positives
