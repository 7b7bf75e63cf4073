"""Hierarchical multi-scale attention: OCRNet on several sizes of the image, mixed by weights that it predicts
(Tao et al., https://arxiv.org/abs/2005.10821)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.attention import ObjectAttention, gather_objects
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, normal_weights, resize_to
from segkit.registry import MODELS

_WIDTH, _KEYS = 512, 256


class _Distribution(ObjectAttention):
    """Pixels beside what they take from the objects, joined. [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self):
        super().__init__(_WIDTH, _KEYS, bias=False, names=("conv_bn_relu_1", "conv_bn_relu_2"))
        self.conv_bn_dropout = nn.Sequential(ConvBNReLU(2 * _WIDTH, _WIDTH, 1, bias=False), nn.Dropout2D(0.05))

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        return self.conv_bn_dropout(paddle.concat([self.attended(pixels, objects), pixels], axis=1))


class _Contextual(nn.Layer):
    """[N, in, h, w] -> scores, coarse scores and the pixels behind the scores [N, 512, h, w]."""

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv3x3_ocr = ConvBNReLU(in_channels, _WIDTH, 3)
        self.ocr_distri_head = _Distribution()
        self.cls_head = nn.Conv2D(_WIDTH, num_classes, 1)
        self.aux_head = nn.Sequential(ConvBNReLU(in_channels, in_channels, 1), nn.Conv2D(in_channels, num_classes, 1))
        normal_weights(self, 0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, coarse = self.conv3x3_ocr(x), self.aux_head(x)
        pixels = self.ocr_distri_head(pixels, gather_objects(pixels, coarse))
        return self.cls_head(pixels), coarse, pixels


class _ScaleAttention(nn.Layer):
    """[N, in, h, w] -> the weight of this scale against larger ones, 0..1, [N, 1, h, w]."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv_bn_re0 = ConvBNReLU(in_channels, 256, 3, bias=False)
        self.conv_bn_re1 = ConvBNReLU(256, 256, 3, bias=False)
        self.conv2 = nn.Conv2D(256, 1, 1, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(self.conv2(self.conv_bn_re1(self.conv_bn_re0(x))))


@paddle.jit.not_to_static
def _scaled(x: Tensor, scale: float) -> Tensor:
    """[N, C, H, W] -> [N, C, scale H, scale W], left alone where no pixel would remain."""
    vanishes = any(0 < side * scale < 1 for side in x.shape[2:])
    return x if scale == 1 or vanishes else F.interpolate(x, scale_factor=scale, mode="bilinear")


@MODELS.register
class MscaleOCRNet(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation, from the image at each scale of `mscale`.

    In training, on the image at half and full size, four [N, num_classes, H, W] in PaddleSeg's order: the coarse
    scores of both sizes mixed, the main ones mixed, the main ones of the half and of the full size. Keys and outputs
    are PaddleSeg's.
    """

    train_outputs = 4
    map_count = 1
    default_backbone = "HRNet_W48"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0,),
        mscale: Sequence[float] = (0.5, 1.0, 2.0),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, False, pretrained)
        if not mscale or min(mscale) <= 0:
            raise InputError(
                f"model.mscale: scales above 0 (got {list(mscale)}, expected such as [0.5, 1.0, 2.0]). Correct them or "
                "leave the key out."
            )
        self.mscale = sorted(mscale, reverse=True)
        self.ocr = _Contextual(num_classes, self.map_channels[0])
        self.scale_attn = _ScaleAttention(_WIDTH)

    def _at(self, x: Tensor, scale: float) -> list[Tensor]:
        """Scores, coarse scores and this scale's weight, all of the size that the scaled image has."""
        x = _scaled(x, scale)
        scores, coarse, pixels = self.ocr(self.maps(x)[0])
        return [resize_to(part, x) for part in (scores, coarse, self.scale_attn(pixels))]

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.training:
            (low, low_coarse, weight), (high, high_coarse, _) = self._at(x, 0.5), self._at(x, 1.0)
            mixed = [
                resize_to(weight * a, x) + (1 - resize_to(weight, x)) * b
                for a, b in ((low_coarse, high_coarse), (low, high))
            ]
            return [*mixed, resize_to(low, x), high]
        total = None
        for scale in self.mscale:
            scores, _, weight = self._at(x, scale)
            if total is None:
                total = scores
            elif scale >= 1:
                total = weight * scores + (1 - weight) * resize_to(total, scores)
            else:
                total = resize_to(weight * scores, total) + (1 - resize_to(weight, total)) * total
        return [resize_to(total, x)]
