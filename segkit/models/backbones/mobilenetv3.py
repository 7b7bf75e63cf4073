"""MobileNetV3: inverted residuals found by search, with squeeze-and-excitation and hard swish
(Howard et al., https://arxiv.org/abs/1905.02244)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.inverted_residual import InvertedResidual, Step
from segkit.models.layers import ConvBN, rounded_channels, without_weight_decay
from segkit.registry import BACKBONES

_STEPS = {
    "large": [
        Step(3, 16, 16, False, F.relu, 1),
        Step(3, 64, 24, False, F.relu, 2),
        Step(3, 72, 24, False, F.relu, 1),
        Step(5, 72, 40, True, F.relu, 2),
        Step(5, 120, 40, True, F.relu, 1),
        Step(5, 120, 40, True, F.relu, 1),
        Step(3, 240, 80, False, F.hardswish, 2),
        Step(3, 200, 80, False, F.hardswish, 1),
        Step(3, 184, 80, False, F.hardswish, 1),
        Step(3, 184, 80, False, F.hardswish, 1),
        Step(3, 480, 112, True, F.hardswish, 1),
        Step(3, 672, 112, True, F.hardswish, 1),
        Step(5, 672, 160, True, F.hardswish, 2),
        Step(5, 960, 160, True, F.hardswish, 1),
        Step(5, 960, 160, True, F.hardswish, 1),
    ],
    "small": [
        Step(3, 16, 16, True, F.relu, 2),
        Step(3, 72, 24, False, F.relu, 2),
        Step(3, 88, 24, False, F.relu, 1),
        Step(5, 96, 40, True, F.hardswish, 2),
        Step(5, 240, 40, True, F.hardswish, 1),
        Step(5, 240, 40, True, F.hardswish, 1),
        Step(5, 120, 48, True, F.hardswish, 1),
        Step(5, 144, 48, True, F.hardswish, 1),
        Step(5, 288, 96, True, F.hardswish, 2),
        Step(5, 576, 96, True, F.hardswish, 1),
        Step(5, 576, 96, True, F.hardswish, 1),
    ],
}
_ENDS = {"large": (2, 5, 11, 14), "small": (0, 2, 7, 10)}


class _MobileNetV3(nn.Layer):
    """[N, in_channels, H, W] -> four maps of `feat_channels` channels. `output_stride` 8 dilates instead of halving."""

    def __init__(self, size: str, scale: float, in_channels: int, pretrained: str | None, output_stride: int = 32):
        super().__init__()
        width = rounded_channels(16 * scale)
        self.conv = ConvBN(
            in_channels, width, 3, stride=2, padding=1, bias=False, names=("conv", "bn"), act=F.hardswish
        )
        reached, dilation, blocks = 2, 1, []
        for step in _STEPS[size]:
            stride = step.stride if reached < output_stride else 1
            scaled = step._replace(
                wide=rounded_channels(scale * step.wide), out=rounded_channels(scale * step.out), stride=stride
            )
            blocks.append(InvertedResidual(width, scaled, dilation))
            # The step that would have halved still looks at neighbours; those after it must look twice as far.
            reached, dilation = reached * stride, dilation * step.stride // stride
            width = scaled.out
        self.blocks = nn.Sequential(*blocks)
        self._ends = _ENDS[size]
        self.feat_channels = [rounded_channels(scale * _STEPS[size][end].out) for end in self._ends]
        self.pretrained = pretrained
        without_weight_decay(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._ends:
                maps.append(x)
        return maps


@BACKBONES.register
class MobileNetV3_small_x0_35(_MobileNetV3):
    """MobileNetV3 small, its widths times 0.35: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 0.35, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_small_x0_5(_MobileNetV3):
    """MobileNetV3 small, its widths times 0.5: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 0.5, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_small_x0_75(_MobileNetV3):
    """MobileNetV3 small, its widths times 0.75: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 0.75, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_small_x1_0(_MobileNetV3):
    """MobileNetV3 small, its widths times 1.0: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 1.0, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_small_x1_25(_MobileNetV3):
    """MobileNetV3 small, its widths times 1.25: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 1.25, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_large_x0_35(_MobileNetV3):
    """MobileNetV3 large, its widths times 0.35: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 0.35, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_large_x0_5(_MobileNetV3):
    """MobileNetV3 large, its widths times 0.5: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 0.5, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_large_x0_75(_MobileNetV3):
    """MobileNetV3 large, its widths times 0.75: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 0.75, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_large_x1_0(_MobileNetV3):
    """MobileNetV3 large, its widths times 1.0: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 1.0, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_large_x1_25(_MobileNetV3):
    """MobileNetV3 large, its widths times 1.25: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 1.25, in_channels, pretrained)


@BACKBONES.register
class MobileNetV3_small_x1_0_os8(_MobileNetV3):
    """MobileNetV3 small, dilated after 1/8: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/8, 1/8."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("small", 1.0, in_channels, pretrained, output_stride=8)


@BACKBONES.register
class MobileNetV3_large_x1_0_os8(_MobileNetV3):
    """MobileNetV3 large, dilated after 1/8: [N, in_channels, H, W] -> maps at 1/4, 1/8, 1/8, 1/8."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__("large", 1.0, in_channels, pretrained, output_stride=8)
