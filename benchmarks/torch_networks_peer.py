"""U-Net and BiSeNetV2 in torch, layer for layer as segkit builds them; for train_step_peer.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(
    before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1, relu: bool = False
) -> nn.Sequential:
    """Convolution with bias and BatchNorm, then ReLU where asked."""
    layers = [nn.Conv2d(before, after, size, stride, size // 2, groups=groups), nn.BatchNorm2d(after)]
    return nn.Sequential(*layers, *[nn.ReLU()] * relu)


def depthwise(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Every channel convolved by itself into `after / before` new ones."""
    return conv_bn(before, after, stride=stride, groups=before)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """`x` bilinearly at the size of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """The paper's with BatchNorm, bilinear enlarging and padding."""

    def __init__(self, num_classes: int, base_channels: int = 64):
        super().__init__()
        widths = [base_channels * times for times in (1, 2, 4, 8, 8)]
        self.first = self.pair(3, base_channels)
        self.down = nn.ModuleList(self.pair(a, b) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(
            self.pair(2 * skip, after) for skip, after in zip(widths[3::-1], [*widths[2::-1], base_channels])
        )
        self.head = nn.Conv2d(base_channels, num_classes, 3, padding=1)

    @staticmethod
    def pair(before: int, after: int) -> nn.Sequential:
        """Two 3x3 convolutions with ReLU."""
        return nn.Sequential(conv_bn(before, after, relu=True), conv_bn(after, after, relu=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, skips = self.first(x), []
        for block in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([skip, enlarged(x, skip)], 1))
        return [self.head(x)]


class Gather(nn.Module):
    """BiSeNetV2's gather-and-expansion layer; of stride 2 where the channels change."""

    def __init__(self, before: int, after: int):
        super().__init__()
        wide = 6 * before
        if before == after:
            middle, self.side = [depthwise(before, wide)], nn.Identity()
        else:
            middle = [depthwise(before, wide, 2), depthwise(wide, wide)]
            self.side = nn.Sequential(depthwise(before, before, 2), conv_bn(before, after, 1))
        self.body = nn.Sequential(conv_bn(before, before, relu=True), *middle, conv_bn(wide, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.side(x))


class Stem(nn.Module):
    """Of BiSeNetV2's semantic branch: to a quarter of the size."""

    def __init__(self):
        super().__init__()
        self.conv, self.fuse = conv_bn(3, 16, stride=2, relu=True), conv_bn(32, 16, relu=True)
        self.left = nn.Sequential(conv_bn(16, 8, 1, relu=True), conv_bn(8, 16, stride=2, relu=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fuse(torch.cat([self.left(x), F.max_pool2d(x, 3, 2, 1)], 1))


class Context(nn.Module):
    """The mean of the whole map added to every pixel."""

    def __init__(self):
        super().__init__()
        self.bn, self.mean = nn.BatchNorm2d(128), conv_bn(128, 128, 1, relu=True)
        self.last = nn.Conv2d(128, 128, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mean(self.bn(x.mean((2, 3), keepdim=True))) + x)


class Aggregation(nn.Module):
    """Detail and semantics, each gating the other."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(depthwise(128, 128), nn.Conv2d(128, 128, 1))
        self.down = nn.Sequential(conv_bn(128, 128, stride=2), nn.AvgPool2d(3, 2, 1, count_include_pad=False))
        self.keep = nn.Sequential(depthwise(128, 128), nn.Conv2d(128, 128, 1), nn.Sigmoid())
        self.up, self.last = conv_bn(128, 128), conv_bn(128, 128)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        fine = self.fine(detail)
        coarse = enlarged(self.down(detail) * self.keep(semantic), fine)
        return self.last(fine * torch.sigmoid(enlarged(self.up(semantic), fine)) + coarse)


class BiSeNetV2(nn.Module):
    """In training: five outputs."""

    def __init__(self, num_classes: int):
        super().__init__()
        widths = (3, 64, 64, 64, 64, 64, 128, 128, 128)
        strides = (2, 1, 2, 1, 1, 2, 1, 1)
        self.detail = nn.Sequential(
            *(conv_bn(a, b, stride=s, relu=True) for a, b, s in zip(widths, widths[1:], strides))
        )
        stages = [(16, 32, 32), (32, 64, 64), (64, 128, 128, 128, 128)]
        gathers = (nn.Sequential(*(Gather(a, b) for a, b in zip(stage, stage[1:]))) for stage in stages)
        self.semantic = nn.ModuleList([Stem(), *gathers])
        self.context, self.aggregation = Context(), Aggregation()
        self.heads = nn.ModuleList(
            nn.Sequential(conv_bn(n, n, relu=True), nn.Dropout(0.1), nn.Conv2d(n, num_classes, 1))
            for n in (128, 16, 32, 64, 128)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for stage in self.semantic:
            maps.append(stage(maps[-1]))
        maps[0] = self.aggregation(self.detail(x), self.context(maps[-1]))
        return [enlarged(head(m), x) for head, m in zip(self.heads, maps)]
