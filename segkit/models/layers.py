"""Blocks that several models share. Sub-layer names are those of PaddleSeg's published weights."""

from __future__ import annotations

import math
from typing import Callable, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

Padding = Union[str, int]


def same_padding(kernel_size: int, stride: int, dilation: int) -> Padding:
    """Padding that keeps `ceil(size / stride)`.

    A number where it is the same as Paddle's 'same'; that pads the right and bottom alone where a stride meets an
    even size, which no fixed number can, so it stays 'same' there.
    """
    if stride == 1 and dilation == 1 and kernel_size % 2 == 1:
        return kernel_size // 2
    return "same"


class ConvBN(nn.Layer):
    """Convolution and batch normalisation. [N, in, H, W] -> [N, out, ceil(H/stride), ceil(W/stride)] by default.

    `names` are the two sub-layers' keys; `act` is applied last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: Padding | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        names: tuple[str, str] = ("_conv", "_batch_norm"),
        act: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        if padding is None:
            padding = same_padding(kernel_size, stride, dilation)
        self._names = names
        self._act = act
        conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias_attr=None if bias else False,
        )
        for name, layer in zip(names, (conv, nn.BatchNorm2D(out_channels))):
            self.add_sublayer(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for name in self._names:
            x = getattr(self, name)(x)
        return x if self._act is None else self._act(x)


class ConvBNReLU(ConvBN):
    """`ConvBN`, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class DepthwiseConvBN(nn.Layer):
    """3x3 (or `kernel_size`) convolution of each channel by itself, `out / in` filters a channel, and BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.depthwise_conv = ConvBN(in_channels, out_channels, kernel_size, stride=stride, groups=in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise_conv(x)


class SeparableConvBNReLU(nn.Layer):
    """A convolution of each channel by itself and BatchNorm, then a 1x1 convolution, BatchNorm and ReLU.
    [N, in, H, W] -> [N, out, H, W]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: Padding | None = None,
        dilation: int = 1,
        bias: bool = True,
        depthwise_bias: bool = True,
    ):
        super().__init__()
        self.depthwise_conv = ConvBN(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            bias=bias and depthwise_bias,
        )
        self.piontwise_conv = ConvBNReLU(in_channels, out_channels, 1, bias=bias)  # published weights spell it so

    def forward(self, x: Tensor) -> Tensor:
        return self.piontwise_conv(self.depthwise_conv(x))


class AuxHead(nn.Layer):
    """Class scores from an inner map, for an auxiliary loss. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, dropout: float = 0.1, bias: bool = True
    ):
        super().__init__()
        self.conv_bn_relu = ConvBNReLU(in_channels, hidden_channels, 3, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2D(hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.dropout(self.conv_bn_relu(x)))


class SqueezeExcite(nn.Layer):
    """Channels weighted in 0..1 by the map's mean (Hu et al., https://arxiv.org/abs/1709.01507).
    [N, C, h, w] -> the same shape. `gate` turns the scores of the `hidden` layer into weights."""

    def __init__(self, channels: int, hidden: int, gate: Callable[[Tensor], Tensor] = F.sigmoid):
        super().__init__()
        self.conv1 = nn.Conv2D(channels, hidden, 1)
        self.conv2 = nn.Conv2D(hidden, channels, 1)
        self._gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self._gate(self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1)))))


def rounded_channels(width: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `width`, at least one of it and not below 90 % of `width`."""
    found = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * width else found


class DroppedConv(nn.Sequential):
    """Whole channels dropped (one in ten), then a 1x1 convolution to scores. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Dropout2D(0.1), nn.Conv2D(in_channels, out_channels, 1))


class SpatialAuxHead(nn.Sequential):
    """`AuxHead` that drops whole channels, under other names."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, dropout: float = 0.1, bias: bool = True
    ):
        super().__init__(
            ConvBNReLU(in_channels, hidden_channels, 3, bias=bias),
            nn.Dropout2D(dropout),
            nn.Conv2D(hidden_channels, out_channels, 1),
        )


