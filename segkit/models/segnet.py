"""SegNet: the decoder puts values back where max-pooling took them (Badrinarayanan et al.,
https://arxiv.org/abs/1511.00561)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, unpool
from segkit.registry import MODELS


def _convs(*widths: int) -> list[nn.Layer]:
    return [ConvBNReLU(before, after, 3) for before, after in zip(widths, widths[1:])]


@MODELS.register
class SegNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W (PaddleSeg crashes where a side is odd).

    `base_channels` is the width of the finest stage; the deeper ones have 2, 4, 8 and 8 times as many. `pretrained`
    is a path that the engine loads. With 64, keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        super().__init__()
        a, b, c, d = (base_channels * times for times in (1, 2, 4, 8))
        for number, widths in enumerate(((in_channels, a, a), (a, b, b), (b, c, c, c), (c, d, d, d), (d, d, d, d)), 1):
            setattr(self, f"enco{number}", nn.Sequential(*_convs(*widths)))
        for number, widths in enumerate(((d, d, d, d), (d, d, d, c), (c, c, c, b), (b, b, b, a)), 1):
            setattr(self, f"deco{number}", nn.Sequential(*_convs(*widths)))
        self.deco5 = nn.Sequential(*_convs(a, a), nn.Conv2D(a, num_classes, 3, padding=1))
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        pooled = []
        for number in range(1, 6):
            before = getattr(self, f"enco{number}")(x)
            x, places = F.max_pool2d(before, 2, 2, return_mask=True)
            pooled.append((places, before))
        for number, (places, before) in enumerate(pooled[::-1], 1):
            x = getattr(self, f"deco{number}")(unpool(x, places, before))
        return [x]
