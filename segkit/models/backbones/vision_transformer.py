"""Vision Transformer: an image as a line of patches (Dosovitskiy et al., https://arxiv.org/abs/2010.11929)."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn

from segkit.models.layers import fill_to
from segkit.models.transformer import TransformerBlock, positions_at, refit_positions, to_map, to_tokens
from segkit.registry import BACKBONES


class _Patches(nn.Layer):
    """[N, in, H, W] -> [N, out, H // size, W // size], one cell for a smaller image."""

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__()
        self.size = size
        self.proj = nn.Conv2D(in_channels, out_channels, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(fill_to(x, self.size))


class PatchTokens(nn.Layer):
    """What plain transformers begin with: patches of `patch_size` pixels a side as tokens, each with its position, a
    class token before them. `img_size` is the side in pixels for which the positions are learned; for other sizes
    they are interpolated. `drop_rate` is dropout."""

    def __init__(self, img_size: int, patch_size: int, in_channels: int, embed_dim: int, drop_rate: float):
        super().__init__()
        self.side = img_size // patch_size
        start = nn.initializer.TruncatedNormal(std=0.02)
        self.patch_embed = _Patches(in_channels, embed_dim, patch_size)
        self.pos_embed = self.create_parameter([1, self.side**2 + 1, embed_dim], default_initializer=start)
        zero = nn.initializer.Constant(0.0)
        self.cls_token = self.create_parameter([1, 1, embed_dim], default_initializer=zero)
        self.pos_drop = nn.Dropout(drop_rate)

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in, H, W] -> [N, 1 + h w, embed_dim], and a map [N, embed_dim, h, w] of the patches' size."""
        like = self.patch_embed(x)
        x = to_tokens(like) + positions_at(self.pos_embed[:, 1:], self.side, like)
        first = (self.cls_token + self.pos_embed[:, :1]) + paddle.zeros_like(x[:, :1])
        return self.pos_drop(paddle.concat([first, x], axis=1)), like

    def refit(self, name: str, array: np.ndarray) -> np.ndarray | None:
        """Positions that were learned for another size, for this one (see `load_weights`)."""
        return refit_positions(array, self.side) if name == "pos_embed" else None


@BACKBONES.register
class VisionTransformer(PatchTokens):
    """[N, in_channels, H, W] -> a map [N, embed_dim, H // patch_size, W // patch_size] of each of `depth` blocks.

    `img_size` is the side in pixels for which the positions are learned; for other sizes they are interpolated.
    `qk_scale` multiplies the attention's products; `drop_rate` is dropout, `drop_path_rate` stochastic depth of the
    last block, growing from 0; `epsilon` is LayerNorm's. `final_norm` normalises the last map. `pretrained` is a path
    that the engine loads.
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
        epsilon: float = 1e-5,
        final_norm: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__(img_size, patch_size, in_channels, embed_dim, drop_rate)
        drops = np.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.LayerList(
            [
                TransformerBlock(embed_dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop_rate, drop, epsilon)
                for drop in drops
            ]
        )
        self.norm = nn.LayerNorm(embed_dim, epsilon=epsilon) if final_norm else None
        self.feat_channels = [embed_dim] * depth
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        x, like = self.tokens(x)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.norm is not None and index == len(self.blocks) - 1:
                x = self.norm(x)
            maps.append(to_map(x[:, 1:], like))
        return maps


class _Variant(VisionTransformer):
    """`VisionTransformer` of a published layout; `final_norm` normalises the last map."""

    img_size, embed_dim, depth, num_heads = 224, 768, 12, 12

    def __init__(
        self,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__(
            img_size=self.img_size,
            in_channels=in_channels,
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            qkv_bias=True,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            epsilon=1e-6,
            final_norm=final_norm,
            pretrained=pretrained,
        )


@BACKBONES.register
class ViT_base_patch16_224(_Variant):
    pass


@BACKBONES.register
class ViT_base_patch16_384(_Variant):
    img_size = 384


@BACKBONES.register
class ViT_large_patch16_224(_Variant):
    embed_dim, depth, num_heads = 1024, 24, 16


@BACKBONES.register
class ViT_large_patch16_384(_Variant):
    img_size, embed_dim, depth, num_heads = 384, 1024, 24, 16
