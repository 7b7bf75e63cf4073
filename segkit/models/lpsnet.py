"""LPSNet: plain networks at several scales of the image that add up each other's maps
(Zhang et al., "Lightweight and Progressively-Scalable Networks for Semantic
Segmentation", https://arxiv.org/abs/2207.13600)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS

ALONE = 3
"""The first stages, in which the paths do not exchange maps."""


@paddle.jit.not_to_static
def _scaled(x: Tensor, ratio: float) -> Tensor:
    """`x` [N, C, H, W] at `ratio` times its sides, rounded down, 1 at least."""
    if ratio == 1:
        return x
    size = [max(1, int(ratio * side)) for side in x.shape[2:]]
    if min(x.shape[2:]) < 0:
        size = paddle.clip((paddle.shape(x)[2:].astype("float64") * ratio).astype("int32"), min=1)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _path(in_channels: int, depths: Sequence[int], channels: Sequence[int]) -> nn.LayerList:
    """Stages of 3x3 convolutions; all but the last one halve the map."""
    stages = nn.LayerList()
    for number, (depth, width) in enumerate(zip(depths, channels), 1):
        first = 1 if number == len(depths) else 2
        widths = [in_channels, *[width] * depth]
        convs = [
            ConvBNReLU(before, after, 3, stride=first if index == 0 else 1, padding=1, bias=False)
            for index, (before, after) in enumerate(zip(widths, widths[1:]))
        ]
        stages.append(nn.Sequential(*convs))
        in_channels = width
    return stages


@MODELS.register
class LPSNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `depths`, `channels`: blocks and width of each stage; `scale_ratios`: one path for each, of the image at that
    scale. The defaults are LPSNet-S. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        depths: Sequence[int] = (1, 3, 3, 10, 10),
        channels: Sequence[int] = (8, 24, 48, 96, 96),
        scale_ratios: Sequence[float] = (0.75, 0.25),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        if len(depths) != len(channels) or len(depths) <= ALONE:
            raise InputError(
                f"model.depths, model.channels: not one of each for every stage (got {len(depths)} and "
                f"{len(channels)}, expected the same number, more than {ALONE})."
            )
        self.scale_ratios = [ratio for ratio in scale_ratios if ratio > 0]
        if not self.scale_ratios:
            raise InputError(
                f"model.scale_ratios: no path is left (got {list(scale_ratios)}, expected one or more above 0)."
            )
        self.nets = nn.LayerList([_path(in_channels, depths, channels) for _ in self.scale_ratios])
        self.head = nn.Conv2D(channels[-1] * len(self.nets), num_classes, 1)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for path, ratio in zip(self.nets, self.scale_ratios):
            y = _scaled(x, ratio)
            for stage in path[:ALONE]:
                y = stage(y)
            maps.append(y)
        for index in range(ALONE, len(self.nets[0])):
            maps = [path[index](y) for path, y in zip(self.nets, _exchanged(maps))]
        joined = paddle.concat([resize_to(y, maps[0], align_corners=True) for y in maps], axis=1)
        return [resize_to(self.head(joined), x, align_corners=True)]


def _exchanged(maps: list[Tensor]) -> list[Tensor]:
    """Each map plus all the others at its size."""
    return [sum((resize_to(other, own, align_corners=True) for other in maps if other is not own), own) for own in maps]
