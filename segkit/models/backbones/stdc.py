"""STDC: blocks that join maps of shrinking width and growing view (Fan et al., https://arxiv.org/abs/2104.13188)."""

from __future__ import annotations

from functools import partial

import paddle
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, normal_weights, scale_learning_rate
from segkit.registry import BACKBONES

_Conv = partial(ConvBNReLU, bias=False, names=("conv", "bn"))


class _Block(nn.Layer):
    """[N, in, h, w] -> [N, out, h/stride, w/stride]: a half, a quarter and two eighths of `out`, one after another."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        half, quarter, eighth = (out_channels // part for part in (2, 4, 8))
        steps = ((half, quarter), (quarter, eighth), (eighth, eighth))
        self.conv_list = nn.LayerList([_Conv(in_channels, half, 1), *(_Conv(*step, 3) for step in steps)])
        self.stride = stride
        if stride == 2:
            self.avd_layer = nn.Sequential(
                nn.Conv2D(half, half, 3, stride=2, padding=1, groups=half, bias_attr=False), nn.BatchNorm2D(half)
            )
            self.skip = nn.AvgPool2D(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.conv_list[0](x)
        if self.stride == 2:
            first, x = self.skip(first), self.avd_layer(x)
        maps = [first]
        for conv in self.conv_list[1:]:
            x = conv(x)
            maps.append(x)
        return paddle.concat(maps, axis=1)


class _STDC(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/2, 1/4, 1/8, 1/16, 1/32 of `feat_channels` channels.

    `relative_lr` scales the learning rate of this part. `base_channels` is the width at 1/4, 64 in published weights;
    `pretrained` is a path that the engine loads.
    """

    blocks: tuple[int, int, int]
    """at 1/8, 1/16 and 1/32"""

    def __init__(
        self,
        relative_lr: float = 1.0,
        in_channels: int = 3,
        pretrained: str | None = None,
        base_channels: int = 64,
    ):
        super().__init__()
        widths = [base_channels * times for times in (4, 8, 16)]
        self.feat_channels = [base_channels // 2, base_channels, *widths]
        first = [in_channels, *self.feat_channels]
        layers = [_Conv(*first[index : index + 2], 3, stride=2, padding=1) for index in (0, 1)]
        for before, after, count in zip(self.feat_channels[1:], widths, self.blocks):
            layers.append(_Block(before, after, stride=2))
            layers += [_Block(after, after, stride=1) for _ in range(count - 1)]
        self.features = nn.Sequential(*layers)
        self._ends = {0, 1, *(1 + sum(self.blocks[:stage]) for stage in (1, 2, 3))}
        self.pretrained = pretrained
        normal_weights(self, 0.001)
        scale_learning_rate(self, relative_lr)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._ends:
                maps.append(x)
        return maps


@BACKBONES.register
class STDC1(_STDC):
    blocks = (2, 2, 2)


@BACKBONES.register
class STDC2(_STDC):
    blocks = (4, 5, 3)
