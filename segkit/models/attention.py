"""Attention between the pixels of a map."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, to_map


def attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """Values mixed for each query by the softmax of its likeness to the keys: [N, C, Q], [N, C, K] and [N, V, K]
    -> [N, V, Q] (Wang et al., "Non-local", https://arxiv.org/abs/1711.07971)."""
    likeness = paddle.matmul(queries, keys, transpose_x=True) * scale
    return paddle.matmul(values, F.softmax(likeness, axis=-1), transpose_y=True)


def attentive_mean(values: Tensor, scores: Tensor) -> Tensor:
    """The mean of [N, C, h, w] over the image, weighted by the softmax of [N, 1, h, w] -> [N, C, 1, 1]."""
    weights = F.softmax(scores.flatten(2), axis=-1)
    return paddle.matmul(values.flatten(2), weights, transpose_y=True).unsqueeze(-1)


def gather_objects(pixels: Tensor, scores: Tensor) -> Tensor:
    """Pixels [N, C, h, w] averaged for each class of `scores` [N, K, h, w], weighted by its softmax over the image
    -> [N, C, K, 1] (Yuan et al., "OCR", https://arxiv.org/abs/1909.11065)."""
    weights = F.softmax(scores.flatten(2), axis=2)
    return paddle.matmul(pixels.flatten(2), weights, transpose_y=True).unsqueeze(-1)


class ObjectAttention(nn.Layer):
    """What each pixel [N, in, h, w] takes from the objects [N, in, K, 1], by the likeness of their keys
    -> [N, in, h, w]. `names`: of the two convolutions that make a key."""

    def __init__(self, in_channels: int, key_channels: int, bias: bool = True, names: tuple[str, str] = ("0", "1")):
        super().__init__()
        self.scale = key_channels**-0.5
        self.f_pixel, self.f_object = (
            nn.Sequential(
                (names[0], ConvBNReLU(in_channels, key_channels, 1, bias=bias)),
                (names[1], ConvBNReLU(key_channels, key_channels, 1, bias=bias)),
            )
            for _ in range(2)
        )
        self.f_down = ConvBNReLU(in_channels, key_channels, 1, bias=bias)
        self.f_up = ConvBNReLU(key_channels, in_channels, 1, bias=bias)

    def attended(self, pixels: Tensor, objects: Tensor) -> Tensor:
        """[N, in, h, w]."""
        queries = self.f_pixel(pixels).flatten(2)
        keys, values = self.f_object(objects).flatten(2), self.f_down(objects).flatten(2)
        return self.f_up(to_map(attend(queries, keys, values, self.scale), pixels))

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        return self.attended(pixels, objects)
