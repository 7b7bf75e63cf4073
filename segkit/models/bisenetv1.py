"""BiSeNet: a shallow path for detail beside a deep one for context, fused under channel attention
(Yu et al., https://arxiv.org/abs/1808.00897)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, kaiming_normal, resize_to
from segkit.models.pyramid import PooledImage
from segkit.registry import MODELS


class _SpatialPath(nn.Layer):
    """[N, in, H, W] -> [N, out, H/8, W/8]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_7x7 = ConvBNReLU(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.conv_3x3_1 = ConvBNReLU(64, 64, 3, stride=2, padding=1, bias=False)
        self.conv_3x3_2 = ConvBNReLU(64, 64, 3, stride=2, padding=1, bias=False)
        self.conv_1x1 = ConvBNReLU(64, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_1x1(self.conv_3x3_2(self.conv_3x3_1(self.conv_7x7(x))))


class _Refinement(nn.Layer):
    """A 3x3 convolution, its channels weighted by their means. [N, in, h, w] -> [N, out, h, w].

    Published weights rectify before the sigmoid, so that a weight is at least a half."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_3x3 = ConvBNReLU(in_channels, out_channels, 3, bias=False)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2D(1), ConvBNReLU(out_channels, out_channels, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3x3(x)
        return x * self.channel_attention(x)


class _Fusion(nn.Layer):
    """Two maps [N, C/2, h, w] -> [N, C, h, w], channels raised by their own weights."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_1x1 = ConvBNReLU(channels, channels, 1, bias=False)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2D(1),
            ConvBNReLU(channels, channels, 1, bias=False),
            ConvBNReLU(channels, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.conv_1x1(paddle.concat([detail, context], axis=1))
        return x + x * self.channel_attention(x)


class _Head(nn.Layer):
    """[N, in, h, w] -> scores [N, num_classes, h, w]."""

    def __init__(self, in_channels: int, channels: int, num_classes: int):
        super().__init__()
        self.conv_3x3 = ConvBNReLU(in_channels, channels, 3, bias=False)
        self.conv_1x1 = nn.Conv2D(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_1x1(self.conv_3x3(x))


@MODELS.register
class BiseNetV1(BackboneModel):
    """[N, in_channels, H, W] -> three [N, num_classes, H, W] in training (main, then the context path's, the deepest
    first), one in evaluation.

    `conv_channel`: channels of either path. Keys and outputs are PaddleSeg's, at any size (those are rounded up to
    a multiple of 8).
    """

    train_outputs = 3
    default_backbone = "ResNet18_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        conv_channel: int = 128,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (3, 2), in_channels, True, pretrained)
        width = conv_channel
        self.spatial_path = _SpatialPath(self.backbone.in_channels, width)
        self.global_context = PooledImage(self.map_channels[0], width)
        self.arms = nn.LayerList([_Refinement(channels, width) for channels in self.map_channels])
        self.refines = nn.LayerList([ConvBNReLU(width, width, 3, bias=False) for _ in self.arms])
        self.heads = nn.LayerList(
            [_Head(width, width, num_classes), _Head(width, width, num_classes), _Head(2 * width, 64, num_classes)]
        )
        self.ffm = _Fusion(2 * width)
        for part in (self.spatial_path, self.global_context, self.arms, self.refines, self.heads, self.ffm):
            kaiming_normal(part)

    def forward(self, x: Tensor) -> list[Tensor]:
        detail = self.spatial_path(x)
        maps = self.maps(x)
        context = resize_to(self.global_context(maps[0]), maps[0], align_corners=True)
        levels = []
        for arm, refine, deep, finer in zip(self.arms, self.refines, maps, [maps[1], detail]):
            context = refine(resize_to(arm(deep) + context, finer, align_corners=True))
            levels.append(context)
        scores = [self.heads[2](self.ffm(detail, levels[1]))]
        if self.training:
            scores += [head(level) for head, level in zip(self.heads, levels)]
        return [resize_to(score, x, align_corners=True) for score in scores]
