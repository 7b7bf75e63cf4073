"""UPerNet (Xiao et al., https://arxiv.org/abs/1807.10221) on a plain Vision Transformer: CAE (Chen et al.,
https://arxiv.org/abs/2202.03026)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, SpatialAuxHead
from segkit.models.pyramid import PyramidPooling
from segkit.models.uperhead import PyramidHead
from segkit.registry import MODELS


class _Head(PyramidHead):
    """Maps of `widths` channels, the finest first -> scores of the finest's size and, in training with `auxiliary`,
    others from the third map."""

    def __init__(
        self, num_classes: int, widths: list[int], channels: int, fpn_channels: int, dropout: float, auxiliary: bool
    ):
        super().__init__()
        self.psp_modules = PyramidPooling(
            widths[-1], fpn_channels, (1, 2, 3, 6), align_corners=False, reduce=False, bias=False, coarse_first=True
        )
        self.lateral_convs = nn.LayerList(
            [ConvBNReLU(width, fpn_channels, 1, bias=False, names=("0", "1")) for width in widths[:-1]]
        )
        self.fpn_convs = nn.LayerList(
            [nn.Sequential(ConvBNReLU(fpn_channels, fpn_channels, 3, bias=False)) for _ in widths[:-1]]
        )
        self.dsn = SpatialAuxHead(widths[2], 256, num_classes, dropout, bias=False) if auxiliary else None
        self.dropout = nn.Dropout2D(dropout)
        self.fpn_bottleneck = ConvBNReLU(len(widths) * fpn_channels, channels, 3, bias=False)
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def context(self, x: Tensor) -> Tensor:
        return self.psp_modules(x)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.conv_seg(self.dropout(self.features(maps)))]
        if self.dsn is not None and self.training:
            scores.append(self.dsn(maps[2]))
        return scores


@MODELS.register
class UPerNetCAE(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], for any H and W, and in training with `enable_auxiliary_loss`
    another from the third map.

    The backbone's maps have one size, 1/16; the first is raised to 1/4, the second to 1/8, the last halved.
    `fpn_channels`: of the pyramid's maps, `channels` of the features; `dropout_ratio`: share of channels dropped before
    the scores; `align_corners`: of the scores' interpolation, which PaddleSeg does without, whatever the config says.
    `head_channels`, `channels_fpn`: as configs give them; the backbone is asked instead. `pretrained` is a path that
    the engine loads. Keys and outputs are PaddleSeg's, and so is a BatchNorm whose statistics are nearly those of the
    last batch alone; auxiliary scores are given in training only.
    """

    default_backbone = "CAE_base_patch16_224"
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (3, 5, 7, 11),
        channels: int = 768,
        fpn_channels: int = 768,
        head_channels: int | None = None,
        channels_fpn: Sequence[int] | None = None,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        dropout_ratio: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        first, second = self.map_channels[:2]
        self.fpn1 = nn.Sequential(
            nn.Conv2DTranspose(first, first, 2, stride=2),
            nn.BatchNorm2D(first, momentum=0.1),
            nn.GELU(),
            nn.Conv2DTranspose(first, first, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.Conv2DTranspose(second, second, 2, stride=2))
        self.fpn4 = nn.MaxPool2D(2, stride=2, ceil_mode=True)
        layout = (self.map_channels, channels, fpn_channels)
        self.decode_head = _Head(num_classes, *layout, dropout_ratio, enable_auxiliary_loss)
        self.train_outputs = 2 if enable_auxiliary_loss else 1

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        return self.decode_head([self.fpn1(maps[0]), self.fpn2(maps[1]), maps[2], self.fpn4(maps[3])])
