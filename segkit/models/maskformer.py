"""MaskFormer: a set of masks, each with its class, instead of a class for each pixel (Cheng et al.,
https://arxiv.org/abs/2107.06278)."""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import resize_to, sides, to_map
from segkit.models.transformer import to_tokens
from segkit.registry import MODELS

_WIDTH, _QUERIES, _HEADS, _HIDDEN, _DROPOUT = 256, 100, 8, 2048, 0.1


class _ConvNorm(nn.Layer):
    """Convolution and GroupNorm, then ReLU with `act`. [N, in, h, w] -> [N, _WIDTH, h, w]."""

    def __init__(self, in_channels: int, kernel_size: int, act: bool):
        super().__init__()
        self._conv = nn.Conv2D(in_channels, _WIDTH, kernel_size, padding=kernel_size // 2, bias_attr=False)
        self._norm = nn.GroupNorm(32, _WIDTH)
        self._act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self._norm(self._conv(x))
        return F.relu(x) if self._act else x


class _PixelDecoder(nn.Layer):
    """Four maps, the finest first -> features of the finest's pixels [N, _WIDTH, h, w]."""

    def __init__(self, widths: list[int]):
        super().__init__()
        coarse, *finer = widths[::-1]
        self.lateral_convs = nn.LayerList([nn.Identity(), *(_ConvNorm(width, 1, act=False) for width in finer)])
        self.output_convs = nn.LayerList([_ConvNorm(width, 3, act=True) for width in (coarse, *[_WIDTH] * len(finer))])
        self.mask_features = nn.Sequential(("_conv", nn.Conv2D(_WIDTH, _WIDTH, 3, padding=1)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        merged = None
        for x, lateral, out in zip(maps[::-1], self.lateral_convs, self.output_convs):
            x = lateral(x)
            merged = out(x if merged is None else x + resize_to(merged, x, "nearest"))
        return self.mask_features(merged)


def _sines(like: Tensor) -> Tensor:
    """Where each cell of [N, *, h, w] is, as sines and cosines of its row and of its column: [1, h w, _WIDTH]."""
    half = _WIDTH // 2
    periods = 10000.0 ** (paddle.arange(0, half, 2).astype("float32") / half)

    def waves(length: int | Tensor) -> Tensor:
        place = paddle.arange(1, length + 1).astype("float32") / (length + 1e-6) * (2 * math.pi)
        angles = place.unsqueeze(-1) / periods
        return paddle.stack([paddle.sin(angles), paddle.cos(angles)], axis=-1).flatten(1)

    height, width = sides(like)
    rows, columns = waves(height).unsqueeze(1), waves(width).unsqueeze(0)
    whole = [rows + paddle.zeros_like(columns), columns + paddle.zeros_like(rows)]
    return paddle.concat(whole, axis=-1).flatten(0, 1).unsqueeze(0)


class _DecoderLayer(nn.Layer):
    """Queries [N, Q, C] attend to each other, then to the cells [N, L, C]; both are told their `places`."""

    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiHeadAttention(_WIDTH, _HEADS, _DROPOUT)
        self.multihead_attn = nn.MultiHeadAttention(_WIDTH, _HEADS, _DROPOUT)
        self.linear1, self.linear2 = nn.Linear(_WIDTH, _HIDDEN), nn.Linear(_HIDDEN, _WIDTH)
        self.dropout = nn.Dropout(_DROPOUT)
        for number in range(1, 4):
            setattr(self, f"norm{number}", nn.LayerNorm(_WIDTH))
            setattr(self, f"dropout{number}", nn.Dropout(_DROPOUT))

    def forward(self, queries: Tensor, cells: Tensor, query_places: Tensor, cell_places: Tensor) -> Tensor:
        placed = queries + query_places
        queries = self.norm1(queries + self.dropout1(self.self_attn(placed, placed, queries)))
        found = self.multihead_attn(queries + query_places, cells + cell_places, cells)
        queries = self.norm2(queries + self.dropout2(found))
        hidden = self.dropout(F.relu(self.linear1(queries)))
        return self.norm3(queries + self.dropout3(self.linear2(hidden)))


class _Decoder(nn.Layer):
    """Queries after each layer, normalised: a list of [N, Q, C]."""

    def __init__(self, depth: int):
        super().__init__()
        self.decoder_list = nn.LayerList([_DecoderLayer() for _ in range(depth)])
        self.norm = nn.LayerNorm(_WIDTH)

    def forward(self, cells: Tensor, query_places: Tensor, cell_places: Tensor) -> list[Tensor]:
        queries = paddle.zeros_like(cells[:, :1]) + paddle.zeros_like(query_places)
        found = []
        for layer in self.decoder_list:
            queries = layer(queries, cells, query_places, cell_places)
            found.append(self.norm(queries))
        return found


class _Mlp(nn.Layer):
    """[N, Q, C] -> [N, Q, C]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.LayerList([nn.Linear(_WIDTH, _WIDTH) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class _Predictor(nn.Layer):
    """`masks`: of the coarsest map and the pixels' features, after each layer of the decoder: the scores of every
    query's class [N, Q, num_classes + 1], the last being nothing, and its mask [N, Q, h, w]."""

    def __init__(self, num_classes: int, in_channels: int, depth: int):
        super().__init__()
        self.transformer = nn.Sequential(("decoder", _Decoder(depth)))
        self.query_embed = nn.Embedding(_QUERIES, _WIDTH)
        nn.initializer.Normal()(self.query_embed.weight)
        self.input_proj = nn.Conv2D(in_channels, _WIDTH, 1) if in_channels != _WIDTH else nn.Identity()
        self.class_embed = nn.Linear(_WIDTH, num_classes + 1)
        self.mask_embed = _Mlp()

    def masks(self, coarse: Tensor, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        cells = to_tokens(self.input_proj(coarse))
        found = self.transformer.decoder(cells, self.query_embed.weight.unsqueeze(0), _sines(coarse))
        pixels = features.flatten(2)
        kept = found if self.training else found[-1:]
        return [
            (self.class_embed(queries), to_map(paddle.matmul(self.mask_embed(queries), pixels), features))
            for queries in kept
        ]


class _Head(nn.Layer):
    def __init__(self, num_classes: int, widths: list[int], depth: int):
        super().__init__()
        self.pixel_decoder = _PixelDecoder(widths)
        self.predictor = _Predictor(num_classes, widths[-1], depth)

    def masks(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """See `_Predictor`."""
        return self.predictor.masks(maps[-1], self.pixel_decoder(maps))


@MODELS.register
class MaskFormer(BackboneModel):
    """[N, in_channels, H, W] -> in evaluation [[N, num_classes, H, W]]: for each class, how many masks hold the pixel,
    each counted by its certainty; a class's share of them all is its probability.

    In training [{pred_logits: [N, 100, num_classes + 1], pred_masks: [N, 100, H/4, W/4], aux_outputs: the same of
    the earlier layers}], which MaskFormerLoss compares with the label. `decoder_layers`: how often the queries look
    at the map. Keys and outputs are PaddleSeg's. Its start is not: there, GroupNorms scale by random numbers around
    0, and all layers of the decoder start alike.
    """

    default_backbone = "SwinTransformer_tiny_patch4_window7_224_maskformer"
    map_count = 4
    train_outputs = 1
    scores_are = "probabilities"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        decoder_layers: int = 6,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, range(4), in_channels, align_corners=False, pretrained=pretrained)
        self.seghead = _Head(num_classes, self.map_channels, decoder_layers)

    def forward(self, x: Tensor) -> list:
        found = self.seghead.masks(self.maps(x))
        if self.training:
            *earlier, last = [{"pred_logits": classes, "pred_masks": masks} for classes, masks in found]
            return [{**last, "aux_outputs": earlier}]
        classes, masks = found[-1]
        classes = F.softmax(classes, axis=-1)[..., :-1]
        masks = F.sigmoid(resize_to(masks, x))
        return [to_map(paddle.matmul(classes, masks.flatten(2), transpose_x=True), x)]
