"""DMNet: context from filters that each image makes for itself, of several sizes
(He et al., https://openaccess.thecvf.com/content_ICCV_2019/html/He_Dynamic_Multi-Scale_Filters_for_Semantic_Segmentation_ICCV_2019_paper.html)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, sides
from segkit.registry import MODELS


@paddle.jit.not_to_static
def _filtered(x: Tensor, filters: Tensor) -> Tensor:
    """Every channel of every image under its own filter: [N, C, h, w] and [N, C, k, k] -> [N, C, h, w]."""
    size = filters.shape[2]
    count, channels = x.shape[:2]
    height, width = sides(x)
    padded = F.pad(x, [size // 2, (size - 1) // 2] * 2)
    if count > 0:  # as one convolution of N times C groups
        one = padded.reshape([1, -1, *sides(padded)])
        found = F.conv2d(one, filters.reshape([count * channels, 1, size, size]), groups=count * channels)
        return found.reshape([count, channels, height, width])
    # An exported graph does not know how many groups that are: add up the map, shifted to each place of the filter.
    total = paddle.zeros_like(x)
    for row in range(size):
        for column in range(size):
            shifted = padded[:, :, row : row + height, column : column + width]
            total = total + shifted * filters[:, :, row : row + 1, column : column + 1]
    return total


class _Dynamic(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w], under filters of `size` x `size` made from the map's means."""

    def __init__(self, size: int, fusion: bool, in_channels: int, channels: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(size)
        self.filter_gen_conv = nn.Conv2D(in_channels, channels, 1)
        self.input_redu_conv = ConvBNReLU(in_channels, channels, 1)
        self.norm = nn.BatchNorm2D(channels)
        self.fusion_conv = ConvBNReLU(channels, channels, 1) if fusion else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        filters = self.filter_gen_conv(self.pool(x))
        return self.fusion_conv(F.relu(self.norm(_filtered(self.input_redu_conv(x), filters))))


@MODELS.register
class DMNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the last but one map.

    `filter_sizes`: of the filters that each image makes; `fusion` adds a convolution after each. Keys and outputs are
    PaddleSeg's, at any size (those are rounded up to a multiple of 8).
    """

    train_outputs = 2
    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        mid_channels: int = 512,
        filter_sizes: Sequence[int] = (1, 3, 5, 7),
        fusion: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (2, 3), in_channels, True, pretrained)
        if not filter_sizes or min(filter_sizes) < 1:
            raise InputError(
                f"model.filter_sizes: sizes of 1 or more (got {list(filter_sizes)}, expected such as [1, 3, 5, 7]). "
                "Correct them or leave the key out."
            )
        low, high = self.map_channels
        self.dcm_modules = nn.LayerList([_Dynamic(size, fusion, high, mid_channels) for size in filter_sizes])
        self.bottleneck = ConvBNReLU(high + len(filter_sizes) * mid_channels, mid_channels, 3)
        self.cls = nn.Conv2D(mid_channels, num_classes, 1)
        self.fcn_head = nn.Sequential(ConvBNReLU(low, mid_channels, 3), nn.Conv2D(mid_channels, num_classes, 1))

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        low, high = maps
        context = paddle.concat([high, *(module(high) for module in self.dcm_modules)], axis=1)
        scores = [self.cls(self.bottleneck(context))]
        if self.training:
            scores.append(self.fcn_head(low))
        return scores
