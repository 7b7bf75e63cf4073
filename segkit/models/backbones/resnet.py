"""ResNet as published first (He et al., https://arxiv.org/abs/1512.03385), with the stride at a bottleneck's 3x3
convolution, as torchvision has it; dilated in its last stages on request."""

from __future__ import annotations

from typing import Sequence

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.residual import WIDTHS, ResidualStep, residual_steps
from segkit.registry import BACKBONES


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2D:
    padding = kernel_size // 2 * dilation
    return nn.Conv2D(in_channels, out_channels, kernel_size, stride, padding, dilation, bias_attr=False)


class _Residual(nn.Layer):
    """Convolutions, each with its BatchNorm, around a shortcut: [N, in, h, w] -> [N, out, h/stride, w/stride]."""

    def __init__(self, convs: list[nn.Conv2D], widths: list[int], step: ResidualStep):
        super().__init__()
        self.count, out_channels = len(convs), widths[-1]
        for number, (conv, width) in enumerate(zip(convs, widths), 1):
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2D(width))
        self.downsample = nn.Identity()
        if step.stride != 1 or step.in_channels != out_channels:
            conv = _conv(step.in_channels, out_channels, 1, step.stride)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2D(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.count:
                y = F.relu(y)
        return F.relu(y + self.downsample(x))


class _Basic(_Residual):
    expansion = 1

    def __init__(self, step: ResidualStep):
        width = step.width
        first = _conv(step.in_channels, width, 3, step.stride, step.dilation)
        super().__init__([first, _conv(width, width, 3, dilation=step.dilation)], [width, width], step)


class _Bottleneck(_Residual):
    expansion = 4

    def __init__(self, step: ResidualStep):
        width = step.width
        middle = _conv(width, width, 3, step.stride, step.dilation)
        convs = [_conv(step.in_channels, width, 1), middle, _conv(width, 4 * width, 1)]
        super().__init__(convs, [width, width, 4 * width], step)


class _ResNet(nn.Layer):
    """[N, in_channels, H, W] -> four maps at 1/4, 1/8, 1/16 and 1/32, the last ones finer where `output_stride` is 8
    or 16 (dilated).

    `multi_grid` multiplies the dilations of the last stage's blocks one by one. `pretrained` is a file of
    classification weights that the engine loads: Paddle's (keys as in paddle.vision) or torchvision's state dict.
    """

    depths: Sequence[int]
    block: type[_Basic] | type[_Bottleneck] = _Bottleneck

    def __init__(
        self,
        output_stride: int = 32,
        multi_grid: Sequence[int] = (1, 1, 1),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        steps = residual_steps(self.depths, self.block.expansion, output_stride, multi_grid)
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.feat_channels = [width * self.block.expansion for width in WIDTHS]
        self.conv1 = _conv(in_channels, WIDTHS[0], 7, stride=2)
        self.bn1 = nn.BatchNorm2D(WIDTHS[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2D(3, stride=2, padding=1)
        for number, row in enumerate(steps, 1):
            setattr(self, f"layer{number}", nn.Sequential(*map(self.block, row)))

    def stem(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 64, H/2, W/2]."""
        return self.relu(self.bn1(self.conv1(x)))

    def stages(self, x: Tensor) -> list[Tensor]:
        """The stem's map -> the four maps."""
        x = self.maxpool(x)
        maps = []
        for number in range(1, len(self.depths) + 1):
            x = getattr(self, f"layer{number}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(self.stem(x))


@BACKBONES.register
class ResNet18(_ResNet):
    depths, block = (2, 2, 2, 2), _Basic


@BACKBONES.register
class ResNet34(_ResNet):
    depths, block = (3, 4, 6, 3), _Basic


@BACKBONES.register
class ResNet50(_ResNet):
    depths = (3, 4, 6, 3)


@BACKBONES.register
class ResNet101(_ResNet):
    depths = (3, 4, 23, 3)


@BACKBONES.register
class ResNet152(_ResNet):
    depths = (3, 8, 36, 3)
