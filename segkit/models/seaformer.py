"""SeaFormer: squeeze-enhanced axial attention on phones (Wan et al., https://arxiv.org/abs/2301.13156)."""

from __future__ import annotations

from functools import partial
from typing import Sequence

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBN, ConvBNReLU, resize_to
from segkit.registry import MODELS

_Conv = partial(ConvBN, kernel_size=1, bias=False)


class _Fusion(nn.Layer):
    """A fine map weighted by a coarse one. [N, fine, H, W] and [N, coarse, h, w] -> [N, out, H, W]."""

    def __init__(self, fine: int, coarse: int, out_channels: int, align_corners: bool):
        super().__init__()
        self.local_embedding = _Conv(fine, out_channels)
        self.global_act = _Conv(coarse, out_channels, act=F.hardsigmoid)
        self.align_corners = align_corners

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        weight = resize_to(self.global_act(coarse), fine, align_corners=self.align_corners)
        return self.local_embedding(fine) * weight


@MODELS.register
class SeaFormerSeg(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is SeaFormer_base. `in_index`: the backbone's maps, the finest first, and `embed_dims`: the widths
    after each fusion with the next of them; `head_channels`: PaddleSeg's, the last of `embed_dims`; `is_dw`: the
    head's convolution keeps channels apart; `dropout_ratio`: of whole channels before the scores; `input_transform`:
    PaddleSeg's, multiple_select alone. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "SeaFormer_base"
    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        head_channels: int = 160,
        embed_dims: Sequence[int] = (128, 160),
        in_index: Sequence[int] = (0, 1, 2),
        is_dw: bool = True,
        dropout_ratio: float = 0.1,
        align_corners: bool = False,
        input_transform: str = "multiple_select",
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        fits = len(embed_dims) == len(in_index) - 1 and head_channels == embed_dims[-1]
        if not fits or input_transform != "multiple_select":
            raise InputError(
                f"model.embed_dims: does not fit the head (got {list(embed_dims)}, in_index {list(in_index)}, "
                f"head_channels {head_channels}, input_transform {input_transform}; expected a width for each of "
                "in_index but the first, the last of them head_channels, and multiple_select). Correct them."
            )
        super().__init__(backbone, in_index, in_channels, align_corners, pretrained)
        finest, *coarser = self.map_channels
        groups = head_channels if is_dw else 1
        self.linear_fuse = ConvBNReLU(head_channels, head_channels, 1, groups=groups, bias=False)
        self.dropout = nn.Dropout2D(dropout_ratio)
        self.cls_seg = nn.Conv2D(head_channels, num_classes, 1)
        shapes = zip([finest, *embed_dims], coarser, embed_dims)
        for number, (fine, coarse, width) in enumerate(shapes, 1):
            setattr(self, f"fuse{number}", _Fusion(fine, coarse, width, align_corners))

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> scores."""
        x, *coarser = maps
        for number, coarse in enumerate(coarser, 1):
            x = getattr(self, f"fuse{number}")(x, coarse)
        return [self.cls_seg(self.dropout(self.linear_fuse(x)))]
