"""EfficientFormerV2: convolutional blocks, with attention between all places in the last two stages
(Li et al., "Rethinking Vision Transformers for MobileNet Size and Speed", https://arxiv.org/abs/2212.08059)."""

from __future__ import annotations

import math
from functools import partial
from typing import Iterator, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBN, normal_weights, resize_to, to_map
from segkit.models.transformer import DropPath
from segkit.registry import BACKBONES

_HEADS, _VALUES = 8, 4  # heads, and how many times as wide values are as keys
_ATTENDED = 2  # the first stage with attention
_conv_bn = partial(ConvBN, names=("0", "1"))


def _distances(coarse: int, fine: int) -> np.ndarray:
    """Number of the distance between each place of a grid of `coarse` places a side and each of one of `fine`
    -> [coarse^2, fine^2]."""
    steps = np.arange(coarse) * math.ceil(fine / coarse)
    along = np.abs(steps[:, None] - np.arange(fine))
    both = along[:, None, :, None] * fine + along[None, :, None, :]
    return both.reshape(coarse**2, fine**2)


class _Attention(nn.Layer):
    """Attention of queries, made by a subclass as `self.q`, to all places, beside a convolution of the values.
    [N, in, h, w] -> [N, out, h/stride, w/stride].

    `grid` is the map's side for images of the size that the biases were trained for; for other sizes they are
    stretched.
    """

    def __init__(self, in_channels: int, out_channels: int, key_dim: int, grid: int, stride: int):
        super().__init__()
        keys, values = _HEADS * key_dim, _HEADS * _VALUES * key_dim
        self.scale = key_dim**-0.5
        self.k = _conv_bn(in_channels, keys, 1)
        self.v = _conv_bn(in_channels, values, 1)
        self.v_local = _conv_bn(values, values, 3, stride, padding=1, groups=values)
        self.proj = nn.Sequential(nn.GELU(), nn.Conv2D(values, out_channels, 1), nn.BatchNorm2D(out_channels))
        numbers = _distances(math.ceil(grid / stride), grid)
        zero = nn.initializer.Constant(0.0)
        self.attention_biases_seg = self.create_parameter([_HEADS, int(numbers.max()) + 1], default_initializer=zero)
        self.register_buffer("attention_bias_idxs_seg", paddle.to_tensor(numbers))
        # Published weights hold those of classification, too, which nothing uses.
        shape = [49, 49 * stride**2]
        self.register_buffer("attention_biases", paddle.zeros([_HEADS, shape[1]]))
        self.register_buffer("attention_bias_idxs", paddle.ones(shape, "int64"))

    def weights(self, products: Tensor) -> Tensor:
        """[N, heads, queries, keys] -> the same shape."""
        return F.softmax(products, axis=-1)

    def attended(self, x: Tensor) -> Tensor:
        """[N, values, h/stride, w/stride]."""
        values = self.v(x)
        query, key, value = (y.reshape([0, _HEADS, y.shape[1] // _HEADS, -1]) for y in (self.q(x), self.k(x), values))
        products = query.transpose([0, 1, 3, 2]) @ key * self.scale
        numbers = self.attention_bias_idxs_seg
        bias = paddle.gather(self.attention_biases_seg, numbers.flatten(), axis=1)
        bias = resize_to(bias.reshape([1, _HEADS, *numbers.shape]), products, "bicubic")
        found = value @ self.weights(products + bias).transpose([0, 1, 3, 2])
        local = self.v_local(values)
        return to_map(found.reshape([0, local.shape[1], -1]), local) + local

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attended(x))


class _Mixer(_Attention):
    """`_Attention` between the places of one map, with `shrinks` at half its size, whose heads talk to each other.
    [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, grid: int, shrinks: bool, key_dim: int = 32):
        super().__init__(channels, channels, key_dim, math.ceil(grid / 2) if shrinks else grid, stride=1)
        self.stride_conv = _conv_bn(channels, channels, 3, 2, padding=1, groups=channels) if shrinks else None
        self.q = _conv_bn(channels, _HEADS * key_dim, 1)
        self.talking_head1 = nn.Conv2D(_HEADS, _HEADS, 1)
        self.talking_head2 = nn.Conv2D(_HEADS, _HEADS, 1)

    def weights(self, products: Tensor) -> Tensor:
        return self.talking_head2(super().weights(self.talking_head1(products)))

    def forward(self, x: Tensor) -> Tensor:
        small = x if self.stride_conv is None else self.stride_conv(x)
        return self.proj(resize_to(self.attended(small), x))


class _Query(nn.Layer):
    """A convolution and every other place, added. [N, in, h, w] -> [N, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.local = nn.Sequential(nn.Conv2D(in_channels, in_channels, 3, 2, 1, groups=in_channels))
        self.proj = _conv_bn(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.local(x) + F.avg_pool2d(x, 1, stride=2))


class _Reduction(_Attention):
    """`_Attention` of every other place to all. [N, in, h, w] -> [N, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int, grid: int, key_dim: int = 16):
        super().__init__(in_channels, out_channels, key_dim, grid, stride=2)
        self.q = _Query(in_channels, _HEADS * key_dim)


class _AttendedStep(ConvBN):
    """A convolution of stride 2 and `_Reduction`, added. [N, in, h, w] -> [N, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int, grid: int):
        super().__init__(in_channels, out_channels, 3, 2, padding=1, names=("conv", "bn"))
        self.attn = _Reduction(in_channels, out_channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.attn(x)


class _Mlp(nn.Layer):
    """1x1, depthwise 3x3 and 1x1 convolutions. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2D(channels, hidden, 1)
        self.norm1 = nn.BatchNorm2D(hidden)
        self.mid = nn.Conv2D(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2D(hidden, channels, 1)
        self.norm2 = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.fc2(F.gelu(self.mid(F.gelu(self.norm1(self.fc1(x)))))))


class _Block(nn.Layer):
    """`mixer`, if there is one, and `_Mlp`, each scaled and beside a shortcut. [N, C, h, w] -> the same shape.
    `drop`: stochastic depth."""

    def __init__(self, channels: int, hidden: int, mixer: nn.Layer | None, drop: float):
        super().__init__()
        faint = nn.initializer.Constant(1e-5)
        self.token_mixer = mixer
        self.layer_scale_1 = None
        if mixer is not None:
            self.layer_scale_1 = self.create_parameter([channels, 1, 1], default_initializer=faint)
        self.mlp = _Mlp(channels, hidden)
        self.layer_scale_2 = self.create_parameter([channels, 1, 1], default_initializer=faint)
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        if self.token_mixer is not None:
            x = x + self.drop_path(self.layer_scale_1 * self.token_mixer(x))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(x))


class _EfficientFormerV2(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16 and 1/32, for any H and W.

    `resolution`: side of the images that weights were trained for, in pixels: it sets how many biases the attention
    has, which are stretched for other sizes. `pretrained` is a file of classification weights that the engine loads.
    Keys are PaddleSeg's. A `resolution` below 1 is an `InputError`.
    """

    widths: Sequence[int]
    ratios: Sequence[str]
    """Of each stage: how much wider each block is inside, a digit each."""
    mixers: int
    """Blocks with attention at the end of the last two stages, each."""
    drop = 0.0
    """Stochastic depth of the last block; the first has none."""

    def __init__(self, resolution: int = 512, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if resolution < 1:
            raise InputError(
                f"backbone.resolution: not a side in pixels (got {resolution}, expected 1 or more). 512 is usual."
            )
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.feat_channels = list(self.widths)
        first = self.widths[0]
        self.patch_embed = nn.Sequential(
            nn.Conv2D(in_channels, first // 2, 3, stride=2, padding=1), nn.BatchNorm2D(first // 2), nn.GELU(),
            nn.Conv2D(first // 2, first, 3, stride=2, padding=1), nn.BatchNorm2D(first), nn.GELU(),
        )  # fmt: skip
        grids = [math.ceil(resolution / 2 ** (stage + 2)) for stage in range(len(self.widths))]
        drops = iter(np.linspace(0, self.drop, sum(map(len, self.ratios))).tolist())
        parts: list[nn.Layer] = []
        for stage, (channels, grid) in enumerate(zip(self.widths, grids)):
            if stage > 0:
                before = self.widths[stage - 1]
                parts.append(
                    _AttendedStep(before, channels, grids[stage - 1])
                    if stage > _ATTENDED
                    else ConvBN(before, channels, 3, 2, padding=1, names=("proj", "norm"))
                )
            parts.append(self._stage(stage, channels, grid, drops))
        self.network = nn.LayerList(parts)
        normal_weights(self, 0.001)

    def _stage(self, stage: int, channels: int, grid: int, drops: Iterator[float]) -> nn.Sequential:
        ratios = self.ratios[stage]
        plain = len(ratios) - self.mixers if stage >= _ATTENDED else len(ratios)
        blocks = []
        for index, (ratio, drop) in enumerate(zip(ratios, drops)):
            mixer = _Mixer(channels, grid, shrinks=stage == _ATTENDED) if index >= plain else None
            blocks.append(_Block(channels, channels * int(ratio), mixer, drop))
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        maps = []
        for part in self.network:
            x = part(x)
            maps.append(x)
        return maps[::2]


@BACKBONES.register
class EfficientFormerv2_s0(_EfficientFormerV2):
    widths, mixers = (32, 48, 96, 176), 2
    ratios = ("44", "44", "433344", "4334")


@BACKBONES.register
class EfficientFormerv2_s1(_EfficientFormerV2):
    widths, mixers = (32, 48, 120, 224), 2
    ratios = ("444", "444", "443333444", "443344")


@BACKBONES.register
class EfficientFormerv2_s2(_EfficientFormerV2):
    widths, mixers, drop = (32, 64, 144, 288), 4, 0.02
    ratios = ("4444", "4444", "443333334444", "44333344")


@BACKBONES.register
class EfficientFormerv2_l(_EfficientFormerV2):
    widths, mixers, drop = (40, 80, 192, 384), 6, 0.1
    ratios = ("44444", "44444", "444433333334444", "4443333444")
