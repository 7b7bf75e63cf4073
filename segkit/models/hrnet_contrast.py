"""HRNet with a projection for pixel contrast across images (Wang et al., https://arxiv.org/abs/2101.11939)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS


class _Projection(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w], every pixel of length 1."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Sequential(ConvBNReLU(in_channels, in_channels, 1), nn.Conv2D(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.proj(x), axis=1)


@MODELS.register
class HRNetW48Contrast(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation. In training also
    `{"seg": [N, num_classes, h, w], "embed": [N, proj_dim, h, w]}` for PixelContrastCrossEntropyLoss.

    `bb_channels`: of the backbone's map, None to ask it. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 2
    default_backbone = "HRNet_W48"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        bb_channels: int | None = None,
        drop_prob: float = 0.1,
        proj_dim: int = 720,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0,), in_channels, align_corners, pretrained)
        width = self.map_channels[0]
        if bb_channels not in (None, width):
            raise InputError(
                f"model.bb_channels: not what the backbone gives (got {bb_channels}, expected {width}). Leave it out."
            )
        self.cls_head = nn.Sequential(
            ConvBNReLU(width, width, 3), nn.Dropout2D(drop_prob), nn.Conv2D(width, num_classes, 1, bias_attr=False)
        )
        self.proj_head = _Projection(width, proj_dim)

    def forward(self, x: Tensor) -> list:
        features = self.maps(x)[0]
        scores = self.cls_head(features)
        main = resize_to(scores, x, align_corners=self.align_corners)
        return [main, {"seg": scores, "embed": self.proj_head(features)}] if self.training else [main]
