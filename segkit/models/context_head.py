"""The head around a context module, as DNLNet and EMANet share it."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, DroppedConv, SpatialAuxHead


class ContextHead(nn.Layer):
    """Two maps of `channels` -> scores of the second and, in training with `auxiliary`, others of the first.

    A subclass has `context`, from the second map to [N, width, h, w]; with `concat_input` the scores see both.
    `bias`: of the convolutions before a BatchNorm.
    """

    def __init__(
        self, num_classes: int, channels: list[int], width: int, concat_input: bool, auxiliary: bool, bias: bool
    ):
        super().__init__()
        self.cls = DroppedConv(width, num_classes)
        self.aux = SpatialAuxHead(channels[0], 256, num_classes, bias=bias) if auxiliary else None
        self.conv_cat = ConvBNReLU(channels[1] + width, width, 3, bias=bias) if concat_input else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.context(maps[1])
        if self.conv_cat is not None:
            x = self.conv_cat(paddle.concat([maps[1], x], axis=1))
        scores = [self.cls(x)]
        if self.aux is not None and self.training:
            scores.append(self.aux(maps[0]))
        return scores
