"""SegNeXt: convolutional attention, and a decoder that takes its map apart into a few patterns
(Guo et al., https://arxiv.org/abs/2209.08575; Geng et al., https://arxiv.org/abs/2109.04553)."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import resize_to
from segkit.models.parts import made
from segkit.registry import MODELS

GROUPS = 32
_TINY = 1e-6


class _ConvNorm(nn.Layer):
    """1x1 convolution and GroupNorm. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self._conv = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
        self._group_norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._group_norm(self._conv(x))


class _Factorise(nn.Layer):
    """A map that is nowhere below 0, as a sum of `MD_R` patterns. [N, C, h, w] -> the same shape.

    Non-negative matrix factorisation by multiplicative updates (Lee and Seung, "Algorithms for non-negative matrix
    factorization", 2000), from patterns drawn at random: in training each time, in evaluation always the same.
    Argument names are those of the configs. `MD_S`: channels are taken apart in so many groups; `TRAIN_STEPS` and
    `EVAL_STEPS`: rounds. `MD_D`, `INV_T`, `ETA` and `RAND_INIT` are PaddleSeg's and change nothing, `SPATIAL` is
    true: a pattern is a mix of channels.
    """

    def __init__(
        self,
        channels: int,
        MD_R: int = 64,
        SPATIAL: bool = True,
        MD_S: int = 1,
        MD_D: int = 512,
        TRAIN_STEPS: int = 6,
        EVAL_STEPS: int = 7,
        INV_T: float = 100,
        ETA: float = 0.9,
        RAND_INIT: bool = True,
    ):
        super().__init__()
        if channels % max(MD_S, 1) or MD_S < 1 or MD_R < 1 or not SPATIAL:
            raise InputError(
                f"model.decoder_cfg.ham_kwargs: cannot take {channels} channels apart (got MD_S {MD_S}, MD_R {MD_R}, "
                f"SPATIAL {SPATIAL}; expected a divisor of {channels}, 1 or more, true). Leave MD_S and SPATIAL out."
            )
        self.groups = MD_S
        self.train_steps, self.eval_steps = TRAIN_STEPS, EVAL_STEPS
        # Any draw would do; it is the one that the reference numbers were made with.
        drawn = np.random.RandomState(3).uniform(size=(1, channels // MD_S, MD_R)).astype("float32")
        self.register_buffer("start", paddle.to_tensor(drawn), persistable=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.reshape([0, self.groups, x.shape[1] // self.groups, -1])
        start = paddle.rand(self.start.shape) if self.training else self.start
        patterns = F.normalize(start, axis=1)
        shares = F.softmax(paddle.matmul(seen, patterns, transpose_x=True), axis=-1)
        for _ in range(self.train_steps if self.training else self.eval_steps):
            shares = _closer(shares, seen, patterns)
            patterns = _closer(patterns, seen.transpose([0, 1, 3, 2]), shares)
        shares = _closer(shares, seen, patterns)
        return paddle.matmul(patterns, shares, transpose_y=True).reshape(paddle.shape(x))


def _closer(shares: Tensor, seen: Tensor, patterns: Tensor) -> Tensor:
    """`shares` [..., L, R] after one update: `patterns` [..., D, R] times them come nearer to `seen` [..., D, L]."""
    wanted = paddle.matmul(seen, patterns, transpose_x=True)
    found = paddle.matmul(shares, paddle.matmul(patterns, patterns, transpose_x=True))
    return shares * wanted / (found + _TINY)


class _Hamburger(nn.Layer):
    """`_Factorise` between 1x1 convolutions, beside a shortcut. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, groups: int, params: dict):
        super().__init__()
        self.ham_in = nn.Conv2D(channels, channels, 1)
        self.ham = made(_Factorise, params, "model.decoder_cfg.ham_kwargs", channels)
        self.ham_out = _ConvNorm(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.ham_out(self.ham(F.relu(self.ham_in(x)))))


class _Head(nn.Layer):
    """Three maps -> class scores of the finest's size. `num_groups`: of GroupNorm."""

    def __init__(
        self,
        num_classes: int,
        widths: list[int],
        channels: int = 256,
        dropout_rate: float = 0.1,
        align_corners: bool = False,
        ham_channels: int = 512,
        num_groups: int = GROUPS,
        ham_kwargs: dict | None = None,
    ):
        super().__init__()
        for key, value in (("channels", channels), ("ham_channels", ham_channels)):
            if num_groups < 1 or value % num_groups:
                raise InputError(
                    f"model.decoder_cfg.{key}: not a multiple of num_groups (got {value} and {num_groups}). Take 256."
                )
        self.align_corners = align_corners
        self.squeeze = _ConvNorm(sum(widths), ham_channels, num_groups)
        self.hamburger = _Hamburger(ham_channels, num_groups, ham_kwargs or {})
        self.align = _ConvNorm(ham_channels, channels, num_groups)
        self.dropout = nn.Dropout2D(dropout_rate)
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        raised = [resize_to(x, maps[0], align_corners=self.align_corners) for x in maps]
        x = self.hamburger(F.relu(self.squeeze(paddle.concat(raised, axis=1))))
        return [self.conv_seg(self.dropout(F.relu(self.align(x))))]


@MODELS.register
class SegNeXt(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is MSCAN_T. `decoder_cfg`: `channels` and `ham_channels` (widths), `ham_kwargs` (the
    factorisation's, `MD_R` patterns among them), `dropout_rate`, `num_groups`, `align_corners` (of every
    interpolation). Keys and outputs are PaddleSeg's, whose factorisation starts at random in evaluation also; here it
    always starts alike.
    """

    default_backbone = "MSCAN_T"
    train_outputs = 1
    map_count = 3

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        decoder_cfg: dict | None = None,
        backbone_indices: Sequence[int] = (1, 2, 3),
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        decoder = decoder_cfg or {}
        super().__init__(backbone, backbone_indices, in_channels, decoder.get("align_corners", False), pretrained)
        self.decode_head = made(_Head, decoder, "model.decoder_cfg", num_classes, self.map_channels)

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> scores."""
        return self.decode_head(maps)
