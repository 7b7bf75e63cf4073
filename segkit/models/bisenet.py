"""BiSeNetV2: a detail branch beside a semantic branch, joined by guided aggregation
(Yu et al., https://arxiv.org/abs/2004.02147)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBN, ConvBNReLU, DepthwiseConvBN, kaiming_normal, resize_to
from segkit.registry import MODELS


class _DetailBranch(nn.Layer):
    """[N, in, H, W] -> [N, C3, H/8, W/8]: wide and shallow."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int]):
        super().__init__()
        layers: list[nn.Layer] = []
        for width, repeats in zip(widths, (2, 3, 3)):
            for index in range(repeats):
                layers.append(ConvBNReLU(in_channels, width, 3, stride=2 if index == 0 else 1))
                in_channels = width
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class _Stem(nn.Layer):
    """[N, in, H, W] -> [N, out, H/4, W/4]: convolutions beside a max-pool."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, 3, stride=2)
        self.left = nn.Sequential(
            ConvBNReLU(out_channels, out_channels // 2, 1), ConvBNReLU(out_channels // 2, out_channels, 3, stride=2)
        )
        self.right = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.fuse = ConvBNReLU(out_channels * 2, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fuse(paddle.concat([self.left(x), self.right(x)], axis=1))


class _Context(nn.Layer):
    """Adds the mean of the whole map to every pixel. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.bn = nn.BatchNorm2D(in_channels)
        self.conv_1x1 = ConvBNReLU(in_channels, out_channels, 1)
        self.conv_3x3 = nn.Conv2D(out_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_3x3(self.conv_1x1(self.bn(self.gap(x))) + x)


class _Expand(nn.Layer):
    """Gather-and-expansion at the same size: [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self, channels: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.conv = nn.Sequential(
            ConvBNReLU(channels, channels, 3), DepthwiseConvBN(channels, wide), ConvBN(wide, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class _ExpandDown(nn.Layer):
    """Gather-and-expansion to half the size: [N, in, h, w] -> [N, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int):
        super().__init__()
        wide = in_channels * expansion
        self.branch_1 = nn.Sequential(
            ConvBNReLU(in_channels, in_channels, 3),
            DepthwiseConvBN(in_channels, wide, stride=2),
            DepthwiseConvBN(wide, wide),
            ConvBN(wide, out_channels, 1),
        )
        self.branch_2 = nn.Sequential(
            DepthwiseConvBN(in_channels, in_channels, stride=2), ConvBN(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch_1(x) + self.branch_2(x))


class _SemanticBranch(nn.Layer):
    """[N, in, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 and the last with context: narrow and deep."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int], expansion: int = 6):
        super().__init__()
        stem, c3, c4, c5 = widths
        self.stem = _Stem(in_channels, stem)
        self.stage3 = nn.Sequential(_ExpandDown(stem, c3, expansion), _Expand(c3, expansion))
        self.stage4 = nn.Sequential(_ExpandDown(c3, c4, expansion), _Expand(c4, expansion))
        self.stage5_4 = nn.Sequential(_ExpandDown(c4, c5, expansion), *[_Expand(c5, expansion) for _ in range(3)])
        self.ce = _Context(c5, c5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        stem = self.stem(x)
        stage3 = self.stage3(stem)
        stage4 = self.stage4(stage3)
        stage5 = self.stage5_4(stage4)
        return stem, stage3, stage4, stage5, self.ce(stage5)


class _Aggregation(nn.Layer):
    """Detail [N, C, H/8, W/8] and semantics [N, C, H/32, W/32], each gating the other -> [N, C, H/8, W/8]."""

    def __init__(self, channels: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.db_branch_keep = nn.Sequential(DepthwiseConvBN(channels, channels), nn.Conv2D(channels, channels, 1))
        self.db_branch_down = nn.Sequential(
            ConvBN(channels, channels, 3, stride=2), nn.AvgPool2D(kernel_size=3, stride=2, padding=1)
        )
        self.sb_branch_keep = nn.Sequential(
            DepthwiseConvBN(channels, channels), nn.Conv2D(channels, channels, 1), nn.Sigmoid()
        )
        self.sb_branch_up = ConvBN(channels, channels, 3)
        self.conv = ConvBN(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        fine = self.db_branch_keep(detail)
        gate = resize_to(self.sb_branch_up(semantic), fine, align_corners=self.align_corners)
        coarse = self.db_branch_down(detail) * self.sb_branch_keep(semantic)
        coarse = resize_to(coarse, fine, align_corners=self.align_corners)
        return self.conv(fine * F.sigmoid(gate) + coarse)


class _Head(nn.Layer):
    """[N, in, h, w] -> class scores [N, num_classes, h, w]."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv_3x3 = nn.Sequential(ConvBNReLU(channels, channels, 3), nn.Dropout(0.1))
        self.conv_1x1 = nn.Conv2D(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_1x1(self.conv_3x3(x))


@MODELS.register
class BiSeNetV2(nn.Layer):
    """[N, in_channels, H, W] -> five [N, num_classes, H, W] in training (main, then the semantic branch's heads at
    1/4, 1/8, 1/16 and 1/32), one in evaluation, for any H and W.

    `lambd` is the semantic branch's width against the detail branch's. `pretrained` is a path that the engine
    loads. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 5

    def __init__(
        self,
        num_classes: int,
        lambd: float = 0.25,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        detail = (64, 64, 128)
        semantic = (int(detail[0] * lambd), int(detail[2] * lambd), 64, 128)
        if semantic[0] < 2:
            raise InputError(
                f"model.lambd: the semantic branch has no channels left (got {lambd}, expected 1/32 or more). "
                "The published model has 0.25."
            )
        self.align_corners = align_corners
        self.db = _DetailBranch(in_channels, detail)
        self.sb = _SemanticBranch(in_channels, semantic)
        self.bga = _Aggregation(detail[2], align_corners)
        self.aux_head1 = _Head(semantic[0], num_classes)
        self.aux_head2 = _Head(semantic[1], num_classes)
        self.aux_head3 = _Head(semantic[2], num_classes)
        self.aux_head4 = _Head(semantic[3], num_classes)
        self.head = _Head(detail[2], num_classes)
        self.pretrained = pretrained
        kaiming_normal(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        *stages, semantic = self.sb(x)
        scores = [self.head(self.bga(self.db(x), semantic))]
        if self.training:
            heads = (self.aux_head1, self.aux_head2, self.aux_head3, self.aux_head4)
            scores += [head(stage) for head, stage in zip(heads, stages)]
        return [resize_to(score, x, align_corners=self.align_corners) for score in scores]
