"""ESPNet: convolutions of several dilations side by side on few channels (Mehta et al.,
https://arxiv.org/abs/1803.06815)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import resize_to
from segkit.models.prelu import BNPReLU, ConvBNPReLU
from segkit.registry import MODELS

_DILATIONS = (1, 2, 4, 8, 16)


class _Spatial(nn.Layer):
    """Channels reduced, convolved with each dilation, and joined: [N, in, h, w] -> [N, out, h/stride, w/stride]. The
    maps of the larger dilations hold those of the smaller ones too, against the gaps of a grid."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        width = out_channels // len(_DILATIONS)
        kernel, padding = (1, 0) if stride == 1 else (3, 1)
        self.conv1 = nn.Conv2D(in_channels, width, kernel, stride, padding, bias_attr=False)
        for dilation in _DILATIONS:
            out = width if dilation > 1 else out_channels - width * (len(_DILATIONS) - 1)
            conv = nn.Conv2D(width, out, 3, padding=dilation, dilation=dilation, bias_attr=False)
            setattr(self, f"d_conv{dilation}", conv)

    def joined(self, x: Tensor) -> Tensor:
        """The maps of all dilations."""
        x = self.conv1(x)
        first, *wider = (getattr(self, f"d_conv{dilation}")(x) for dilation in _DILATIONS)
        for index in range(1, len(wider)):
            wider[index] = wider[index] + wider[index - 1]
        return paddle.concat([first, *wider], axis=1)


class _Down(_Spatial):
    """`_Spatial` at half the size."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, stride=2)
        self.bn = nn.BatchNorm2D(out_channels)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.joined(x)))


class _Block(_Spatial):
    """`_Spatial`, with `residual` beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, residual: bool = True):
        super().__init__(in_channels, out_channels)
        self.bn = BNPReLU(out_channels)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.joined(x)
        return self.bn(x + y if self.residual else y)


class _Encoder(nn.Layer):
    """[N, in, H, W] -> scores at 1/2, 1/4 and 1/8; the image, made smaller, is seen again at each step."""

    def __init__(self, num_classes: int, in_channels: int, level2_depth: int, level3_depth: int):
        super().__init__()
        half, quarter = in_channels + 16, in_channels + 128
        self.level1 = ConvBNPReLU(in_channels, 16, 3, stride=2)
        self.br1, self.proj1 = BNPReLU(half), ConvBNPReLU(half, num_classes, 1)
        self.level2_0 = _Down(half, 64)
        self.level2 = nn.Sequential(*(_Block(64, 64) for _ in range(level2_depth)))
        self.br2, self.proj2 = BNPReLU(quarter), ConvBNPReLU(quarter, num_classes, 1)
        self.level3_0 = _Down(quarter, 128)
        self.level3 = nn.Sequential(*(_Block(128, 128) for _ in range(level3_depth)))
        self.br3, self.proj3 = BNPReLU(256), ConvBNPReLU(256, num_classes, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        half = self.br1(paddle.concat([self.level1(x), F.avg_pool2d(x, 2, 2, ceil_mode=True)], axis=1))
        start = self.level2_0(half)
        parts = [self.level2(start), start, F.avg_pool2d(x, 4, 4, ceil_mode=True)]
        quarter = self.br2(paddle.concat(parts, axis=1))
        start = self.level3_0(quarter)
        eighth = self.br3(paddle.concat([self.level3(start), start], axis=1))
        return [self.proj1(half), self.proj2(quarter), self.proj3(eighth)]


def _double(in_channels: int, out_channels: int) -> nn.Conv2DTranspose:
    return nn.Conv2DTranspose(in_channels, out_channels, 2, stride=2, bias_attr=False)


@MODELS.register
class ESPNetV1(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W (PaddleSeg needs multiples of 8).

    `level2_depth` and `level3_depth`: blocks at 1/4 and 1/8. `pretrained` is a path that the engine loads. Keys and
    outputs are PaddleSeg's, which works with 19 classes and 3 bands alone. `br3` and `level2_proj` are in published
    weights and unused.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        level2_depth: int = 2,
        level3_depth: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        merged = max(num_classes, len(_DILATIONS))
        self.encoder = _Encoder(num_classes, in_channels, level2_depth, level3_depth)
        self.level3_up = _double(num_classes, num_classes)
        self.br3 = nn.BatchNorm2D(num_classes)
        self.level2_proj = nn.Conv2D(in_channels + 128, num_classes, 1, bias_attr=False)
        self.combine_l2_l3 = nn.Sequential(BNPReLU(2 * num_classes), _Block(2 * num_classes, merged, residual=False))
        self.level2_up = nn.Sequential(_double(merged, num_classes), BNPReLU(num_classes))
        self.out_proj = ConvBNPReLU(2 * num_classes, num_classes, 3)
        self.out_up = _double(num_classes, num_classes)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        half, quarter, eighth = self.encoder(x)
        merged = self.combine_l2_l3(paddle.concat([resize_to(self.level3_up(eighth), quarter), quarter], axis=1))
        merged = self.out_proj(paddle.concat([resize_to(self.level2_up(merged), half), half], axis=1))
        return [resize_to(self.out_up(merged), x)]
