"""Xception as DeepLabV3+ uses it: more blocks, strided separable convolutions in the place of pooling
(Chollet, https://arxiv.org/abs/1610.02357; Chen et al., https://arxiv.org/abs/1802.02611)."""

from __future__ import annotations

from typing import Sequence

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.registry import BACKBONES


def _norm(channels: int) -> nn.BatchNorm2D:
    return nn.BatchNorm2D(channels, momentum=0.99, epsilon=1e-3)


class _ConvBN(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self._conv = nn.Conv2D(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias_attr=False
        )
        self._bn = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._bn(self._conv(x))


class _Separable(nn.Layer):
    """Depthwise and pointwise convolution, each normalised and, if `rectify`, rectified."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, rectify: bool):
        super().__init__()
        self.rectify = rectify
        self._conv1 = nn.Conv2D(
            in_channels, in_channels, 3, stride, dilation, dilation, groups=in_channels, bias_attr=False
        )
        self._bn1 = _norm(in_channels)
        self._conv2 = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
        self._bn2 = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self._bn1(self._conv1(x))
        x = self._bn2(self._conv2(F.relu(x) if self.rectify else x))
        return F.relu(x) if self.rectify else x


class _Block(nn.Layer):
    """Three separable convolutions, the last with the stride, beside a shortcut: a projection, the input, or none.

    Without a shortcut each convolution is rectified after it, else before it."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], stride: int = 1, dilation: int = 1, shortcut: str = "projected"
    ):
        super().__init__()
        self.plain = shortcut == "none"
        first, second, last = widths
        self._conv1 = _Separable(in_channels, first, 1, dilation, self.plain)
        self._conv2 = _Separable(first, second, 1, dilation, self.plain)
        self._conv3 = _Separable(second, last, stride, dilation, self.plain)
        self._short = _ConvBN(in_channels, last, 1, stride) if shortcut == "projected" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            return self._conv3(self._conv2(self._conv1(x)))
        return self._conv3(F.relu(self._conv2(F.relu(self._conv1(F.relu(x)))))) + self._short(x)


class _Xception(nn.Layer):
    """[N, in_channels, H, W] -> two maps: 128 channels at 1/4, 2048 at 1/`output_stride` (16, or 8).

    `pretrained` is a file of classification weights that the engine loads. Keys are PaddleSeg's.
    """

    name_in_keys: str
    entry: Sequence[int] = (128, 256, 728)
    entry_strides: Sequence[int] = (2, 2, 2)
    middle: int = 16

    def __init__(self, output_stride: int = 16, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if output_stride not in (8, 16):
            raise InputError(
                f"backbone.output_stride: no such layout (got {output_stride}, expected 8 or 16). 8 keeps more detail."
            )
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.feat_channels = [self.entry[0], 2048]
        self._conv1 = _ConvBN(in_channels, 32, 3, stride=2)
        self._conv2 = _ConvBN(32, 64, 3)
        self.block_names: list[str] = []
        channels, reduction = 64, 2
        for width, stride in zip(self.entry, self.entry_strides):
            stride = stride if reduction * stride <= output_stride else 1
            reduction *= stride
            self._add("entry", _Block(channels, (width, width, width), stride))
            channels = width
        for _ in range(self.middle):
            self._add("middle", _Block(channels, (channels, channels, channels), shortcut="same"))
        self._exit_flow_1 = _Block(channels, (channels, 1024, 1024))
        self._exit_flow_2 = _Block(1024, (1536, 1536, 2048), dilation=2, shortcut="none")

    def _add(self, flow: str, block: _Block) -> None:
        number = 1 + sum(f"/{flow}_flow/" in name for name in self.block_names)
        self.block_names.append(f"{self.name_in_keys}/{flow}_flow/block{number}")
        self.add_sublayer(self.block_names[-1], block)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self._conv2(F.relu(self._conv1(x))))
        maps = []
        for name in self.block_names:
            x = self._sub_layers[name](x)
            maps.append(x)
        return [maps[0], self._exit_flow_2(self._exit_flow_1(x))]


@BACKBONES.register
class Xception41_deeplab(_Xception):
    name_in_keys, middle = "xception_41", 8


@BACKBONES.register
class Xception65_deeplab(_Xception):
    name_in_keys = "xception_65"


@BACKBONES.register
class Xception71_deeplab(_Xception):
    name_in_keys = "xception_71"
    entry, entry_strides = (128, 256, 256, 728, 728), (2, 1, 2, 1, 2)
