"""UPerNet: pyramid pooling on top of a feature pyramid (Xiao et al., https://arxiv.org/abs/1807.10221)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBNReLU, resize_to
from segkit.models.pyramid import PyramidPooling
from segkit.registry import MODELS


class _Head(nn.Layer):
    def __init__(
        self, num_classes: int, widths: list[int], channels: int, dropout: float, auxiliary: bool, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.ppm = PyramidPooling(widths[-1], channels, (1, 2, 3, 6), align_corners=True)
        self.lateral_convs = nn.LayerList([ConvBNReLU(width, channels, 1) for width in widths[:-1]])
        self.fpn_convs = nn.LayerList([ConvBNReLU(channels, channels, 3, bias=False) for _ in widths[:-1]])
        self.aux_head = AuxHead(widths[-2], widths[-2], num_classes, dropout) if auxiliary else None
        self.fpn_bottleneck = ConvBNReLU(len(widths) * channels, channels, 3)
        # Published weights hold another pair of layers, which nothing uses.
        self.conv_last = nn.Sequential(
            ConvBNReLU(len(widths) * channels, channels, 3, bias=False), nn.Conv2D(channels, num_classes, 1)
        )
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        merged = [self.ppm(maps[-1])]
        for lateral, x in zip(self.lateral_convs[::-1], maps[-2::-1]):
            x = lateral(x)
            merged.insert(0, x + resize_to(merged[0], x, align_corners=self.align_corners))
        levels = [conv(x) for conv, x in zip(self.fpn_convs, merged)] + merged[-1:]
        raised = [resize_to(x, levels[0], align_corners=self.align_corners) for x in levels]
        scores = [self.conv_seg(self.fpn_bottleneck(paddle.concat(raised, axis=1)))]
        if self.aux_head is not None and self.training:
            scores.append(self.aux_head(maps[-2]))
        return scores


@MODELS.register
class UPerNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training with `enable_auxiliary_loss`, another from
    the last but one map.

    `channels`: of the pyramid's maps; `dropout_prob`: of the auxiliary head; `align_corners`: of the scores'
    interpolation. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        channels: int = 512,
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        dropout_prob: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        # Published weights expect the pyramid to be aligned at the corners; the argument is the scores' own.
        self.head = _Head(num_classes, self.map_channels, channels, dropout_prob, enable_auxiliary_loss, True)
