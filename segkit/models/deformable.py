"""Attention to a few points of several maps (Zhu et al., "Deformable DETR", https://arxiv.org/abs/2010.04159)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import sides
from segkit.models.transformer import to_map


def cell_centres(like: Tensor) -> Tensor:
    """Where the cells of a map [N, *, h, w] stand, x and y in shares of its width and height: [1, h w, 2]."""

    def centres(length: int | Tensor) -> Tensor:
        return (paddle.arange(length).astype("float32") + 0.5) / length

    height, width = sides(like)
    y, x = centres(height).unsqueeze(1), centres(width).unsqueeze(0)
    return paddle.stack([x + paddle.zeros_like(y), y + paddle.zeros_like(x)], axis=-1).flatten(0, 1).unsqueeze(0)


class DeformableAttention(nn.Layer):
    """Each query looks at `points` points of each of `levels` maps. Where they are, as steps from its own place in
    cells of the map, and how much each counts it tells itself; a point between cells is interpolated, one outside
    is 0.

    `ratio`: width of the values against that of the queries. The steps start as in the paper, one direction a head,
    its points 1, 2, ... cells away on a square; PaddleSeg starts them on a circle, by a slip. As there, the steps'
    bias is never trained: published weights come from such a training.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int, ratio: float = 1.0):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.width = int(channels * ratio)
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, self.width)
        self.output_proj = nn.Linear(self.width, channels)
        zero = nn.initializer.Constant(0.0)
        for layer in (self.sampling_offsets, self.attention_weights):
            zero(layer.weight)
        nn.initializer.Assign(self._first_steps())(self.sampling_offsets.bias)
        self.sampling_offsets.bias.stop_gradient = True

    def _first_steps(self) -> np.ndarray:
        """float32 [heads * levels * points * 2]."""
        angles = 2 * np.pi * np.arange(self.heads) / self.heads
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        directions /= np.abs(directions).max(axis=-1, keepdims=True)
        steps = directions[:, None, None] * np.arange(1, self.points + 1)[:, None]
        return np.tile(steps, (1, self.levels, 1, 1)).ravel().astype("float32")

    def _by_head(self, x: Tensor) -> Tensor:
        """[N, L, heads K] -> [N heads, L, K]."""
        split = x.reshape([0, -1, self.heads, x.shape[2] // self.heads])
        return split.transpose([0, 2, 1, 3]).flatten(0, 1)

    def forward(self, queries: Tensor, places: Tensor, tokens: list[Tensor], likes: list[Tensor]) -> Tensor:
        """[N, L, C] and where each stands [1, L, 2], as `cell_centres` tells; the maps as tokens [N, h w, C], each
        with a map of its size [N, *, h, w] -> [N, L, C]."""
        steps = self._by_head(self.sampling_offsets(queries)).split(self.levels, axis=-1)
        weights = F.softmax(self._by_head(self.attention_weights(queries)), axis=-1).unsqueeze(1)
        sampled = []
        for step, seen, like in zip(steps, tokens, likes):
            height, width = sides(like)
            values = to_map(self.value_proj(seen), like).reshape([-1, self.width // self.heads, height, width])
            x, y = step[..., 0::2] / width, step[..., 1::2] / height
            points = paddle.stack([x, y], axis=-1) + places.unsqueeze(2)
            sampled.append(F.grid_sample(values, points * 2 - 1, align_corners=False))
        found = (paddle.concat(sampled, axis=-1) * weights).sum(-1)  # [N heads, width / heads, L]
        return self.output_proj(found.reshape([-1, self.width, 0]).transpose([0, 2, 1]))
