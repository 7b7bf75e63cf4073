"""Reasoning over a graph of regions instead of pixels (Chen et al., "GloRe", https://arxiv.org/abs/1811.12814)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn


class GraphConv(nn.Layer):
    """[N, states, nodes] -> the same: a mixture of all nodes added to each, then a convolution across states."""

    def __init__(self, states: int, nodes: int):
        super().__init__()
        self.conv1 = nn.Conv1D(nodes, nodes, 1)
        self.conv2 = nn.Conv1D(states, states, 1, bias_attr=False)

    def mixed(self, x: Tensor) -> Tensor:
        """Each node and a mixture of all."""
        return x + self.conv1(x.transpose([0, 2, 1])).transpose([0, 2, 1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.mixed(x)))
