"""EfficientFormerV2 (Li et al., https://arxiv.org/abs/2212.08059) under a feature pyramid whose maps are raised step by
step and added (Kirillov et al., Panoptic FPN, https://arxiv.org/abs/1901.02446)."""

from __future__ import annotations

from functools import partial
from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.fpn import scale_head
from segkit.models.layers import ConvBNReLU, kaiming_normal, resize_to
from segkit.registry import MODELS

_PYRAMID = 256


class _Neck(nn.Layer):
    """Maps of `widths` channels, the finest first -> as many of 256, each with the coarser ones added in."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.lateral_convs = nn.LayerList([nn.Conv2D(width, _PYRAMID, 1) for width in widths])
        self.fpn_convs = nn.LayerList([nn.Conv2D(_PYRAMID, _PYRAMID, 3, padding=1) for _ in widths])
        kaiming_normal(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps)]
        for index in range(len(levels) - 1, 0, -1):
            fine = levels[index - 1]
            levels[index - 1] = fine + resize_to(levels[index], fine, "nearest")
        return [conv(x) for conv, x in zip(self.fpn_convs, levels)]


class _Head(nn.Layer):
    """The pyramid's maps, the finest first -> scores [N, num_classes, h, w] of the finest's size."""

    def __init__(self, num_classes: int, count: int, channels: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        conv = partial(ConvBNReLU, kernel_size=3, bias=False, names=("0", "1"))
        self.scale_heads = nn.LayerList(
            [scale_head(conv, _PYRAMID, channels, level, level > 0, align_corners) for level in range(count)]
        )
        self.dropout = nn.Dropout2D(0.1)
        self.cls_seg = nn.Conv2D(channels, num_classes, 1)
        kaiming_normal(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        first, *others = [head(x) for head, x in zip(self.scale_heads, maps)]
        raised = [resize_to(x, first, align_corners=self.align_corners) for x in others]
        return self.cls_seg(self.dropout(sum(raised, first)))


@MODELS.register
class EfficientFormerSeg(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W (PaddleSeg needs multiples of 32).

    `backbone` None is EfficientFormerv2_s0; `head_channels` is the width of the maps that are added. `pretrained` is a
    path that the engine loads. Keys and outputs are PaddleSeg's; its `add_extra_convs`, which does nothing for the
    four maps, is not taken.
    """

    default_backbone = "EfficientFormerv2_s0"
    train_outputs = 1
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        head_channels: int = 128,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.neck = _Neck(self.map_channels)
        self.head = _Head(num_classes, len(self.map_channels), head_channels, align_corners)

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.head(self.neck(maps))]
