"""MobileNetV2: inverted residuals with linear ends (Sandler et al., https://arxiv.org/abs/1801.04381)."""

from __future__ import annotations

from functools import partial

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN
from segkit.registry import BACKBONES

_Conv = partial(ConvBN, bias=False)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, width, blocks and stride of each stage."""
ENDS = (1, 2, 4, 6)


class _Block(nn.Layer):
    """[N, in, h, w] -> [N, out, h/stride, w/stride]: widen, convolve each channel, narrow."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int):
        super().__init__()
        wide = round(in_channels * expansion)
        self._expand_conv = _Conv(in_channels, wide, 1, act=F.relu6)
        self._bottleneck_conv = _Conv(wide, wide, 3, stride=stride, padding=1, groups=wide, act=F.relu6)
        self._linear_conv = _Conv(wide, out_channels, 1)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self._linear_conv(self._bottleneck_conv(self._expand_conv(x)))
        return x + y if self.shortcut else y


class _Stage(nn.Layer):
    """Blocks, the first one alone changing size and channels; `name` is what published weights call the others."""

    def __init__(self, name: str, in_channels: int, out_channels: int, expansion: int, count: int, stride: int):
        super().__init__()
        self._names = ["_first_block", *(f"{name}_{number}" for number in range(2, count + 1))]
        for index, key in enumerate(self._names):
            first = index == 0
            block = _Block(in_channels if first else out_channels, out_channels, expansion, stride if first else 1)
            self.add_sublayer(key, block)

    def forward(self, x: Tensor) -> Tensor:
        for name in self._names:
            x = getattr(self, name)(x)
        return x


class _MobileNetV2(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 of `feat_channels` channels."""

    def __init__(self, scale: float, in_channels: int, pretrained: str | None):
        super().__init__()
        width = int(32 * scale)
        self.conv1 = _Conv(in_channels, width, 3, stride=2, padding=1, act=F.relu6)
        for number, (expansion, channels, count, stride) in enumerate(STAGES, 2):
            out = int(channels * scale)
            setattr(self, f"conv{number}", _Stage(f"conv{number}", width, out, expansion, count, stride))
            width = out
        self.feat_channels = [int(STAGES[index][1] * scale) for index in ENDS]
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv1(x)
        maps = []
        for index in range(len(STAGES)):
            x = getattr(self, f"conv{index + 2}")(x)
            if index in ENDS:
                maps.append(x)
        return maps


@BACKBONES.register
class MobileNetV2_x0_25(_MobileNetV2):
    """MobileNetV2, its widths times 0.25: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(0.25, in_channels, pretrained)


@BACKBONES.register
class MobileNetV2_x0_5(_MobileNetV2):
    """MobileNetV2, its widths times 0.5: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(0.5, in_channels, pretrained)


@BACKBONES.register
class MobileNetV2_x0_75(_MobileNetV2):
    """MobileNetV2, its widths times 0.75: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(0.75, in_channels, pretrained)


@BACKBONES.register
class MobileNetV2_x1_0(_MobileNetV2):
    """MobileNetV2, its widths times 1.0: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(1.0, in_channels, pretrained)


@BACKBONES.register
class MobileNetV2_x1_5(_MobileNetV2):
    """MobileNetV2, its widths times 1.5: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(1.5, in_channels, pretrained)


@BACKBONES.register
class MobileNetV2_x2_0(_MobileNetV2):
    """MobileNetV2, its widths times 2.0: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(2.0, in_channels, pretrained)
