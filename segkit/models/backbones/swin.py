"""Swin Transformer: attention within windows that shift from block to block (Liu et al.,
https://arxiv.org/abs/2103.14030)."""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from segkit.models.layers import sides
from segkit.models.transformer import TransformerBlock, draw_linears
from segkit.models.windows import add_positions, filled, from_windows, offsets, positions, to_windows
from segkit.registry import BACKBONES

_FAR = -100.0  # added to the likeness of cells that are no neighbours


class _Patches(nn.Layer):
    """[N, in, H, W] -> [N, H/4, W/4, out], the last row and column filled up with zeros."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Conv2D(in_channels, out_channels, 4, stride=4)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = filled(x.transpose([0, 2, 3, 1]), 4)
        return self.norm(self.proj(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1]))


class _Merge(nn.Layer):
    """Every 2x2 cells become one: [N, h, w, C] -> [N, h/2, w/2, 2 C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        x = filled(x, 2)
        height, width = sides(x, first=1)
        channels = x.shape[3]
        x = x.reshape([0, height // 2, 2, width // 2, 2, channels]).transpose([0, 1, 3, 4, 2, 5])
        return self.reduction(self.norm(x.reshape([0, height // 2, width // 2, 4 * channels])))


class _Block(TransformerBlock):
    """`TransformerBlock` of [N, h, w, C] whose attention stays within windows of `size` cells a side, moved by
    `shift` cells."""

    def __init__(self, channels: int, heads: int, size: int, shift: int, drop: float, drop_path: float):
        super().__init__(channels, heads, drop=drop, drop_path=drop_path, epsilon=1e-5)
        add_positions(self.attn, offsets(size), heads, (2 * size - 1) ** 2)
        self.size, self.shift = size, shift

    def attended(self, x: Tensor, strangers: Tensor) -> Tensor:
        """[N, h, w, C]; `strangers` is added to the likeness in shifted windows."""
        height, width = sides(x, first=1)
        whole = filled(x, self.size)
        bias = positions(self.attn)
        if self.shift:
            whole = paddle.roll(whole, [-self.shift, -self.shift], axis=[1, 2])
            bias = bias + strangers
        found = from_windows(self.attn(to_windows(whole, self.size), bias), whole, self.size)
        if self.shift:
            found = paddle.roll(found, [self.shift, self.shift], axis=[1, 2])
        return found[:, :height, :width]

    def forward(self, x: Tensor, strangers: Tensor) -> Tensor:
        x = x + self.drop_path(self.attended(self.norm1(x), strangers))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _Stage(nn.Layer):
    """Blocks with windows in place and shifted by half in turn. [N, h, w, C] -> the same shape."""

    def __init__(self, channels: int, depth: int, heads: int, size: int, drop: float, drop_paths: Iterator[float]):
        super().__init__()
        self.size, self.shift = size, size // 2
        self.blocks = nn.LayerList(
            [_Block(channels, heads, size, index % 2 * self.shift, drop, next(drop_paths)) for index in range(depth)]
        )

    def strangers(self, x: Tensor) -> Tensor:
        """[windows, 1, size^2, size^2]: `_FAR` for cells of a shifted window that come from opposite edges, 0 else."""
        whole = filled(x[..., :1], self.size)

        def parts(length: int | Tensor) -> Tensor:
            place = paddle.arange(length)
            return (place >= length - self.size).astype("int32") + (place >= length - self.shift).astype("int32")

        height, width = sides(whole, first=1)
        parts_of_map = parts(height).reshape([1, -1, 1, 1]) * 3 + parts(width).reshape([1, 1, -1, 1])
        cells = to_windows(parts_of_map + paddle.zeros_like(whole, dtype="int32"), self.size)
        return (cells != cells.transpose([0, 2, 1])).astype(x.dtype).unsqueeze(1) * _FAR

    def forward(self, x: Tensor) -> Tensor:
        strangers = self.strangers(x)
        for block in self.blocks:
            x = block(x, strangers)
        return x


@BACKBONES.register
class SwinTransformer(nn.Layer):
    """[N, in_channels, H, W] -> four maps at 1/4, 1/8, 1/16 and 1/32.

    `embed_dim`: channels of the first map, doubled from map to map; `depths` and `num_heads`: blocks of each stage and
    heads of their attention; `window_size`: cells along a window's side. `drop_rate` is dropout, `drop_path_rate`
    stochastic depth of the last block, growing from 0. `pretrained` is a file of classification weights that the
    engine loads. Keys are PaddleSeg's.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        drops = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.feat_channels = [embed_dim * 2**stage for stage in range(len(depths))]
        self.patch_embed = _Patches(in_channels, embed_dim)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.LayerList()
        for stage, (channels, depth, heads) in enumerate(zip(self.feat_channels, depths, num_heads)):
            self.layers.append(_Stage(channels, depth, heads, window_size, drop_rate, drops))
            if stage + 1 < len(depths):
                self.layers[stage].downsample = _Merge(channels)
            setattr(self, f"norm{stage}", nn.LayerNorm(channels))
        self.pretrained = pretrained
        draw_linears(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.pos_drop(self.patch_embed(x))
        maps = []
        for number, stage in enumerate(self.layers):
            x = stage(x)
            maps.append(getattr(self, f"norm{number}")(x).transpose([0, 3, 1, 2]))
            if number + 1 < len(self.layers):
                x = stage.downsample(x)
        return maps


class _Variant(SwinTransformer):
    """`SwinTransformer` of a published layout; `drop_path_rate` None is the variant's own."""

    embed_dim = 96
    depths: Sequence[int] = (2, 2, 18, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size = 7
    drop_path_rate = 0.2

    def __init__(
        self,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        last = self.drop_path_rate if drop_path_rate is None else drop_path_rate
        layout = (self.embed_dim, self.depths, self.num_heads, self.window_size)
        super().__init__(*layout, drop_rate, last, in_channels, pretrained)


class _Base(_Variant):
    embed_dim, num_heads = 128, (4, 8, 16, 32)


class _Large(_Variant):
    embed_dim, num_heads = 192, (6, 12, 24, 48)


@BACKBONES.register
class SwinTransformer_tiny_patch4_window7_224(_Variant):
    depths = (2, 2, 6, 2)


@BACKBONES.register
class SwinTransformer_small_patch4_window7_224(_Variant):
    pass


@BACKBONES.register
class SwinTransformer_base_patch4_window7_224(_Base):
    pass


@BACKBONES.register
class SwinTransformer_base_patch4_window12_384(_Base):
    window_size = 12


@BACKBONES.register
class SwinTransformer_large_patch4_window7_224(_Large):
    pass


@BACKBONES.register
class SwinTransformer_large_patch4_window12_384(_Large):
    window_size = 12


@BACKBONES.register
class SwinTransformer_tiny_patch4_window7_224_maskformer(_Variant):
    depths, drop_path_rate = (2, 2, 6, 2), 0.3


@BACKBONES.register
class SwinTransformer_small_patch4_window7_224_maskformer(_Variant):
    drop_path_rate = 0.3


@BACKBONES.register
class SwinTransformer_base_patch4_window7_384_maskformer(_Base):
    """Its window is 12 cells, whatever its name says."""

    window_size, drop_path_rate = 12, 0.3


@BACKBONES.register
class SwinTransformer_large_patch4_window7_384_maskformer(_Large):
    """Its window is 12 cells, whatever its name says."""

    window_size, drop_path_rate = 12, 0.3
