"""ESPNetV2: depthwise convolutions side by side (Mehta et al., https://arxiv.org/abs/1811.11431).

The paper's are dilated, each by another number. PaddleSeg asks for them with padding "same", for which Paddle leaves
the dilation out: the published weights are of plain 3x3 convolutions, and so are these.
"""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, kaiming_normal, raise_to
from segkit.models.prelu import ConvBNPReLU, OneSlope
from segkit.registry import MODELS

_REPEATS = (3, 7)  # blocks at 1/8 and 1/16
_BRANCHES = 4


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1)


class _Spatial(nn.Layer):
    """Channels reduced, each convolved four times, and mixed again in four groups, beside a shortcut where the shape
    stays. [N, in, h, w] -> [N, out, h/stride, w/stride]; with a stride the activation is left to whoever
    adds to it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        width = out_channels // _BRANCHES
        self.group_conv_in = ConvBNPReLU(in_channels, width, 1, groups=_BRANCHES, bias=False)
        self.spp_modules = nn.LayerList(
            [nn.Conv2D(width, width, 3, stride, "same", groups=width, bias_attr=False) for _ in range(_BRANCHES)]
        )
        self.bn_act = OneSlope(out_channels)
        self.group_conv_out = ConvBN(out_channels, out_channels, 1, groups=_BRANCHES, bias=False)
        self._act = nn.PReLU()  # with a stride in published weights alone
        self.stride, self.shortcut = stride, in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        inner = self.group_conv_in(x)
        maps: list[Tensor] = []
        for conv in self.spp_modules:
            y = conv(inner)
            maps.append(y + maps[-1] if maps else y)
        y = self.group_conv_out(self.bn_act(paddle.concat(maps, axis=1)))
        if self.stride > 1:
            return y
        return self._act(x + y if self.shortcut else y)


class _Down(nn.Layer):
    """Averages and `_Spatial` side by side, and the image at that size added: [N, in, h, w] and [N, bands, h/2, w/2]
    -> [N, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int, bands: int):
        super().__init__()
        self.eesp = _Spatial(in_channels, out_channels - in_channels, stride=2)
        self.shortcut_layer = nn.Sequential(
            ConvBNPReLU(bands, bands, 3, bias=False), ConvBN(bands, out_channels, 1, bias=False)
        )
        self._act = nn.PReLU()

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self._act(paddle.concat([_halved(x), self.eesp(x)], axis=1) + self.shortcut_layer(image))


class _Backbone(nn.Layer):
    """[N, bands, H, W] -> maps at 1/2, 1/4, 1/8 and 1/16 of `widths` channels."""

    def __init__(self, bands: int, widths: list[int]):
        super().__init__()
        self.level1 = ConvBNPReLU(bands, widths[0], 3, stride=2, bias=False)
        self.level2 = _Down(widths[0], widths[1], bands)
        self.level3_0 = _Down(widths[1], widths[2], bands)
        self.level3 = nn.Sequential(*(_Spatial(widths[2], widths[2]) for _ in range(_REPEATS[0])))
        self.level4_0 = _Down(widths[2], widths[3], bands)
        self.level4 = nn.Sequential(*(_Spatial(widths[3], widths[3]) for _ in range(_REPEATS[1])))
        kaiming_normal(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        quarter = _halved(_halved(x))
        eighth = _halved(quarter)
        maps = [self.level1(x)]
        maps.append(self.level2(maps[0], quarter))
        maps.append(self.level3(self.level3_0(maps[1], eighth)))
        maps.append(self.level4(self.level4_0(maps[2], _halved(eighth))))
        return maps


class _Pyramid(nn.Layer):
    """The map beside itself at 1/2, 1/4, 1/8 and 1/16. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, sizes: int = 4):
        super().__init__()
        self.stages = nn.LayerList(
            [nn.Conv2D(channels, channels, 3, padding=1, groups=channels, bias_attr=False) for _ in range(sizes)]
        )
        self.project = ConvBNPReLU(channels * (sizes + 1), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps, smaller = [x], x
        for stage in self.stages:
            smaller = F.avg_pool2d(smaller, 3, stride=2, padding="SAME")
            maps.append(raise_to(stage(smaller), x))
        return self.project(paddle.concat(maps, axis=1))


@MODELS.register
class ESPNetV2(nn.Layer):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the map at 1/8; for any H and W
    (PaddleSeg needs multiples of 16).

    `scale`: of the channels; `drop_prob`: share of channels dropped before the scores. `pretrained` is a path that
    the engine loads. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 2

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        scale: float = 1.0,
        drop_prob: float = 0.1,
        pretrained: str | None = None,
    ):
        super().__init__()
        width = math.ceil(int(32 * scale) / _BRANCHES) * _BRANCHES
        widths = [min(32, width), width * 2, width * 4, width * 8]
        self.backbone = _Backbone(in_channels, widths)
        self.proj_l4_c = ConvBNPReLU(widths[3], widths[2], 1, bias=False)
        self.eesp_psp = nn.Sequential(_Spatial(2 * widths[2], widths[2]), _Pyramid(widths[2]))
        self.project_l3 = nn.Sequential(nn.Dropout2D(drop_prob), nn.Conv2D(widths[2], num_classes, 1, bias_attr=False))
        self.act_l3 = OneSlope(num_classes)
        self.project_l2 = ConvBNPReLU(widths[1] + num_classes, num_classes, 1, bias=False)
        self.project_l1 = nn.Sequential(
            nn.Dropout2D(drop_prob), nn.Conv2D(widths[0] + num_classes, num_classes, 1, bias_attr=False)
        )
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        half, quarter, eighth, sixteenth = self.backbone(x)
        merged = paddle.concat([eighth, raise_to(self.proj_l4_c(sixteenth), eighth)], axis=1)
        coarse = self.act_l3(self.project_l3(self.eesp_psp(merged)))
        merged = self.project_l2(paddle.concat([quarter, raise_to(coarse, quarter)], axis=1))
        merged = self.project_l1(paddle.concat([half, raise_to(merged, half)], axis=1))
        scores = [raise_to(merged, x)]
        if self.training:
            scores.append(raise_to(raise_to(raise_to(coarse, quarter), half), x))
        return scores
