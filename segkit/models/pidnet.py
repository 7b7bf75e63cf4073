"""PIDNet: detail, context and boundary branches, like a PID controller (Xu et al., https://arxiv.org/abs/2206.02066)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.dual_resolution import norm_first
from segkit.models.layers import resize_to
from segkit.registry import BACKBONES, MODELS


class _Features(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w], normalised before and after one 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Sequential(*norm_first(in_channels, out_channels, 3))
        self.norm = nn.BatchNorm2D(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Head(nn.Layer):
    """Detail, joined and boundary maps -> their scores, in training all three, else those of the joined map."""

    def __init__(self, map_channels: list[int], width: int, num_classes: int):
        super().__init__()
        detail, joined, boundary = map_channels
        self.i_head = _Features(joined, width)
        self.p_head = _Features(detail, width)
        self.d_head = _Features(boundary, boundary // 2)
        self.p_cls_seg = nn.Conv2D(width, num_classes, 1)
        self.d_cls_seg = nn.Conv2D(boundary // 2, 1, 1)
        self.conv_seg = nn.Conv2D(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        detail, joined, boundary = maps
        scores = self.conv_seg(self.i_head(joined))
        if not self.training:
            return [scores]
        return [self.p_cls_seg(self.p_head(detail)), scores, self.d_cls_seg(self.d_head(boundary))]


@MODELS.register
class PIDNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation, for any H and W; in training the scores of
    the detail branch, the main ones, and boundary scores [N, 1, H, W].

    The main ones come second there, for the order of the losses in PaddleSeg's configs. `backbone` None is
    PIDNet_Small; `head_channels` is the head's width. `pretrained` is a path that the engine loads. Keys and outputs
    are PaddleSeg's.
    """

    train_outputs = 3
    train_losses = (3, 4)

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        head_channels: int = 128,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        if backbone is None:
            backbone = BACKBONES.get("PIDNet_Small")(in_channels=in_channels)
        self.backbone = backbone
        self.decode_head = _Head(backbone.feat_channels, head_channels, num_classes)
        self.pretrained = pretrained

    @staticmethod
    def further_terms(outputs: list[Tensor], label: Tensor, ignore_index: int) -> list[tuple[Tensor, Tensor]]:
        """For a fourth loss, the boundary-aware one of the paper: the main scores, and the label [N, H, W]
        with all ignored but where a border is predicted with more than 0.8."""
        border = F.sigmoid(outputs[2][:, 0].detach()) > 0.8
        label = label.astype("int64")
        return [(outputs[1], paddle.where(border, label, paddle.full_like(label, ignore_index)))]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [resize_to(score, x, align_corners=True) for score in self.decode_head(self.backbone(x))]
