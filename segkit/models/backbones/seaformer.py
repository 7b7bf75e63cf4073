"""SeaFormer's encoder: MobileNetV2 blocks, then attention along rows and columns that are squeezed to one cell
(Wan et al., https://arxiv.org/abs/2301.13156)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.attention import attend
from segkit.models.layers import ConvBN, fan_out_normal, resize_to
from segkit.models.mobile_attention import MobileBlock, MobileResidual, Step
from segkit.registry import BACKBONES

_Conv = partial(ConvBN, bias=False)
_NAMES = ("_conv", "_batch_norm")
_POSITIONS = 16


class _Position(nn.Layer):
    """Learned positions along a line, interpolated to its length and added. [N, C, L] -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        draw = nn.initializer.Normal()
        self.pos_embed = self.create_parameter([1, channels, _POSITIONS], default_initializer=draw)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1)
        return (x + resize_to(self.pos_embed.unsqueeze(-1), x)).squeeze(-1)


class _Attention(nn.Layer):
    """Every row looks at all rows and every column at all columns, each as its mean; what they find weights a map of
    details. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, key: int, heads: int):
        super().__init__()
        keys, values = key * heads, 2 * key * heads
        self.heads, self.scale = heads, key**-0.5
        self.to_q = _Conv(channels, keys, 1)
        self.to_k = _Conv(channels, keys, 1)
        self.to_v = _Conv(channels, values, 1)
        self.proj = nn.Sequential(nn.ReLU6(), _Conv(values, channels, 1))
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), _Conv(values, values, 1))
        self.pos_emb_rowq = _Position(keys)
        self.pos_emb_rowk = _Position(keys)
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), _Conv(values, values, 1))
        self.pos_emb_columnq = _Position(keys)
        self.pos_emb_columnk = _Position(keys)
        everything = 2 * keys + values
        self.dwconv = _Conv(everything, everything, 3, groups=everything, act=F.relu6)
        self.pwconv = _Conv(everything, channels, 1)

    def along(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Values [N, V, L] mixed for each query, head by head -> [N, V, L]."""
        parts = (x.reshape([0, self.heads, x.shape[1] // self.heads, -1]) for x in (queries, keys, values))
        return attend(*parts, self.scale).reshape([0, values.shape[1], -1])

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.to_q(x), self.to_k(x), self.to_v(x)
        details = self.pwconv(self.dwconv(paddle.concat([query, key, value], axis=1)))
        rows = self.along(self.pos_emb_rowq(query.mean(3)), self.pos_emb_rowk(key.mean(3)), value.mean(3))
        columns = self.along(self.pos_emb_columnq(query.mean(2)), self.pos_emb_columnk(key.mean(2)), value.mean(2))
        found = value + (self.proj_encode_row(rows.unsqueeze(3)) + self.proj_encode_column(columns.unsqueeze(2)))
        return F.hardsigmoid(self.proj(found)) * details


class _Blocks(nn.Layer):
    """[N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, key: int, heads: int, mlp_ratio: int, drops: list[float]):
        super().__init__()
        blocks = [MobileBlock(_Attention(channels, key, heads), channels, mlp_ratio, drop, _NAMES) for drop in drops]
        self.transformer_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer_blocks(x)


class _Stage(nn.Layer):
    """`MobileResidual` blocks. [N, in, h, w] -> [N, out, h/stride, w/stride]; the first stage has a stem before it."""

    def __init__(self, in_channels: int, steps: list[tuple[int, int, int, int]], stem: int | None = None):
        super().__init__()
        self.stem_block = None
        if stem is not None:
            self.stem_block = nn.Sequential(_Conv(in_channels, stem, 3, stride=2, padding=1), nn.ReLU())
        width = in_channels if stem is None else stem
        for number, step in enumerate(steps, 1):
            setattr(self, f"layer{number}", MobileResidual(width, Step(*step), _NAMES))
            width = step[2]
        self._count = len(steps)

    def forward(self, x: Tensor) -> Tensor:
        if self.stem_block is not None:
            x = self.stem_block(x)
        for number in range(1, self._count + 1):
            x = getattr(self, f"layer{number}")(x)
        return x


class _Layout(NamedTuple):
    """Width of the stem; kernel, widening, width and stride of each block of the five stages; heads; depth, key width
    and MLP ratio of the attention after each of the last stages."""

    stem: int
    stages: list[list[tuple[int, int, int, int]]]
    heads: int
    depth: int
    keys: tuple[int, ...] = (16, 24)
    mlp_ratios: tuple[int, ...] = (2, 4)


class _SeaFormer(nn.Layer):
    """[N, in_channels, H, W] -> a map at 1/8, then one after each attention, down to 1/64, of `feat_channels` channels.

    PaddleSeg draws convolutions from a standard deviation that is the fan out itself, up to 1536, which BatchNorm
    takes back but no step of training can change; here it is sqrt(2 / fan out).
    """

    def __init__(self, layout: _Layout, in_channels: int, drop_path_rate: float, pretrained: str | None):
        super().__init__()
        widths = [steps[-1][2] for steps in layout.stages]
        self._first = len(layout.stages) - len(layout.keys)  # the first stage with attention after it
        drops = np.linspace(0, drop_path_rate, layout.depth).tolist()
        before = in_channels
        for index, steps in enumerate(layout.stages):
            stage = _Stage(before, steps, layout.stem if index == 0 else None)
            setattr(self, f"smb{index + 1}", stage)
            before = widths[index]
        for index, shape in enumerate(zip(layout.keys, layout.mlp_ratios)):
            key, ratio = shape
            blocks = _Blocks(widths[self._first + index], key, layout.heads, ratio, drops)
            setattr(self, f"trans{index + 1}", blocks)
        self.feat_channels = [widths[1], *widths[self._first :]]
        self._count = len(layout.stages)
        self.pretrained = pretrained
        fan_out_normal(self)
        zero = nn.initializer.Constant(0.0)
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D) and layer.bias is not None:
                zero(layer.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index in range(self._count):
            x = getattr(self, f"smb{index + 1}")(x)
            if index == 1:
                maps.append(x)
            if index >= self._first:
                x = getattr(self, f"trans{index - self._first + 1}")(x)
                maps.append(x)
        return maps


@BACKBONES.register
class SeaFormer_tiny(_SeaFormer):
    """SeaFormer's tiny encoder. `drop_path_rate`: stochastic depth of each attention's last block."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        stages = [
            [(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)],
            [(5, 3, 32, 2), (5, 3, 32, 1)],
            [(3, 3, 64, 2), (3, 3, 64, 1)],
            [(5, 3, 128, 2)],
            [(3, 6, 160, 2)],
        ]
        super().__init__(_Layout(16, stages, 4, 2), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class SeaFormer_small(_SeaFormer):
    """SeaFormer's small encoder. `drop_path_rate`: stochastic depth of each attention's last block."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        stages = [
            [(3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)],
            [(5, 3, 48, 2), (5, 3, 48, 1)],
            [(3, 3, 96, 2), (3, 3, 96, 1)],
            [(5, 4, 160, 2)],
            [(3, 6, 192, 2)],
        ]
        super().__init__(_Layout(16, stages, 6, 3), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class SeaFormer_base(_SeaFormer):
    """SeaFormer's base encoder. `drop_path_rate`: stochastic depth of each attention's last block."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        stages = [
            [(3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)],
            [(5, 3, 64, 2), (5, 3, 64, 1)],
            [(3, 3, 128, 2), (3, 3, 128, 1)],
            [(5, 4, 192, 2)],
            [(3, 6, 256, 2)],
        ]
        super().__init__(_Layout(16, stages, 8, 4), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class SeaFormer_large(_SeaFormer):
    """SeaFormer's large encoder. `drop_path_rate`: stochastic depth of each attention's last block."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        stages = [
            [(3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)],
            [(5, 4, 128, 2), (5, 4, 128, 1)],
            [(3, 4, 192, 2), (3, 4, 192, 1)],
            [(5, 4, 256, 2)],
            [(3, 6, 320, 2)],
        ]
        super().__init__(_Layout(32, stages, 8, 3, (16, 20, 24), (2, 4, 6)), in_channels, drop_path_rate, pretrained)
