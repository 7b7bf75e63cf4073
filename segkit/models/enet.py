"""ENet: bottlenecks on small maps, whose decoder puts values back where pooling took them (Paszke et al.,
https://arxiv.org/abs/1606.02147)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import fill_to, sides, unpool
from segkit.registry import MODELS

_RATIO = 4  # how much narrower a bottleneck is inside
# The blocks of stages 2 and 3: name, dilation (0: a 5x1 and a 1x5 convolution instead of 3x3).
_ROUND = (
    *(("regular", 1), ("dilated", 2), ("asymmetric", 0), ("dilated", 4)),
    *(("regular", 1), ("dilated", 8), ("asymmetric", 0), ("dilated", 16)),
)


def _act(relu: bool) -> nn.Layer:
    return nn.ReLU() if relu else nn.PReLU()


def _conv(channels: Sequence[int], kernel: int | tuple[int, int], relu: bool, **how: int) -> list[nn.Layer]:
    """Convolution, BatchNorm and activation; padded to keep the size unless a `stride` is given."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    spread = how.get("dilation", 1)
    padding = 0 if "stride" in how else (height // 2 * spread, width // 2 * spread)
    conv = nn.Conv2D(*channels, (height, width), padding=padding, bias_attr=False, **how)
    return [conv, nn.BatchNorm2D(channels[1]), _act(relu)]


def _widened(x: Tensor, like: Tensor) -> Tensor:
    """[N, C, h, w] with zeros at its right and bottom up to `like`'s size."""
    (height, width), (wanted_height, wanted_width) = sides(x), sides(like)
    return F.pad(x, [0, wanted_width - width, 0, wanted_height - height])


class _Bottleneck(nn.Layer):
    """Three convolutions beside a shortcut: narrow, look around, widen. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, drop: float, relu: bool, dilation: int = 1):
        super().__init__()
        inner = channels // _RATIO
        self.ext_conv1 = nn.Sequential(*_conv((channels, inner), 1, relu))
        if dilation:
            around = _conv((inner, inner), 3, relu, dilation=dilation)
        else:
            around = _conv((inner, inner), (5, 1), relu) + _conv((inner, inner), (1, 5), relu)
        self.ext_conv2 = nn.Sequential(*around)
        self.ext_conv3 = nn.Sequential(*_conv((inner, channels), 1, relu))
        self.ext_regul = nn.Dropout2D(drop)
        self.out_activation = _act(relu)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ext_conv3(self.ext_conv2(self.ext_conv1(x)))
        return self.out_activation(x + self.ext_regul(y))


class _Down(nn.Layer):
    """[N, in, h, w] -> [N, out, h/2, w/2] and the places that pooling took."""

    def __init__(self, in_channels: int, out_channels: int, drop: float, relu: bool):
        super().__init__()
        inner = in_channels // _RATIO
        self.ext_conv1 = nn.Sequential(*_conv((in_channels, inner), 2, relu, stride=2))
        self.ext_conv2 = nn.Sequential(*_conv((inner, inner), 3, relu))
        self.ext_conv3 = nn.Sequential(*_conv((inner, out_channels), 1, relu))
        self.ext_regul = nn.Dropout2D(drop)
        self.out_activation = _act(relu)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, places = F.max_pool2d(x, 2, 2, return_mask=True)
        y = self.ext_regul(self.ext_conv3(self.ext_conv2(self.ext_conv1(x))))
        width = y.shape[1]
        if pooled.shape[1] < width:
            pooled = paddle.concat([pooled, paddle.zeros_like(y[:, pooled.shape[1] :])], axis=1)
        return self.out_activation(pooled[:, :width] + y), places


class _Up(nn.Layer):
    """[N, in, h/2, w/2] and the places of a pooling -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, drop: float, relu: bool):
        super().__init__()
        inner = in_channels // _RATIO
        self.main_conv1 = nn.Sequential(*_conv((in_channels, out_channels), 1, relu)[:2])
        self.ext_conv1 = nn.Sequential(*_conv((in_channels, inner), 1, relu))
        self.ext_tconv1 = nn.Conv2DTranspose(inner, inner, 2, stride=2, bias_attr=False)
        self.ext_tconv1_bnorm = nn.BatchNorm2D(inner)
        self.ext_tconv1_activation = _act(relu)
        self.ext_conv2 = nn.Sequential(*_conv((inner, out_channels), 1, relu)[:2])
        self.ext_regul = nn.Dropout2D(drop)
        self.out_activation = _act(relu)

    def forward(self, x: Tensor, places: Tensor, like: Tensor) -> Tensor:
        main = self.main_conv1(x)
        main = unpool(main, places[:, : main.shape[1]], like[:, : main.shape[1]])
        y = _widened(self.ext_tconv1(self.ext_conv1(x)), like)
        y = self.ext_conv2(self.ext_tconv1_activation(self.ext_tconv1_bnorm(y)))
        return self.out_activation(main + self.ext_regul(y))


