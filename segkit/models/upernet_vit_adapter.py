"""UPerNet on ViT-Adapter (Chen et al., https://arxiv.org/abs/2205.08534)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.models.pyramid import pooling_stages
from segkit.models.uperhead import PyramidHead
from segkit.registry import MODELS

_NAMES = ("conv", "bn")


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, out_channels, kernel_size, bias=False, names=_NAMES)


class _Head(PyramidHead):
    """Maps of `widths` channels, the finest first -> scores of the finest's size and, in training with
    `aux_channels`, others from the third map."""

    def __init__(
        self,
        num_classes: int,
        widths: list[int],
        channels: int,
        pool_scales: Sequence[int],
        dropout: float,
        aux_channels: int | None,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        stages = pooling_stages(widths[-1], channels, pool_scales, bias=False, names=_NAMES)
        self.psp_modules = nn.Sequential(("stages", stages))
        self.bottleneck = _conv(widths[-1] + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.LayerList([_conv(width, channels, 1) for width in widths[:-1]])
        self.fpn_convs = nn.LayerList([_conv(channels, channels, 3) for _ in widths[:-1]])
        self.fpn_bottleneck = _conv(len(widths) * channels, channels, 3)
        self.dropout = nn.Dropout2D(dropout)
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)
        if aux_channels is not None:
            self.aux_conv = _conv(widths[2], aux_channels, 3)
            self.aux_conv_seg = nn.Conv2D(aux_channels, num_classes, 1)
        self.auxiliary = aux_channels is not None

    def context(self, x: Tensor) -> Tensor:
        pooled = [resize_to(stage(x), x, align_corners=self.align_corners) for stage in self.psp_modules.stages]
        return self.bottleneck(paddle.concat([x, *pooled], axis=1))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.conv_seg(self.dropout(self.features(maps)))]
        if self.auxiliary and self.training:
            scores.append(self.aux_conv_seg(self.aux_conv(maps[2])))
        return scores


@MODELS.register
class UPerNetViTAdapter(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], for any H and W, and in training with `aux_loss` another from
    the third map.

    `channels`: of the pyramid's maps, `aux_channels` of the auxiliary head's; `pool_scales`: cells along each side of
    the grids over which the coarsest map is averaged; `dropout_ratio`: share of channels dropped before the scores;
    `align_corners`: of all interpolations. `pretrained` is a path that the engine loads. Keys are PaddleSeg's, which
    runs this model on a GPU alone, and not at every size.
    """

    default_backbone = "ViTAdapter_Tiny"
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout_ratio: float = 0.1,
        aux_loss: bool = True,
        aux_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        auxiliary = aux_channels if aux_loss else None
        layout = (self.map_channels, channels, pool_scales)
        self.head = _Head(num_classes, *layout, dropout_ratio, auxiliary, align_corners)
        self.train_outputs = 2 if aux_loss else 1
