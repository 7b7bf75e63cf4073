"""GCNet: one context vector, gathered by attention, added to every pixel (Cao et al., https://arxiv.org/abs/1904.11492)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.attention import attentive_mean
from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBNReLU
from segkit.registry import MODELS


class _GlobalContext(nn.Layer):
    """[N, C, h, w] -> [N, C, h, w]; the context passes through `ratio` times C channels."""

    def __init__(self, channels: int, ratio: float):
        super().__init__()
        hidden = int(channels * ratio)
        if hidden < 1:
            raise InputError(
                f"model.ratio: no channels are left (got {ratio} of {channels}, expected one or more). Take 0.25."
            )
        self.conv_mask = nn.Conv2D(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2D(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2D(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.channel_add_conv(attentive_mean(x, self.conv_mask(x)))


class _Head(nn.Layer):
    def __init__(self, num_classes: int, channels: list[int], gc_channels: int, ratio: float, auxiliary: bool):
        super().__init__()
        low, high = channels
        self.conv_bn_relu1 = ConvBNReLU(high, gc_channels, 3)
        self.gc_block = _GlobalContext(gc_channels, ratio)
        self.conv_bn_relu2 = ConvBNReLU(gc_channels, gc_channels, 3)
        self.conv_bn_relu3 = ConvBNReLU(high + gc_channels, gc_channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.conv = nn.Conv2D(gc_channels, num_classes, 1)
        self.auxlayer = AuxHead(low, low // 4, num_classes) if auxiliary else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.conv_bn_relu2(self.gc_block(self.conv_bn_relu1(maps[1])))
        x = self.conv_bn_relu3(paddle.concat([maps[1], x], axis=1))
        scores = [self.conv(self.dropout(x))]
        if self.auxlayer is not None and self.training:
            scores.append(self.auxlayer(maps[0]))
        return scores


@MODELS.register
class GCNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `gc_channels`: of the map that gets the context, `ratio`: the part of them that the context passes through.
    Keys and outputs are PaddleSeg's.
    """

    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        gc_channels: int = 512,
        ratio: float = 0.25,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels, gc_channels, ratio, enable_auxiliary_loss)
