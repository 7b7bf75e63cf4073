"""PP-HumanSeg-Lite: ShuffleNetV2 blocks for portraits on small devices (Chu et al., https://arxiv.org/abs/2112.07146)."""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, SeparableConvBNReLU, interleave, normal_weights, resize_to
from segkit.registry import MODELS

_Separable = partial(SeparableConvBNReLU, kernel_size=3, padding=1, bias=False)


class _Block(nn.Layer):
    """[N, C, h, w] -> the same shape, or [N, out, h/2, w/2] where `out` is given (Ma et al., ShuffleNetV2,
    https://arxiv.org/abs/1807.11164).

    Without `out`, half of the channels pass untouched; published weights still hold a convolution for them.
    """

    def __init__(self, channels: int, out: int | None = None):
        super().__init__()
        self.shrinks = out is not None
        stride = 2 if self.shrinks else 1
        half = (out or channels) // 2
        self._depthwise_separable_0 = _Separable(channels, half, stride=stride)
        self._conv = ConvBNReLU(channels if self.shrinks else half, half, 1, bias=False)
        self._depthwise_separable_1 = _Separable(half, half, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, branch = (self._depthwise_separable_0(x), x) if self.shrinks else x.split(2, axis=1)
        branch = self._depthwise_separable_1(self._conv(branch))
        return interleave(shortcut, branch)


@MODELS.register
class PPHumanSegLite(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], none below 0, for any H and W.

    `align_corners` is the interpolations'. `pretrained` is a path that the engine loads. Keys and outputs are
    PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, align_corners: bool = False
    ):
        super().__init__()
        self.conv_bn0 = ConvBNReLU(in_channels, 36, 3, stride=2, padding=1, bias=False)
        self.conv_bn1 = ConvBNReLU(36, 18, 1, bias=False)
        self.block1 = nn.Sequential(_Block(36, 72), *(_Block(72) for _ in range(3)))
        self.block2 = nn.Sequential(_Block(72, 144), *(_Block(144) for _ in range(7)))
        self.depthwise_separable0 = _Separable(144, 64)
        self.depthwise_separable1 = _Separable(64 + 18, 64)
        self.depthwise_separable2 = _Separable(64, num_classes)
        self.align_corners = align_corners
        self.pretrained = pretrained
        normal_weights(self, 0.001)

    def forward(self, x: Tensor) -> list[Tensor]:
        half = self.conv_bn0(x)
        fine = self.conv_bn1(half)
        y = self.block2(self.block1(F.max_pool2d(half, 3, stride=2, padding=1)))
        y = resize_to(self.depthwise_separable0(y), fine, align_corners=self.align_corners)
        y = self.depthwise_separable1(paddle.concat([fine, y], axis=1))
        return [resize_to(self.depthwise_separable2(y), x, align_corners=self.align_corners)]