@paddle.jit.not_to_static
def resize_to(
    x: Tensor, like: Tensor, mode: str = "bilinear", align_corners: bool = False, align_mode: int = 0
) -> Tensor:
    """`x` [N, C, h, w] at the height and width of `like` [N, *, H, W]. `align_mode` 1 reads pixels at their corners.

    Where the sizes are known, a map that fits already is left alone; in an exported graph they are read from
    `like` at run time, so that one graph takes every size.
    """
    now, size = list(x.shape[2:]), list(like.shape[2:])
    if min(now + size) < 0:
        size = paddle.shape(like)[2:]
    elif now == size:
        return x
    return F.interpolate(x, size=size, mode=mode, align_corners=align_corners, align_mode=align_mode)


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """The channels of two maps [N, C, H, W] in turn, [N, 2C, H, W]: ShuffleNet's channel shuffle of two groups.
    paddle2onnx does not know Paddle's own operator for it."""
    return paddle.stack([first, second], axis=2).flatten(1, 2)


@paddle.jit.not_to_static
def sides(x: Tensor, first: int = 2) -> tuple:
    """Height and width of [N, C, H, W], or with `first` 1 of [N, H, W, C]: numbers where they are known, in an
    exported graph what is read at run time."""
    height, width = x.shape[first : first + 2]
    if min(height, width) < 0:
        shape = paddle.shape(x)
        return shape[first], shape[first + 1]
    return height, width


def to_map(x: Tensor, like: Tensor) -> Tensor:
    """Pixels in a row [N, C, h w] -> [N, C, h, w], the height and width those of `like` [N, *, h, w]."""
    return x.reshape([0, 0, *sides(like)])


@paddle.jit.not_to_static
def fill_to(x: Tensor, size: int) -> Tensor:
    """`x` [N, C, h, w] with zeros at its right and bottom where a side is shorter than `size`."""
    sides = list(x.shape[2:])
    if min(sides) >= size:
        return x
    if min(sides) >= 0:
        return F.pad(x, [0, max(0, size - sides[1]), 0, max(0, size - sides[0])])
    lack = paddle.clip(size - paddle.shape(x).astype("int32"), min=0)
    none = paddle.zeros([1], "int32")
    return F.pad(x, paddle.concat([none, lack[3:4], none, lack[2:3]]))


def fill_up(x: Tensor, size: int) -> Tensor:
    """`x` [N, C, h, w] with zeros at its right and bottom, so that both sides are multiples of `size`."""
    height, width = sides(x)
    return F.pad(x, [0, (size - width % size) % size, 0, (size - height % size) % size])


@paddle.jit.not_to_static
def raise_to(x: Tensor, like: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, H, W], bilinearly at `like`'s size with the corners' pixels in place."""
    return resize_to(x, like, align_corners=True)


def unpool(x: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """Values [N, C, h, w] at their `places` in a map of `like`'s size [N, C, H, W], zeros elsewhere."""
    flat = paddle.zeros_like(like).flatten(2)
    placed = paddle.put_along_axis(flat, places.flatten(2).astype("int64"), x.flatten(2), axis=2)
    return placed.reshape([0, 0, *sides(like)])


class ResizeTo(nn.Layer):
    """`resize_to` as a layer, so that it stands in the layer table: `forward(x, like)`."""

    def __init__(self, mode: str = "nearest"):
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return resize_to(x, like, self.mode)


def kaiming_normal(model: nn.Layer) -> None:
    """Draw every convolution's weight anew from N(0, 2 / fan_in), its bias 0; fan_in counts one group's channels,
    where Paddle's own start counts all of them."""
    draw = nn.initializer.KaimingNormal()
    zero = nn.initializer.Constant(0.0)
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            draw(layer.weight)
            if layer.bias is not None:
                zero(layer.bias)


def fan_out_normal(model: nn.Layer, per_group: bool = True) -> None:
    """Draw every convolution's weight anew from N(0, 2 / fan_out); fan_out counts one group's filters, or all."""
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            filters = layer.weight.shape[0] // (layer._groups if per_group else 1)
            fan_out = filters * math.prod(layer.weight.shape[2:])
            nn.initializer.Normal(std=math.sqrt(2 / fan_out))(layer.weight)


def scale_learning_rate(model: nn.Layer, factor: float) -> None:
    """Every parameter of `model` learns at `factor` times the schedule's rate."""
    for parameter in model.parameters():
        parameter.optimize_attr["learning_rate"] = factor


def without_weight_decay(model: nn.Layer) -> None:
    """The scales and shifts of every BatchNorm in `model` are left out of an L2 weight decay."""
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer.weight.regularizer = layer.bias.regularizer = paddle.regularizer.L2Decay(0.0)


def normal_weights(model: nn.Layer, std: float) -> None:
    """Draw every convolution's weight anew from N(0, std^2)."""
    draw = nn.initializer.Normal(std=std)
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            draw(layer.weight)
