"""Losses of a student against its teacher."""

from __future__ import annotations

from typing import List, Optional, Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.functional import class_label, in_float32, weight_tensor
from segkit.registry import LOSSES


@LOSSES.register
class KLLoss(nn.Layer):
    """Kullback-Leibler divergence from the student's class probabilities to the teacher's, a mean over pixels and
    channels, times temperature^2 (Hinton et al., Distilling the Knowledge in a Neural Network, 2015).

    As in PaddleSeg, the ignored pixels of a label are left out where one is given, and under `loss` it compares a
    model's first output with its second, without a label.
    """

    of_two_outputs = True

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


@LOSSES.register
class DistillCrossEntropyLoss(CrossEntropyLoss):
    """Cross entropy against the teacher's class probabilities instead of a label; the label only says which pixels
    are ignored (and, with `weight`, by what the mean is divided)."""

    needs_teacher = True

    @in_float32
    def forward(self, logits: Tensor, teacher: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """`logits` and `teacher [N, C, H, W]`, `label [N, H, W]`."""
        label = class_label(logits, label)
        wanted = F.softmax(teacher.detach(), axis=1)
        loss = -(wanted * F.log_softmax(logits, axis=1))
        each: Optional[Tensor] = None
        valid = (label != self.ignore_index).astype(logits.dtype)
        if self.weight is not None:
            weight = weight_tensor(type(self).__name__, self.weight, logits)
            loss = loss * (wanted * weight.reshape([1, -1, 1, 1])).sum(1, keepdim=True)
            each = paddle.gather(weight, (label * valid.astype(label.dtype)).flatten()).reshape(label.shape)
        return self.mean(loss.sum(1) * valid, valid, each)


@LOSSES.register
class DistillationLoss(nn.Layer):
    """Squared distance between the unit-length features of student and teacher, a mean over pixels, summed
    over the stages (Wang et al., STFPM, BMVC 2021, https://arxiv.org/abs/2103.04257)."""

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, outputs: Sequence[List[Tensor]], label: Optional[Tensor] = None) -> Tensor:
        """`outputs`: the stages of student and teacher, each `[N, C, H, W]`. The label is not looked at."""
        total = 0.0
        for student, teacher in zip(*outputs):
            distance = F.normalize(student, axis=1) - F.normalize(teacher.detach(), axis=1)
            total = total + (distance**2).sum(1).mean()
        return total
