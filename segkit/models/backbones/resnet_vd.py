"""ResNet-D: ResNet with a stem of three small convolutions and pooled shortcuts
(He et al., "Bag of Tricks", https://arxiv.org/abs/1812.01187), dilated in its last stages for segmentation."""

from __future__ import annotations

from typing import Sequence

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, ConvBNReLU
from segkit.models.residual import WIDTHS, residual_steps
from segkit.registry import BACKBONES


class _PooledConvBN(ConvBN):
    """Halves the map by averaging (so that no pixel is dropped), then a 1x1 `ConvBN`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool2D(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Layer:
    return ConvBN(in_channels, out_channels, 1, bias=False) if stride == 1 else _PooledConvBN(in_channels, out_channels)


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions around a shortcut. [N, in, h, w] -> [N, width, h/stride, w/stride]."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv0 = ConvBNReLU(in_channels, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.conv1 = ConvBN(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.short = _shortcut(in_channels, width, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv1(self.conv0(x)) + self.short(x))


class _Bottleneck(nn.Layer):
    """1x1, 3x3 and 1x1 convolutions around a shortcut. [N, in, h, w] -> [N, 4 width, h/stride, w/stride]."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv0 = ConvBNReLU(in_channels, width, 1, bias=False)
        self.conv1 = ConvBNReLU(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = ConvBN(width, 4 * width, 1, bias=False)
        self.short = _shortcut(in_channels, 4 * width, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(self.conv0(x))) + self.short(x))


class _ResNetVd(nn.Layer):
    """[N, in_channels, H, W] -> four maps at 1/4, 1/8, and then 1/16 and 1/32 unless dilation keeps them finer.

    `output_stride` is the last map's: 8 or 16 (dilated), or 32. `multi_grid` multiplies the dilations of the last
    stage's blocks one by one. `pretrained` is a file of classification weights that the engine loads. Keys are
    PaddleSeg's.
    """

    depths: Sequence[int]
    block: type[nn.Layer] = _Bottleneck

    def __init__(
        self,
        output_stride: int = 8,
        multi_grid: Sequence[int] = (1, 1, 1),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        steps = residual_steps(self.depths, self.block.expansion, output_stride, multi_grid)
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.feat_channels = [width * self.block.expansion for width in WIDTHS]
        self.conv1_1 = ConvBNReLU(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.conv1_2 = ConvBNReLU(32, 32, 3, bias=False)
        self.conv1_3 = ConvBNReLU(32, 64, 3, bias=False)
        self.pool = nn.MaxPool2D(3, stride=2, padding=1)
        self.block_names: list[list[str]] = []
        for stage, row in enumerate(steps):
            self.block_names.append([f"bb_{stage}_{index}" for index in range(len(row))])
            for index, (name, step) in enumerate(zip(self.block_names[stage], row)):
                self.add_sublayer(name, self.block(*step, project=index == 0))

    def stem(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 64, H/2, W/2]."""
        return self.conv1_3(self.conv1_2(self.conv1_1(x)))

    def stages(self, x: Tensor) -> list[Tensor]:
        """The stem's map -> the four maps."""
        x = self.pool(x)
        maps = []
        for names in self.block_names:
            for name in names:
                x = getattr(self, name)(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(self.stem(x))


@BACKBONES.register
class ResNet18_vd(_ResNetVd):
    depths, block = (2, 2, 2, 2), BasicBlock


@BACKBONES.register
class ResNet34_vd(_ResNetVd):
    depths, block = (3, 4, 6, 3), BasicBlock


@BACKBONES.register
class ResNet50_vd(_ResNetVd):
    depths = (3, 4, 6, 3)


@BACKBONES.register
class ResNet101_vd(_ResNetVd):
    depths = (3, 4, 23, 3)


@BACKBONES.register
class ResNet152_vd(_ResNetVd):
    depths = (3, 8, 36, 3)


@BACKBONES.register
class ResNet200_vd(_ResNetVd):
    depths = (3, 12, 48, 3)
