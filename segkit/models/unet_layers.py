"""Parts that the U-Net family shares (Ronneberger et al., https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBNReLU


def stage_widths(base_channels: int, times: tuple[int, ...]) -> list[int]:
    """The width of each stage, the finest first. A base below 2 is an `InputError`: an attention gate halves it."""
    if base_channels < 2:
        raise InputError(
            f"model.base_channels: the network has no channels left (got {base_channels}, expected 2 or more). "
            "Take 16 to 64."
        )
    return [base_channels * factor for factor in times]


def two_convs(in_channels: int, out_channels: int) -> list[nn.Layer]:
    """Two 3x3 `ConvBNReLU`, the sub-layers of a stage."""
    return [ConvBNReLU(in_channels, out_channels, 3), ConvBNReLU(out_channels, out_channels, 3)]


class UNetEncoder(nn.Layer):
    """[N, in, H, W] -> the deepest map (1/16) and the four skip maps, the finest (full size) first."""

    def __init__(self, in_channels: int, widths: list[int]):
        super().__init__()
        self.double_conv = nn.Sequential(*two_convs(in_channels, widths[0]))
        self.down_sample_list = nn.LayerList(
            [nn.Sequential(nn.MaxPool2D(2, 2), *two_convs(before, after)) for before, after in zip(widths, widths[1:])]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        x = self.double_conv(x)
        for down in self.down_sample_list:
            skips.append(x)
            x = down(x)
        return x, skips


class DoubleConv(nn.Layer):
    """Convolution 3x3, BatchNorm, ReLU, twice, in one flat list. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        layers: list[nn.Layer] = []
        for before in (in_channels, out_channels):
            layers += [nn.Conv2D(before, out_channels, 3, padding=1), nn.BatchNorm2D(out_channels), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
