"""Feature pyramids (Lin et al., https://arxiv.org/abs/1612.03144), as Panoptic FPN uses them
(Kirillov et al., https://arxiv.org/abs/1901.02446)."""

from __future__ import annotations

from typing import Callable, Sequence

from paddle import Tensor, nn

from segkit.models.layers import ConvBNReLU, resize_to


class FeaturePyramid(nn.Layer):
    """Maps of `widths` channels, the finest first -> as many of `channels`, the COARSEST first, each with the coarser
    ones added in.

    The coarsest is left as it is: its `fpn_out` is in published weights and unused."""

    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__()
        self.lateral_convs = nn.LayerList(
            [nn.Sequential(nn.Conv2D(width, channels, 1), nn.BatchNorm2D(channels), nn.ReLU()) for width in widths]
        )
        self.fpn_out = nn.LayerList([nn.Sequential(ConvBNReLU(channels, channels, 3, bias=False)) for _ in widths])

    def pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps, merged from the coarsest to the finest."""
        merged = self.lateral_convs[-1](maps[-1])
        levels = [merged]
        for lateral, out, x in list(zip(self.lateral_convs, self.fpn_out, maps))[-2::-1]:
            x = lateral(x)
            merged = x + resize_to(merged, x, align_corners=True)
            levels.append(out(merged))
        return levels

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return self.pyramid(maps)


def scale_head(
    conv: Callable[[int, int], nn.Layer],
    in_channels: int,
    channels: int,
    halvings: int,
    smaller: bool,
    align_corners: bool,
) -> nn.Sequential:
    """A map [N, in, h, w] that is `halvings` smaller than the finest -> [N, channels, H, W] of the finest's size.

    As many of `conv`, at least one, made for its input's and its own channels, each doubling the map where it is
    `smaller` than the finest.
    """
    layers: list[nn.Layer] = []
    for index in range(max(1, halvings)):
        layers.append(conv(channels if index else in_channels, channels))
        if smaller:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners))
    return nn.Sequential(*layers)
