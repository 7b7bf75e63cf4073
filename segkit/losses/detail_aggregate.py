"""The detail head's loss of STDC (Fan et al., CVPR 2021, https://arxiv.org/abs/2104.13188)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.losses.functional import class_label, in_float32
from segkit.registry import LOSSES

_EDGE = 0.1  # what is above counts as an edge


@LOSSES.register
class DetailAggregateLoss(nn.Layer):
    """Binary cross entropy plus Dice of a one-channel output against the edges of the label.

    The edges are the Laplacian of the class numbers at full, half and quarter size, joined with the weights 0.6, 0.3
    and 0.1 of the paper (PaddleSeg draws these at random and never trains them). The borders of ignored areas are
    edges too, as in PaddleSeg. An output of another size is enlarged.
    """

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index
        laplacian = paddle.full([1, 1, 3, 3], -1.0)
        laplacian[0, 0, 1, 1] = 8.0
        self.register_buffer("laplacian_kernel", laplacian, persistable=False)
        weights = paddle.to_tensor([0.6, 0.3, 0.1]).reshape([1, 3, 1, 1])
        self.register_buffer("fuse_kernel", weights, persistable=False)

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, 1, h, w]`, `label [N, H, W]` of classes."""
        size = list(label.shape[-2:])
        if list(logits.shape[2:]) != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=True)
        label = class_label(logits, label)
        valid = (label != self.ignore_index).any().astype(logits.dtype)
        edges = self._edges(label.unsqueeze(1).astype(logits.dtype))
        cross_entropy = F.binary_cross_entropy_with_logits(logits, edges)
        probability = F.sigmoid(logits)
        overlap = (probability * edges).sum([1, 2, 3])
        total = probability.sum([1, 2, 3]) + edges.sum([1, 2, 3])
        dice = 1 - (2 * overlap + 1) / (total + 1)
        return (cross_entropy + dice.mean()) * valid

    @paddle.no_grad()
    def _edges(self, label: Tensor) -> Tensor:
        """0/1 edges `[N, 1, H, W]` of class numbers `[N, 1, H, W]`."""
        levels = []
        for stride in (1, 2, 4):
            edge = F.conv2d(label, self.laplacian_kernel, stride=stride, padding=1)
            levels.append((F.interpolate(edge, label.shape[2:], mode="nearest") > _EDGE).astype(label.dtype))
        return (F.conv2d(paddle.concat(levels, axis=1), self.fuse_kernel) > _EDGE).astype(label.dtype)
