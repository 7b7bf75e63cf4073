"""HarDNet: blocks whose layers link back by powers of two, so that little memory is read
(Chao et al., https://arxiv.org/abs/1909.00948)."""

from __future__ import annotations

from typing import Sequence

import paddle
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS


def _links(layer: int) -> list[int]:
    """The layers that `layer` (1 for the first, 0 is the input) reads, in order: those 1, 2, 4, ... before it,
    as far as the number divides its own."""
    return [layer - 2**power for power in reversed(range(layer.bit_length())) if layer % 2**power == 0]


class _Block(nn.Layer):
    """[N, in, h, w] -> [N, out_channels, h, w]. `growth`: width of a layer with one link; `factor`: for each more."""

    def __init__(self, in_channels: int, growth: int, factor: float, count: int):
        super().__init__()
        widths = [in_channels]
        self.layers = nn.LayerList()
        for layer in range(1, count + 1):
            links = _links(layer)
            out = int(int(growth * factor ** (len(links) - 1)) + 1) // 2 * 2
            self.layers.append(ConvBNReLU(sum(widths[link] for link in links), out, 3, bias=False))
            widths.append(out)
        # What leaves the block: the layers that no later one reads, the odd ones, and the last.
        self._leaving = [layer for layer in range(1, count + 1) if layer % 2 == 1 or layer == count]
        self.out_channels = sum(widths[layer] for layer in self._leaving)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for number, layer in enumerate(self.layers, 1):
            read = [maps[link] for link in _links(number)]
            maps.append(layer(read[0] if len(read) == 1 else paddle.concat(read, axis=1)))
        return paddle.concat([maps[layer] for layer in self._leaving], axis=1)


class _Encoder(nn.Layer):
    """[N, in, h, w] -> the coarsest map and each block's, the finest first; half the size between blocks."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], growths: Sequence[int], factor: float, counts: Sequence[int]
    ):
        super().__init__()
        self.blks = nn.LayerList()
        self.skip_channels = []
        for number, (width, growth, count) in enumerate(zip(widths, growths, counts), 1):
            block = _Block(in_channels, growth, factor, count)
            self.skip_channels.append(block.out_channels)
            self.blks.append(block)
            self.blks.append(ConvBNReLU(block.out_channels, width, 1, bias=False))
            if number < len(widths):
                self.blks.append(nn.AvgPool2D(2, 2))
            in_channels = width

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for layer in self.blks:
            x = layer(x)
            if isinstance(layer, _Block):
                skips.append(x)
        return x, skips


class _Decoder(nn.Layer):
    """The coarsest map and the skips -> [N, out_channels, ...] at the finest skip's size."""

    def __init__(
        self,
        in_channels: int,
        skips: Sequence[int],
        growths: Sequence[int],
        factor: float,
        counts: Sequence[int],
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.dense_blocks_up = nn.LayerList()
        self.conv1x1_up = nn.LayerList()
        for skip, growth, count in list(zip(skips, growths, counts))[::-1]:
            joined = in_channels + skip
            self.conv1x1_up.append(ConvBNReLU(joined, joined // 2, 1, bias=False))
            block = _Block(joined // 2, growth, factor, count)
            self.dense_blocks_up.append(block)
            in_channels = block.out_channels
        self.out_channels = in_channels

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for conv, block, skip in zip(self.conv1x1_up, self.dense_blocks_up, skips[::-1]):
            raised = resize_to(x, skip, align_corners=self.align_corners)
            x = block(conv(paddle.concat([raised, skip], axis=1)))
        return x


@MODELS.register
class HarDNet(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `stem_channels`: widths of the first four convolutions, the third of which halves the map; `ch_list`, `gr`,
    `n_layers`: width behind each block, and its growth and layers; `grmul` is the growth's factor. `align_corners` is
    the interpolations'. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        stem_channels: Sequence[int] = (16, 24, 32, 48),
        ch_list: Sequence[int] = (64, 96, 160, 224, 320),
        grmul: float = 1.7,
        gr: Sequence[int] = (10, 16, 18, 24, 32),
        n_layers: Sequence[int] = (4, 4, 8, 8, 8),
        align_corners: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__()
        if len({len(ch_list), len(gr), len(n_layers)}) > 1:
            raise InputError(
                "model.ch_list, model.gr, model.n_layers: not one of each for every block (got "
                f"{len(ch_list)}, {len(gr)} and {len(n_layers)}, expected the same number)."
            )
        widths = [in_channels, *stem_channels]
        self.stem = nn.Sequential(
            *(
                ConvBNReLU(before, after, 3, stride=2 if index == 2 else 1, bias=False)
                for index, (before, after) in enumerate(zip(widths, widths[1:]))
            )
        )
        self.encoder = _Encoder(widths[-1], ch_list, gr, grmul, n_layers)
        skips = self.encoder.skip_channels[:-1]
        self.decoder = _Decoder(ch_list[-1], skips, gr[:-1], grmul, n_layers[:-1], align_corners)
        self.cls_head = nn.Conv2D(self.decoder.out_channels, num_classes, 1)
        self.align_corners = align_corners
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        coarsest, skips = self.encoder(self.stem(x))
        return [resize_to(self.cls_head(self.decoder(coarsest, skips[:-1])), x, align_corners=self.align_corners)]
