"""ViT-Adapter: a plain Vision Transformer beside a pyramid of convolutions, which exchange what they see (Chen et al.,
https://arxiv.org/abs/2205.08534)."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.deformable import DeformableAttention, cell_centres
from segkit.models.layers import fan_out_normal, fill_up, resize_to, sides
from segkit.models.transformer import (
    DropPath,
    MapMlp,
    ScaledBlock,
    draw_linears,
    positions_at,
    refit_positions,
    to_map,
    to_tokens,
)
from segkit.registry import BACKBONES

_LEVELS = 3  # maps at 1/8, 1/16 and 1/32 take part in the exchange


def _conv(in_channels: int, out_channels: int, stride: int) -> list[nn.Layer]:
    conv = nn.Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias_attr=False)
    return [conv, nn.BatchNorm2D(out_channels), nn.ReLU()]


class _SpatialPrior(nn.Layer):
    """[N, in, H, W] -> maps of `channels` at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, in_channels: int, width: int, channels: int):
        super().__init__()
        stem = [*_conv(in_channels, width, 2), *_conv(width, width, 1), *_conv(width, width, 1)]
        self.stem = nn.Sequential(*stem, nn.MaxPool2D(3, stride=2, padding=1))
        widths = [width, 2 * width, 4 * width, 4 * width]
        for number, (before, after) in enumerate(zip(widths, widths[1:]), 2):
            setattr(self, f"conv{number}", nn.Sequential(*_conv(before, after, 2)))
        for number, before in enumerate(widths, 1):
            setattr(self, f"fc{number}", nn.Conv2D(before, channels, 1))
        fan_out_normal(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = [self.fc1(x)]
        for number in range(2, 5):
            x = getattr(self, f"conv{number}")(x)
            maps.append(getattr(self, f"fc{number}")(x))
        return maps


class _Look(nn.Layer):
    """What queries [N, L, C] find in maps, both normalised first: [N, L, C]."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, ratio: float):
        super().__init__()
        self.query_norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.feat_norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.attn = DeformableAttention(channels, heads, levels, points, ratio)

    def found(self, queries: Tensor, where: Tensor, tokens: list[Tensor], likes: list[Tensor]) -> Tensor:
        """`where`: a map of the queries' size; `tokens` and `likes`: the maps that are looked at."""
        seen = [self.feat_norm(x) for x in tokens]
        return self.attn(self.query_norm(queries), cell_centres(where), seen, likes)


class _Injector(_Look):
    """The transformer's tokens [N, L, C] with what they find in the pyramid, scaled channel by channel."""

    def __init__(self, channels: int, heads: int, points: int, ratio: float, start: float):
        super().__init__(channels, heads, _LEVELS, points, ratio)
        self.gamma = self.create_parameter([channels], default_initializer=nn.initializer.Constant(start))

    def forward(self, x: Tensor, like: Tensor, pyramid: list[Tensor], likes: list[Tensor]) -> Tensor:
        return x + self.gamma * self.found(x, like, pyramid, likes)


class _Extractor(_Look):
    """The pyramid's maps, each [N, L, C], with what they find in the transformer's tokens, then an MLP."""

    def __init__(self, channels: int, heads: int, points: int, ratio: float, mlp_ratio: float, drop_path: float):
        super().__init__(channels, heads, 1, points, ratio)
        self.ffn = MapMlp(channels, int(channels * mlp_ratio))
        self.ffn_norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.drop_path = DropPath(drop_path)
        draw_linears(self.ffn)
        fan_out_normal(self.ffn)

    def forward(self, pyramid: list[Tensor], likes: list[Tensor], x: Tensor, like: Tensor) -> list[Tensor]:
        kept = self.drop_path(paddle.ones_like(x[:, :1, :1]))  # one draw for all maps of an image
        found = []
        for level, size in zip(pyramid, likes):
            level = level + self.found(level, size, [x], [like])
            found.append(level + kept * self.ffn(self.ffn_norm(level), size))
        return found


class _Interaction(nn.Layer):
    """The pyramid speaks to the transformer, some blocks of it follow, and it answers, last of all three times."""

    def __init__(self, injector: _Injector, extractors: list[_Extractor]):
        super().__init__()
        self.injector = injector
        self.extractor, *extra = extractors
        self.extra_extractors = nn.Sequential(*extra)

    def forward(
        self, x: Tensor, like: Tensor, pyramid: list[Tensor], likes: list[Tensor], blocks: list[nn.Layer]
    ) -> tuple[Tensor, list[Tensor]]:
        x = self.injector(x, like, pyramid, likes)
        for block in blocks:
            x = block(x)
        for extractor in (self.extractor, *self.extra_extractors):
            pyramid = extractor(pyramid, likes, x, like)
        return x, pyramid


@BACKBONES.register
class ViTAdapter(nn.Layer):
    """[N, in_channels, H, W] -> four maps of `embed_dim` channels at 1/4, 1/8, 1/16 and 1/32.

    `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, `drop_rate` and `drop_path_rate` (of the last block, growing from
    0) are the transformer's, whose patches are 16 pixels a side; `pretrain_size` is the photo's side in pixels for
    which its positions are learned. `conv_inplane`: channels of the convolutions' first map. `interaction_indexes`:
    the first and the last block of each of the four parts, around which pyramid and transformer tell each other what
    they see, by attention of `deform_num_heads` heads to `n_points` points, its values `deform_ratio` times as wide
    as the maps; `cffn_ratio`: width of the MLP after it; `init_values`: scale at first of what the transformer takes.
    `pretrained` is a file of the transformer's classification weights that the engine loads.

    Keys are PaddleSeg's, which needs an operation compiled for a GPU, and sides that are multiples of 32. The points
    start elsewhere; see `DeformableAttention`.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        pretrain_size: int = 224,
        conv_inplane: int = 64,
        n_points: int = 4,
        deform_num_heads: int = 6,
        deform_ratio: float = 1.0,
        cffn_ratio: float = 0.25,
        init_values: float = 0.0,
        interaction_indexes: Sequence[Sequence[int]] = ((0, 2), (3, 5), (6, 8), (9, 11)),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        self.parts = _checked(interaction_indexes, depth)
        self.side = pretrain_size // 16
        zero = nn.initializer.Constant(0.0)
        self.patch_embed = nn.Sequential(("proj", nn.Conv2D(in_channels, embed_dim, 16, stride=16)))
        # The first is for a class token, which published weights hold and nothing here uses.
        self.pos_embed = self.create_parameter([1, self.side**2 + 1, embed_dim], default_initializer=zero)
        self.pos_drop = nn.Dropout(drop_rate)
        drops = np.linspace(0, drop_path_rate, depth).tolist()
        blocks = [ScaledBlock(embed_dim, num_heads, mlp_ratio, drop=drop_rate, drop_path=drop) for drop in drops]
        self.blocks = nn.LayerList([block.add_scales(1.0, ("gamma1", "gamma2")) for block in blocks])
        normal = nn.initializer.Normal()
        self.level_embed = self.create_parameter([_LEVELS, embed_dim], default_initializer=normal)
        self.spm = _SpatialPrior(in_channels, conv_inplane, embed_dim)
        look = (embed_dim, deform_num_heads, n_points, deform_ratio)
        self.interactions = nn.LayerList()
        for extractors in (1, 1, 1, 3):
            answers = [_Extractor(*look, cffn_ratio, drop_path_rate) for _ in range(extractors)]
            self.interactions.append(_Interaction(_Injector(*look, init_values), answers))
        self.up = nn.Conv2DTranspose(embed_dim, embed_dim, 2, stride=2)
        nn.initializer.Normal(std=math.sqrt(2 / (4 * embed_dim)))(self.up.weight)
        for number in range(1, 5):
            setattr(self, f"norm{number}", nn.BatchNorm2D(embed_dim))
        self.feat_channels = [embed_dim] * 4
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        finest, *likes = self.spm(x)
        pyramid = [to_tokens(level) + self.level_embed[index] for index, level in enumerate(likes)]
        like = self.patch_embed(fill_up(x, 16))
        x = self.pos_drop(to_tokens(like) + positions_at(self.pos_embed[:, 1:], self.side, like))
        plain = []
        for (first, last), interaction in zip(self.parts, self.interactions):
            x, pyramid = interaction(x, like, pyramid, likes, self.blocks[first : last + 1])
            plain.append(to_map(x, like))
        maps = [to_map(tokens, level) for tokens, level in zip(pyramid, likes)]
        height, width = sides(finest)
        maps.insert(0, self.up(maps[0])[:, :, :height, :width] + finest)
        both = [level + resize_to(other, level) for level, other in zip(maps, plain)]
        return [getattr(self, f"norm{number}")(level) for number, level in enumerate(both, 1)]

    def refit(self, name: str, array: np.ndarray) -> np.ndarray | None:
        """Positions that were learned for another size, for this one (see `load_weights`)."""
        return refit_positions(array, self.side) if name == "pos_embed" else None


def _checked(parts: Sequence[Sequence[int]], depth: int) -> list[tuple[int, int]]:
    if len(parts) != 4 or not all(len(part) == 2 and 0 <= part[0] <= part[1] < depth for part in parts):
        raise InputError(
            f"backbone.interaction_indexes: not four parts of the transformer (got {[list(part) for part in parts]}, "
            f"expected the first and the last block of each, from 0 to {depth - 1}). Correct them, or depth."
        )
    return [(first, last) for first, last in parts]


@BACKBONES.register
class ViTAdapter_Tiny(ViTAdapter):
    """`ViTAdapter` of DeiT's smallest transformer."""

    def __init__(self, drop_rate: float = 0.0, in_channels: int = 3, pretrained: str | None = None):
        layout = {"embed_dim": 192, "num_heads": 3, "drop_path_rate": 0.1}
        super().__init__(**layout, drop_rate=drop_rate, in_channels=in_channels, pretrained=pretrained)
