"""GhostNet: half of each layer's maps are cheap copies of the other half
(Han et al., https://arxiv.org/abs/1911.11907)."""

from __future__ import annotations

from functools import partial
from typing import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, kaiming_normal, rounded_channels, without_weight_decay
from segkit.registry import BACKBONES

_Conv = partial(ConvBN, bias=False)
STEPS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)
"""Kernel, inner and outer width, squeeze-and-excitation or not, and stride of each block."""
ENDS = (2, 4, 10, 15)


class _Excite(nn.Layer):
    """Channels weighted in 0..1 by the map's mean, the scores cut instead of squashed. [N, C, h, w] -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 4
        self.squeeze = self._linear(channels, hidden)
        self.excitation = self._linear(hidden, channels)

    @staticmethod
    def _linear(before: int, after: int) -> nn.Linear:
        layer = nn.Linear(before, after)
        nn.initializer.Uniform(-(before**-0.5), before**-0.5)(layer.weight)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1).flatten(1)
        weights = self.excitation(F.relu(self.squeeze(mean))).clip(0, 1)
        return x * weights.unsqueeze([2, 3])


class _Ghost(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w]: a 1x1 convolution to half of `out`, and a depthwise one of that."""

    def __init__(self, in_channels: int, out_channels: int, act: Callable[[Tensor], Tensor] | None):
        super().__init__()
        half = out_channels // 2
        self.primary_conv = _Conv(in_channels, half, 1, act=act)
        self.cheap_operation = _Conv(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return paddle.concat([x, self.cheap_operation(x)], axis=1)


class _Block(nn.Layer):
    """[N, in, h, w] -> [N, out, h/stride, w/stride]: widen and narrow by `_Ghost`, beside a shortcut."""

    def __init__(self, in_channels: int, wide: int, out: int, kernel: int, stride: int, attention: bool):
        super().__init__()
        shrink = partial(_Conv, kernel_size=kernel, stride=stride, padding=kernel // 2)
        self.ghost_module_1 = _Ghost(in_channels, wide, F.relu)
        self.depthwise_conv = shrink(wide, wide, groups=wide) if stride == 2 else nn.Identity()
        self.se_block = _Excite(wide) if attention else nn.Identity()
        self.ghost_module_2 = _Ghost(wide, out, None)
        self.projects = stride != 1 or in_channels != out
        if self.projects:
            self.shortcut_depthwise = shrink(in_channels, in_channels, groups=in_channels)
            self.shortcut_conv = _Conv(in_channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut_conv(self.shortcut_depthwise(x)) if self.projects else x
        return self.ghost_module_2(self.se_block(self.depthwise_conv(self.ghost_module_1(x)))) + shortcut


class _GhostNet(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 of `feat_channels` channels."""

    def __init__(self, scale: float, in_channels: int, pretrained: str | None):
        super().__init__()
        width = rounded_channels(16 * scale, 4)
        self.conv1 = _Conv(in_channels, width, 3, stride=2, padding=1, act=F.relu)
        self.feat_channels = []
        for index, (kernel, wide, out, attention, stride) in enumerate(STEPS):
            wide, out = rounded_channels(wide * scale, 4), rounded_channels(out * scale, 4)
            setattr(self, f"_ghostbottleneck_{index}", _Block(width, wide, out, kernel, stride, attention))
            width = out
            if index in ENDS:
                self.feat_channels.append(out)
        self.pretrained = pretrained
        kaiming_normal(self)
        without_weight_decay(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv1(x)
        maps = []
        for index in range(len(STEPS)):
            x = getattr(self, f"_ghostbottleneck_{index}")(x)
            if index in ENDS:
                maps.append(x)
        return maps


@BACKBONES.register
class GhostNet_x0_5(_GhostNet):
    """GhostNet, its widths times 0.5: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(0.5, in_channels, pretrained)


@BACKBONES.register
class GhostNet_x1_0(_GhostNet):
    """GhostNet, its widths times 1.0: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(1.0, in_channels, pretrained)


@BACKBONES.register
class GhostNet_x1_3(_GhostNet):
    """GhostNet, its widths times 1.3: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(1.3, in_channels, pretrained)
