"""Panoptic FPN's semantic branch: a feature pyramid, its maps raised step by step and added
(Kirillov et al., https://arxiv.org/abs/1901.02446)."""

from __future__ import annotations

import math
from functools import partial
from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.fpn import FeaturePyramid, scale_head
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS

_PYRAMID = 256


class _Head(FeaturePyramid):
    """Published weights hold a coarsest branch (`scale_heads.3`) and `conv_last`, which nothing uses."""

    def __init__(
        self, num_classes: int, widths: list[int], channels: int, dropout: float, auxiliary: bool, align_corners: bool
    ):
        super().__init__(widths, _PYRAMID)
        self.align_corners = align_corners
        conv = partial(ConvBNReLU, kernel_size=3)
        ratios = [width / widths[0] for width in widths]
        self.scale_heads = nn.LayerList(
            [scale_head(conv, _PYRAMID, channels, int(math.log2(x)), x > 1, align_corners) for x in ratios]
        )
        self.dropout = nn.Dropout2D(dropout)
        width = widths[-2]
        self.dsn = None
        if auxiliary:
            self.dsn = nn.Sequential(
                ConvBNReLU(width, width, 3), nn.Dropout2D(dropout), nn.Conv2D(width, num_classes, 1)
            )
        self.conv_last = nn.Sequential(
            ConvBNReLU(len(widths) * _PYRAMID, _PYRAMID, 3, bias=False), nn.Conv2D(_PYRAMID, num_classes, 1)
        )
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = self.pyramid(maps)
        total = self.scale_heads[0](levels[-1])
        for head, level in list(zip(self.scale_heads, levels))[-2:0:-1]:
            total = total + resize_to(head(level), levels[-1], align_corners=self.align_corners)
        scores = [self.conv_seg(self.dropout(total))]
        if self.dsn is not None and self.training:
            scores.append(self.dsn(maps[-2]))
        return scores


@MODELS.register
class PFPNNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training with `enable_auxiliary_loss`, another from the
    last but one map.

    `channels`: of the maps that are added up. Keys and outputs are PaddleSeg's, which leaves the coarsest map out of
    the sum and gives the pyramid's middle maps to each other's heads.
    """

    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        channels: int = 256,
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        dropout_ratio: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels, channels, dropout_ratio, enable_auxiliary_loss, align_corners)
