"""Segmenter: a Vision Transformer whose patches are compared with learned classes
(Strudel et al., https://arxiv.org/abs/2105.05633)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.transformer import TransformerBlock, to_map, to_tokens, transformer_start
from segkit.registry import MODELS


class _Linear(nn.Layer):
    """Each patch's scores from its own features. [[N, in, h, w]] -> [[N, num_classes, h, w]]."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.head = nn.Linear(in_channels, num_classes)
        transformer_start(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [to_map(self.head(to_tokens(maps[0])), maps[0])]


class _Mask(nn.Layer):
    """Patches and learned class tokens pass a transformer; their cosines are the scores.
    [[N, in, h, w]] -> [[N, num_classes, h, w]]."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        num_classes: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        qkv_bias: bool,
    ):
        super().__init__()
        self.num_classes = num_classes
        start = nn.initializer.TruncatedNormal(std=0.02)
        self.cls_token = self.create_parameter([1, num_classes, width], default_initializer=start)
        self.proj_input = nn.Linear(in_channels, width)
        drops = np.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.LayerList(
            [
                TransformerBlock(width, heads, mlp_ratio, qkv_bias, drop=drop, drop_path=rate, epsilon=1e-5)
                for rate in drops
            ]
        )
        self.proj_patch = nn.Linear(width, width, bias_attr=False)
        self.proj_class = nn.Linear(width, width, bias_attr=False)
        self.decoder_norm = nn.LayerNorm(width)
        self.mask_norm = nn.LayerNorm(num_classes)
        transformer_start(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        tokens = self.proj_input(to_tokens(maps[0]))
        classes = self.cls_token + paddle.zeros_like(tokens[:, :1])
        tokens = paddle.concat([tokens, classes], axis=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.decoder_norm(tokens)
        patches = F.normalize(self.proj_patch(tokens[:, : -self.num_classes]), axis=-1)
        classes = F.normalize(self.proj_class(tokens[:, -self.num_classes :]), axis=-1)
        scores = (patches @ classes.transpose([0, 2, 1])).reshape([0, -1, self.num_classes])
        return [to_map(self.mask_norm(scores), maps[0])]


class _Segmenter(BackboneModel):
    default_backbone = "ViT_base_patch16_384"
    train_outputs = 1

    def __init__(self, backbone: nn.Layer | None, in_channels: int, pretrained: str | None):
        super().__init__(backbone, (-1,), in_channels, align_corners=False, pretrained=pretrained)


@MODELS.register
class LinearSegmenter(_Segmenter):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W: a linear layer on each patch.

    `backbone` None is ViT_base_patch16_384; its last map is used. `pretrained` is a path that the engine loads. Keys
    and outputs are PaddleSeg's.
    """

    def __init__(
        self, num_classes: int, backbone: nn.Layer | None = None, in_channels: int = 3, pretrained: str | None = None
    ):
        super().__init__(backbone, in_channels, pretrained)
        self.head = _Linear(self.map_channels[0], num_classes)


@MODELS.register
class MaskSegmenter(_Segmenter):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W: patches compared with class tokens.

    `h_*` are the head's width, depth, heads, MLP width against its own, dropout, stochastic depth and whether its
    attention has biases. The others are `LinearSegmenter`'s. Keys and outputs are PaddleSeg's.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        h_embed_dim: int = 768,
        h_depth: int = 2,
        h_num_heads: int = 12,
        h_mlp_ratio: float = 4,
        h_drop_rate: float = 0.0,
        h_drop_path_rate: float = 0.0,
        h_qkv_bias: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, in_channels, pretrained)
        self.head = _Mask(
            self.map_channels[0],
            h_embed_dim,
            num_classes,
            h_depth,
            h_num_heads,
            h_mlp_ratio,
            h_drop_rate,
            h_drop_path_rate,
            h_qkv_bias,
        )
