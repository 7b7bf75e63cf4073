"""HRFormer: HRNet's branches of several resolutions, made of transformer blocks with attention in windows
(Yuan et al., https://arxiv.org/abs/2110.09408)."""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backbones.hrnet import NumberedTransition
from segkit.models.layers import ConvBN, ConvBNReLU, normal_weights, resize_to, sides
from segkit.models.transformer import DropPath, draw_linears
from segkit.models.windows import add_positions, filled, from_windows, offsets, positions, to_windows
from segkit.registry import BACKBONES

_MOST_DROPPED = 0.5


class _Bottleneck(nn.Layer):
    """ResNet's, of the first stage. [N, in, h, w] -> [N, 4 width, h, w]."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, width, 1, bias=False)
        self.conv2 = ConvBNReLU(width, width, 3, bias=False)
        self.conv3 = ConvBN(width, 4 * width, 1, bias=False)
        project = [ConvBN(in_channels, 4 * width, 1, bias=False)] if in_channels != 4 * width else []
        self.downsample = nn.Sequential(*project)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.downsample(x) + self.conv3(self.conv2(self.conv1(x))))


class _Attention(nn.Layer):
    """Among the cells of windows of `size`, the map centred in them. [N, h, w, C] -> the same shape."""

    def __init__(self, channels: int, heads: int, size: int):
        super().__init__()
        self.size = size
        self.attn = nn.MultiHeadAttention(channels, heads)
        add_positions(self.attn, offsets(size), heads, (2 * size - 1) ** 2)

    def forward(self, x: Tensor) -> Tensor:
        whole = filled(x, self.size, centred=True)
        windows = to_windows(whole, self.size)
        found = self.attn(windows, windows, windows, positions(self.attn).unsqueeze(0))
        (height, width), (full_height, full_width) = sides(x, first=1), sides(whole, first=1)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        return from_windows(found, whole, self.size)[:, top : top + height, left : left + width]


class _Mlp(nn.Layer):
    """1x1, depthwise 3x3 and 1x1 convolutions, GELU after each. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = ConvBN(channels, hidden, 1, act=F.gelu)
        self.dw3x3 = ConvBN(hidden, hidden, 3, groups=hidden, act=F.gelu)
        self.fc2 = ConvBN(hidden, channels, 1, act=F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dw3x3(self.fc1(x)))


class _Block(nn.Layer):
    """Attention in windows and a convolutional MLP, each beside a shortcut. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, heads: int, size: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, epsilon=1e-6)
        self.attn = _Attention(channels, heads, size)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels, epsilon=1e-6)
        self.mlp = _Mlp(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose([0, 2, 3, 1])
        x = x + self.drop_path(self.attn(self.norm1(x)))
        found = self.mlp(self.norm2(x).transpose([0, 3, 1, 2]))
        return x.transpose([0, 3, 1, 2]) + self.drop_path(found)


def _to_finer(in_channels: int, out_channels: int, times: int) -> nn.Sequential:
    """A 1x1 convolution, then pixels repeated `times`."""
    return nn.Sequential(ConvBN(in_channels, out_channels, 1, bias=False), nn.Upsample(scale_factor=times))


def _to_coarser(in_channels: int, out_channels: int, halvings: int) -> nn.Sequential:
    """Depthwise convolutions, each halving the map and followed by a 1x1 one, the last without ReLU."""
    steps = []
    for step in range(1, halvings + 1):
        cls, out = (ConvBN, out_channels) if step == halvings else (ConvBNReLU, in_channels)
        halve = ConvBN(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False)
        steps.append(nn.Sequential(halve, cls(in_channels, out, 1, bias=False)))
    return nn.Sequential(*steps)


class _Module(nn.Layer):
    """Blocks in each branch, then an exchange: maps -> maps of the same sizes. The coarser a branch, the more of its
    blocks are dropped (`drop_paths` are the finest's)."""

    def __init__(self, widths: Sequence[int], heads: Sequence[int], size: int, drop_paths: Sequence[float]):
        super().__init__()
        self.branches = nn.LayerList()
        for branch, (width, count) in enumerate(zip(widths, heads)):
            drops = [min(_MOST_DROPPED, drop * 2**branch) for drop in drop_paths]
            self.branches.append(nn.Sequential(*(_Block(width, count, size, drop) for drop in drops)))
        self.fuse_layers = nn.LayerList([nn.LayerList(self._paths(widths, to)) for to in range(len(widths))])

    def _paths(self, widths: Sequence[int], to: int) -> list[nn.Layer]:
        """From each branch to the branch `to`."""
        paths: list[nn.Layer] = []
        for start, width in enumerate(widths):
            if start == to:
                paths.append(nn.Identity())
            elif start > to:
                paths.append(_to_finer(width, widths[to], 2 ** (start - to)))
            else:
                paths.append(_to_coarser(width, widths[to], to - start))
        return paths

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps)]
        fused = []
        for paths, like in zip(self.fuse_layers, maps):
            moved = [resize_to(path(x), like, align_corners=True) for path, x in zip(paths, maps)]
            fused.append(F.relu(sum(moved[1:], moved[0])))
        return fused


