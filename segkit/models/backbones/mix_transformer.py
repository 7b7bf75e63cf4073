"""Mix Transformer, SegFormer's encoder: overlapping patches, attention to a shrunken map, no positional code
(Xie et al., https://arxiv.org/abs/2105.15203)."""

from __future__ import annotations

import numpy as np
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import fill_to
from segkit.models.transformer import DropPath, MapMlp, to_map, to_tokens, transformer_start
from segkit.registry import BACKBONES

HEADS, SHRINK = (1, 2, 5, 8), (8, 4, 2, 1)


class _Patches(nn.Layer):
    """[N, in, h, w] -> the map [N, out, h/stride, w/stride] and its normalised pixels [N, h w / stride^2, out]."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2D(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.proj(x)
        return x, self.norm(to_tokens(x))


class _Attention(nn.Layer):
    """Each pixel looks at a map shrunken by `shrink`. [N, L, C] of a map like `like` -> [N, L, C]."""

    def __init__(self, channels: int, heads: int, shrink: int):
        super().__init__()
        self.heads, self.shrink = heads, shrink
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if shrink > 1:
            self.sr = nn.Conv2D(channels, channels, shrink, stride=shrink)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        channels = x.shape[2]
        seen = x
        if self.shrink > 1:
            seen = self.norm(to_tokens(self.sr(fill_to(to_map(x, like), self.shrink))))
        split = [0, -1, self.heads, channels // self.heads]
        query = self.q(x).reshape(split).transpose([0, 2, 1, 3])
        key, value = (part.reshape(split) for part in self.kv(seen).split(2, axis=-1))
        weights = F.softmax(query @ key.transpose([0, 2, 3, 1]) * self.scale, axis=-1)
        found = weights @ value.transpose([0, 2, 1, 3])
        return self.proj(found.transpose([0, 2, 1, 3]).reshape([0, -1, channels]))


class _Block(nn.Layer):
    """Attention and MLP, each beside a shortcut. [N, L, C] of a map like `like` -> [N, L, C]."""

    def __init__(self, channels: int, heads: int, shrink: int, drop: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, epsilon=1e-6)
        self.attn = _Attention(channels, heads, shrink)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(channels, epsilon=1e-6)
        self.mlp = MapMlp(channels, 4 * channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), like))
        return x + self.drop_path(self.mlp(self.norm2(x), like))


class _MixTransformer(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 of `feat_channels` channels."""

    def __init__(
        self, width: int, depths: tuple[int, ...], in_channels: int, drop_path_rate: float, pretrained: str | None
    ):
        super().__init__()
        self.feat_channels = [width * heads for heads in HEADS]
        drops = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        stages = enumerate(zip([in_channels, *self.feat_channels], self.feat_channels, depths, HEADS, SHRINK), 1)
        for number, (before, channels, depth, heads, shrink) in stages:
            kernel, stride = (7, 4) if number == 1 else (3, 2)
            blocks = [_Block(channels, heads, shrink, next(drops)) for _ in range(depth)]
            setattr(self, f"patch_embed{number}", _Patches(before, channels, kernel, stride))
            setattr(self, f"block{number}", nn.LayerList(blocks))
            setattr(self, f"norm{number}", nn.LayerNorm(channels, epsilon=1e-6))
        self.pretrained = pretrained
        transformer_start(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number in range(1, 5):
            like, tokens = getattr(self, f"patch_embed{number}")(x)
            for block in getattr(self, f"block{number}"):
                tokens = block(tokens, like)
            x = to_map(getattr(self, f"norm{number}")(tokens), like)
            maps.append(x)
        return maps


@BACKBONES.register
class MixVisionTransformer_B0(_MixTransformer):
    """Mix Transformer B0, 2, 2, 2, 2 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(32, (2, 2, 2, 2), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MixVisionTransformer_B1(_MixTransformer):
    """Mix Transformer B1, 2, 2, 2, 2 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(64, (2, 2, 2, 2), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MixVisionTransformer_B2(_MixTransformer):
    """Mix Transformer B2, 3, 4, 6, 3 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(64, (3, 4, 6, 3), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MixVisionTransformer_B3(_MixTransformer):
    """Mix Transformer B3, 3, 4, 18, 3 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(64, (3, 4, 18, 3), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MixVisionTransformer_B4(_MixTransformer):
    """Mix Transformer B4, 3, 8, 27, 3 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(64, (3, 8, 27, 3), in_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MixVisionTransformer_B5(_MixTransformer):
    """Mix Transformer B5, 3, 6, 40, 3 blocks deep. `drop_path_rate`: stochastic depth, growing from 0 to it."""

    def __init__(self, in_channels: int = 3, drop_path_rate: float = 0.1, pretrained: str | None = None):
        super().__init__(64, (3, 6, 40, 3), in_channels, drop_path_rate, pretrained)
