"""Attention U-Net: gates on the skips, driven by the coarser map (Oktay et al., https://arxiv.org/abs/1804.03999)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import resize_to
from segkit.models.unet_layers import DoubleConv, UNetEncoder, stage_widths
from segkit.registry import MODELS


class _Up(nn.Layer):
    """[N, in, h, w] at the size of its skip -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        layers = nn.Conv2D(in_channels, out_channels, 3, padding=1), nn.BatchNorm2D(out_channels), nn.ReLU()
        self.up = nn.Sequential(*((str(index), layer) for index, layer in enumerate(layers, 1)))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.up(resize_to(x, skip))


class _Gate(nn.Layer):
    """The skip [N, C, H, W], each pixel weighted in 0..1 by it and by the coarser map [N, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 2
        self.W_g = nn.Sequential(nn.Conv2D(channels, inner, 1), nn.BatchNorm2D(inner))
        self.W_x = nn.Sequential(nn.Conv2D(channels, inner, 1), nn.BatchNorm2D(inner))
        self.psi = nn.Sequential(nn.Conv2D(inner, 1, 1), nn.BatchNorm2D(1), nn.Sigmoid())

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return skip * self.psi(F.relu(self.W_g(coarse) + self.W_x(skip)))


@MODELS.register
class AttentionUNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `base_channels` is the width of the finest stage; the deeper ones have 2, 4, 8 and 16 times as many.
    `pretrained` is a path that the engine loads. With 64, keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        super().__init__()
        widths = stage_widths(base_channels, (1, 2, 4, 8, 16))
        self.encoder = UNetEncoder(in_channels, widths)
        for stage in range(5, 1, -1):
            low, high = widths[stage - 1], widths[stage - 2]
            setattr(self, f"up{stage}", _Up(low, high))
            setattr(self, f"att{stage}", _Gate(high))
            setattr(self, f"up_conv{stage}", DoubleConv(low, high))
        self.conv_1x1 = nn.Conv2D(widths[0], num_classes, kernel_size=1)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        x, skips = self.encoder(x)
        for stage, skip in zip(range(5, 1, -1), skips[::-1]):
            x = getattr(self, f"up{stage}")(x, skip)
            gated = getattr(self, f"att{stage}")(x, skip)
            x = getattr(self, f"up_conv{stage}")(paddle.concat([gated, x], axis=1))
        return [self.conv_1x1(x)]
