"""FCN: class scores straight from one map of a backbone (Long et al., https://arxiv.org/abs/1411.4038); with HRNet,
the segmentation model of Wang et al. (https://arxiv.org/abs/1908.07919)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, normal_weights
from segkit.registry import MODELS


class _Head(nn.Layer):
    def __init__(self, num_classes: int, in_channels: int, channels: int, bias: bool):
        super().__init__()
        self.conv_1 = ConvBNReLU(in_channels, channels, 1, bias=bias)
        self.cls = nn.Conv2D(channels, num_classes, 1, bias_attr=None if bias else False)
        normal_weights(self, 0.001)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.cls(self.conv_1(maps[0]))]


@MODELS.register
class FCN(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]].

    `channels`: between the backbone's map and the scores, as many as the map has if None. `bias`: of the head's
    convolutions. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1
    map_count = 1
    default_backbone = "HRNet_W18"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (-1,),
        channels: int | None = None,
        align_corners: bool = False,
        bias: bool = True,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels[0], channels or self.map_channels[0], bias)
