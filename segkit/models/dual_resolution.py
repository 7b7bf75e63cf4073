"""Parts that DDRNet, PIDNet and RTFormer share (Hong et al., https://arxiv.org/abs/2101.06085)."""

from __future__ import annotations

from functools import partial
from typing import Callable, Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, ConvBNReLU, resize_to

conv_bn = partial(ConvBN, bias=False)
conv_bn_relu = partial(ConvBNReLU, bias=False)
POOLS = ((5, 2, 2), (9, 4, 4), (17, 8, 8))
"""Kernel, stride and padding of the context pyramid's means; the last one is of the whole map."""


class Basic(nn.Layer):
    """Two 3x3 convolutions around a shortcut. [N, in, h, w] -> [N, width, h/stride, w/stride]."""

    expansion = 1
    act_alone = True
    """Whether a stage's first block ends in ReLU; its last one, where it has several, never does."""

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Layer | None, act: bool):
        super().__init__()
        self.conv_bn_relu = conv_bn_relu(in_channels, width, 3, stride=stride, padding=1)
        self.conv_bn = conv_bn(width, width, 3, padding=1)
        self.downsample = downsample
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv_bn(self.conv_bn_relu(x)) + shortcut
        return F.relu(x) if self.act else x


class Bottleneck(nn.Layer):
    """1x1, 3x3 and 1x1 convolutions around a shortcut. [N, in, h, w] -> [N, 2 width, h/stride, w/stride]."""

    expansion = 2
    act_alone = False

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Layer | None, act: bool):
        super().__init__()
        self.conv_bn_relu1 = conv_bn_relu(in_channels, width, 1)
        self.conv_bn_relu2 = conv_bn_relu(width, width, 3, stride=stride, padding=1)
        self.conv_bn = conv_bn(width, 2 * width, 1)
        self.downsample = downsample
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv_bn(self.conv_bn_relu2(self.conv_bn_relu1(x))) + shortcut
        return F.relu(x) if self.act else x


def split_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """1x1 convolution and BatchNorm, in a list. [N, in, h, w] -> [N, out, h/stride, w/stride]."""
    conv = nn.Conv2D(in_channels, out_channels, 1, stride=stride, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(out_channels))


def residual_stage(
    block: type,
    in_channels: int,
    width: int,
    count: int = 1,
    stride: int = 1,
    shortcut: Callable[[int, int, int], nn.Layer] = lambda before, after, stride: conv_bn(before, after, 1, stride, 0),
) -> nn.Sequential:
    """`count` blocks; the first one changes the size and the channels, by `shortcut` beside it."""
    out = width * block.expansion
    downsample = shortcut(in_channels, out, stride) if stride != 1 or in_channels != out else None
    blocks = [block(in_channels, width, stride, downsample, block.act_alone)]
    blocks += [block(out, width, 1, None, act=index < count - 1) for index in range(1, count)]
    return nn.Sequential(*blocks)


def norm_first(in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1) -> list[nn.Layer]:
    """BatchNorm, ReLU, convolution: [N, in, h, w] -> [N, out, h, w]."""
    conv = nn.Conv2D(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias_attr=False)
    return [nn.BatchNorm2D(in_channels), nn.ReLU(), conv]


def pools(count_padding: bool = False) -> list[nn.Layer]:
    """The context pyramid's means, the last one of the whole map. `count_padding`: zeros beyond the map count."""
    return [*(nn.AvgPool2D(*pool, exclusive=not count_padding) for pool in POOLS), nn.AdaptiveAvgPool2D(1)]


def aggregate(x: Tensor, scales: Sequence[nn.Layer], processes: Sequence[nn.Layer]) -> list[Tensor]:
    """Deep aggregation pyramid pooling: each scale of `x`, the finest first, added to the one before and convolved."""
    maps = [scales[0](x)]
    for scale, process in zip(scales[1:], processes):
        maps.append(process(resize_to(scale(x), x) + maps[-1]))
    return maps


class ContextPyramid(nn.Layer):
    """Deep aggregation pyramid pooling (DAPPM). [N, in, h, w] -> [N, out, h, w]. `count_padding` is that of `pools`."""

    def __init__(self, in_channels: int, width: int, out_channels: int, count_padding: bool = False):
        super().__init__()
        for number, pool in enumerate(pools(count_padding), 1):
            setattr(self, f"scale{number}", nn.Sequential(pool, *norm_first(in_channels, width)))
            setattr(self, f"process{number}", nn.Sequential(*norm_first(width, width, 3)))
        self.scale0 = nn.Sequential(*norm_first(in_channels, width))
        self.compression = nn.Sequential(*norm_first(width * 5, out_channels))
        self.shortcut = nn.Sequential(*norm_first(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        scales = [self.scale0, self.scale1, self.scale2, self.scale3, self.scale4]
        maps = aggregate(x, scales, [self.process1, self.process2, self.process3, self.process4])
        return self.compression(paddle.concat(maps, axis=1)) + self.shortcut(x)
