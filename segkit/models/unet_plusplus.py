"""UNet++: a U-Net whose skips are dense chains of nodes (Zhou et al., https://arxiv.org/abs/1807.10165)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from segkit.models.layers import resize_to
from segkit.models.unet_layers import DoubleConv, stage_widths
from segkit.registry import MODELS


class _UpCat(nn.Layer):
    """A map [N, low, h, w] and the earlier nodes of the next finer row, each [N, high, H, W] -> [N, high, H, W]."""

    def __init__(self, low: int, high: int, nodes: int, align_corners: bool, use_deconv: bool):
        super().__init__()
        self.align_corners = align_corners
        # The 1x1 convolution comes before the interpolation: the two commute, and the small map costs a quarter.
        self.up = (
            nn.Conv2DTranspose(low, high, kernel_size=2, stride=2)
            if use_deconv
            else nn.Sequential(("1", nn.Conv2D(low, high, kernel_size=1)))
        )
        self.conv = DoubleConv(high * (nodes + 1), high)

    def forward(self, x: Tensor, row: list[Tensor]) -> Tensor:
        x = resize_to(self.up(x), row[0], align_corners=self.align_corners)
        return self.conv(paddle.concat([x, *row], axis=1))


@MODELS.register
class UNetPlusPlus(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    Node i_j stands in row i (1/2^i of the size) and column j, and sees row i's earlier nodes and the coarser node
    i+1_j-1. `is_ds` (deep supervision) returns the mean of the four nodes of the finest row, else the last alone.
    `use_deconv` raises the maps by transposed convolutions instead of bilinear interpolation, `align_corners` is
    that interpolation's. `base_channels` is the finest row's width; the deeper ones have 2, 4, 8 and 16 times as
    many. `pretrained` is a path that the engine loads. With 32, keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        use_deconv: bool = False,
        align_corners: bool = False,
        pretrained: str | None = None,
        is_ds: bool = True,
        base_channels: int = 32,
    ):
        super().__init__()
        self.is_ds = is_ds
        self.pretrained = pretrained
        self.pool = nn.MaxPool2D(kernel_size=2, stride=2)
        widths = stage_widths(base_channels, (1, 2, 4, 8, 16))
        for row, (before, width) in enumerate(zip([in_channels, *widths], widths)):
            setattr(self, f"conv{row}_0", DoubleConv(before, width))
        for column in range(1, 5):
            for row in range(5 - column):
                node = _UpCat(widths[row + 1], widths[row], column, align_corners, use_deconv)
                setattr(self, f"up_cat{row}_{column}", node)
        for column in range(1, 5):
            setattr(self, f"out_{column}", nn.Conv2D(widths[0], num_classes, kernel_size=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = [[self.conv0_0(x)]]
        for row in range(1, 5):
            rows.append([getattr(self, f"conv{row}_0")(self.pool(rows[-1][0]))])
        for column in range(1, 5):
            for row in range(5 - column):
                node = getattr(self, f"up_cat{row}_{column}")
                rows[row].append(node(rows[row + 1][column - 1], rows[row]))
        if not self.is_ds:
            return [self.out_4(rows[0][4])]
        scores = [getattr(self, f"out_{column}")(rows[0][column]) for column in range(1, 5)]
        return [sum(scores[1:], scores[0]) / 4]
