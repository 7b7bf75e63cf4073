"""Context modules: the same map looked at with several fields of view; and the decoder behind ASPP."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, SeparableConvBNReLU, resize_to


class PooledImage(nn.Sequential):
    """The mean of the whole map, projected. [N, in, h, w] -> [N, out, 1, 1]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.AdaptiveAvgPool2D(1), ConvBNReLU(in_channels, out_channels, 1, bias=False))


class ASPP(nn.Layer):
    """Atrous spatial pyramid pooling: convolutions of several dilations beside the image's mean
    (Chen et al., https://arxiv.org/abs/1706.05587). [N, in, h, w] -> [N, out, h, w].

    `rates`: dilations; 1 is a 1x1 convolution. `separable`: depthwise and pointwise instead of dense 3x3. `extra`:
    further maps [N, out, h, w] that a subclass joins.
    """

    def __init__(
        self,
        rates: Sequence[int],
        in_channels: int,
        out_channels: int,
        align_corners: bool,
        separable: bool = False,
        extra: int = 0,
    ):
        super().__init__()
        self.align_corners = align_corners
        dilated = SeparableConvBNReLU if separable else ConvBNReLU
        self.aspp_blocks = nn.LayerList(
            [
                ConvBNReLU(in_channels, out_channels, 1)
                if rate == 1
                else dilated(in_channels, out_channels, 3, padding=rate, dilation=rate)
                for rate in rates
            ]
        )
        self.global_avg_pool = PooledImage(in_channels, out_channels)
        self.conv_bn_relu = ConvBNReLU(out_channels * (len(rates) + 1 + extra), out_channels, 1)
        self.dropout = nn.Dropout(0.1)

    def joined(self, x: Tensor, *others: Tensor) -> Tensor:
        """The map's looks and the `others`, as one map [N, out, h, w]."""
        maps = [block(x) for block in self.aspp_blocks]
        maps.append(resize_to(self.global_avg_pool(x), x, align_corners=self.align_corners))
        return self.dropout(self.conv_bn_relu(paddle.concat([*maps, *others], axis=1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x)


class FineDecoder(nn.Layer):
    """DeepLabV3+'s decoder: a coarse map [N, context_channels, h, w] raised onto a fine one [N, in, H, W] -> scores
    [N, num_classes, H, W] (Chen et al., https://arxiv.org/abs/1802.02611)."""

    def __init__(self, num_classes: int, in_channels: int, context_channels: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.conv_bn_relu1 = ConvBNReLU(in_channels, 48, 1)
        self.conv_bn_relu2 = SeparableConvBNReLU(context_channels + 48, 256, 3)
        self.conv_bn_relu3 = SeparableConvBNReLU(256, 256, 3)
        self.conv = nn.Conv2D(256, num_classes, 1)

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        fine = self.conv_bn_relu1(fine)
        x = resize_to(x, fine, align_corners=self.align_corners)
        return self.conv(self.conv_bn_relu3(self.conv_bn_relu2(paddle.concat([x, fine], axis=1))))


def pooling_stages(
    in_channels: int,
    out_channels: int,
    bin_sizes: Sequence[int],
    bias: bool = True,
    names: tuple[str, str] = ("_conv", "_batch_norm"),
) -> nn.LayerList:
    """For each of `bin_sizes` a layer from [N, in, h, w] to the means over a grid of so many cells along each side,
    projected: [N, out, size, size]. `bias` and `names` are the projections'."""
    convs = [ConvBNReLU(in_channels, out_channels, 1, bias=bias, names=names) for _ in bin_sizes]
    return nn.LayerList([nn.Sequential(nn.AdaptiveAvgPool2D(size), conv) for size, conv in zip(bin_sizes, convs)])


class PyramidPooling(nn.Layer):
    """The map beside its means over grids of several sizes (Zhao et al., https://arxiv.org/abs/1612.01105).
    [N, in, h, w] -> [N, out, h, w].

    `bin_sizes`: cells along each side. `reduce`: each grid gets an equal share of `in` channels, else all of them.
    `coarse_first`: published weights expect the grids in the order of `bin_sizes`, else backwards.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bin_sizes: Sequence[int],
        align_corners: bool,
        reduce: bool = True,
        bias: bool = True,
        coarse_first: bool = False,
    ):
        super().__init__()
        self.align_corners, self.coarse_first = align_corners, coarse_first
        width = in_channels // len(bin_sizes) if reduce else in_channels
        self.stages = pooling_stages(in_channels, width, bin_sizes, bias)
        self.conv_bn_relu2 = ConvBNReLU(in_channels + width * len(bin_sizes), out_channels, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [resize_to(stage(x), x, align_corners=self.align_corners) for stage in self.stages]
        ordered = pooled if self.coarse_first else pooled[::-1]
        return self.conv_bn_relu2(paddle.concat([x, *ordered], axis=1))


class JointUpsampling(nn.Layer):
    """Joint pyramid upsampling: three maps [N, widths[i], h, w], the finest first, raised to the finest's size and
    looked at with four dilations -> [N, 4 width, h, w] (Wu et al., "FastFCN", https://arxiv.org/abs/1903.11816)."""

    def __init__(self, widths: Sequence[int], width: int):
        super().__init__()
        self.conv5 = ConvBNReLU(widths[2], width, 3, bias=False)
        self.conv4 = ConvBNReLU(widths[1], width, 3, bias=False)
        self.conv3 = ConvBNReLU(widths[0], width, 3, bias=False)
        self.rates = (1, 2, 4, 8)
        for index, rate in enumerate(self.rates, start=1):
            conv = SeparableConvBNReLU(3 * width, width, 3, padding=rate, dilation=rate, bias=False)
            self.add_sublayer(f"dilation{index}", conv)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, middle, coarsest = self.conv3(maps[0]), self.conv4(maps[1]), self.conv5(maps[2])
        raised = [resize_to(x, finest, align_corners=True) for x in (coarsest, middle, finest)]
        x = paddle.concat(raised, axis=1)
        return paddle.concat([getattr(self, f"dilation{i + 1}")(x) for i in range(len(self.rates))], axis=1)
