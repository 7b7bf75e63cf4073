"""Lite-HRNet: HRNet's branches of several resolutions, where weights computed across them stand for 1x1 convolutions
(Yu et al., https://arxiv.org/abs/2104.06403)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backbones.hrnet import NumberedTransition
from segkit.models.layers import ConvBN, interleave, normal_weights, resize_to
from segkit.registry import BACKBONES

_WIDTHS = (40, 80, 160, 320)
_STEM = 32


def _conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: object = None
) -> ConvBN:
    """A convolution and the BatchNorm that may be fixed."""
    names = ("conv", "norm")
    return ConvBN(in_channels, out_channels, kernel, stride, kernel // 2, 1, groups, bias=False, names=names, act=act)


def _separable(in_channels: int, out_channels: int, stride: int, relu: bool) -> nn.Sequential:
    """A convolution of each channel and a 1x1 convolution, each with BatchNorm."""
    depthwise = nn.Conv2D(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias_attr=False)
    pointwise = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
    layers = [depthwise, nn.BatchNorm2D(in_channels), pointwise, nn.BatchNorm2D(out_channels)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class _Stem(nn.Layer):
    """[N, in, H, W] -> [N, _STEM, H/4, W/4]."""

    def __init__(self, in_channels: int):
        super().__init__()
        half = _STEM // 2
        self.conv1 = _conv(in_channels, _STEM, 3, stride=2, act=F.relu)
        self.branch1 = nn.Sequential(_conv(half, half, 3, stride=2, groups=half), _conv(half, half, 1, act=F.relu))
        self.expand_conv = _conv(half, _STEM, 1, act=F.relu)
        self.depthwise_conv = _conv(_STEM, _STEM, 3, stride=2, groups=_STEM)
        self.linear_conv = _conv(_STEM, half, 1, act=F.relu)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv1(x).chunk(2, axis=1)
        second = self.linear_conv(self.depthwise_conv(self.expand_conv(second)))
        return interleave(self.branch1(first), second)


class _AcrossWeights(nn.Layer):
    """Every map weighted by what all of them show, at the coarsest one's size. Maps -> maps of the same shapes."""

    def __init__(self, widths: Sequence[int], ratio: int):
        super().__init__()
        self.widths, total = list(widths), sum(widths)
        self.conv1 = _conv(total, total // ratio, 1, act=F.relu)
        self.conv2 = _conv(total // ratio, total, 1, act=F.sigmoid)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        last = len(maps) - 1
        pooled = [
            F.avg_pool2d(x, 2 ** (last - index), 2 ** (last - index), ceil_mode=True)
            for index, x in enumerate(maps[:-1])
        ]
        weights = self.conv2(self.conv1(paddle.concat([*pooled, maps[-1]], axis=1))).split(self.widths, axis=1)
        return [x * resize_to(weight, x, "nearest") for x, weight in zip(maps, weights)]


class _ChannelWeights(nn.Layer):
    """Channels weighted by the map's mean. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, ratio: int = 4):
        super().__init__()
        self.conv1 = nn.Sequential(("conv", nn.Conv2D(channels, channels // ratio, 1)))
        self.conv2 = nn.Sequential(("conv", nn.Conv2D(channels // ratio, channels, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return x * F.sigmoid(self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1)))))


class _Block(nn.Layer):
    """Half of each map's channels weighted across the maps, convolved one by one and weighted again; then the halves
    shuffled. Maps -> maps of the same shapes."""

    def __init__(self, widths: Sequence[int], ratio: int = 8):
        super().__init__()
        halves = [width // 2 for width in widths]
        self.cross_resolution_weighting = _AcrossWeights(halves, ratio)
        self.depthwise_convs = nn.LayerList([_conv(half, half, 3, groups=half) for half in halves])
        self.spatial_weighting = nn.LayerList([_ChannelWeights(half) for half in halves])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        kept, changed = zip(*(x.chunk(2, axis=1) for x in maps))
        changed = self.cross_resolution_weighting(list(changed))
        steps = zip(changed, self.depthwise_convs, self.spatial_weighting)
        return [interleave(first, weigh(conv(x))) for first, (x, conv, weigh) in zip(kept, steps)]


class _Module(nn.Layer):
    """Blocks, then an exchange. Maps -> maps of the same shapes.

    The finest map counts twice, and the others take what has become of it, as published weights expect."""

    def __init__(self, widths: Sequence[int], blocks: int = 2):
        super().__init__()
        self.layers = nn.Sequential(*(_Block(widths) for _ in range(blocks)))
        self.fuse_layers = nn.LayerList(
            [nn.LayerList([self._path(widths, start, to) for start in range(len(widths))]) for to in range(len(widths))]
        )

    def _path(self, widths: Sequence[int], start: int, to: int) -> nn.Layer:
        before, after = widths[start], widths[to]
        if start == to:
            return nn.Identity()
        if start > to:
            return nn.Sequential(nn.Conv2D(before, after, 1, bias_attr=False), nn.BatchNorm2D(after))
        steps = [_separable(before, before, 2, relu=True) for _ in range(to - start - 1)]
        return nn.Sequential(*steps, _separable(before, after, 2, relu=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = self.layers(maps)
        fused: list[Tensor] = []
        for to, paths in enumerate(self.fuse_layers):
            total = 2 * paths[0](maps[0])
            for path, x in list(zip(paths, maps))[1:]:
                total = total + resize_to(path(x), maps[to], "nearest")
            if to == 0:
                maps = [total, *maps[1:]]
            fused.append(F.relu(total))
        return fused


class _Head(nn.Layer):
    """From the coarsest map to the finest, each with the coarser ones added: maps -> maps of half the channels, the
    finest of all."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.projects = nn.LayerList()
        for width, out in zip(widths[::-1], [*widths[-2::-1], widths[0]]):
            parts = (("depthwise_conv", _conv(width, width, 3, groups=width)),
                     ("pointwise_conv", _conv(width, out, 1, act=F.relu)))  # fmt: skip
            self.projects.append(nn.Sequential(*parts))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        for project, x in zip(self.projects, maps[::-1]):
            found.append(project(x + resize_to(found[-1], x, align_corners=True) if found else x))
        return found[::-1]


def _halved(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(_separable(in_channels, out_channels, 2, relu=True))


def _widened(in_channels: int, out_channels: int) -> nn.Sequential:
    return _separable(in_channels, out_channels, 1, relu=True)


class LiteHRNet(nn.Layer):
    """[N, in_channels, H, W] -> four maps at 1/4, 1/8, 1/16 and 1/32, for any H and W.

    `use_head` adds the coarser maps to the finer ones. `freeze_norm`: the BatchNorms of blocks and head stay as the
    published weights have them. `pretrained` is a file of classification weights that the engine loads. Keys are
    PaddleSeg's, which lets no gradient into the finest map; here it flows.
    """

    modules: Sequence[int]

    def __init__(
        self,
        use_head: bool = False,
        freeze_norm: bool = True,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        self.stem = _Stem(in_channels)
        before: Sequence[int] = [_STEM]
        for stage, modules in enumerate(self.modules):
            widths = _WIDTHS[: stage + 2]
            setattr(self, f"transition{stage}", NumberedTransition(before, widths, _halved, _widened))
            setattr(self, f"stage{stage}", nn.Sequential(*(_Module(widths) for _ in range(modules))))
            before = widths
        self.feat_channels = list(before)
        self.head_layer = _Head(before) if use_head else None
        if use_head:
            self.feat_channels = [before[0], *before[:-1]]
        self.pretrained = pretrained
        normal_weights(self, 0.001)
        for name, layer in self.named_sublayers():
            if freeze_norm and isinstance(layer, ConvBN) and not name.startswith("stem."):
                layer.norm._use_global_stats = True
                layer.norm.weight.stop_gradient = layer.norm.bias.stop_gradient = True

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in range(len(self.modules)):
            maps = getattr(self, f"stage{stage}")(getattr(self, f"transition{stage}")(maps))
        return maps if self.head_layer is None else self.head_layer(maps)


@BACKBONES.register
class Lite_HRNet_18(LiteHRNet):
    modules = (2, 4, 2)


@BACKBONES.register
class Lite_HRNet_30(LiteHRNet):
    modules = (3, 8, 3)
