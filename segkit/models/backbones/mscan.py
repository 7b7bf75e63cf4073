"""MSCAN, SegNeXt's encoder: attention by long, thin convolutions (Guo et al., https://arxiv.org/abs/2209.08575)."""

from __future__ import annotations

import numpy as np
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.transformer import DropPath, normed_map, transformer_start
from segkit.registry import BACKBONES

MLP_RATIOS, LENGTHS = (8, 8, 4, 4), (7, 11, 21)


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2D:
    return nn.Conv2D(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels)


class _Gate(nn.Layer):
    """Each cell weighted by what stands around it, far along rows and columns. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = _depthwise(channels, 5, 5)
        self.dwconvs = nn.LayerList(
            [
                nn.Sequential(
                    (f"conv{number}_1", _depthwise(channels, 1, length)),
                    (f"conv{number}_2", _depthwise(channels, length, 1)),
                )
                for number, length in enumerate(LENGTHS, 1)
            ]
        )
        self.conv_out = nn.Conv2D(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv0(x)
        return x * self.conv_out(sum((conv(near) for conv in self.dwconvs), near))


class _Attention(nn.Layer):
    """`_Gate` between 1x1 convolutions, beside a shortcut. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj_1 = nn.Conv2D(channels, channels, 1)
        self.spatial_gating_unit = _Gate(channels)
        self.proj_2 = nn.Conv2D(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x))))


class _Mlp(nn.Layer):
    """1x1, depthwise 3x3 and 1x1 convolutions. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, hidden: int, drop: float):
        super().__init__()
        self.fc1 = nn.Conv2D(channels, hidden, 1)
        self.dwconv = _depthwise(hidden, 3, 3)
        self.fc2 = nn.Conv2D(hidden, channels, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.dwconv(self.fc1(x))))))


class _Block(nn.Layer):
    """Attention and MLP, each beside a shortcut and scaled by channel. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, mlp_ratio: int, drop: float, drop_path: float):
        super().__init__()
        start = nn.initializer.Constant(0.01)
        self.layer_scale_1 = self.create_parameter([channels, 1, 1], default_initializer=start)
        self.layer_scale_2 = self.create_parameter([channels, 1, 1], default_initializer=start)
        self.norm1 = nn.BatchNorm2D(channels)
        self.attn = _Attention(channels)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.BatchNorm2D(channels)
        self.mlp = _Mlp(channels, mlp_ratio * channels, drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


def _halve(in_channels: int, out_channels: int) -> tuple[nn.Layer, nn.Layer]:
    """The layers of [N, in, h, w] -> [N, out, h/2, w/2]."""
    return nn.Conv2D(in_channels, out_channels, 3, stride=2, padding=1), nn.BatchNorm2D(out_channels)


class _Patches(nn.Layer):
    """[N, in, h, w] -> [N, out, h/2, w/2], with `quarter` [N, out, h/4, w/4]."""

    def __init__(self, in_channels: int, out_channels: int, quarter: bool):
        super().__init__()
        if quarter:
            half = out_channels // 2
            self.proj = nn.Sequential(*_halve(in_channels, half), nn.GELU(), *_halve(half, out_channels))
            self.norm = nn.Identity()
        else:
            self.proj, self.norm = _halve(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class _Mscan(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16 and 1/32 of `feat_channels` channels.

    `drop_rate` is dropout, `drop_path_rate` stochastic depth of the last block, growing from 0 (None: the variant's
    own). `pretrained` is a file of classification weights that the engine loads. Keys are PaddleSeg's.
    """

    widths: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...]
    drop_path_rate = 0.1

    def __init__(
        self,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        pretrained: str | None = None,
    ):
        super().__init__()
        last = self.drop_path_rate if drop_path_rate is None else drop_path_rate
        self.feat_channels = list(self.widths)
        drops = iter(np.linspace(0, last, sum(self.depths)).tolist())
        stages = enumerate(zip([in_channels, *self.widths], self.widths, self.depths, MLP_RATIOS), 1)
        for number, (before, channels, depth, mlp_ratio) in stages:
            blocks = [_Block(channels, mlp_ratio, drop_rate, next(drops)) for _ in range(depth)]
            setattr(self, f"patch_embed{number}", _Patches(before, channels, quarter=number == 1))
            setattr(self, f"block{number}", nn.Sequential(*blocks))
            setattr(self, f"norm{number}", nn.LayerNorm(channels))
        self.pretrained = pretrained
        transformer_start(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number in range(1, 5):
            x = getattr(self, f"block{number}")(getattr(self, f"patch_embed{number}")(x))
            x = normed_map(getattr(self, f"norm{number}"), x)
            maps.append(x)
        return maps


@BACKBONES.register
class MSCAN_T(_Mscan):
    widths, depths = (32, 64, 160, 256), (3, 3, 5, 2)


@BACKBONES.register
class MSCAN_S(_Mscan):
    depths = (2, 2, 4, 2)


@BACKBONES.register
class MSCAN_B(_Mscan):
    depths = (3, 3, 12, 3)


@BACKBONES.register
class MSCAN_L(_Mscan):
    depths, drop_path_rate = (3, 5, 27, 3), 0.3
