"""ShuffleNetV2: half of the channels pass each block untouched, then all are shuffled
(Ma et al., https://arxiv.org/abs/1807.11164)."""

from __future__ import annotations

from functools import partial

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, ConvBNReLU, interleave, kaiming_normal
from segkit.registry import BACKBONES

_Conv = partial(ConvBN, bias=False)
_ConvReLU = partial(ConvBNReLU, bias=False)
_REPEATS = (4, 8, 4)


class _Keep(nn.Layer):
    """[N, C, h, w] -> the same shape: one half passes a bottleneck, the other none."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self._conv_pw = _ConvReLU(half, half, 1)
        self._conv_dw = _Conv(half, half, 3, groups=half)
        self._conv_linear = _ConvReLU(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        same, x = x.split(2, axis=1)
        x = self._conv_linear(self._conv_dw(self._conv_pw(x)))
        return interleave(same, x)


class _Shrink(nn.Layer):
    """[N, in, h, w] -> [N, out, h/2, w/2]: two branches of all channels, half of `out` each."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        half = out_channels // 2
        self._conv_dw_1 = _Conv(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels)
        self._conv_linear_1 = _ConvReLU(in_channels, half, 1)
        self._conv_pw_2 = _ConvReLU(in_channels, half, 1)
        self._conv_dw_2 = _Conv(half, half, 3, stride=2, padding=1, groups=half)
        self._conv_linear_2 = _ConvReLU(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self._conv_linear_1(self._conv_dw_1(x))
        second = self._conv_linear_2(self._conv_dw_2(self._conv_pw_2(x)))
        return interleave(first, second)


class _ShuffleNetV2(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 of `feat_channels` channels."""

    def __init__(self, widths: tuple[int, int, int], in_channels: int, pretrained: str | None):
        super().__init__()
        self.feat_channels = [24, *widths]
        self._conv1 = _ConvReLU(in_channels, 24, 3, stride=2, padding=1)
        self._stages = []
        for stage, (before, width, count) in enumerate(zip(self.feat_channels, widths, _REPEATS), 2):
            names = [f"{stage}_{number}" for number in range(1, count + 1)]
            for index, name in enumerate(names):
                self.add_sublayer(name, _Shrink(before, width) if index == 0 else _Keep(width))
            self._stages.append(names)
        self.pretrained = pretrained
        kaiming_normal(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self._conv1(x), 3, stride=2, padding=1)
        maps = [x]
        for names in self._stages:
            for name in names:
                x = getattr(self, name)(x)
            maps.append(x)
        return maps


@BACKBONES.register
class ShuffleNetV2_x0_25(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 0.25 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((24, 48, 96), in_channels, pretrained)


@BACKBONES.register
class ShuffleNetV2_x0_33(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 0.33 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((32, 64, 128), in_channels, pretrained)


@BACKBONES.register
class ShuffleNetV2_x0_5(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 0.5 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((48, 96, 192), in_channels, pretrained)


@BACKBONES.register
class ShuffleNetV2_x1_0(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 1.0 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((116, 232, 464), in_channels, pretrained)


@BACKBONES.register
class ShuffleNetV2_x1_5(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 1.5 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((176, 352, 704), in_channels, pretrained)


@BACKBONES.register
class ShuffleNetV2_x2_0(_ShuffleNetV2):
    """ShuffleNetV2, its widths about 2.0 times the usual: maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__((224, 488, 976), in_channels, pretrained)
