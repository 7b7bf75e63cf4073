"""DeepLabV3 (Chen et al., https://arxiv.org/abs/1706.05587) and DeepLabV3+ (https://arxiv.org/abs/1802.02611)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.pyramid import ASPP, FineDecoder
from segkit.registry import MODELS


class _PlusHead(nn.Layer):
    def __init__(
        self, num_classes: int, channels: list[int], rates: Sequence[int], out_channels: int, align_corners: bool
    ):
        super().__init__()
        self.aspp = ASPP(rates, channels[1], out_channels, align_corners, separable=True)
        self.decoder = FineDecoder(num_classes, channels[0], out_channels, align_corners)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.decoder(self.aspp(maps[1]), maps[0])]


class _Head(nn.Layer):
    def __init__(
        self, num_classes: int, channels: list[int], rates: Sequence[int], out_channels: int, align_corners: bool
    ):
        super().__init__()
        self.aspp = ASPP(rates, channels[0], out_channels, align_corners)
        self.cls = nn.Conv2D(out_channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.cls(self.aspp(maps[0]))]


@MODELS.register
class DeepLabV3P(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]]: `ASPP` over the coarse of two maps, then a decoder with the
    fine one.

    `backbone_indices`: the fine and the coarse map. `aspp_ratios`: dilations, (1, 12, 24, 36) at an output stride
    of 8, (1, 6, 12, 18) at 16. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1
    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 3),
        aspp_ratios: Sequence[int] = (1, 6, 12, 18),
        aspp_out_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _PlusHead(num_classes, self.map_channels, aspp_ratios, aspp_out_channels, align_corners)


@MODELS.register
class DeepLabV3(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]]: `ASPP` over the last map.

    `aspp_ratios`: dilations, as in `DeepLabV3P`. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1
    map_count = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (3,),
        aspp_ratios: Sequence[int] = (1, 6, 12, 18),
        aspp_out_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels, aspp_ratios, aspp_out_channels, align_corners)
