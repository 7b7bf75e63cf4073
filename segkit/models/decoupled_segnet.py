"""DecoupledSegNet: the inside of objects, smoothed along a flow, apart from their edges, each with a loss of its own
(Li et al., https://arxiv.org/abs/2007.10035)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.flow import warp
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.models.pyramid import ASPP
from segkit.registry import MODELS


class _BodyAndEdge(nn.Layer):
    """[N, C, h, w] -> its body, moved along a flow towards the inside, and what that leaves: the edge."""

    def __init__(self, channels: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.down = nn.Sequential(*(ConvBNReLU(channels, channels, 3, stride=2, groups=channels) for _ in range(2)))
        self.flow_make = nn.Conv2D(channels * 2, 2, 3, padding=1, bias_attr=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coarse = resize_to(self.down(x), x, align_corners=self.align_corners)
        body = warp(x, self.flow_make(paddle.concat([x, coarse], axis=1)))
        return body, x - body


class _Head(nn.Layer):
    def __init__(
        self, num_classes: int, channels: list[int], rates: Sequence[int], out_channels: int, align_corners: bool
    ):
        super().__init__()
        width = out_channels
        self.align_corners = align_corners
        self.aspp = ASPP(rates, channels[1], width, align_corners)
        self.bot_fine = nn.Conv2D(channels[0], 48, 1, bias_attr=False)
        self.squeeze_body_edge = _BodyAndEdge(width, align_corners)
        self.edge_fusion = nn.Conv2D(width + 48, width, 1, bias_attr=False)
        self.edge_out = nn.Sequential(ConvBNReLU(width, 48, 3, bias=False), nn.Conv2D(48, 1, 1, bias_attr=False))
        self.dsn_seg_body = nn.Sequential(
            ConvBNReLU(width, width, 3, bias=False), nn.Conv2D(width, num_classes, 1, bias_attr=False)
        )
        self.final_seg = nn.Sequential(
            ConvBNReLU(width * 2, width, 3, bias=False),
            ConvBNReLU(width, width, 3, bias=False),
            nn.Conv2D(width, num_classes, 1, bias_attr=False),
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        context = self.aspp(maps[1])
        body, edge = self.squeeze_body_edge(context)
        fine = self.bot_fine(maps[0])
        raised = [resize_to(x, fine, align_corners=self.align_corners) for x in (context, body, edge)]
        edge = self.edge_fusion(paddle.concat([raised[2], fine], axis=1))
        scores = [self.final_seg(paddle.concat([raised[0], raised[1] + edge], axis=1))]
        if self.training:
            scores += [self.dsn_seg_body(body), F.sigmoid(self.edge_out(edge))]
        return scores


@MODELS.register
class DecoupledSegNet(BackboneModel):
    """[N, in_channels, H, W] -> in training four: scores [N, num_classes, H, W] of the whole and of the body, the
    edge's probability [N, 1, H, W], and the pair of whole and edge for a loss that takes both; in evaluation the
    whole's alone.

    `backbone_indices` and `aspp_ratios` are those of DeepLabV3+. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 4
    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 3),
        aspp_ratios: Sequence[int] = (1, 6, 12, 18),
        aspp_out_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels, aspp_ratios, aspp_out_channels, align_corners)

    def forward(self, x: Tensor) -> list:
        outputs: list = super().forward(x)
        return [*outputs, (outputs[0], outputs[2])] if self.training else outputs
