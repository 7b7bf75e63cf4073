"""SINet: portraits on phones, with spatial squeeze blocks and a decoder that looks at what is unsure
(Park et al., https://arxiv.org/abs/1911.09099).

The paper's decoder takes how sure it is from a softmax over the classes. PaddleSeg takes that over the image's columns,
and its weights were trained so: so is it here.
"""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import interleave, raise_to
from segkit.models.prelu import BNPReLU
from segkit.registry import MODELS

_BRANCHES: Sequence[Sequence[Sequence[int]]] = (
    ((3, 1), (5, 1)), ((3, 1), (3, 1)),
    ((3, 1), (5, 1)), ((3, 1), (3, 1)), ((5, 1), (3, 2)), ((5, 2), (3, 4)),
    ((3, 1), (3, 1)), ((5, 1), (5, 1)), ((3, 2), (3, 4)), ((3, 1), (5, 2)),
)  # fmt: skip
_WIDTHS = (16, 48, 96)  # behind the second halving, and of the blocks at 1/4 and at 1/8


def _pointwise(in_channels: int, out_channels: int, groups: int = 1) -> nn.Conv2D:
    return nn.Conv2D(in_channels, out_channels, 1, groups=groups, bias_attr=False)


def _depthwise(channels: int, kernel: int, stride: int = 1) -> nn.Conv2D:
    return nn.Conv2D(channels, channels, kernel, stride, kernel // 2, groups=channels, bias_attr=False)


def _wrapped(conv: nn.Conv2D) -> nn.Sequential:
    """`conv` under the name that published weights have for it."""
    return nn.Sequential(("conv", conv))


class _Activated(BNPReLU):
    """`conv`, BatchNorm and PReLU."""

    def __init__(self, conv: nn.Layer, channels: int):
        super().__init__(channels)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x))


class _Weighted(nn.Layer):
    """Channels weighted by what linear layers, the inner one of `hidden`, make of their means. [N, C, h, w] -> the
    same shape."""

    def __init__(self, channels: int, hidden: int | None):
        super().__init__()
        widths = [channels, channels] if hidden is None else [channels, hidden, channels]
        layers: list[nn.Layer] = []
        for before, width in zip(widths, widths[1:]):
            layers += [nn.Linear(before, width), nn.PReLU(width)]
        self.dense = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.dense(x.mean([2, 3])).unsqueeze([2, 3])


def _halving(in_channels: int, out_channels: int, hidden: int | None = None) -> _Activated:
    """[N, in, h, w] -> [N, out, h/2, w/2]: a separable convolution with `_Weighted` inside."""
    inner = [_depthwise(in_channels, 3, 2), _Weighted(in_channels, hidden), _pointwise(in_channels, out_channels)]
    return _Activated(nn.Sequential(*inner), out_channels)


class _Squeeze(nn.Layer):
    """A separable convolution of the map made smaller by `factor`, raised again: a wide view for little (S2 block).
    [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, kernel: int, factor: int):
        super().__init__()
        self.factor = factor
        self.conv = nn.Sequential(_depthwise(channels, kernel), nn.BatchNorm2D(channels))
        self.act_conv1x1 = nn.Sequential(nn.PReLU(channels), _pointwise(channels, channels))
        self.bn = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, self.factor, self.factor, ceil_mode=True) if self.factor > 1 else x
        return self.bn(raise_to(self.act_conv1x1(self.conv(small)), x))


class _Block(nn.Layer):
    """Channels reduced, seen by two `_Squeeze` branches, joined and, where the shape stays, added to the map
    (S2 module). [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, branches: Sequence[Sequence[int]]):
        super().__init__()
        width = out_channels // 2
        self.c1 = _wrapped(_pointwise(in_channels, width, groups=2))
        self.layer_0, self.layer_1 = (_Squeeze(width, kernel, factor) for kernel, factor in branches)
        self.BR = BNPReLU(out_channels)
        self.shortcut = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        shared = interleave(*self.c1(x).split(2, axis=1))
        joined = paddle.concat([self.layer_0(shared), self.layer_1(shared)], axis=1)
        return self.BR(x + joined if self.shortcut else joined)


