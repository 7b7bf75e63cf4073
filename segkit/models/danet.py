"""DANet: attention among pixels beside attention among channels (Fu et al., https://arxiv.org/abs/1809.02983)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.attention import attend
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, DroppedConv, to_map
from segkit.registry import MODELS


class _Positions(nn.Layer):
    """Attention among pixels, added with a weight that starts at 0. [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.query_conv = nn.Conv2D(channels, channels // 8, 1)
        self.key_conv = nn.Conv2D(channels, channels // 8, 1)
        self.value_conv = nn.Conv2D(channels, channels, 1)
        self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x: Tensor) -> Tensor:
        parts = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        return self.gamma * to_map(attend(*parts), x) + x


class _Channels(nn.Layer):
    """Attention among channels, added with a weight that starts at 0. [N, C, h, w] -> [N, C, h, w].

    The most unlike channels weigh most, as in the authors' code."""

    def __init__(self):
        super().__init__()
        self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        likeness = paddle.matmul(pixels, pixels, transpose_y=True)
        weights = F.softmax(likeness.max(axis=-1, keepdim=True) - likeness, axis=-1)
        return self.gamma * to_map(paddle.matmul(weights, pixels), x) + x


class _Head(nn.Layer):
    def __init__(self, num_classes: int, channels: int):
        super().__init__()
        width = channels // 4
        self.channel_conv = ConvBNReLU(channels, width, 3)
        self.position_conv = ConvBNReLU(channels, width, 3)
        self.pam = _Positions(width)
        self.cam = _Channels()
        self.conv1 = ConvBNReLU(width, width, 3)
        self.conv2 = ConvBNReLU(width, width, 3)
        self.aux_head = DroppedConv(channels, num_classes)
        self.aux_head_pam = DroppedConv(width, num_classes)
        self.aux_head_cam = DroppedConv(width, num_classes)
        self.cls_head = DroppedConv(width, num_classes)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = maps[-1]
        channels = self.conv1(self.cam(self.channel_conv(x)))
        positions = self.conv2(self.pam(self.position_conv(x)))
        scores = [self.cls_head(positions + channels)]
        if self.training:
            scores += [self.aux_head_cam(channels), self.aux_head_pam(positions), self.aux_head(x)]
        return scores


@MODELS.register
class DANet(BackboneModel):
    """[N, in_channels, H, W] -> four [N, num_classes, H, W] in training (main, channels, positions, backbone), one in
    evaluation.

    Only the last of `backbone_indices` is used. Keys and outputs are PaddleSeg's, but for the positions' scores in
    training: there they come from their own head, in PaddleSeg from the channels'.
    """

    train_outputs = 4
    align_mode = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels[-1])
