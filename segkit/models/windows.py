"""Attention among the cells of a window (Liu et al., Swin, https://arxiv.org/abs/2103.14030). Maps are
[N, h, w, C] here."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import sides


def filled(x: Tensor, size: int, centred: bool = False) -> Tensor:
    """[N, h, w, C] -> the same with zeros around it, so that both sides are multiples of `size`: at the right and
    bottom, or with `centred` half of them on each side."""
    height, width = sides(x, first=1)
    below, right = (size - height % size) % size, (size - width % size) % size
    top, left = (below // 2, right // 2) if centred else (0, 0)
    return F.pad(x, [left, right - left, top, below - top], data_format="NHWC")


def to_windows(x: Tensor, size: int) -> Tensor:
    """[N, h, w, C], sides multiples of `size` -> [windows of all images, size^2, C], row by row."""
    height, width = sides(x, first=1)
    channels = x.shape[3]
    x = x.reshape([0, height // size, size, width // size, size, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, size * size, channels])


def from_windows(windows: Tensor, like: Tensor, size: int) -> Tensor:
    """What `to_windows` made of a map of `like`'s sides [N, h, w, *], back at its place: [N, h, w, C]."""
    height, width = sides(like, first=1)
    channels = windows.shape[2]
    x = windows.reshape([-1, height // size, width // size, size, size, channels]).transpose([0, 1, 3, 2, 4, 5])
    return x.reshape([-1, height, width, channels])


def offsets(size: int) -> np.ndarray:
    """int64 [size^2, size^2]: a number for each offset between two cells of a window, from 0 to (2 size - 1)^2 - 1."""
    rows, columns = (part.ravel() for part in np.mgrid[:size, :size])
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + size - 1) * (2 * size - 1) + right + size - 1


def add_positions(attention: nn.Layer, index: np.ndarray, heads: int, entries: int) -> None:
    """Give `attention` a learned number for each head and each of `entries` kinds of pairs, which `index` [L, L]
    tells; under the keys of published weights."""
    table = attention.create_parameter([entries, heads], default_initializer=nn.initializer.TruncatedNormal(std=0.02))
    attention.relative_position_bias_table = table
    attention.register_buffer("relative_position_index", paddle.to_tensor(index))


def positions(attention: nn.Layer) -> Tensor:
    """What `add_positions` gave, for each pair of cells: [heads, L, L]."""
    index = attention.relative_position_index
    chosen = attention.relative_position_bias_table.index_select(index.flatten())
    return chosen.reshape([*index.shape, -1]).transpose([2, 0, 1])
