"""U2-Net: a U-Net whose every stage is a U-Net (Qin et al., https://arxiv.org/abs/2005.09007)."""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS

_pool = partial(F.max_pool2d, kernel_size=2, stride=2, ceil_mode=True)


def _conv(in_channels: int, out_channels: int, dilation: int = 1) -> ConvBNReLU:
    names = ("conv_s1", "bn_s1")
    return ConvBNReLU(in_channels, out_channels, 3, padding=dilation, dilation=dilation, names=names)


class _Block(nn.Layer):
    """A U-Net of `depth` levels beside a shortcut (RSU). [N, in, h, w] -> [N, out, h, w].

    `dilated`: the levels look further instead of shrinking the map.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, depth: int, dilated: bool = False):
        super().__init__()
        self.depth, self.dilated = depth, dilated
        self.rebnconvin = _conv(in_channels, out_channels)
        for level in range(1, depth + 1):
            far = 2 ** (level - 1) if dilated else (2 if level == depth else 1)
            setattr(self, f"rebnconv{level}", _conv(out_channels if level == 1 else inner, inner, far))
        for level in range(depth - 1, 0, -1):
            far = 2 ** (level - 1) if dilated else 1
            setattr(self, f"rebnconv{level}d", _conv(2 * inner, out_channels if level == 1 else inner, far))

    def forward(self, x: Tensor) -> Tensor:
        start = x = self.rebnconvin(x)
        fine = []
        for level in range(1, self.depth):
            x = getattr(self, f"rebnconv{level}")(x)
            fine.append(x)
            # The last level sees the map of the one before at the same size.
            if not self.dilated and level < self.depth - 1:
                x = _pool(x)
        x = getattr(self, f"rebnconv{self.depth}")(x)
        for level in range(self.depth - 1, 0, -1):
            skip = fine[level - 1]
            x = getattr(self, f"rebnconv{level}d")(paddle.concat([resize_to(x, skip), skip], axis=1))
        return x + start


class _U2Net(nn.Layer):
    """The encoder's widths are those of its stages 1 to 6, inner and outer; the decoder's those of 5 to 1."""

    train_outputs = 7

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        encoder: tuple[tuple[int, int], ...],
        decoder: tuple[tuple[int, int], ...],
        pretrained: str | None,
    ):
        super().__init__()
        for number, (inner, out) in enumerate(encoder, 1):
            setattr(self, f"stage{number}", _Block(in_channels, inner, out, max(4, 8 - number), dilated=number > 4))
            in_channels = out
        below = in_channels
        for number, (inner, out) in zip(range(5, 0, -1), decoder):
            depth = max(4, 8 - number)
            setattr(self, f"stage{number}d", _Block(below + encoder[number - 1][1], inner, out, depth, number > 4))
            below = out
        sides = [encoder[-1][1], *(out for _, out in decoder)]
        for number, width in zip(range(6, 0, -1), sides):
            setattr(self, f"side{number}", nn.Conv2D(width, num_classes, 3, padding=1))
        self.outconv = nn.Conv2D(6 * num_classes, num_classes, 1)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        image, encoded = x, []
        for number in range(1, 7):
            x = getattr(self, f"stage{number}")(x if number == 1 else _pool(x))
            encoded.append(x)
        decoded = [x]
        for number in range(5, 0, -1):
            skip = encoded[number - 1]
            x = getattr(self, f"stage{number}d")(paddle.concat([resize_to(x, skip), skip], axis=1))
            decoded.append(x)
        sides = [resize_to(getattr(self, f"side{n}")(y), image) for n, y in enumerate(decoded[::-1], 1)]
        scores = self.outconv(paddle.concat(sides, axis=1))
        return [scores, *sides] if self.training else [scores]


@MODELS.register
class U2Net(_U2Net):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], in training also from each of six decoder stages, the finest
    first, for any H and W.

    `base_channels` is the finest stage's width, 64 in published weights; `pretrained` is a path that the engine loads.
    Keys and outputs are PaddleSeg's.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        half, one, two, four, eight = (base_channels * times // 2 for times in (1, 2, 4, 8, 16))
        encoder = ((half, one), (half, two), (one, four), (two, eight), (four, eight), (four, eight))
        decoder = ((four, eight), (two, four), (one, two), (half, one), (half // 2, one))
        super().__init__(num_classes, in_channels, encoder, decoder, pretrained)


@MODELS.register
class U2Netp(_U2Net):
    """`U2Net` with 64 channels in every stage and 16 within, 1/40 of its parameters."""

    def __init__(self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        widths = (base_channels // 4, base_channels)
        super().__init__(num_classes, in_channels, (widths,) * 6, (widths,) * 5, pretrained)
