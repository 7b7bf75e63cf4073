"""A weighted sum of losses."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.registry import LOSSES


@LOSSES.register
class MixedLoss(nn.Layer):
    """Sum of `losses`, each times its `coef` (all 1 when left out).

    Without `losses` it is cross entropy plus Dice. A nested loss without its own `ignore_index` takes its default.
    """

    def __init__(self, losses: Optional[List[Callable]] = None, coef: Optional[List[float]] = None):
        super().__init__()
        if losses is None:
            losses = [LOSSES.get("CrossEntropyLoss")(), LOSSES.get("DiceLoss")()]
        coef = [1.0] * len(losses) if coef is None else list(coef)
        if not losses or len(losses) != len(coef):
            raise InputError(
                f"MixedLoss: losses and coef do not match (got {len(losses)} losses and {len(coef)} coef, expected one "
                "coef for each of at least one loss). Write a coef for each."
            )
        self.losses = list(losses)
        self.coef = [float(c) for c in coef]

    def forward(self, logits: Tensor, label: Tensor, *more: Any) -> Tensor:
        """`logits [N, C, H, W]`, `label` as the nested losses take it; `more` is handed on."""
        return sum(c * loss(logits, label, *more) for c, loss in zip(self.coef, self.losses))
