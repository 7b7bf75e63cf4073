"""PP-LiteSeg: a light decoder with attention on an STDC backbone (Peng et al., https://arxiv.org/abs/2204.02681)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.fusion import FusionHead, PooledContext, ScoreHead, one_each
from segkit.models.layers import ConvBNReLU
from segkit.registry import MODELS


@MODELS.register
class PPLiteSeg(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] from each of the backbone's maps in training (the finest, the
    main one, first), from the finest in evaluation, for any H and W.

    `backbone` None is STDC1. `cm_*`: grids and width of the pooled context; `arm_type`, `arm_out_chs`: fusion and
    its widths, one for each of `backbone_indices` or one for all; `seg_head_inter_chs`: hidden widths of the score
    heads; `resize_mode` raises the maps. `pretrained` is a path that the engine loads. Keys and outputs are
    PaddleSeg's.
    """

    default_backbone = "STDC1"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3, 4),
        arm_type: str = "UAFM_SpAtten",
        cm_bin_sizes: Sequence[int] = (1, 2, 4),
        cm_out_ch: int = 128,
        arm_out_chs: Sequence[int] = (64, 96, 128),
        seg_head_inter_chs: Sequence[int] = (64, 64, 64),
        resize_mode: str = "bilinear",
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners=False, pretrained=pretrained)
        count = len(self.map_channels)
        widths = one_each("model.arm_out_chs", arm_out_chs, count)
        hidden = one_each("model.seg_head_inter_chs", seg_head_inter_chs, count)
        context = PooledContext(self.map_channels[-1], cm_out_ch, cm_bin_sizes, ConvBNReLU)
        self.ppseg_head = FusionHead(self.map_channels, widths, context, cm_out_ch, arm_type, resize_mode)
        self.seg_heads = nn.LayerList([ScoreHead(*both, num_classes) for both in zip(widths, hidden)])
        self.train_outputs = count

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> scores, the main ones alone in evaluation."""
        fused = self.ppseg_head(maps)
        return [score(x) for score, x in zip(self.seg_heads, fused if self.training else fused[:1])]
