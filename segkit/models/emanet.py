"""EMANet: attention to a few bases found by expectation and maximisation (Li et al., https://arxiv.org/abs/1907.13426)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.dist import world_size
from segkit.models.backboned import BackboneModel
from segkit.models.context_head import ContextHead
from segkit.models.layers import ConvBNReLU, to_map
from segkit.registry import MODELS


class _Bases(nn.Layer):
    """[N, C, h, w] -> the same, each pixel replaced by a mixture of `count` bases.

    The bases start from `mu` [1, C, count] and fit themselves to each image in `rounds` steps, without gradients
    as in the paper. In training `mu` moves towards what they became, by `momentum`, alike in every process.
    """

    def __init__(self, channels: int, count: int, rounds: int, momentum: float):
        super().__init__()
        self.rounds = rounds
        self.momentum = momentum
        self.register_buffer("mu", F.normalize(paddle.randn([1, channels, count]), axis=1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        with paddle.no_grad():
            bases = self.mu
            for _ in range(self.rounds):
                shares = F.softmax(paddle.matmul(pixels, bases, transpose_x=True), axis=2)
                bases = F.normalize(paddle.matmul(pixels, F.normalize(shares, p=1, axis=1)), axis=1)
            if self.training:
                self._move(bases)
        return to_map(paddle.matmul(bases, shares, transpose_y=True), x)

    def _move(self, bases: Tensor) -> None:
        now = F.normalize(bases.mean(axis=0, keepdim=True), axis=1)
        if world_size() > 1:
            paddle.distributed.all_reduce(now)
            now = now / world_size()
        self.mu.set_value(self.mu * (1 - self.momentum) + now * self.momentum)


class _Head(ContextHead):
    def __init__(
        self,
        num_classes: int,
        channels: list[int],
        ema_channels: int,
        gc_channels: int,
        bases: _Bases,
        concat_input: bool,
        auxiliary: bool,
    ):
        super().__init__(num_classes, channels, gc_channels, concat_input, auxiliary, bias=True)
        self.emau = bases
        self.ema_in_conv = ConvBNReLU(channels[1], ema_channels, 3)
        self.ema_mid_conv = nn.Conv2D(ema_channels, ema_channels, 1)
        self.ema_out_conv = ConvBNReLU(ema_channels, ema_channels, 1)
        self.bottleneck = ConvBNReLU(ema_channels, gc_channels, 3)

    def context(self, x: Tensor) -> Tensor:
        """[N, gc_channels, h, w]."""
        x = self.ema_in_conv(x)
        return self.bottleneck(F.relu(x + self.ema_out_conv(F.relu(self.emau(self.ema_mid_conv(x))))))


@MODELS.register
class EMANet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `num_bases` bases of `ema_channels` channels, fitted in `stage_num` rounds and remembered with `momentum`;
    `gc_channels` before the scores; `concat_input` shows the head the backbone's map once more. Keys and outputs
    are PaddleSeg's.
    """

    map_count = 2

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        ema_channels: int = 512,
        gc_channels: int = 256,
        num_bases: int = 64,
        stage_num: int = 3,
        momentum: float = 0.1,
        concat_input: bool = True,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        bases = _Bases(ema_channels, num_bases, stage_num, momentum)
        self.head = _Head(
            num_classes, self.map_channels, ema_channels, gc_channels, bases, concat_input, enable_auxiliary_loss
        )
