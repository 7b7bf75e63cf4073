"""Parts that the transformers share."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models import layers


class DropPath(nn.Layer):
    """Stochastic depth: in training, a residual branch is left out for a share `drop_prob` of the images and scaled
    up for the others (Huang et al., https://arxiv.org/abs/1603.09382). [N, ...] -> the same shape."""

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        kept = paddle.rand([x.shape[0], *[1] * (x.ndim - 1)]) < keep
        return x * kept.astype(x.dtype) / keep


def to_tokens(x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, h w, C]."""
    return x.flatten(2).transpose([0, 2, 1])


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """[N, h w, C] -> [N, C, h, w], the height and width those of `like` [N, *, h, w]."""
    return layers.to_map(tokens.transpose([0, 2, 1]), like)


def normed_map(norm: nn.Layer, x: Tensor) -> Tensor:
    """[N, C, h, w], each cell normalised over its channels by `norm`, a LayerNorm."""
    return to_map(norm(to_tokens(x)), x)


def positions_at(learned: Tensor, side: int, like: Tensor) -> Tensor:
    """Positions learned for a square of `side` cells [1, side^2, C], for those of `like` [N, *, h, w]: [1, h w, C]."""
    square = learned.transpose([0, 2, 1]).reshape([1, -1, side, side])
    return to_tokens(layers.resize_to(square, like, "bicubic"))


def refit_positions(learned: np.ndarray, side: int) -> np.ndarray | None:
    """Positions of a class token and a square of any size, [1, 1 + n^2, C], for a square of `side`; None where
    `learned` is nothing of that kind."""
    cells = learned.shape[1] - 1 if learned.ndim == 3 else -1
    there = math.isqrt(max(cells, 0))
    if cells < 1 or there**2 != cells:
        return None
    tokens = paddle.to_tensor(learned.astype("float32"))
    like = paddle.zeros([1, 1, side, side])
    return paddle.concat([tokens[:, :1], positions_at(tokens[:, 1:], there, like)], axis=1).numpy()


class Attention(nn.Layer):
    """Multi-head self-attention of tokens (Vaswani et al., https://arxiv.org/abs/1706.03762). [N, L, C] -> [N, L, C].

    `scale` multiplies the products, None being the head's width to the power of -1/2; `drop` is dropout at the end.
    `bias` is added to the products, [heads, L, L] or [N, 1 or heads, L, L].
    """

    def __init__(self, channels: int, heads: int, qkv_bias: bool, scale: float | None = None, drop: float = 0.0):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(channels, 3 * channels, bias_attr=None if qkv_bias else False)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop)

    def projected(self, x: Tensor) -> Tensor:
        """Queries, keys and values beside each other: [N, L, C] -> [N, L, 3 C]."""
        return self.qkv(x)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        channels = x.shape[2]
        qkv = self.projected(x).reshape([0, -1, 3, self.heads, channels // self.heads]).transpose([2, 0, 3, 1, 4])
        query, key, value = qkv[0], qkv[1], qkv[2]
        products = query @ key.transpose([0, 1, 3, 2]) * self.scale
        weights = F.softmax(products if bias is None else products + bias, axis=-1)
        found = (weights @ value).transpose([0, 2, 1, 3]).reshape([0, -1, channels])
        return self.proj_drop(self.proj(found))


class Mlp(nn.Layer):
    """Two linear layers with GELU between. [N, L, C] -> [N, L, C]."""

    def __init__(self, channels: int, hidden: int, drop: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class _Depthwise(nn.Layer):
    """3x3 convolution of each channel by itself. [N, L, C] of a map like `like` -> [N, L, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2D(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return to_tokens(self.dwconv(to_map(x, like)))


class MapMlp(nn.Layer):
    """[N, L, C] of a map like `like` -> [N, L, C]; its convolution tells where a pixel stands (Xie et al., "SegFormer",
    https://arxiv.org/abs/2105.15203)."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = _Depthwise(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), like)))


class TransformerBlock(nn.Layer):
    """Attention and MLP, each normalised first and beside a shortcut. [N, L, C] -> [N, L, C].

    `drop_path` is stochastic depth; the others are those of `Attention`, `Mlp` and LayerNorm. `bias` goes to the
    attention, a layer of the class `attention`.
    """

    attention: type[Attention] = Attention

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop: float = 0.0,
        drop_path: float = 0.0,
        epsilon: float = 1e-6,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, epsilon=epsilon)
        self.attn = self.attention(channels, heads, qkv_bias, scale, drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels, epsilon=epsilon)
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ScaledBlock(TransformerBlock):
    """`TransformerBlock` whose two branches are scaled channel by channel, by learned numbers, once `add_scales` made
    them (Touvron et al., "CaiT", https://arxiv.org/abs/2103.17239)."""

    _scales: tuple[str, ...] = ()

    def add_scales(self, start: float, names: tuple[str, str]) -> ScaledBlock:
        """Make the numbers, `start` at first, under the keys `names`; gives the block itself."""
        self._scales = names
        for name in names:
            fill = nn.initializer.Constant(start)
            self.add_parameter(name, self.create_parameter(self.norm1.weight.shape, default_initializer=fill))
        return self

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self._scales:
            return super().forward(x, bias)
        first, second = (getattr(self, name) for name in self._scales)
        x = x + self.drop_path(first * self.attn(self.norm1(x), bias))
        return x + self.drop_path(second * self.mlp(self.norm2(x)))


def draw_linears(model: nn.Layer) -> None:
    """Draw every Linear's weight anew from a normal distribution of 0.02 cut at 2."""
    draw = nn.initializer.TruncatedNormal(std=0.02)
    for layer in model.sublayers():
        if isinstance(layer, nn.Linear):
            draw(layer.weight)


def transformer_start(model: nn.Layer) -> None:
    """Linear layers' weights from a normal distribution of 0.02 cut at 2, convolutions' by fan_out; biases 0."""
    draw_linears(model)
    zero = nn.initializer.Constant(0.0)
    for layer in model.sublayers():
        if isinstance(layer, (nn.Linear, nn.Conv2D)) and layer.bias is not None:
            zero(layer.bias)
    layers.fan_out_normal(model)
