"""The block of MobileNetV3, which other mobile backbones share (Howard et al., https://arxiv.org/abs/1905.02244)."""

from __future__ import annotations

from functools import partial
from typing import Callable, NamedTuple

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, SqueezeExcite

Act = Callable[[Tensor], Tensor]


class Step(NamedTuple):
    """One block: kernel, inner and outer width, squeeze-and-excitation or not, activation and stride."""

    kernel: int
    wide: int
    out: int
    attention: bool
    act: Act
    stride: int


class InvertedResidual(nn.Layer):
    """[N, in, h, w] -> [N, step.out, h/stride, w/stride]: widen, convolve each channel, narrow; a shortcut beside it
    where nothing changes. `names` are the keys of each convolution and its BatchNorm."""

    def __init__(self, in_channels: int, step: Step, dilation: int = 1, names: tuple[str, str] = ("conv", "bn")):
        super().__init__()
        conv = partial(ConvBN, bias=False, names=names)
        wide, padding = step.wide, step.kernel // 2 * dilation
        self.expand_conv = conv(in_channels, wide, 1, act=step.act)
        self.bottleneck_conv = conv(wide, wide, step.kernel, step.stride, padding, dilation, groups=wide, act=step.act)
        self.mid_se = SqueezeExcite(wide, wide // 4, gate=partial(F.hardsigmoid, slope=0.2)) if step.attention else None
        self.linear_conv = conv(wide, step.out, 1)
        self.shortcut = step.stride == 1 and in_channels == step.out

    def forward(self, x: Tensor) -> Tensor:
        y = self.bottleneck_conv(self.expand_conv(x))
        if self.mid_se is not None:
            y = self.mid_se(y)
        y = self.linear_conv(y)
        return x + y if self.shortcut else y
