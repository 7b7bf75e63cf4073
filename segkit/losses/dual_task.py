"""The dual task loss of Gated-SCNN (Takikawa et al., ICCV 2019, https://arxiv.org/abs/1907.05740, Eq. 5)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import in_float32, planes
from segkit.registry import LOSSES

_RADIUS = 4  # of the smoothing


@LOSSES.register
class DualTaskLoss(nn.Layer):
    """Mean difference between the class borders of the prediction and those of the label, where either has any.

    Borders are the smoothed one-hot maps' gradients. The prediction is drawn from its own distribution by Gumbel
    softmax of temperature `tau`, hence random. Ignored pixels are compared nowhere, but count as class 0 in
    the smoothing, as in PaddleSeg.
    """

    def __init__(self, ignore_index: int = 255, tau: float = 0.5):
        super().__init__()
        self.ignore_index = ignore_index
        self.tau = tau

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        target, mask = planes(logits, label, self.ignore_index)
        nothing = F.one_hot(paddle.zeros([1], "int64"), logits.shape[1]).reshape([1, -1, 1, 1])
        target = target + (1 - mask) * nothing
        noise = -paddle.log(1e-10 - paddle.log(paddle.rand(logits.shape) + 1e-10))
        found = _borders(F.softmax((logits * mask + noise) / self.tau, axis=1))
        truth = _borders(target)
        difference = (found - truth).abs() * mask
        parts = []
        for border in (found, truth):
            there = (border > 1e-8).astype(logits.dtype).detach()
            parts.append((difference * there).sum() / there.sum().clip(min=1))
        return (parts[0] + parts[1]) / 2


def _borders(x: Tensor) -> Tensor:
    """Length of the gradient of the smoothed `[N, C, H, W]`, its largest value over the batch set to 1."""
    ramp = np.concatenate([np.arange(1, _RADIUS + 1), [_RADIUS + 1], np.arange(_RADIUS, 0, -1)]) / (_RADIUS + 1) ** 2
    for axis in (3, 2):
        # Mirrored over the border, the outermost pixel repeated; also where the map is smaller than the radius.
        order = np.pad(np.arange(x.shape[axis]), _RADIUS, mode="symmetric")
        x = _along(paddle.index_select(x, paddle.to_tensor(order), axis), ramp, axis)
    horizontal = _along(F.pad(x, [1, 1, 0, 0]), np.array([-0.5, 0, 0.5]), 3)
    vertical = _along(F.pad(x, [0, 0, 1, 1]), np.array([-0.5, 0, 0.5]), 2)
    length = paddle.sqrt(horizontal**2 + vertical**2 + 1e-6)
    return length / length.max()


def _along(x: Tensor, filter_: np.ndarray, axis: int) -> Tensor:
    """Each channel of `[N, C, H, W]` filtered along one axis, without padding."""
    shape = [1, 1, 1, 1]
    shape[axis] = len(filter_)
    weight = paddle.to_tensor(filter_, dtype=x.dtype).reshape(shape).tile([x.shape[1], 1, 1, 1])
    return F.conv2d(x, weight, groups=x.shape[1])
