"""ReLU whose slope below 0 is learned (He et al., https://arxiv.org/abs/1502.01852), after a BatchNorm."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.models.layers import ConvBN, Padding


def _one_slope() -> nn.Sequential:
    return nn.Sequential(("act_func", nn.PReLU()))


class BNPReLU(nn.Layer):
    """BatchNorm and a PReLU with a slope for each channel. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2D(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class OneSlope(nn.Layer):
    """`BNPReLU` with one slope for all channels."""

    def __init__(self, channels: int):
        super().__init__()
        self._batch_norm = nn.BatchNorm2D(channels)
        self._prelu = _one_slope()

    def forward(self, x: Tensor) -> Tensor:
        return self._prelu(self._batch_norm(x))


class ConvBNPReLU(ConvBN):
    """`ConvBN`, then a PReLU with one slope."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: Padding | None = None,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self._prelu = _one_slope()

    def forward(self, x: Tensor) -> Tensor:
        return self._prelu(super().forward(x))
