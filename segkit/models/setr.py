"""SETR: a Vision Transformer with one of three decoders (Zheng et al., https://arxiv.org/abs/2012.15840)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, scale_learning_rate
from segkit.models.transformer import normed_map
from segkit.registry import MODELS

WIDTH = 256


def _norms(channels: int, count: int) -> nn.LayerList:
    """One LayerNorm under `count` names: published weights share it."""
    return nn.LayerList([nn.LayerNorm(channels, epsilon=1e-6)] * count)


def _raise(times: int, align_corners: bool = False) -> nn.Upsample:
    return nn.Upsample(scale_factor=times, mode="bilinear", align_corners=align_corners)


class _Deep(nn.Layer):
    """Scores of the last map, in training also those of the first `aux_count`, by one head under `aux_count` names."""

    def __init__(self, channels: int, main: nn.Layer, aux: nn.Layer, aux_count: int):
        super().__init__()
        self.cls_head_norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.cls_head = main
        self.aux_head_norms = _norms(channels, aux_count)
        self.aux_heads = nn.LayerList([aux] * aux_count)
        scale_learning_rate(self, 10.0)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.cls_head(normed_map(self.cls_head_norm, maps[-1]))]
        if self.training:
            auxiliary = zip(self.aux_heads, self.aux_head_norms, maps)
            scores += [head(normed_map(norm, x)) for head, norm, x in auxiliary]
        return scores


def _naive(channels: int, num_classes: int, count: int) -> nn.Layer:
    """1x1 convolutions; all maps but the last for the auxiliary scores."""
    main, aux = (
        nn.Sequential(ConvBNReLU(channels, WIDTH, 1), nn.Conv2D(WIDTH, num_classes, 1)) for _ in ("main", "auxiliary")
    )
    return _Deep(channels, main, aux, count - 1)


def _pup(channels: int, num_classes: int, count: int) -> nn.Layer:
    """Progressive upsampling: 3x3 convolutions, twice the size after each; all maps for the auxiliary scores."""
    layers: list[nn.Layer] = [ConvBNReLU(channels, WIDTH, 3)]
    for _ in range(3):
        layers += [_raise(2), ConvBNReLU(WIDTH, WIDTH, 3)]
    main = nn.Sequential(*layers, nn.Conv2D(WIDTH, num_classes, 1))
    aux = nn.Sequential(ConvBNReLU(channels, WIDTH, 3), _raise(4), nn.Conv2D(WIDTH, num_classes, 1))
    return _Deep(channels, main, aux, count)


class _Aggregation(nn.Layer):
    """Maps of one size, each added to all later ones and convolved. [N, in, h, w] each -> [N, WIDTH, h, w] each."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        self._numbers = range(2, 2 + count)
        for number in self._numbers:
            setattr(self, f"mla_p{number}_1x1", ConvBNReLU(channels, WIDTH, 1))
        for number in self._numbers:
            setattr(self, f"mla_p{number}", ConvBNReLU(WIDTH, WIDTH, 3))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        found, total = [], None
        for number, x in zip(reversed(self._numbers), maps[::-1]):
            own = getattr(self, f"mla_p{number}_1x1")(x)
            total = own if total is None else total + own
            found.append(getattr(self, f"mla_p{number}")(total))
        return found[::-1]


class _MultiLevel(nn.Layer):
    """Multi-level aggregation: all maps together give the scores, in training each also its own."""

    def __init__(self, channels: int, num_classes: int, count: int, hidden: int = 128):
        super().__init__()
        self.norms = _norms(channels, count)
        self.mla = _Aggregation(channels, count)
        self.aux_heads = nn.LayerList([nn.Conv2D(WIDTH, num_classes, 1)] * count)
        convs = nn.Sequential(ConvBNReLU(WIDTH, hidden, 3), ConvBNReLU(hidden, hidden, 3), _raise(4, True))
        self.feat_convs = nn.LayerList([convs] * count)
        self.cls_head = nn.Conv2D(hidden * count, num_classes, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = self.mla([normed_map(norm, x) for norm, x in zip(self.norms, maps)])
        joined = paddle.concat([conv(x) for conv, x in zip(self.feat_convs, maps)], axis=1)
        scores = [self.cls_head(joined)]
        if self.training:
            scores += [head(x) for head, x in zip(self.aux_heads, maps)]
        return scores


_HEADS = {"naive": _naive, "pup": _pup, "mla": _MultiLevel}


@MODELS.register
class SegmentationTransformer(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation, for any H and W; in training also from each of
    `backbone_indices` (with `head` naive from all but the last).

    `backbone` None is ViT_large_patch16_384. `head`: naive, pup (progressive upsampling) or mla (multi-level
    aggregation), whose usual indices are 5, 11, 17, 23. `align_corners` is that of the last interpolation.
    `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "ViT_large_patch16_384"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (9, 14, 19, 23),
        head: str = "naive",
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        if head not in _HEADS:
            raise InputError(f"model.head: unknown (got '{head}', expected one of {', '.join(_HEADS)}).")
        count = len(self.backbone_indices)
        self.head = _HEADS[head](self.map_channels[0], num_classes, count)
        self.train_outputs = count if head == "naive" else count + 1
