"""U-HRNet: two neighbouring resolutions at a time, down to 1/64 and up again, with more of the depth where maps are
small (Wang et al., https://arxiv.org/abs/2210.07140)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.backbones.hrnet import Bottleneck, Stage, Transition
from segkit.models.layers import ConvBNReLU, normal_weights, resize_to
from segkit.registry import BACKBONES


def _halved(x: Tensor) -> Tensor:
    """The means of neighbouring channels. [N, C, h, w] -> [N, C/2, h, w]."""
    return (x[:, 0::2] + x[:, 1::2]) / 2


class _Rise(nn.Layer):
    """A map [N, in, h, w] and the one [N, width, H, W] of the way down -> the two maps of the next stage."""

    def __init__(self, name: str, in_channels: int, width: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.name_of_conv = f"transition_{name}_layer_1"
        self.add_sublayer(self.name_of_conv, ConvBNReLU(in_channels, width, 1, bias=False))

    def forward(self, x: Tensor, skip: Tensor) -> list[Tensor]:
        raised = resize_to(getattr(self, self.name_of_conv)(x), skip, align_corners=self.align_corners)
        return [paddle.concat([_halved(raised), _halved(skip)], axis=1), x]


class _UHRNet(nn.Layer):
    """[N, in_channels, H, W] -> one map at 1/4: the maps of five resolutions, their channels halved, raised and
    concatenated.

    `align_corners` is the interpolations'. `pretrained` is a file of classification weights that the engine loads.
    Keys are PaddleSeg's; `last_layer` is in published weights and unused.
    """

    width: int
    blocks = 4
    modules: Sequence[int] = (1, 5, 2, 2, 1, 1, 1, 1)

    def __init__(self, align_corners: bool = False, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        self.in_channels = in_channels
        self.align_corners = align_corners
        self.pretrained = pretrained
        self.conv_layer1_1 = ConvBNReLU(in_channels, 64, 3, stride=2, bias=False)
        self.conv_layer1_2 = ConvBNReLU(64, 64, 3, stride=2, bias=False)
        inputs = [64] + [256] * (self.blocks - 1)
        self.la1 = nn.Sequential(*((f"bb_layer2_{i + 1}", Bottleneck(width, 64)) for i, width in enumerate(inputs)))
        widths = [self.width * 2**level for level in range(5)]
        pairs = [*zip(widths, widths[1:]), *list(zip(widths, widths[1:]))[-2::-1], (widths[0],)]
        before = 256
        for number, (channels, modules) in enumerate(zip(pairs, self.modules), start=2):
            name = f"tr{number - 1}"
            if number <= 5:
                self.add_sublayer(name, Transition(name, [before], channels))
                before = channels[-1]
            elif number <= 8:
                self.add_sublayer(name, _Rise(name, channels[1], channels[0], align_corners))
            stage = Stage(f"st{number}", channels, modules, self.blocks, align_corners)
            self.add_sublayer(f"st{number}", stage)
        total = sum(widths) // 2
        self.feat_channels = [total]
        self.last_layer = nn.Sequential(ConvBNReLU(total, total, 1), nn.Conv2D(total, 19, 1))
        normal_weights(self, 0.001)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.la1(self.conv_layer1_2(self.conv_layer1_1(x)))
        skips = []
        for number in range(2, 6):
            fine, x = getattr(self, f"st{number}")(getattr(self, f"tr{number - 1}")([x]))
            skips.append(fine)
        found, x = [x], skips.pop()
        for number in range(6, 9):
            x, coarse = getattr(self, f"st{number}")(getattr(self, f"tr{number - 1}")(x, skips.pop()))
            found.insert(0, coarse)
        found = [_halved(level) for level in (self.st9([x])[0], *found)]
        raised = [resize_to(level, found[0], align_corners=self.align_corners) for level in found]
        return [paddle.concat(raised, axis=1)]


@BACKBONES.register
class UHRNet_W18_Small(_UHRNet):
    width, blocks, modules = 18, 2, (1, 2, 2, 2, 1, 1, 1, 1)


@BACKBONES.register
class UHRNet_W18(_UHRNet):
    width = 18


@BACKBONES.register
class UHRNet_W48(_UHRNet):
    width = 48
