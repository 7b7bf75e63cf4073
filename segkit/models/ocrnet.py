"""OCRNet: each pixel looks at the representations of the classes, gathered with coarse scores
(Yuan et al., https://arxiv.org/abs/1909.11065)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.attention import ObjectAttention, gather_objects
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, normal_weights
from segkit.registry import MODELS


class _SpatialOCR(nn.Layer):
    """Pixels beside what they take from the objects. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, key_channels: int, out_channels: int):
        super().__init__()
        self.attention_block = ObjectAttention(in_channels, key_channels)
        self.conv1x1 = nn.Sequential(ConvBNReLU(2 * in_channels, out_channels, 1), nn.Dropout2D(0.1))

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        return self.conv1x1(paddle.concat([self.attention_block(pixels, objects), pixels], axis=1))


class _Head(nn.Layer):
    def __init__(self, num_classes: int, in_channels: int, mid_channels: int, key_channels: int):
        super().__init__()
        self.spatial_ocr = _SpatialOCR(mid_channels, key_channels, mid_channels)
        self.conv3x3_ocr = ConvBNReLU(in_channels, mid_channels, 3)
        self.cls_head = nn.Conv2D(mid_channels, num_classes, 1)
        self.aux_head = nn.Sequential(ConvBNReLU(in_channels, in_channels, 1), nn.Conv2D(in_channels, num_classes, 1))
        normal_weights(self, 0.001)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        coarse = self.aux_head(maps[-1])
        pixels = self.conv3x3_ocr(maps[-1])
        scores = [self.cls_head(self.spatial_ocr(pixels, gather_objects(pixels, coarse)))]
        return [*scores, coarse] if self.training else scores


@MODELS.register
class OCRNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, the coarse scores that gather the objects.

    `ocr_mid_channels`: of the pixels' representation, `ocr_key_channels`: of what they are compared by. Keys and
    outputs are PaddleSeg's.
    """

    train_outputs = 2
    map_count = 1
    default_backbone = "HRNet_W18"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0,),
        ocr_mid_channels: int = 512,
        ocr_key_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(num_classes, self.map_channels[0], ocr_mid_channels, ocr_key_channels)
