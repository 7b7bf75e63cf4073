"""StrideFormer, the encoder of PP-MobileSeg: MobileNetV3 blocks, strided axial attention, and a module that joins the
maps (Tang et al., https://arxiv.org/abs/2304.05152)."""

from __future__ import annotations

from functools import partial
from typing import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.inverted_residual import InvertedResidual, Step
from segkit.models.layers import ConvBN, fill_to, resize_to, without_weight_decay
from segkit.models.mobile_attention import NAMES, MobileBlock, mobile_conv, quiet_conv
from segkit.registry import BACKBONES

_Embed = partial(ConvBN, kernel_size=1, bias=False, names=("conv", "bn"))


class _Stage(nn.Layer):
    """[N, in, h, w] -> [N, out, h/s, w/s]: MobileNetV3 blocks, in the first stage behind a convolution of stride 2."""

    def __init__(self, in_channels: int, steps: Sequence[Step], stem: int | None = None):
        super().__init__()
        self.conv = None
        if stem is not None:
            self.conv = mobile_conv(in_channels, stem, 3, stride=2, padding=1, act=F.hardswish)
            in_channels = stem
        widths = [in_channels, *(step.out for step in steps)]
        self.blocks = nn.LayerList([InvertedResidual(*both, names=NAMES) for both in zip(widths, steps)])
        without_weight_decay(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return x


class _Position(nn.Layer):
    """Adds a learned code of 16 places, stretched to the line's length. [N, C, L, 1] -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.pos_embed = self.create_parameter([1, channels, 16], default_initializer=nn.initializer.Normal())

    def forward(self, x: Tensor) -> Tensor:
        return x + resize_to(self.pos_embed.unsqueeze(-1), x)


class _AxialAttention(nn.Layer):
    """Attention along the means of rows and of columns, at half the size (Sea attention,
    Wan et al., https://arxiv.org/abs/2301.13156). [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, key_dim: int, heads: int):
        super().__init__()
        keys, values = key_dim * heads, 2 * key_dim * heads
        self.heads, self.scale = heads, key_dim**-0.5
        self.to_q = mobile_conv(channels, keys, 1)
        self.to_k = mobile_conv(channels, keys, 1)
        self.to_v = mobile_conv(channels, values, 1)
        self.stride_conv = nn.Sequential(
            nn.Conv2D(channels, channels, 3, stride=2, padding=1, groups=channels), nn.BatchNorm2D(channels)
        )
        self.proj = quiet_conv(values, channels)
        for line in ("row", "column"):
            setattr(self, f"proj_encode_{line}", quiet_conv(values, values))
            setattr(self, f"pos_emb_{line}q", _Position(keys))
            setattr(self, f"pos_emb_{line}k", _Position(keys))
        self.dwconv = mobile_conv(2 * values, 2 * values, 3, groups=2 * values, act=F.relu6)
        self.pwconv = mobile_conv(2 * values, channels, 1)

    def along(self, line: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of one line of cells, [N, *, L, 1] each -> [N, values, L, 1]."""
        query, key = getattr(self, f"pos_emb_{line}q")(query), getattr(self, f"pos_emb_{line}k")(key)
        query, key, value = (x.reshape([0, self.heads, x.shape[1] // self.heads, -1]) for x in (query, key, value))
        weights = F.softmax(query.transpose([0, 1, 3, 2]) @ key * self.scale, axis=-1)
        found = value @ weights.transpose([0, 1, 3, 2])
        channels = found.shape[1] * found.shape[2]
        return getattr(self, f"proj_encode_{line}")(found.reshape([0, channels, -1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        small = self.stride_conv(x)
        looks = [self.to_q(small), self.to_k(small), self.to_v(small)]
        detail = self.pwconv(self.dwconv(paddle.concat(looks, axis=1)))
        rows = self.along("row", *(look.mean(3, keepdim=True) for look in looks))
        columns = self.along("column", *(look.mean(2, keepdim=True).transpose([0, 1, 3, 2]) for look in looks))
        context = self.proj(looks[2] + (rows + columns.transpose([0, 1, 3, 2])))
        return resize_to(F.hardsigmoid(context) * detail, x)


class _Transformer(nn.Layer):
    """[N, C, h, w] -> the same shape. Stochastic depth grows from 0 to `drop`."""

    def __init__(self, channels: int, depth: int, key_dim: int, heads: int, mlp_ratio: int, drop: float):
        super().__init__()
        drops = np.linspace(0, drop, depth).tolist()
        self.transformer_blocks = nn.LayerList(
            [MobileBlock(_AxialAttention(channels, key_dim, heads), channels, mlp_ratio, rate) for rate in drops]
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x)
        return x


class _Join(nn.Layer):
    """Maps at 1/8, 1/16 and 1/32 -> [N, out, ...] at half of 1/8: the fine ones sum, gated by all three (AAM)."""

    def __init__(self, channels: Sequence[int], out_channels: int):
        super().__init__()
        self.embedding_list = nn.LayerList([_Embed(width, out_channels) for width in channels])
        self.act_embedding_list = nn.LayerList([_Embed(width, out_channels, act=F.sigmoid) for width in channels])

    def forward(self, maps: list[Tensor]) -> Tensor:
        # A map of one cell has no half: zeros make it two.
        fine = F.interpolate(fill_to(maps[0], 2), scale_factor=0.5, mode="bilinear")
        middle, coarse = resize_to(maps[1], fine), maps[2]
        gate = self.act_embedding_list[0](fine) * self.act_embedding_list[1](middle)
        gate = gate * resize_to(self.act_embedding_list[2](coarse), fine)
        both = self.embedding_list[0](fine) + self.embedding_list[1](middle)
        return gate * both + resize_to(self.embedding_list[2](coarse), fine)


class _FineJoin(nn.Layer):
    """Maps at 1/8, 1/16 and 1/32 -> [N, out, ...] at 1/8: the finest one, gated by the others (AAMSx8)."""

    def __init__(self, channels: Sequence[int], out_channels: int):
        super().__init__()
        fine, middle, coarse = channels
        self.embedding_list = nn.LayerList([_Embed(width, out_channels) for width in (fine, coarse)])
        self.act_embedding_list = nn.LayerList(
            [_Embed(width, out_channels, act=F.sigmoid) for width in (middle, coarse)]
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, middle, coarse = maps
        gate = self.act_embedding_list[0](resize_to(middle, fine))
        gate = gate * resize_to(self.act_embedding_list[1](coarse), fine)
        return gate * self.embedding_list[0](fine) + resize_to(self.embedding_list[1](coarse), fine)


_JOINS = {"AAM": _Join, "AAMSx8": _FineJoin}


class _StrideFormer(nn.Layer):
    """[N, in_channels, H, W] -> one map of `feat_channels[0]` channels, at 1/16 (`inj_type` AAM) or 1/8 (AAMSx8)."""

    def __init__(
        self,
        stages: Sequence[Sequence[Step]],
        depth: int,
        heads: int,
        in_channels: int,
        inj_type: str,
        out_feat_chs: Sequence[int],
        out_channels: int,
        drop_path_rate: float,
        pretrained: str | None,
    ):
        super().__init__()
        if inj_type not in _JOINS:
            raise InputError(f"backbone.inj_type: unknown (got '{inj_type}', expected one of {', '.join(_JOINS)}).")
        widths = [steps[-1].out for steps in stages]
        if list(out_feat_chs) != widths[1:]:
            raise InputError(
                f"backbone.out_feat_chs: not the widths of this backbone's maps (got {list(out_feat_chs)}, expected "
                f"{widths[1:]}). Leave it out."
            )
        for number, (before, steps) in enumerate(zip([in_channels, *widths], stages), 1):
            setattr(self, f"smb{number}", _Stage(before, steps, stem=16 if number == 1 else None))
        for number, (width, key_dim, ratio) in enumerate(zip(widths[2:], (16, 24), (2, 4)), 1):
            setattr(self, f"trans{number}", _Transformer(width, depth, key_dim, heads, ratio, drop_path_rate))
        self.inj_module = _JOINS[inj_type](widths[1:], out_channels)
        self.feat_channels = [out_channels]
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.smb2(self.smb1(x))
        middle = self.trans1(self.smb3(fine))
        return [self.inj_module([fine, middle, self.trans2(self.smb4(middle))])]


@BACKBONES.register
class MobileSeg_Base(_StrideFormer):
    """[N, in_channels, H, W] -> one map at 1/8, or at 1/16 with `inj_type` AAM.

    `out_feat_chs` are the widths of the joined maps, as PaddleSeg's configs name them; `out_channels` the result's;
    `drop_path_rate` is stochastic depth. `pretrained` is a path that the engine loads.
    """

    def __init__(
        self,
        inj_type: str = "AAMSx8",
        out_feat_chs: Sequence[int] = (64, 128, 192),
        out_channels: int = 256,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        relu, swish = F.relu, F.hardswish
        stages = [
            [Step(3, 16, 16, True, relu, 1), Step(3, 64, 32, False, relu, 2), Step(3, 96, 32, False, relu, 1)],
            [Step(5, 128, 64, True, swish, 2), Step(5, 240, 64, True, swish, 1)],
            [Step(5, 384, 128, True, swish, 2), Step(5, 384, 128, True, swish, 1)],
            [Step(5, 768, 192, True, swish, 2), Step(5, 768, 192, True, swish, 1)],
        ]
        super().__init__(stages, 3, 8, in_channels, inj_type, out_feat_chs, out_channels, drop_path_rate, pretrained)


@BACKBONES.register
class MobileSeg_Tiny(_StrideFormer):
    """`MobileSeg_Base`, smaller: [N, in_channels, H, W] -> one map at 1/16, or at 1/8 with `inj_type` AAMSx8."""

    def __init__(
        self,
        inj_type: str = "AAM",
        out_feat_chs: Sequence[int] = (32, 64, 128),
        out_channels: int = 256,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        relu, swish = F.relu, F.hardswish
        stages = [
            [Step(3, 16, 16, True, relu, 1), Step(3, 64, 32, False, relu, 2), Step(3, 48, 24, False, relu, 1)],
            [Step(5, 96, 32, True, swish, 2), Step(5, 96, 32, True, swish, 1)],
            [Step(5, 160, 64, True, swish, 2), Step(5, 160, 64, True, swish, 1)],
            [Step(3, 384, 128, True, swish, 2), Step(3, 384, 128, True, swish, 1)],
        ]
        super().__init__(stages, 2, 4, in_channels, inj_type, out_feat_chs, out_channels, drop_path_rate, pretrained)
