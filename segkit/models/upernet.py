"""UPerNet: pyramid pooling on top of a feature pyramid (Xiao et al., https://arxiv.org/abs/1807.10221)."""

from __future__ import annotations

from typing import Sequence

from paddle import nn

from segkit.models.backboned import BackboneModel
from segkit.models.uperhead import UPerHead
from segkit.registry import MODELS


@MODELS.register
class UPerNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training with `enable_auxiliary_loss`, another from
    the last but one map.

    `channels`: of the pyramid's maps; `dropout_prob`: of the auxiliary head; `align_corners`: of the scores'
    interpolation. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        channels: int = 512,
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        dropout_prob: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        # Published weights expect the pyramid to be aligned at the corners; the argument is the scores' own.
        self.head = UPerHead(num_classes, self.map_channels, channels, dropout_prob, enable_auxiliary_loss, True)
