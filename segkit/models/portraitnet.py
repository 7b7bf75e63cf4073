"""PortraitNet: MobileNetV2 and a decoder of separable residual blocks (Zhang et al., Computers & Graphics 2019,
https://doi.org/10.1016/j.cag.2019.03.007)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import resize_to
from segkit.registry import MODELS

WIDTHS = (96, 32, 24, 16, 8)


def _norm(channels: int) -> nn.BatchNorm2D:
    """BatchNorm whose running values are nine tenths those of the last batch, as PaddleSeg's are."""
    return nn.BatchNorm2D(channels, momentum=0.1)


def _separable(in_channels: int, out_channels: int) -> list[nn.Layer]:
    """3x3 convolution of each channel by itself and a 1x1 one, BatchNorm after both and ReLU between."""
    return [
        nn.Conv2D(in_channels, in_channels, 3, padding=1, groups=in_channels, bias_attr=False),
        _norm(in_channels),
        nn.ReLU(),
        nn.Conv2D(in_channels, out_channels, 1, bias_attr=False),
        _norm(out_channels),
    ]


class _First(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Sequential(*_separable(in_channels, out_channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Transit(nn.Layer):
    """Two separable convolutions beside a 1x1 one. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.block = nn.Sequential(_First(in_channels, out_channels), *_separable(out_channels, out_channels))
        self.residual = None
        if in_channels != out_channels:
            conv = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
            self.residual = nn.Sequential(conv, _norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block(x) + (x if self.residual is None else self.residual(x)))


class _Head(nn.Layer):
    """Maps at 1/4, 1/8, 1/16 and 1/32, and the image -> scores at the image's size, with `add_edge` edges' too."""

    def __init__(self, coarsest: int, widths: list[int], num_classes: int, add_edge: bool):
        super().__init__()
        for number, (before, width) in enumerate(zip([coarsest, *widths], widths), 1):
            deconv = nn.Conv2DTranspose(width, width, 4, stride=2, padding=1, bias_attr=False)
            setattr(self, f"deconv{number}", deconv)
            setattr(self, f"transit{number}", _Transit(before, width))
        self.pred = nn.Conv2D(widths[-1], num_classes, 3, padding=1, bias_attr=False)
        self.edge = nn.Conv2D(widths[-1], num_classes, 3, padding=1, bias_attr=False) if add_edge else None

    def forward(self, maps: list[Tensor], image: Tensor) -> list[Tensor]:
        x = maps[-1]
        for number, fine in enumerate(maps[-2::-1], 1):
            x = getattr(self, f"deconv{number}")(getattr(self, f"transit{number}")(x))
            x = fine + resize_to(x, fine)
        x = self.deconv4(self.transit4(x))
        x = resize_to(self.deconv5(self.transit5(x)), image)
        scores = [self.pred(x)]
        if self.edge is not None and self.training:
            scores.append(self.edge(x))
        return scores


@MODELS.register
class PortraitNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], in training with `add_edge` also of edges, for any H and W.

    `backbone` None is MobileNetV2_x1_0. `channel_ratio` scales the decoder's widths, none of which falls below
    `min_channel` or its own. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "MobileNetV2_x1_0"
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        min_channel: int = 16,
        channel_ratio: float = 1.0,
        add_edge: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0, 1, 2, 3), in_channels, align_corners=False, pretrained=pretrained)
        fine = self.map_channels[2::-1]
        widths = [max(min(width, min_channel), int(width * channel_ratio)) for width in WIDTHS]
        self.head = _Head(self.map_channels[-1], [*fine, *widths[3:]], num_classes, add_edge)
        self.train_outputs = 2 if add_edge else 1

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.head(self.maps(x), x)
