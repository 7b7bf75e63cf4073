"""LR-ASPP: the light head of MobileNetV3's paper (Howard et al., https://arxiv.org/abs/1905.02244)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.fusion import one_each
from segkit.models.layers import ConvBNReLU, fill_to, resize_to
from segkit.registry import MODELS

WINDOW = 49
"""Side of the pooling window with `use_gap` false, as in the paper, on the map at 1/16 (or 1/8)."""


class _WindowMean(nn.Layer):
    """Means over windows of `WINDOW` cells, 16 rows and 20 columns apart; one over a map that is smaller."""

    def forward(self, x: Tensor) -> Tensor:
        # A map that is smaller is filled with zeros; dividing by the share of the window that is map takes them out.
        filled, inside = (fill_to(part, WINDOW) for part in (x, paddle.ones_like(x[:1, :1])))
        total, share = (F.avg_pool2d(part, WINDOW, stride=(16, 20)) for part in (filled, inside))
        return total / share


class _Head(nn.Layer):
    """The maps, the finest first -> class scores at the finest."""

    def __init__(
        self, map_channels: list[int], hidden: list[int], width: int, num_classes: int, resize_mode: str, use_gap: bool
    ):
        super().__init__()
        *finer, coarsest = map_channels
        self.resize_mode = resize_mode
        self.convs = nn.LayerList()
        self.conv_ups = nn.LayerList()
        for channels, inner in zip(finer[::-1], hidden[::-1]):
            self.convs.append(nn.Conv2D(channels, inner, 1, bias_attr=False))
            self.conv_ups.append(ConvBNReLU(width + inner, width, 1))
        pool = nn.AdaptiveAvgPool2D(1) if use_gap else _WindowMean()
        self.conv_w = nn.Sequential(pool, nn.Conv2D(coarsest, width, 1, bias_attr=False), nn.Sigmoid())
        self.conv_v = ConvBNReLU(coarsest, width, 1)
        self.conv_t = nn.Conv2D(width, width, 1, bias_attr=False)
        self.conv_out = nn.Conv2D(width, num_classes, 1, bias_attr=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.conv_v(maps[-1])
        x = self.conv_t(x * resize_to(self.conv_w(maps[-1]), x, self.resize_mode))
        for fine, conv, up in zip(maps[-2::-1], self.convs, self.conv_ups):
            x = up(paddle.concat([resize_to(x, fine, self.resize_mode), conv(fine)], axis=1))
        return self.conv_out(x)


@MODELS.register
class LRASPP(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is MobileNetV3_large_x1_0_os8. `lraspp_head_inter_chs`: widths that the finer maps of
    `backbone_indices` are brought to; `lraspp_head_out_ch`: the head's width. `use_gap` gates by the mean of the
    whole map, else by those of windows of 49x49 cells (on smaller maps, where PaddleSeg crashes, by the mean of what
    is there). `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "MobileNetV3_large_x1_0_os8"
    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 3),
        lraspp_head_inter_chs: Sequence[int] = (32, 64),
        lraspp_head_out_ch: int = 128,
        resize_mode: str = "bilinear",
        use_gap: bool = True,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners=False, pretrained=pretrained)
        hidden = one_each("model.lraspp_head_inter_chs", lraspp_head_inter_chs, len(self.map_channels) - 1)
        self.lraspp_head = _Head(self.map_channels, hidden, lraspp_head_out_ch, num_classes, resize_mode, use_gap)

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> the scores."""
        return [self.lraspp_head(maps)]