def _stage(in_channels: int, out_channels: int, rows: Sequence[Sequence[Sequence[int]]]) -> nn.Sequential:
    widths = [in_channels] + [out_channels] * len(rows)
    return nn.Sequential(*(_Block(*both, row) for both, row in zip(zip(widths, widths[1:]), rows)))


class _Encoder(nn.Layer):
    """[N, in, H, W] -> maps of 12 and 48 channels at 1/2 and 1/4, and scores at 1/8."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        fine: Sequence[Sequence[Sequence[int]]],
        coarse: Sequence[Sequence[Sequence[int]]],
    ):
        super().__init__()
        start, middle, wide = _WIDTHS
        self.level1 = _Activated(nn.Conv2D(in_channels, 12, 3, 2, 1, bias_attr=False), 12)
        self.level2_0 = _halving(12, start)
        self.level2 = _stage(start, middle, fine)
        self.BR2 = BNPReLU(start + middle)
        self.level3_0 = _halving(start + middle, middle, hidden=(start + middle) // 2)
        self.level3 = _stage(middle, wide, coarse)
        self.BR3 = BNPReLU(middle + wide)
        self.classifier = _wrapped(_pointwise(middle + wide, num_classes))

    def forward(self, x: Tensor) -> list[Tensor]:
        half = self.level1(x)
        start = self.level2_0(half)
        quarter = self.level2(start)
        start = self.level3_0(self.BR2(paddle.concat([start, quarter], axis=1)))
        eighth = self.BR3(paddle.concat([start, self.level3(start)], axis=1))
        return [half, quarter, self.classifier(eighth)]


@MODELS.register
class SINet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W (PaddleSeg needs multiples of 32).

    `config`: for each block the kernel and the shrinking factor of its two branches; the first `stage2_blocks` stand
    at 1/4, the next `stage3_blocks` at 1/8 (PaddleSeg has two at 1/4 always). Too few rows are an `InputError`.
    `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        config: Sequence[Sequence[Sequence[int]]] = _BRANCHES,
        stage2_blocks: int = 2,
        stage3_blocks: int = 8,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        _check(config, stage2_blocks, stage3_blocks)
        fine, coarse = config[:stage2_blocks], config[stage2_blocks : stage2_blocks + stage3_blocks]
        self.encoder = _Encoder(num_classes, in_channels, fine, coarse)
        self.bn_3 = nn.BatchNorm2D(num_classes)
        self.level2_C = _Activated(_pointwise(_WIDTHS[1], num_classes), num_classes)
        self.bn_2 = nn.BatchNorm2D(num_classes)
        self.classifier = nn.Sequential(("1", nn.Conv2D(num_classes, num_classes, 3, padding=1, bias_attr=False)))
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        half, quarter, scores = self.encoder(x)
        coarse = self.bn_3(raise_to(scores, quarter))
        unsure = 1 - F.softmax(coarse, axis=-1).max(1, keepdim=True)
        merged = self.bn_2(raise_to(self.level2_C(quarter) * unsure + coarse, half))
        return [self.classifier(raise_to(merged, x))]


def _check(config: Sequence[Sequence[Sequence[int]]], fine: int, coarse: int) -> None:
    if min(fine, coarse) < 1 or len(config) < fine + coarse:
        raise InputError(
            f"model.config: not a row for each block (got {len(config)} for {fine} and {coarse} blocks, expected as "
            "many, and a block or more in either stage). Leave config, stage2_blocks and stage3_blocks out."
        )
    for row in config:
        if len(row) != 2 or any(len(branch) != 2 or branch[0] % 2 == 0 or min(branch) < 1 for branch in row):
            raise InputError(
                f"model.config: not two branches, each an odd kernel and a factor (got {row}, "
                "expected rows like [[3, 1], [5, 2]]). Leave it out for the usual ones."
            )
