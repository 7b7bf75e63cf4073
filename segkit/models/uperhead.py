"""Pyramid pooling on top of a feature pyramid (Xiao et al., https://arxiv.org/abs/1807.10221)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from segkit.models.layers import AuxHead, ConvBNReLU, resize_to
from segkit.models.pyramid import PyramidPooling


class PyramidHead(nn.Layer):
    """What the heads of UPerNet share: the coarsest map with its context is added into the finer ones, step by step,
    and all of them together make the features.

    A subclass has `lateral_convs` and `fpn_convs`, one of each for every map but the coarsest, and `fpn_bottleneck`.
    """

    align_corners = False
    """Of the interpolations in between."""

    def context(self, x: Tensor) -> Tensor:
        """The coarsest map with what several fields of view see in it: [N, width, h, w] -> [N, channels, h, w]."""
        raise NotImplementedError

    def features(self, maps: list[Tensor]) -> Tensor:
        """[N, channels, h, w], what the scores are made from."""
        merged = [self.context(maps[-1])]
        for lateral, x in zip(self.lateral_convs[::-1], maps[-2::-1]):
            x = lateral(x)
            merged.insert(0, x + resize_to(merged[0], x, align_corners=self.align_corners))
        levels = [conv(x) for conv, x in zip(self.fpn_convs, merged)] + merged[-1:]
        raised = [resize_to(x, levels[0], align_corners=self.align_corners) for x in levels]
        return self.fpn_bottleneck(paddle.concat(raised, axis=1))


class UPerHead(PyramidHead):
    """Maps of `widths` channels, the finest first -> scores of the finest's size and, in training with `auxiliary`,
    another from the last but one. `align_corners`: of the interpolations in between."""

    def __init__(
        self, num_classes: int, widths: list[int], channels: int, dropout: float, auxiliary: bool, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        self.ppm = PyramidPooling(widths[-1], channels, (1, 2, 3, 6), align_corners=True)
        self.lateral_convs = nn.LayerList([ConvBNReLU(width, channels, 1) for width in widths[:-1]])
        self.fpn_convs = nn.LayerList([ConvBNReLU(channels, channels, 3, bias=False) for _ in widths[:-1]])
        self.aux_head = AuxHead(widths[-2], widths[-2], num_classes, dropout) if auxiliary else None
        self.fpn_bottleneck = ConvBNReLU(len(widths) * channels, channels, 3)
        # Published weights hold another pair of layers, which nothing uses.
        self.conv_last = nn.Sequential(
            ConvBNReLU(len(widths) * channels, channels, 3, bias=False), nn.Conv2D(channels, num_classes, 1)
        )
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def context(self, x: Tensor) -> Tensor:
        return self.ppm(x)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.conv_seg(self.features(maps))]
        if self.aux_head is not None and self.training:
            scores.append(self.aux_head(maps[-2]))
        return scores
