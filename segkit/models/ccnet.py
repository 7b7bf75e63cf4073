"""CCNet: attention of each pixel to its row and column, repeated until it has seen the whole image
(Huang et al., https://arxiv.org/abs/1811.11721)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBN
from segkit.registry import MODELS


class _ConvBNLeakyReLU(ConvBN):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x))


class _CrissCross(nn.Layer):
    """Attention to a pixel's row and column, added with a weight that starts at 0. [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.q_conv = nn.Conv2D(channels, channels // 8, 1)
        self.k_conv = nn.Conv2D(channels, channels // 8, 1)
        self.v_conv = nn.Conv2D(channels, channels, 1)
        self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (conv(x).transpose([0, 2, 3, 1]) for conv in (self.q_conv, self.k_conv, self.v_conv))
        across = paddle.matmul(queries, keys, transpose_y=True)  # [N, h, w, w]
        queries, keys = queries.transpose([0, 2, 1, 3]), keys.transpose([0, 2, 1, 3])
        down = paddle.matmul(queries, keys, transpose_y=True)  # [N, w, h, h]
        itself = paddle.tril(paddle.triu(paddle.ones_like(down)))  # counted once, in its row
        down = paddle.where(itself > 0, paddle.full_like(down, float("-inf")), down)

        # One softmax over row and column, without joining maps whose sizes an exported graph does not know.
        most = paddle.maximum(across.max(axis=-1), down.max(axis=-1).transpose([0, 2, 1])).detach()
        across = paddle.exp(across - most.unsqueeze(-1))
        down = paddle.exp(down - most.transpose([0, 2, 1]).unsqueeze(-1))
        total = across.sum(axis=-1) + down.sum(axis=-1).transpose([0, 2, 1])
        found = paddle.matmul(across, values)
        found = found + paddle.matmul(down, values.transpose([0, 2, 1, 3])).transpose([0, 2, 1, 3])
        return self.gamma * (found / total.unsqueeze(-1)).transpose([0, 3, 1, 2]) + x


class _Head(nn.Layer):
    def __init__(self, num_classes: int, channels: int, dropout: float, recurrence: int):
        super().__init__()
        width = channels // 4
        self.recurrence = recurrence
        self.conva = _ConvBNLeakyReLU(channels, width, 3, bias=False)
        self.cca = _CrissCross(width)
        self.convb = _ConvBNLeakyReLU(width, width, 3, bias=False)
        self.out = AuxHead(channels + width, 512, num_classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conva(x)
        for _ in range(self.recurrence):
            seen = self.cca(seen)
        return self.out(paddle.concat([x, self.convb(seen)], axis=1))


@MODELS.register
class CCNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `recurrence`: rounds of attention; two let every pixel see every other. Keys and outputs are PaddleSeg's.
    """

    map_count = 2
    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        enable_auxiliary_loss: bool = True,
        dropout_prob: float = 0.0,
        recurrence: int = 1,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        low, high = self.map_channels
        self.aux_head = AuxHead(low, 512, num_classes, dropout_prob) if enable_auxiliary_loss else None
        self.head = _Head(num_classes, high, dropout_prob, recurrence)

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.head(maps[1])]
        if self.aux_head is not None and self.training:
            scores.append(self.aux_head(maps[0]))
        return scores
