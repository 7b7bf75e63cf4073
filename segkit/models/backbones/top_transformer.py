"""TopFormer's encoder: a pyramid of MobileNetV2 blocks, pooled, passed through attention and injected back
(Zhang et al., https://arxiv.org/abs/2204.05525)."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import ConvBN, fill_to, resize_to, rounded_channels, scale_learning_rate
from segkit.models.mobile_attention import MobileBlock, MobileResidual, Step, mobile_conv, quiet_conv
from segkit.models.transformer import to_map
from segkit.registry import BACKBONES

_Embed = partial(ConvBN, kernel_size=1, bias=False, names=("conv", "bn"))
_KEY = 16


class _Pyramid(nn.Layer):
    """[N, in, H, W] -> the maps at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, in_channels: int, steps: list[Step]):
        super().__init__()
        width = 16
        self.stem = nn.Sequential(mobile_conv(in_channels, width, 3, stride=2, padding=1), nn.ReLU())
        for number, step in enumerate(steps, 1):
            setattr(self, f"layer{number}", MobileResidual(width, step))
            width = step.out
        self._count = len(steps)
        # A map's last block is the one before the next halving.
        self.ends = [n for n in range(2, len(steps) + 1) if n == len(steps) or steps[n].stride == 2]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for number in range(1, self._count + 1):
            x = getattr(self, f"layer{number}")(x)
            if number in self.ends:
                maps.append(x)
        return maps


def _pooled(maps: list[Tensor]) -> Tensor:
    """Means over windows that see the same pixels in every map, 64 along a side, behind one another.

    Where the last windows do not fit, the maps' numbers of windows can differ, and smaller maps than one are filled
    with zeros (PaddleSeg crashes): the finest map's number counts.
    """
    kernels = [2**power for power in range(len(maps), 0, -1)]
    means = [F.avg_pool2d(fill_to(x, kernel), kernel, kernel) for x, kernel in zip(maps, kernels)]
    return paddle.concat([resize_to(x, means[0]) for x in means], axis=1)


class _Attention(nn.Layer):
    """Every cell looks at all. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = mobile_conv(channels, _KEY * heads, 1)
        self.to_k = mobile_conv(channels, _KEY * heads, 1)
        self.to_v = mobile_conv(channels, 2 * _KEY * heads, 1)
        self.proj = quiet_conv(2 * _KEY * heads, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = (layer(x) for layer in (self.to_q, self.to_k, self.to_v))
        query, key, value = (y.reshape([0, self.heads, y.shape[1] // self.heads, -1]) for y in parts)
        weights = F.softmax(query.transpose([0, 1, 3, 2]) @ key, axis=-1)
        found = (value @ weights.transpose([0, 1, 3, 2])).reshape([0, 2 * _KEY * self.heads, -1])
        return self.proj(to_map(found.transpose([0, 2, 1]), x))


class _Blocks(nn.Layer):
    """[N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, heads: int, depth: int, drop: float):
        super().__init__()
        drops = np.linspace(0, drop, depth).tolist()
        blocks = [MobileBlock(_Attention(channels, heads), channels, 2, rate) for rate in drops]
        self.transformer_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer_blocks(x)


class _Inject(nn.Layer):
    """A fine map gated by a coarse one, and the coarse one added. [N, in, *, *] each -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.local_embedding = _Embed(in_channels, out_channels)
        self.global_embedding = _Embed(in_channels, out_channels)
        self.global_act = _Embed(in_channels, out_channels, act=F.hardsigmoid)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        gate = resize_to(self.global_act(coarse), fine)
        return self.local_embedding(fine) * gate + resize_to(self.global_embedding(coarse), fine)


class _TopTransformer(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/8, 1/16 and 1/32 of `feat_channels` channels."""

    def __init__(
        self,
        steps: list[tuple[int, int, int, int]],
        heads: int,
        out_channels: int,
        in_channels: int,
        lr_mult: float,
        drop_path_rate: float,
        pretrained: str | None,
    ):
        super().__init__()
        blocks = [Step(*step)._replace(out=rounded_channels(step[2])) for step in steps]
        self.tpm = _Pyramid(in_channels, blocks)
        self._widths = [blocks[end - 1].out for end in self.tpm.ends]
        self.trans = _Blocks(sum(self._widths), heads, 4, drop_path_rate)
        # The finest map takes part in the attention alone.
        self.SIM = nn.LayerList([nn.Identity(), *(_Inject(width, out_channels) for width in self._widths[1:])])
        self.feat_channels = [out_channels] * 3
        self.pretrained = pretrained
        scale_learning_rate(self, lr_mult)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.tpm(x)
        meanings = self.trans(_pooled(maps)).split(self._widths, axis=1)
        return [inject(*both) for inject, *both in zip(self.SIM[1:], maps[1:], meanings[1:])]


@BACKBONES.register
class TopTransformer_Base(_TopTransformer):
    """TopFormer's base encoder. `lr_mult` scales its learning rate, `drop_path_rate` is stochastic depth."""

    def __init__(
        self, lr_mult: float = 1.0, drop_path_rate: float = 0.0, in_channels: int = 3, pretrained: str | None = None
    ):
        steps = [
            (3, 1, 16, 1),
            (3, 4, 32, 2),
            (3, 3, 32, 1),
            (5, 3, 64, 2),
            (5, 3, 64, 1),
            (3, 3, 128, 2),
            (3, 3, 128, 1),
            (5, 6, 160, 2),
            (5, 6, 160, 1),
            (3, 6, 160, 1),
        ]
        super().__init__(steps, 8, 256, in_channels, lr_mult, drop_path_rate, pretrained)


@BACKBONES.register
class TopTransformer_Small(_TopTransformer):
    """TopFormer's small encoder. `lr_mult` scales its learning rate, `drop_path_rate` is stochastic depth."""

    def __init__(
        self, lr_mult: float = 1.0, drop_path_rate: float = 0.0, in_channels: int = 3, pretrained: str | None = None
    ):
        steps = [
            (3, 1, 16, 1),
            (3, 4, 24, 2),
            (3, 3, 24, 1),
            (5, 3, 48, 2),
            (5, 3, 48, 1),
            (3, 3, 96, 2),
            (3, 3, 96, 1),
            (5, 6, 128, 2),
            (5, 6, 128, 1),
            (3, 6, 128, 1),
        ]
        super().__init__(steps, 6, 192, in_channels, lr_mult, drop_path_rate, pretrained)


@BACKBONES.register
class TopTransformer_Tiny(_TopTransformer):
    """TopFormer's tiny encoder. `lr_mult` scales its learning rate, `drop_path_rate` is stochastic depth."""

    def __init__(
        self, lr_mult: float = 1.0, drop_path_rate: float = 0.0, in_channels: int = 3, pretrained: str | None = None
    ):
        steps = [
            (3, 1, 16, 1),
            (3, 4, 16, 2),
            (3, 3, 16, 1),
            (5, 3, 32, 2),
            (5, 3, 32, 1),
            (3, 3, 64, 2),
            (3, 3, 64, 1),
            (5, 6, 96, 2),
            (5, 6, 96, 1),
        ]
        super().__init__(steps, 4, 128, in_channels, lr_mult, drop_path_rate, pretrained)
