"""STDCSeg: a context path on an STDC backbone, guided by boundaries in training
(Fan et al., https://arxiv.org/abs/2104.13188)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.fusion import ScoreHead
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import BACKBONES, MODELS


class _Refine(nn.Layer):
    """Weights the channels by the mean of the whole map. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, 3)
        self.conv_atten = nn.Conv2D(out_channels, out_channels, kernel_size=1)
        self.bn_atten = nn.BatchNorm2D(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * F.sigmoid(self.bn_atten(self.conv_atten(F.adaptive_avg_pool2d(x, 1))))


class _ContextPath(nn.Layer):
    """The image [N, C, H, W] -> the backbone's five maps, then context [N, out, ...] at 1/8 and at 1/16."""

    def __init__(self, backbone: nn.Layer, out_channels: int):
        super().__init__()
        *_, middle, coarse = backbone.feat_channels
        self.backbone = backbone
        self.arm16 = _Refine(middle, out_channels)
        self.arm32 = _Refine(coarse, out_channels)
        self.conv_head32 = ConvBNReLU(out_channels, out_channels, 3)
        self.conv_head16 = ConvBNReLU(out_channels, out_channels, 3)
        self.conv_avg = ConvBNReLU(coarse, out_channels, 1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        maps = self.backbone(x)
        *_, fine, middle, coarse = maps
        x = self.arm32(coarse) + self.conv_avg(F.adaptive_avg_pool2d(coarse, 1))
        context16 = self.conv_head32(resize_to(x, middle, "nearest"))
        x = self.arm16(middle) + context16
        return maps, self.conv_head16(resize_to(x, fine, "nearest")), context16


class _FeatureFusion(nn.Layer):
    """A backbone map and context of its size -> [N, out, h, w], with channel attention."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convblk = ConvBNReLU(in_channels, out_channels, 1)
        self.conv1 = nn.Conv2D(out_channels, out_channels // 4, kernel_size=1)
        self.conv2 = nn.Conv2D(out_channels // 4, out_channels, kernel_size=1)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(paddle.concat([fine, context], axis=1))
        return x + x * F.sigmoid(self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1)))))


@MODELS.register
class STDCSeg(nn.Layer):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] in evaluation, for any H and W; in training also from the
    context at 1/8 and 1/16, then boundary scores [N, 1, H/s, W/s] for each `use_boundary_s`, for DetailAggregateLoss.

    `backbone` None is STDC1; another must give five maps, 1/2 to 1/32. `use_conv_last` is PaddleSeg's and changes
    nothing there either. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        use_boundary_2: bool = False,
        use_boundary_4: bool = False,
        use_boundary_8: bool = True,
        use_boundary_16: bool = False,
        use_conv_last: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        if backbone is None:
            backbone = BACKBONES.get("STDC1")(in_channels=in_channels)
        at2, at4, at8, at16, _ = backbone.feat_channels
        self.cp = _ContextPath(backbone, 128)
        self.ffm = _FeatureFusion(at8 + 128, 256)
        self.conv_out = ScoreHead(256, 256, num_classes, ConvBNReLU, bias=True)
        self.conv_out8 = ScoreHead(128, 64, num_classes, ConvBNReLU, bias=True)
        self.conv_out16 = ScoreHead(128, 64, num_classes, ConvBNReLU, bias=True)
        # Published weights hold the four, used or not.
        for scale, channels in ((16, at16), (8, at8), (4, at4), (2, at2)):
            setattr(self, f"conv_out_sp{scale}", ScoreHead(channels, 64, 1, ConvBNReLU, bias=True))
        wanted = (use_boundary_2, use_boundary_4, use_boundary_8, use_boundary_16)
        self._boundaries = [(index, 2 ** (index + 1)) for index, use in enumerate(wanted) if use]
        self.train_outputs = 3 + len(self._boundaries)
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, context8, context16 = self.cp(x)
        scores = [self.conv_out(self.ffm(maps[2], context8))]
        if self.training:
            scores += [self.conv_out8(context8), self.conv_out16(context16)]
        scores = [resize_to(score, x, align_corners=True) for score in scores]
        if self.training:
            scores += [getattr(self, f"conv_out_sp{scale}")(maps[index]) for index, scale in self._boundaries]
        return scores
