"""U-Net: contracting and expanding path with skip connections (Ronneberger et al., https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from segkit.models.layers import resize_to
from segkit.models.unet_layers import UNetEncoder, stage_widths, two_convs
from segkit.registry import MODELS


class _Up(nn.Layer):
    """[N, in, h, w] and its skip [N, in, H, W] -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, align_corners: bool, use_deconv: bool):
        super().__init__()
        self.align_corners = align_corners
        self.use_deconv = use_deconv
        raised = in_channels
        if use_deconv:
            raised = out_channels // 2
            self.deconv = nn.Conv2DTranspose(in_channels, raised, kernel_size=2, stride=2)
        self.double_conv = nn.Sequential(*two_convs(in_channels + raised, out_channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.use_deconv:
            x = self.deconv(x)
        x = resize_to(x, skip, align_corners=self.align_corners)
        return self.double_conv(paddle.concat([x, skip], axis=1))


class _Decoder(nn.Layer):
    """The deepest map and the skips -> [N, widths[0], H, W]."""

    def __init__(self, widths: list[int], align_corners: bool, use_deconv: bool):
        super().__init__()
        steps = [(widths[3], widths[2]), (widths[2], widths[1]), (widths[1], widths[0]), (widths[0], widths[0])]
        self.up_sample_list = nn.LayerList([_Up(low, high, align_corners, use_deconv) for low, high in steps])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for up, skip in zip(self.up_sample_list, skips[::-1]):
            x = up(x, skip)
        return x


@MODELS.register
class UNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `use_deconv` raises the maps by transposed convolutions instead of bilinear interpolation, `align_corners` is
    that interpolation's. `base_channels` is the width of the finest stage; the deeper ones have 2, 4, 8 and 8
    times as many. `pretrained` is a path that the engine loads. With 64, keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        align_corners: bool = False,
        use_deconv: bool = False,
        in_channels: int = 3,
        base_channels: int = 64,
        pretrained: str | None = None,
    ):
        super().__init__()
        widths = stage_widths(base_channels, (1, 2, 4, 8, 8))
        self.encode = UNetEncoder(in_channels, widths)
        self.decode = _Decoder(widths, align_corners, use_deconv)
        # Published weights name the last convolution twice; both names are the one layer.
        self.cls = self.conv = nn.Conv2D(widths[0], num_classes, kernel_size=3, padding=1)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        deepest, skips = self.encode(x)
        return [self.cls(self.decode(deepest, skips))]
