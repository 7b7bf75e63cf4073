"""ANN: non-local attention to a pyramid of pooled pixels instead of to all
(Zhu et al., https://arxiv.org/abs/1908.07678)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.attention import attend
from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBN, ConvBNReLU, to_map
from segkit.registry import MODELS


class _Attention(nn.Layer):
    """What each pixel of `queries` [N, high, h, w] takes from the pooled pixels of `source` [N, low, ., .]
    -> [N, high, h, w]. `tied`: one projection serves as key and query."""

    def __init__(self, low: int, high: int, channels: int, sizes: Sequence[int], tied: bool):
        super().__init__()
        self.scale = channels**-0.5
        self.f_key = ConvBNReLU(low, channels, 1)
        self.f_query = self.f_key if tied else ConvBNReLU(high, channels, 1)
        self.f_value = nn.Conv2D(low, channels, 1)
        self.W = nn.Conv2D(channels, high, 1)
        self.pools = nn.LayerList([nn.AdaptiveAvgPool2D(size) for size in sizes])

    def _pooled(self, x: Tensor) -> Tensor:
        return paddle.concat([pool(x).flatten(2) for pool in self.pools], axis=-1)

    def forward(self, source: Tensor, queries: Tensor) -> Tensor:
        keys, values = self._pooled(self.f_key(source)), self._pooled(self.f_value(source))
        found = attend(self.f_query(queries).flatten(2), keys, values, self.scale)
        return self.W(to_map(found, queries))


class _Block(nn.Layer):
    """A map beside what it takes from `source`, joined to as many channels as it had."""

    def __init__(self, low: int, high: int, channels: int, sizes: Sequence[int], tied: bool):
        super().__init__()
        self.stages = nn.LayerList([_Attention(low, high, channels, sizes, tied)])
        self.conv_bn = (ConvBNReLU if tied else ConvBN)(2 * high, high, 1)
        self.dropout = nn.Dropout(0.05)

    def forward(self, source: Tensor, x: Tensor) -> Tensor:
        return self.dropout(self.conv_bn(paddle.concat([self.stages[0](source, x), x], axis=1)))


class _SelfBlock(_Block):
    def __init__(self, channels: int, key_channels: int, sizes: Sequence[int]):
        super().__init__(channels, channels, key_channels, sizes, tied=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x)


class _Head(nn.Layer):
    def __init__(
        self,
        num_classes: int,
        channels: list[int],
        key_channels: int,
        inter_channels: int,
        sizes: Sequence[int],
        auxiliary: bool,
    ):
        super().__init__()
        low, high = channels
        self.fusion = _Block(low, high, key_channels, sizes, tied=False)
        self.context = nn.Sequential(
            ConvBNReLU(high, inter_channels, 3), _SelfBlock(inter_channels, key_channels, sizes)
        )
        self.cls = nn.Conv2D(inter_channels, num_classes, 1)
        self.auxlayer = AuxHead(low, low // 2, num_classes, dropout=0.05) if auxiliary else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.cls(self.context(self.fusion(*maps)))]
        if self.auxlayer is not None and self.training:
            scores.append(self.auxlayer(maps[0]))
        return scores


@MODELS.register
class ANN(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `psp_size`: cells along each side of the grids that the attended pixels are pooled to. Keys and outputs are
    PaddleSeg's.
    """

    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        key_value_channels: int = 256,
        inter_channels: int = 512,
        psp_size: Sequence[int] = (1, 3, 6, 8),
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(
            num_classes, self.map_channels, key_value_channels, inter_channels, psp_size, enable_auxiliary_loss
        )
