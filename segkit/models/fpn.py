"""Feature pyramids (Lin et al., https://arxiv.org/abs/1612.03144), as Panoptic FPN uses them
(Kirillov et al., https://arxiv.org/abs/1901.02446)."""

from __future__ import annotations

from typing import Sequence

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


def raising(convs: Sequence[nn.Layer], doubles: bool, align_corners: bool) -> nn.Sequential:
    """`convs` one after the other, each followed by a doubling of the map if `doubles`."""
    layers: list[nn.Layer] = []
    for conv in convs:
        layers.append(conv)
        if doubles:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners))
    return nn.Sequential(*layers)
