"""CAE: the Vision Transformer of the Context Autoencoder (Chen et al., https://arxiv.org/abs/2202.03026), whose
attention knows how far apart two patches are."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backbones.vision_transformer import PatchTokens
from segkit.models.layers import sides
from segkit.models.transformer import Attention, ScaledBlock, to_map
from segkit.registry import BACKBONES

_CLASS = 3  # a table's last entries, for pairs with the class token: from it, to it, with itself


def _pairs(height: int | Tensor, width: int | Tensor) -> Tensor:
    """int64 [1 + h w, 1 + h w]: the entry of each pair of tokens in a table of the (2 h - 1) (2 w - 1) offsets
    between two patches, row by row, and the class token's three."""

    def offsets(length: int | Tensor) -> Tensor:
        place = paddle.arange(length).astype("int64")
        return place.unsqueeze(1) - place + (length - 1)

    down, right = offsets(height).unsqueeze(1).unsqueeze(3), offsets(width).unsqueeze(0).unsqueeze(2)
    patches = (down * (2 * width - 1) + right).reshape([height * width, height * width])
    last = (2 * height - 1) * (2 * width - 1)
    rows = paddle.concat([paddle.zeros_like(patches[:1]) + last, patches])
    to_class = paddle.zeros_like(rows[:, :1]) + (last + 1)
    return paddle.concat([paddle.concat([to_class[:1] + 1, to_class[1:]]), rows], axis=1)


def _entries(table: Tensor, side: int, size: tuple[int | Tensor, int | Tensor]) -> Tensor:
    """A table [(2 side - 1)^2 + 3, heads], learned for a square of `side` patches, for a map of `size` (h, w):
    [heads, (2 h - 1) (2 w - 1) + 3]."""
    by_head, (height, width) = table.transpose([1, 0]), size
    square = by_head[:, :-_CLASS].reshape([1, -1, 2 * side - 1, 2 * side - 1])
    offsets = F.interpolate(square, size=[2 * height - 1, 2 * width - 1], mode="bilinear").flatten(2).squeeze(0)
    return paddle.concat([offsets, by_head[:, -_CLASS:]], axis=1)


class _Attention(Attention):
    """`Attention` with biases for queries and values alone."""

    def __init__(self, channels: int, heads: int, qkv_bias: bool, scale: float | None, drop: float):
        super().__init__(channels, heads, qkv_bias=False, scale=scale, drop=drop)
        zero = nn.initializer.Constant(0.0)
        self.q_bias, self.v_bias = (
            self.create_parameter([channels], default_initializer=zero) if qkv_bias else None for _ in "qv"
        )

    def add_positions(self, side: int) -> None:
        """Learn a number for each head and each offset between two patches of a square of `side`."""
        self.side = side
        zero = nn.initializer.Constant(0.0)
        entries = (2 * side - 1) ** 2 + _CLASS
        self.relative_position_bias_table = self.create_parameter([entries, self.heads], default_initializer=zero)
        self.register_buffer("relative_position_index", _pairs(side, side))  # published weights hold it

    def positions(self, like: Tensor, pairs: Tensor) -> Tensor:
        """Those numbers for all `pairs` of tokens of a map [N, *, h, w]: [heads, 1 + h w, 1 + h w]. For another size
        than the learned one they are interpolated, as the patches' own positions are."""
        entries = _entries(self.relative_position_bias_table, self.side, sides(like))
        return entries.index_select(pairs.flatten(), axis=1).reshape([self.heads, *paddle.shape(pairs)])

    def refit(self, name: str, array: np.ndarray) -> np.ndarray | None:
        """A table that was learned for another size, for this one (see `load_weights`)."""
        if name == "relative_position_index":
            return self.relative_position_index.numpy()
        rows = array.shape[0] if array.ndim == 2 else 0
        side = (math.isqrt(max(rows - _CLASS, 0)) + 1) // 2
        if name != "relative_position_bias_table" or array.shape != ((2 * side - 1) ** 2 + _CLASS, self.heads):
            return None
        table = paddle.to_tensor(array.astype("float32"))
        return _entries(table, side, (self.side, self.side)).transpose([1, 0]).numpy()

    def projected(self, x: Tensor) -> Tensor:
        if self.q_bias is None:
            return self.qkv(x)
        return F.linear(x, self.qkv.weight, paddle.concat([self.q_bias, paddle.zeros_like(self.q_bias), self.v_bias]))


class _Block(ScaledBlock):
    """`ScaledBlock` with `_Attention`; the first LayerNorm's epsilon is fixed."""

    attention = _Attention

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        scale: float | None,
        drop: float,
        drop_path: float,
        epsilon: float,
    ):
        super().__init__(channels, heads, mlp_ratio, qkv_bias, scale, drop, drop_path, epsilon)
        self.norm1 = nn.LayerNorm(channels, epsilon=1e-6)


@BACKBONES.register
class CAE(PatchTokens):
    """[N, in_channels, H, W] -> a map [N, embed_dim, H // patch_size, W // patch_size] of each of `depth` blocks.

    `img_size` is the side in pixels for which positions are learned; for other sizes they are interpolated, where
    PaddleSeg takes no other. `use_rel_pos_bias`: learn a number for every offset between two patches; `init_values`:
    the scale at first of what a block adds, None for no scales. `qk_scale` multiplies the attention's products;
    `drop_rate` is dropout, `drop_path_rate` stochastic depth of the last block, growing from 0; `epsilon` is that of
    each block's second LayerNorm. `pretrained` is a path that the engine loads. Keys are PaddleSeg's.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        init_values: float | None = None,
        use_rel_pos_bias: bool = False,
        epsilon: float = 1e-5,
        pretrained: str | None = None,
    ):
        super().__init__(img_size, patch_size, in_channels, embed_dim, drop_rate)
        layout = (embed_dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop_rate)
        drops = np.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.LayerList([_Block(*layout, drop, epsilon) for drop in drops])
        for block in self.blocks:
            if init_values is not None:
                block.add_scales(init_values, ("gamma_1", "gamma_2"))
            if use_rel_pos_bias:
                block.attn.add_positions(self.side)
        self.use_rel_pos_bias = use_rel_pos_bias
        self.feat_channels = [embed_dim] * depth
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        x, like = self.tokens(x)
        pairs = _pairs(*sides(like)) if self.use_rel_pos_bias else None
        maps = []
        for block in self.blocks:
            x = block(x, None if pairs is None else block.attn.positions(like, pairs))
            maps.append(to_map(x[:, 1:], like))
        return maps


@BACKBONES.register
class CAE_base_patch16_224(CAE):
    """`CAE` as published. PaddleSeg, too, has the name, and fails to build it."""

    def __init__(self, drop_path_rate: float = 0.1, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(
            in_channels=in_channels,
            qkv_bias=True,
            drop_path_rate=drop_path_rate,
            init_values=0.1,
            use_rel_pos_bias=True,
            pretrained=pretrained,
        )
