"""Parts that the mobile transformers share (Zhang et al., TopFormer, https://arxiv.org/abs/2204.05525)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, ConvBNReLU
from segkit.models.transformer import DropPath

NAMES = ("c", "bn")
mobile_conv = partial(ConvBN, bias=False, names=NAMES)


def quiet_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """ReLU6 and a 1x1 `ConvBN` that starts at 0. [N, in, h, w] -> [N, out, h, w]."""
    conv = mobile_conv(in_channels, out_channels, 1)
    nn.initializer.Constant(0.0)(conv.bn.weight)
    return nn.Sequential(nn.ReLU6(), conv)


class Step(NamedTuple):
    """One `MobileResidual`: kernel, widening, outer width and stride."""

    kernel: int
    expansion: int
    out: int
    stride: int


class MobileResidual(nn.Layer):
    """[N, in, h, w] -> [N, out, h/stride, w/stride]: widen, convolve each channel, narrow; a shortcut
    beside it where nothing changes. `names` are the keys of each convolution and its BatchNorm."""

    def __init__(self, in_channels: int, step: Step, names: tuple[str, str] = NAMES):
        super().__init__()
        mobile_conv = partial(ConvBN, bias=False, names=names)
        wide = in_channels * step.expansion
        layers = [mobile_conv(in_channels, wide, 1), nn.ReLU()] if step.expansion != 1 else []
        layers += [
            mobile_conv(wide, wide, step.kernel, step.stride, step.kernel // 2, groups=wide),
            nn.ReLU(),
            mobile_conv(wide, step.out, 1),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = step.stride == 1 and in_channels == step.out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class ConvMlp(nn.Layer):
    """1x1, depthwise 3x3 and 1x1 convolutions. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, hidden: int, names: tuple[str, str] = NAMES):
        super().__init__()
        self.fc1 = ConvBN(channels, hidden, 1, bias=False, names=names)
        self.dwconv = nn.Conv2D(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = ConvBN(hidden, channels, 1, bias=False, names=names)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu6(self.dwconv(self.fc1(x))))


class MobileBlock(nn.Layer):
    """`attention` and `ConvMlp`, each beside a shortcut. [N, C, h, w] -> the same shape. `drop`: stochastic depth."""

    def __init__(self, attention: nn.Layer, channels: int, mlp_ratio: int, drop: float, names: tuple[str, str] = NAMES):
        super().__init__()
        self.attn = attention
        self.drop_path = DropPath(drop)
        self.mlp = ConvMlp(channels, channels * mlp_ratio, names)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class FuseHead(nn.Layer):
    """[N, in, h, w] -> class scores [N, num_classes, h, w]. `depthwise`: the first convolution keeps channels apart."""

    def __init__(self, in_channels: int, num_classes: int, depthwise: bool):
        super().__init__()
        groups = in_channels if depthwise else 1
        self.linear_fuse = ConvBNReLU(in_channels, in_channels, 1, groups=groups, bias=False, names=("conv", "bn"))
        self.dropout = nn.Dropout2D(0.1)
        self.conv_seg = nn.Conv2D(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(self.linear_fuse(x)))
