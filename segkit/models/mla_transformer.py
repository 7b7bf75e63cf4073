"""A transformer's maps aggregated level by level, as SETR-MLA does (Zheng et al., https://arxiv.org/abs/2012.15840),
for backbones whose maps have several sizes."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBN, ConvBNReLU, raise_to, sides
from segkit.registry import MODELS


def _conv(in_channels: int, out_channels: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, out_channels, 3, bias=False)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class _Heads(nn.Layer):
    """Four maps of one size [N, in, h, w] -> [N, 4 out, 4 w, 4 w]: squares, as published weights expect."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        for number in range(2, 6):
            convs = nn.Sequential(_conv(in_channels, out_channels), _conv(out_channels, out_channels))
            setattr(self, f"head{number}", convs)

    def forward(self, maps: list[Tensor]) -> Tensor:
        side = 4 * sides(maps[0])[1]
        found = [getattr(self, f"head{number}")(x) for number, x in enumerate(maps, 2)]
        return paddle.concat(
            [F.interpolate(x, size=[side, side], mode="bilinear", align_corners=True) for x in found], axis=1
        )


@MODELS.register
class MLATransformer(BackboneModel):
    """[N, bands, H, W] -> [N, num_classes, H, W] and, in training, another from the third map.

    `in_channels`: the image's bands; PaddleSeg's configs give the widths of the backbone's four maps here, which are
    known without. `mlahead_channels` and `aux_channels`: of the inner maps. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "SwinTransformer_tiny_patch4_window7_224"
    map_count = 4
    train_outputs = 2

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int] = 3,
        backbone: nn.Layer | None = None,
        mlahead_channels: int = 128,
        aux_channels: int = 256,
        pretrained: str | None = None,
    ):
        bands = in_channels if isinstance(in_channels, int) else 3
        super().__init__(backbone, range(4), bands, align_corners=True, pretrained=pretrained)
        widths = self.map_channels
        if not isinstance(in_channels, int) and list(in_channels) != widths:
            raise InputError(
                f"model.in_channels: not the widths of the backbone's maps (got {list(in_channels)}, expected "
                f"{widths}). Leave it out."
            )
        common = widths[0] * 2
        self.conv0, self.conv1 = _conv(widths[0], common), _conv(widths[1], common)
        self.conv21, self.conv22 = _conv(widths[2], widths[2]), _conv(widths[2], common)
        self.conv31, self.conv32 = _conv(widths[3], widths[3]), _conv(widths[3], widths[3] // 2)
        self.conv33 = _conv(widths[3] // 2, common)
        self.mlahead = _Heads(common, mlahead_channels)
        self.cls = nn.Conv2D(4 * mlahead_channels, num_classes, 3, padding=1)
        self.aux_head = nn.Sequential(
            ConvBN(widths[2], aux_channels, 3, bias=False), nn.Conv2D(aux_channels, num_classes, 1)
        )

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [self.conv0(maps[0]), raise_to(self.conv1(maps[1]), maps[0])]
        levels.append(raise_to(self.conv22(_double(self.conv21(maps[2]))), maps[0]))
        levels.append(raise_to(self.conv33(_double(self.conv32(_double(self.conv31(maps[3]))))), maps[0]))
        for finer in (2, 1, 0):
            levels[finer] = levels[finer] + levels[finer + 1]
        scores = [self.cls(self.mlahead(levels))]
        if self.training:
            scores.append(self.aux_head(maps[2]))
        return scores
