"""ISANet: attention over the whole image as two sparse ones, among far pixels and then among near ones
(Huang et al., https://arxiv.org/abs/1907.12273)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.attention import attend
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, DroppedConv, SpatialAuxHead, sides, to_map
from segkit.registry import MODELS


class _Attention(nn.Layer):
    """Among the pixels of [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self, channels: int, key_channels: int):
        super().__init__()
        self.scale = key_channels**-0.5
        self.key_project = self._project(channels, key_channels)
        self.query_project = self._project(channels, key_channels)
        self.value_project = nn.Conv2D(channels, channels, 1)
        self.output_project = ConvBNReLU(channels, channels, 1, bias=False)

    def _project(self, channels: int, key_channels: int) -> nn.Sequential:
        return nn.Sequential(
            ConvBNReLU(channels, key_channels, 1, bias=False), ConvBNReLU(key_channels, key_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.query_project(x).flatten(2), self.key_project(x).flatten(2)
        return self.output_project(to_map(attend(queries, keys, self.value_project(x).flatten(2), self.scale), x))


class _Head(nn.Layer):
    def __init__(
        self, num_classes: int, channels: list[int], key_channels: int, factor: Sequence[int], auxiliary: bool
    ):
        super().__init__()
        self.factor = tuple(factor)
        self.width = width = channels[1] // 4
        self.in_conv = ConvBNReLU(channels[1], width, 3, bias=False)
        self.global_relation = _Attention(width, key_channels)
        self.local_relation = _Attention(width, key_channels)
        self.out_conv = ConvBNReLU(width * 2, width, 1, bias=False)
        self.cls = DroppedConv(width, num_classes)
        self.aux = SpatialAuxHead(channels[0], 256, num_classes, bias=False) if auxiliary else None

    def _interlaced(self, x: Tensor) -> Tensor:
        """Blocks of `factor` pixels: first the pixels at the same place of every block, then those of each block."""
        (high, wide), (height, width) = self.factor, sides(x)
        rows, columns = (height + high - 1) // high, (width + wide - 1) // wide
        below, right = rows * high - height, columns * wide - width
        top, left = below // 2, right // 2
        x = F.pad(x, [left, right - left, top, below - top])
        x = x.reshape([0, self.width, rows, high, columns, wide]).transpose([0, 3, 5, 1, 2, 4])
        x = self.global_relation(x.reshape([-1, self.width, rows, columns]))
        x = x.reshape([-1, high, wide, self.width, rows, columns]).transpose([0, 4, 5, 3, 1, 2])
        x = self.local_relation(x.reshape([-1, self.width, high, wide]))
        x = x.reshape([-1, rows, columns, self.width, high, wide]).transpose([0, 3, 1, 4, 2, 5])
        x = x.reshape([0, self.width, rows * high, columns * wide])
        return x[:, :, top : top + height, left : left + width]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.in_conv(maps[1])
        x = self.out_conv(paddle.concat([self._interlaced(x), x], axis=1))
        scores = [self.cls(x)]
        if self.aux is not None and self.training:
            scores.append(self.aux(maps[0]))
        return scores


@MODELS.register
class ISANet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `down_factor`: height and width of the blocks that near pixels share; `isa_channels`: what pixels are compared
    by. Keys and outputs are PaddleSeg's.
    """

    map_count = 2
    align_mode = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        isa_channels: int = 256,
        down_factor: Sequence[int] = (8, 8),
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels, isa_channels, down_factor, enable_auxiliary_loss)
