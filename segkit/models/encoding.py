"""Context encoding: a map described by its residuals to learned codewords, which weigh its channels
(Zhang et al., https://arxiv.org/abs/1803.08904)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBNReLU, resize_to


class _Codewords(nn.Layer):
    """[N, C, h, w] -> [N, count, C]: for each codeword the sum of the pixels' differences from it, weighted by how
    near it is to them against the others."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        reach = (channels * count) ** -0.5
        uniform = nn.initializer.Uniform
        self.codewords = self.create_parameter([count, channels], default_initializer=uniform(-reach, reach))
        self.scale = self.create_parameter([count], default_initializer=uniform(-1.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose([0, 2, 1])
        square = (pixels**2).sum(axis=2, keepdim=True) + (self.codewords**2).sum(axis=1)
        distance = square - 2 * paddle.matmul(pixels, self.codewords, transpose_y=True)
        shares = F.softmax(self.scale * distance, axis=2)
        total = paddle.matmul(shares, pixels, transpose_x=True)
        return total - shares.sum(axis=1).unsqueeze(2) * self.codewords


class ContextEncoding(nn.Layer):
    """[N, C, h, w] -> the mean code [N, C] and the map, its channels weighted by it."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.encoding_project = ConvBNReLU(channels, channels, 1)
        self.encoding = nn.Sequential(_Codewords(channels, count), nn.BatchNorm1D(count), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoding(self.encoding_project(x)).mean(axis=1)
        return code, F.relu(x + x * self.fc(code).unsqueeze(-1).unsqueeze(-1))


class EncodingModel(BackboneModel):
    """What ENCNet and FastFCN share: context encoding of a bottleneck, an auxiliary head on the last but one map,
    and, with `use_se_loss`, which classes are in the image, from the code alone.

    Training: main, auxiliary, and the image's class scores [N, num_classes] for SECrossEntropyLoss.
    """

    classifier = "head"
    """The attribute that the main scores' convolution is under in published weights."""

    def _add_encoding(
        self,
        num_classes: int,
        channels: int,
        num_codes: int,
        lateral_widths: Sequence[int],
        bias: bool,
        use_se_loss: bool,
        auxiliary: bool = True,
    ) -> None:
        self.lateral_convs = nn.LayerList([ConvBNReLU(width, channels, 1, bias=bias) for width in lateral_widths])
        self.fusion = None
        if lateral_widths:
            self.fusion = ConvBNReLU((len(lateral_widths) + 1) * channels, channels, 3, bias=bias)
        self.enc_module = ContextEncoding(channels, num_codes)
        self.add_sublayer(self.classifier, nn.Conv2D(channels, num_classes, 1))
        self.fcn_head = AuxHead(self.map_channels[-2], channels, num_classes) if auxiliary else None
        self.se_layer = nn.Linear(channels, num_classes) if use_se_loss else None

    def _scores(self, x: Tensor, laterals: Sequence[Tensor], auxiliary_map: Tensor, like: Tensor) -> list[Tensor]:
        """`x`: the bottleneck's map; `like`: the input, whose size the maps of scores get."""
        raised = [resize_to(conv(lateral), x) for conv, lateral in zip(self.lateral_convs, laterals)]
        if self.fusion is not None:
            x = self.fusion(paddle.concat([x, *raised], axis=1))
        code, x = self.enc_module(x)
        scores = [getattr(self, self.classifier)(x)]
        if self.training and self.fcn_head is not None:
            scores.append(self.fcn_head(auxiliary_map))
        scores = [resize_to(score, like) for score in scores]
        return [*scores, self.se_layer(code)] if self.training and self.se_layer is not None else scores
