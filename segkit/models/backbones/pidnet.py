"""PIDNet's three branches: detail, context and boundary (Xu et al., https://arxiv.org/abs/2206.02066)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.dual_resolution import (
    Basic,
    Bottleneck,
    aggregate,
    conv_bn,
    conv_bn_relu,
    norm_first,
    pools,
    residual_stage,
)
from segkit.models.layers import fan_out_normal, resize_to
from segkit.registry import BACKBONES


class _Selection(nn.Layer):
    """Detail [N, C, H, W] takes from context [N, C, h, w] what the two agree on -> [N, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.f_i = conv_bn(channels, channels // 2, 1)
        self.f_p = conv_bn(channels, channels // 2, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        alike = self.f_p(detail) * resize_to(self.f_i(context), detail)
        share = F.sigmoid(alike.sum(axis=1, keepdim=True))
        return share * resize_to(context, detail) + (1 - share) * detail


class _Pyramid(nn.Layer):
    """The map and its means over growing windows. [N, in, h, w] -> [N, out, h, w].

    `parallel`: all scales in one grouped convolution (PAPPM), else one after another (DAPPM).
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, parallel: bool):
        super().__init__()
        scales = [nn.Sequential(pool, nn.Sequential(*norm_first(in_channels, width))) for pool in pools(True)]
        self.scales = nn.LayerList([nn.Sequential(*norm_first(in_channels, width)), *scales])
        count = len(scales)
        if parallel:
            self.processes = nn.Sequential(*norm_first(width * count, width * count, 3, groups=count))
        else:
            self.processes = nn.LayerList([nn.Sequential(*norm_first(width, width, 3)) for _ in range(count)])
        self.compression = nn.Sequential(*norm_first(width * (count + 1), out_channels))
        self.shortcut = nn.Sequential(*norm_first(in_channels, out_channels))
        self.parallel = parallel

    def forward(self, x: Tensor) -> Tensor:
        if self.parallel:
            first = self.scales[0](x)
            joined = paddle.concat([resize_to(scale(x), x) + first for scale in self.scales[1:]], axis=1)
            maps = [first, self.processes(joined)]
        else:
            maps = aggregate(x, self.scales, self.processes)
        return self.compression(paddle.concat(maps, axis=1)) + self.shortcut(x)


class _LightGuide(nn.Layer):
    """Detail where the boundary is, context elsewhere, three maps of one shape [N, C, h, w]: two 1x1 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.f_p = conv_bn(channels, channels, 1)
        self.f_i = conv_bn(channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = F.sigmoid(boundary)
        return self.f_p((1 - edge) * context + detail) + self.f_i(context + edge * detail)


class _Guide(nn.Layer):
    """Detail where the boundary is, context elsewhere, three maps of one shape [N, C, h, w]: one 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(*norm_first(channels, channels, 3))

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = F.sigmoid(boundary)
        return self.conv(edge * detail + (1 - edge) * context)


class _PIDNet(nn.Layer):
    """[N, in_channels, H, W] -> detail, all three joined, and boundary maps at 1/8 of `feat_channels` channels.

    `width`: channels at 1/4; `stem_blocks`, `branch_blocks`: blocks a stage; `light`: the small models' cheaper
    pyramid, boundary branch and join.
    """

    def __init__(
        self, in_channels: int, width: int, blocks: tuple[int, int], pyramid: int, light: bool, pretrained: str | None
    ):
        super().__init__()
        stem_blocks, branch_blocks = blocks
        fine, edge = 2 * width, width if light else 2 * width
        self.feat_channels = [fine, 4 * width, fine]
        self.stem = nn.Sequential(
            conv_bn_relu(in_channels, width, 3, stride=2, padding=1),
            conv_bn_relu(width, width, 3, stride=2, padding=1),
            residual_stage(Basic, width, width, stem_blocks),
            nn.ReLU(),
            residual_stage(Basic, width, fine, stem_blocks, stride=2),
            nn.ReLU(),
        )
        self.i_branch_layers = nn.LayerList(
            [
                residual_stage(Basic, fine, 4 * width, branch_blocks, stride=2),
                residual_stage(Basic, 4 * width, 8 * width, branch_blocks, stride=2),
                residual_stage(Bottleneck, 8 * width, 8 * width, 2, stride=2),
            ]
        )
        self.p_branch_layers = nn.LayerList(
            [
                residual_stage(Basic, fine, fine, stem_blocks),
                residual_stage(Basic, fine, fine, stem_blocks),
                residual_stage(Bottleneck, fine, fine),
            ]
        )
        self.compression_1 = conv_bn(4 * width, fine, 1)
        self.compression_2 = conv_bn(8 * width, fine, 1)
        self.pag_1 = _Selection(fine)
        self.pag_2 = _Selection(fine)
        first = Basic(fine, edge, 1, conv_bn(fine, edge, 1) if light else None, act=False)
        second = residual_stage(Bottleneck, edge, edge) if light else Basic(edge, edge, 1, None, act=False)
        self.d_branch_layers = nn.LayerList([first, second, residual_stage(Bottleneck, fine, fine)])
        self.spp = _Pyramid(16 * width, pyramid, 4 * width, parallel=light)
        self.dfm = (_LightGuide if light else _Guide)(4 * width)
        self.diff_1 = conv_bn(4 * width, edge, 3, padding=1)
        self.diff_2 = conv_bn(8 * width, fine, 3, padding=1)
        self.pretrained = pretrained
        fan_out_normal(self, per_group=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        context = F.relu(self.i_branch_layers[0](x))
        detail = self.pag_1(self.p_branch_layers[0](x), self.compression_1(context))
        boundary = self.d_branch_layers[0](x)
        boundary = F.relu(boundary + resize_to(self.diff_1(context), boundary))
        middle = detail
        context = F.relu(self.i_branch_layers[1](context))
        detail = self.pag_2(self.p_branch_layers[1](F.relu(detail)), self.compression_2(context))
        boundary = self.d_branch_layers[1](boundary)
        boundary = boundary + resize_to(self.diff_2(context), boundary)
        context = self.spp(self.i_branch_layers[2](context))
        fine = self.p_branch_layers[2](F.relu(detail))
        edge = self.d_branch_layers[2](F.relu(boundary))
        return [middle, self.dfm(fine, resize_to(context, fine), edge), boundary]


@BACKBONES.register
class PIDNet_Small(_PIDNet):
    """[N, in_channels, H, W] -> detail, joined and boundary maps at 1/8. `base_channels`, the width at 1/4, is 32 in
    published weights; `pretrained` is a path that the engine loads."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 32):
        super().__init__(in_channels, base_channels, (2, 3), 96, light=True, pretrained=pretrained)


@BACKBONES.register
class PIDNet_Medium(_PIDNet):
    """`PIDNet_Small` with 64 channels at 1/4."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        super().__init__(in_channels, base_channels, (2, 3), 96, light=True, pretrained=pretrained)


@BACKBONES.register
class PIDNet_Large(_PIDNet):
    """`PIDNet_Small` with 64 channels at 1/4, more blocks, and dense instead of light joins."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None, base_channels: int = 64):
        super().__init__(in_channels, base_channels, (3, 4), 112, light=False, pretrained=pretrained)