class _Initial(nn.Layer):
    """The image convolved and pooled: [N, in, H, W] -> [N, 13 + in, H/2, W/2]."""

    def __init__(self, in_channels: int, relu: bool):
        super().__init__()
        self.main_branch = nn.Conv2D(in_channels, 13, 3, stride=2, padding=1, bias_attr=False)
        self.batch_norm = nn.BatchNorm2D(13 + in_channels)
        self.out_activation = _act(relu)

    def forward(self, x: Tensor) -> Tensor:
        x = paddle.concat([self.main_branch(x), F.max_pool2d(x, 3, 2, 1)], axis=1)
        return self.out_activation(self.batch_norm(x))


@MODELS.register
class ENet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `encoder_relu` and `decoder_relu`: ReLU instead of PReLU there. `pretrained` is a path that the engine loads. Keys
    and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        encoder_relu: bool = False,
        decoder_relu: bool = True,
        pretrained: str | None = None,
    ):
        super().__init__()
        first = 13 + in_channels
        self.initial_block = _Initial(in_channels, encoder_relu)
        self.downsample1_0 = _Down(first, 64, 0.01, encoder_relu)
        self.downsample2_0 = _Down(64, 128, 0.1, encoder_relu)
        # Each stage's blocks by name, in their order.
        self.stage1 = self._blocks([(f"regular1_{index}", 1) for index in range(1, 5)], 64, 0.01, encoder_relu)
        deep = [(f"{name}2_{index}", dilation) for index, (name, dilation) in enumerate(_ROUND, 1)]
        deep += [(f"{name}3_{index}", dilation) for index, (name, dilation) in enumerate(_ROUND)]
        self.stage23 = self._blocks(deep, 128, 0.1, encoder_relu)
        self.upsample4_0 = _Up(128, 64, 0.1, decoder_relu)
        self.stage4 = self._blocks([("regular4_1", 1), ("regular4_2", 1)], 64, 0.1, decoder_relu)
        self.upsample5_0 = _Up(64, first, 0.1, decoder_relu)
        self.stage5 = self._blocks([("regular5_1", 1)], first, 0.1, decoder_relu)
        self.transposed_conv = nn.Conv2DTranspose(
            first, num_classes, 3, stride=2, padding=1, output_padding=1, bias_attr=False
        )
        self.pretrained = pretrained

    def _blocks(self, names: Sequence[tuple[str, int]], channels: int, drop: float, relu: bool) -> list[str]:
        for name, dilation in names:
            setattr(self, name, _Bottleneck(channels, drop, relu, dilation))
        return [name for name, _ in names]

    def _through(self, x: Tensor, names: Sequence[str]) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: Tensor) -> list[Tensor]:
        half = fill_to(self.initial_block(x), 4)
        quarter, places_half = self.downsample1_0(half)
        quarter = self._through(quarter, self.stage1)
        eighth, places_quarter = self.downsample2_0(quarter)
        y = self.upsample4_0(self._through(eighth, self.stage23), places_quarter, quarter)
        y = self._through(y, self.stage4)
        y = self.upsample5_0(y, places_half, half)
        y = self.transposed_conv(self._through(y, self.stage5))
        height, width = sides(x)
        return [y[:, :, :height, :width]]
