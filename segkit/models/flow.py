"""Maps moved along a flow that the network predicts."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from segkit.models.layers import sides


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """`x` [N, C, h, w] read at the pixels of `flow` [N, 2, H, W], each moved by its flow (x and y, where 1 is half a
    pixel of H x W) -> [N, C, H, W] (Li et al., "Semantic Flow", https://arxiv.org/abs/2002.10120)."""
    height, width = sides(flow)
    rows = paddle.linspace(-1.0, 1.0, height).reshape([1, -1, 1])
    columns = paddle.linspace(-1.0, 1.0, width).reshape([1, 1, -1])
    places = paddle.stack([columns + flow[:, 0] / width, rows + flow[:, 1] / height], axis=-1)
    return F.grid_sample(x, places)