def _conv(in_channels: int, out_channels: int, stride: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _halved(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Sequential(_conv(in_channels, out_channels, 2)))


def _widened(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(in_channels, out_channels, 1))


class HRFormer(nn.Layer):
    """[N, in_channels, H, W] -> one map at 1/4: all four branches' maps, raised and concatenated.

    `drop_path_rate`: stochastic depth of the last block of the finest branch; of each coarser one twice as much, at
    most a half (in PaddleSeg up to 1.6). `pretrained` is a file of classification weights that the engine loads.
    Keys are PaddleSeg's.
    """

    width = 32
    heads: Sequence[int] = (1, 2, 4, 8)
    windows: Sequence[int] = (7, 7, 7)
    modules: Sequence[int] = (1, 4, 2)
    blocks = 2

    def __init__(self, drop_path_rate: float = 0.2, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.conv1, self.conv2 = _conv(in_channels, 64, 2), _conv(64, 64, 2)
        self.layer1 = nn.Sequential(_Bottleneck(64, 64), _Bottleneck(256, 64))
        drops = iter(np.linspace(0, drop_path_rate, sum(self.modules) * self.blocks).tolist())
        before = [256]
        for number, (modules, size) in enumerate(zip(self.modules, self.windows), 2):
            widths = [self.width * 2**branch for branch in range(number)]
            setattr(self, f"transition{number - 1}", NumberedTransition(before, widths, _halved, _widened))
            setattr(self, f"stage{number}", self._stage(widths, modules, size, drops))
            before = widths
        self.feat_channels = [sum(before)]
        normal_weights(self, 0.001)
        draw_linears(self)

    def _stage(self, widths: Sequence[int], modules: int, size: int, drops: Iterator[float]) -> nn.Sequential:
        rounds = [[next(drops) for _ in range(self.blocks)] for _ in range(modules)]
        return nn.Sequential(*(_Module(widths, self.heads, size, row) for row in rounds))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.layer1(self.conv2(self.conv1(x)))]
        for number in range(2, len(self.modules) + 2):
            maps = getattr(self, f"stage{number}")(getattr(self, f"transition{number - 1}")(maps))
        raised = [resize_to(coarse, maps[0], align_corners=True) for coarse in maps[1:]]
        return [paddle.concat([maps[0], *raised], axis=1)]


@BACKBONES.register
class HRFormer_small(HRFormer):
    pass


@BACKBONES.register
class HRFormer_base(HRFormer):
    width, heads = 78, (2, 4, 8, 16)


@BACKBONES.register
class HRFormer_base_win_13(HRFormer_base):
    """Windows of 13 cells in the second stage alone, as in PaddleSeg."""

    windows = (13, 7, 7)


@BACKBONES.register
class HRFormer_base_win_15(HRFormer_base):
    windows = (15, 15, 15)
