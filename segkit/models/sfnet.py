"""SFNet: a feature pyramid whose coarse maps are moved along a predicted flow before they are added to the fine ones
(Li et al., https://arxiv.org/abs/2002.10120)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.flow import warp
from segkit.models.layers import AuxHead, ConvBNReLU, resize_to
from segkit.models.pyramid import PyramidPooling
from segkit.registry import MODELS


class _Aligned(nn.Layer):
    """A fine map [N, C, H, W] and a coarse one [N, C, h, w] -> the coarse one, raised along the flow between them."""

    def __init__(self, channels: int):
        super().__init__()
        self.down_h = nn.Conv2D(channels, channels // 2, 1, bias_attr=False)
        self.down_l = nn.Conv2D(channels, channels // 2, 1, bias_attr=False)
        self.flow_make = nn.Conv2D(channels // 2 * 2, 2, 3, padding=1, bias_attr=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        raised = resize_to(self.down_h(coarse), fine, align_corners=True)
        return warp(coarse, self.flow_make(paddle.concat([raised, self.down_l(fine)], axis=1)))


class _Head(nn.Layer):
    def __init__(self, num_classes: int, widths: list[int], channels: int, auxiliary: bool):
        super().__init__()
        below = widths[:-1]
        self.ppm = PyramidPooling(widths[-1], channels, (1, 2, 3, 6), align_corners=True)
        self.fpn_in = nn.LayerList(
            [nn.Sequential(nn.Conv2D(width, channels, 1), nn.BatchNorm2D(channels), nn.ReLU()) for width in below]
        )
        self.fpn_out = nn.LayerList([nn.Sequential(ConvBNReLU(channels, channels, 3, bias=False)) for _ in below])
        self.fpn_out_align = nn.LayerList([_Aligned(channels) for _ in below])
        self.dsn = nn.LayerList(
            [nn.Sequential(AuxHead(channels, channels, num_classes)) for _ in (below if auxiliary else [])]
        )
        self.conv_last = nn.Sequential(
            ConvBNReLU(len(widths) * channels, channels, 3, bias=False), nn.Conv2D(channels, num_classes, 1)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        merged = self.ppm(maps[-1])
        levels, auxiliary = [merged], []
        for index in range(len(maps) - 2, -1, -1):
            fine = self.fpn_in[index](maps[index])
            merged = fine + self.fpn_out_align[index](fine, merged)
            levels.insert(0, self.fpn_out[index](merged))
            if self.training and len(self.dsn):
                auxiliary.append(self.dsn[index](merged))
        raised = [resize_to(x, levels[0], align_corners=True) for x in levels]
        return [self.conv_last(paddle.concat(raised, axis=1)), *auxiliary]


@MODELS.register
class SFNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training with `enable_auxiliary_loss`, one more for
    each level of the pyramid, the coarsest first.

    Keys and outputs are PaddleSeg's: the pyramid has 128 channels on a backbone of basic blocks, else 256.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        channels = 128 if self.map_channels[-1] <= 512 else 256
        self.head = _Head(num_classes, self.map_channels, channels, enable_auxiliary_loss)
