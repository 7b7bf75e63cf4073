"""DoveNet: a small residual encoder-decoder with separable convolutions, for a first model on a CPU."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ResizeTo, resize_to
from segkit.registry import MODELS


class _SeparableConv(nn.Layer):
    """3x3 convolution of each channel, then 1x1 over the channels. [N, in, H, W] -> [N, out, H, W]."""

    one_row = True  # of the layer table

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # He's start for nine inputs a filter; Paddle's own counts the channels of all groups.
        start = nn.initializer.KaimingNormal()
        self.depthwise = nn.Conv2D(
            in_channels, in_channels, 3, padding=1, groups=in_channels, weight_attr=start, bias_attr=False
        )
        self.pointwise = nn.Conv2D(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class _Down(nn.Layer):
    """[N, in, H, W] -> [N, out, ceil(H/2), ceil(W/2)]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = _SeparableConv(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2D(out_channels)
        self.conv2 = _SeparableConv(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2D(out_channels)
        self.pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.shortcut = nn.Conv2D(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(F.relu(x)))
        y = self.norm2(self.conv2(F.relu(y)))
        return self.pool(y) + self.shortcut(x)


class _Up(nn.Layer):
    """[N, in, h, w] -> [N, out, H, W], twice the size, at the size of `like`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2DTranspose(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2D(out_channels)
        self.conv2 = nn.Conv2DTranspose(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2D(out_channels)
        self.upsample = ResizeTo("nearest")
        self.shortcut = nn.Conv2D(in_channels, out_channels, 1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        y = self.norm1(self.conv1(F.relu(x)))
        y = self.norm2(self.conv2(F.relu(y)))
        return self.upsample(y, like) + self.shortcut(resize_to(x, like, "nearest"))


@MODELS.register
class DoveNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    Each decoder stage is raised to the size of the encoder's map, which is twice its own where the photo's sides
    are multiples of 16. `base_channels` is the stem's width; the stages have 2, 4 and 8 times as many.
    """

    train_outputs = 1

    def __init__(self, num_classes: int, in_channels: int = 3, base_channels: int = 32, pretrained: str | None = None):
        super().__init__()
        if base_channels < 1:
            raise InputError(
                f"model.base_channels: the network has no channels left (got {base_channels}, expected 1 or more). "
                "Take 8 to 32."
            )
        stem, low, middle, high = (base_channels * times for times in (1, 2, 4, 8))
        self.stem = nn.Conv2D(in_channels, stem, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2D(stem)
        self.encoder = nn.LayerList([_Down(stem, low), _Down(low, middle), _Down(middle, high)])
        self.decoder = nn.LayerList([_Up(high, high), _Up(high, middle), _Up(middle, low), _Up(low, stem)])
        self.head = nn.Conv2D(stem, num_classes, 3, padding=1)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        sizes = [x]
        y = F.relu(self.norm(self.stem(x)))
        for down in self.encoder:
            sizes.append(y)
            y = down(y)
        for up, like in zip(self.decoder, sizes[::-1]):
            y = up(y, like)
        return [self.head(y)]
