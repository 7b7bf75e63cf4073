"""Losses of a student against its teacher."""

from __future__ import annotations

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import class_label, in_float32
from segkit.registry import LOSSES


@LOSSES.register
class KLLoss(nn.Layer):
    """Kullback-Leibler divergence from the student's class probabilities to the teacher's, a mean over pixels and
    channels, times temperature^2 (Hinton et al., Distilling the Knowledge in a Neural Network, 2015).

    Where a label is given, its ignored pixels are left out.
    """

    def __init__(self, ignore_index: int = 255, temperature: float = 1):
        super().__init__()
        self.ignore_index = ignore_index
        self.temperature = temperature

    @in_float32
    def forward(self, logits: Tensor, teacher: Tensor, label: Optional[Tensor] = None) -> Tensor:
        """`logits` and `teacher [N, C, H, W]`, `label [N, H, W]`."""
        student = F.log_softmax(logits / self.temperature, axis=1)
        teacher = F.log_softmax(teacher / self.temperature, axis=1)
        divergence = (paddle.exp(teacher) * (teacher - student)).mean(axis=1)  # [N, H, W]
        if label is not None:
            valid = (class_label(logits, label) != self.ignore_index).astype(divergence.dtype)
            divergence = divergence * valid / valid.mean().clip(min=1e-10)
        return divergence.mean() * self.temperature**2
