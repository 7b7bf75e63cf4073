"""PointRend: scores computed anew, from fine features, at the points where they are least certain
(Kirillov et al., https://arxiv.org/abs/1912.08193)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.fpn import FeaturePyramid, scale_head
from segkit.models.layers import resize_to, sides
from segkit.registry import MODELS


class _ConvReLU(nn.Layer):
    def __init__(self, conv: nn.Layer):
        super().__init__()
        self._conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self._conv(x))


def _conv3x3_relu(in_channels: int, out_channels: int) -> _ConvReLU:
    return _ConvReLU(nn.Conv2D(in_channels, out_channels, 3, padding=1))


class _CoarseHead(nn.Layer):
    """The pyramid's maps, raised and added -> scores of the first map's size."""

    def __init__(self, num_classes: int, count: int, in_channels: int, channels: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        heads = (scale_head(_conv3x3_relu, in_channels, channels, at, at > 0, align_corners) for at in range(count))
        self.scale_heads = nn.LayerList(list(heads))
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        total = self.scale_heads[0](levels[0])
        for head, level in list(zip(self.scale_heads, levels))[1:]:
            total = total + resize_to(head(level), total, align_corners=self.align_corners)
        return self.conv_seg(total)


def _sample(x: Tensor, points: Tensor, align_corners: bool) -> Tensor:
    """[N, C, h, w] at points [N, P, 2], x and y in 0..1 -> [N, C, P]."""
    return F.grid_sample(x, (points * 2 - 1).unsqueeze(2), align_corners=align_corners).squeeze(3)


def _uncertainty(scores: Tensor) -> Tensor:
    """[N, K, ...] -> [N, ...]: the second best score less the best; of one class, less its distance from 0."""
    if scores.shape[1] == 1:
        return -scores[:, 0].abs()
    best = paddle.topk(scores, 2, axis=1)[0]
    return best[:, 1] - best[:, 0]


class _PointHead(nn.Layer):
    """Scores at points from the features and the coarse scores there."""

    def __init__(self, num_classes: int, in_channels: int, channels: int, points: int, align_corners: bool):
        super().__init__()
        self.points = points
        self.align_corners = align_corners
        widths = [in_channels, channels, channels]
        self.fcs = nn.LayerList([_ConvReLU(nn.Conv1D(width + num_classes, channels, 1)) for width in widths])
        self.fc_seg = nn.Conv1D(channels + num_classes, num_classes, 1)

    def at(self, points: Tensor, features: Tensor, coarse: Tensor) -> Tensor:
        """Scores [N, K, P] at `points` [N, P, 2]."""
        scores = _sample(coarse, points, self.align_corners)
        x = _sample(features, points, self.align_corners)
        for layer in self.fcs:
            x = layer(paddle.concat([x, scores], axis=1))
        return self.fc_seg(paddle.concat([x, scores], axis=1))

    @paddle.no_grad()
    def uncertain_points(self, coarse: Tensor) -> Tensor:
        """Points [N, P, 2] to train on: three of four are the least certain of three times as many, the others are
        anywhere."""
        count = coarse.shape[0]
        drawn = paddle.rand([count, 3 * self.points, 2])
        chosen = self.points * 3 // 4
        order = paddle.topk(_uncertainty(_sample(coarse, drawn, False)), chosen, axis=1)[1]
        worst = paddle.take_along_axis(drawn, order.unsqueeze(-1), axis=1)
        return paddle.concat([worst, paddle.rand([count, self.points - chosen, 2])], axis=1)


class _Refiner:
    """Doubles a map of scores and replaces the least certain `most` of them, `steps` times."""

    def __init__(self, steps: int, most: int, align_corners: bool):
        self.steps, self.most, self.align_corners = steps, most, align_corners

    def __call__(self, head: _PointHead, features: Tensor, coarse: Tensor) -> Tensor:
        scores = coarse
        for _ in range(self.steps):
            scores = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=self.align_corners)
            height, width = sides(scores)
            order = self._least_certain(_uncertainty(scores).flatten(1), height * width)
            columns = ((order % width).astype("float32") + 0.5) / width
            rows = ((order // width).astype("float32") + 0.5) / height
            found = head.at(paddle.stack([columns, rows], axis=-1), features, coarse)
            places = order.unsqueeze(1).expand([-1, coarse.shape[1], -1])
            flat = paddle.put_along_axis(scores.flatten(2), places, found, axis=2)
            scores = flat.reshape([0, 0, height, width])
        return scores

    @paddle.jit.not_to_static
    def _least_certain(self, uncertainty: Tensor, pixels: object) -> Tensor:
        """Their places [N, P] among the map's pixels."""
        if isinstance(pixels, int):
            return paddle.topk(uncertainty, min(pixels, self.most), axis=1)[1]
        count = paddle.minimum(pixels, paddle.full([], self.most, pixels.dtype))
        return paddle.topk(uncertainty, count, axis=1)[1]


@MODELS.register
class PointRend(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation: a pyramid's coarse scores, refined in
    `point_subdivision_steps` doublings at `point_subdivision_num_points` points each. In training the coarse scores
    and the pair of scores [N, num_classes, P] at P = `point_num_points` points [N, P, 2] (x and y in 0..1), for
    PointCrossEntropyLoss.

    Keys and outputs are PaddleSeg's. Its pyramid hands out the coarsest map first, where the paper samples features
    from the finest; published weights expect that.
    """

    train_outputs = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        fpn_outplanes: int = 256,
        point_out_channels: int = 256,
        point_num_points: int = 2048,
        point_subdivision_steps: int = 2,
        point_subdivision_num_points: int = 8196,
        PFN_channels: int = 128,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.neck = FeaturePyramid(self.map_channels, fpn_outplanes)
        self.pointhead = _PointHead(num_classes, fpn_outplanes, point_out_channels, point_num_points, align_corners)
        self.fpnhead = _CoarseHead(num_classes, len(self.map_channels), fpn_outplanes, PFN_channels, align_corners)
        self.refine = _Refiner(point_subdivision_steps, point_subdivision_num_points, align_corners)

    def forward(self, x: Tensor) -> list:
        levels = self.neck(self.maps(x))
        coarse = self.fpnhead(levels)
        if not self.training:
            refined = self.refine(self.pointhead, levels[0], coarse)
            return [resize_to(refined, x, align_corners=self.align_corners)]
        points = self.pointhead.uncertain_points(coarse)
        main = resize_to(coarse, x, align_corners=self.align_corners)
        return [main, (self.pointhead.at(points, levels[0], coarse), points)]
