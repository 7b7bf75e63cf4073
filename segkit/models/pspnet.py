"""PSPNet: pyramid pooling of the last map (Zhao et al., https://arxiv.org/abs/1612.01105)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead
from segkit.models.pyramid import PyramidPooling
from segkit.registry import MODELS


class _Head(nn.Layer):
    def __init__(
        self,
        num_classes: int,
        channels: list[int],
        out_channels: int,
        bin_sizes: Sequence[int],
        auxiliary: bool,
        align_corners: bool,
    ):
        super().__init__()
        self.psp_module = PyramidPooling(channels[1], out_channels, bin_sizes, align_corners)
        self.dropout = nn.Dropout(0.1)
        self.conv = nn.Conv2D(out_channels, num_classes, 1)
        self.auxlayer = AuxHead(channels[0], channels[0] // 4, num_classes) if auxiliary else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.conv(self.dropout(self.psp_module(maps[1])))]
        if self.auxlayer is not None and self.training:
            scores.append(self.auxlayer(maps[0]))
        return scores


@MODELS.register
class PSPNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `backbone_indices`: the auxiliary head's map and the one that is pooled, over grids of `bin_sizes` cells a side.
    Keys and outputs are PaddleSeg's.
    """

    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        pp_out_channels: int = 1024,
        bin_sizes: Sequence[int] = (1, 2, 3, 6),
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(
            num_classes, self.map_channels, pp_out_channels, bin_sizes, enable_auxiliary_loss, align_corners
        )
