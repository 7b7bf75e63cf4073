"""Parts of the light decoders: pooled context, then fusion from the coarsest map to the finest
(Peng et al., PP-LiteSeg, https://arxiv.org/abs/2204.02681)."""

from __future__ import annotations

from functools import partial
from typing import Callable, Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import ConvBN, ConvBNReLU, SeparableConvBNReLU, resize_to

Conv = Callable[..., nn.Layer]
separable = partial(SeparableConvBNReLU, depthwise_bias=False)
dense = partial(ConvBNReLU, bias=False)


class PooledContext(nn.Layer):
    """The map's means over grids of several sizes, added up. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, bin_sizes: Sequence[int], conv: Conv):
        super().__init__()
        self.stages = nn.LayerList(
            [nn.Sequential(nn.AdaptiveAvgPool2D(size), ConvBNReLU(in_channels, out_channels, 1)) for size in bin_sizes]
        )
        self.conv_out = conv(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [resize_to(stage(x), x) for stage in self.stages]
        return self.conv_out(sum(others, first))


class Fusion(nn.Layer):
    """A fine map [N, fine, H, W] and a coarse one [N, coarse, h, w], added -> [N, out, H, W]."""

    def __init__(self, fine: int, coarse: int, out_channels: int, resize_mode: str, conv: Conv):
        super().__init__()
        self.conv_x = conv(fine, coarse, 3)
        self.conv_out = conv(coarse, out_channels, 3)
        self.resize_mode = resize_mode

    def join(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Two maps of one shape -> their sum."""
        return fine + coarse

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        fine = self.conv_x(fine)
        return self.conv_out(self.join(fine, resize_to(coarse, fine, self.resize_mode)))


class SpatialAttentionFusion(Fusion):
    """`Fusion` that weights the two maps pixel by pixel, from their means and maxima over the channels."""

    def __init__(self, fine: int, coarse: int, out_channels: int, resize_mode: str, conv: Conv):
        super().__init__(fine, coarse, out_channels, resize_mode, conv)
        self.conv_xy_atten = nn.Sequential(ConvBNReLU(4, 2, 3, bias=False), ConvBN(2, 1, 3, bias=False))
        # Published weights hold it: a 1 that is never trained.
        self._scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self._scale.stop_gradient = True

    def join(self, fine: Tensor, coarse: Tensor) -> Tensor:
        looks = [look(x, axis=1, keepdim=True) for x in (fine, coarse) for look in (paddle.mean, paddle.max)]
        weight = F.sigmoid(self.conv_xy_atten(paddle.concat(looks, axis=1)))
        return fine * weight + coarse * (self._scale - weight)


FUSIONS: dict[str, Callable[..., nn.Layer]] = {
    "UAFM": partial(Fusion, conv=dense),
    "UAFM_SpAtten": partial(SpatialAttentionFusion, conv=dense),
    "UAFMMobile": partial(Fusion, conv=separable),
    "UAFMMobile_SpAtten": partial(SpatialAttentionFusion, conv=separable),
}


class FusionHead(nn.Layer):
    """Maps, the finest first -> as many, each fused with all coarser ones, of `widths` channels.

    `arm_type` names the fusion. Its wrong name is an `InputError`.
    """

    def __init__(
        self,
        map_channels: Sequence[int],
        widths: Sequence[int],
        context: nn.Layer,
        context_channels: int,
        arm_type: str,
        resize_mode: str,
    ):
        super().__init__()
        if arm_type not in FUSIONS:
            raise InputError(f"model.arm_type: unknown (got '{arm_type}', expected one of {', '.join(FUSIONS)}).")
        self.cm = context
        coarser = [*widths[1:], context_channels]
        self.arm_list = nn.LayerList(
            [FUSIONS[arm_type](*channels, resize_mode) for channels in zip(map_channels, coarser, widths)]
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.cm(maps[-1])
        fused = []
        for arm, fine in zip(reversed(self.arm_list), maps[::-1]):
            x = arm(fine, x)
            fused.append(x)
        return fused[::-1]


class ScoreHead(nn.Layer):
    """[N, in, h, w] -> class scores [N, num_classes, h, w]."""

    def __init__(self, in_channels: int, hidden: int, num_classes: int, conv: Conv = dense, bias: bool = False):
        super().__init__()
        self.conv = conv(in_channels, hidden, 3)
        self.conv_out = nn.Conv2D(hidden, num_classes, 1, bias_attr=None if bias else False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


def one_each(where: str, values: Sequence[int], count: int) -> list[int]:
    """`values` for `count` maps; one value serves all, another number is an `InputError`."""
    if len(values) not in (1, count):
        raise InputError(
            f"{where}: not one for each of model.backbone_indices (got {len(values)}, expected 1 or {count})."
        )
    return list(values) * (count if len(values) == 1 else 1)
