"""GloRe: pixels projected to the nodes of a graph, reasoned over and projected back
(Chen et al., https://arxiv.org/abs/1811.12814)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.graph import GraphConv
from segkit.models.layers import AuxHead, ConvBNReLU, to_map
from segkit.registry import MODELS


class _Reasoning(nn.Layer):
    """[N, C, h, w] -> [N, C, h, w] through `nodes` nodes of `states` values each."""

    def __init__(self, channels: int, states: int, nodes: int):
        super().__init__()
        self.reduction_dim = nn.Conv2D(channels, states, 1)
        self.projection_mat = nn.Conv2D(channels, nodes, 1)
        self.gcn = GraphConv(states, nodes)
        self.extend_dim = nn.Conv2D(states, channels, 1, bias_attr=False)
        self.extend_bn = nn.BatchNorm2D(channels, epsilon=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.projection_mat(x).flatten(2)
        nodes = paddle.matmul(self.reduction_dim(x).flatten(2), shares, transpose_y=True)
        found = to_map(paddle.matmul(self.gcn(nodes), shares), x)
        return x + self.extend_bn(self.extend_dim(found))


class _Head(nn.Layer):
    def __init__(self, num_classes: int, channels: list[int], width: int, states: int, nodes: int, auxiliary: bool):
        super().__init__()
        self.conv_bn_relu = ConvBNReLU(channels[1], width, 1, bias=False)
        self.gru_module = _Reasoning(width, states, nodes)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2D(width, num_classes, 1)
        self.auxlayer = AuxHead(channels[0], channels[0] // 4, num_classes) if auxiliary else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.classifier(self.dropout(self.gru_module(self.conv_bn_relu(maps[1]))))]
        if self.auxlayer is not None and self.training:
            scores.append(self.auxlayer(maps[0]))
        return scores


@MODELS.register
class GloRe(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `gru_num_node` nodes of `gru_num_state` values, from a map of `gru_channels`. Keys and outputs are PaddleSeg's.
    """

    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        gru_channels: int = 512,
        gru_num_state: int = 128,
        gru_num_node: int = 64,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(
            num_classes, self.map_channels, gru_channels, gru_num_state, gru_num_node, enable_auxiliary_loss
        )
