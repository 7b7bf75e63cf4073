"""Fast-SCNN: two paths that share their first layers (Poudel et al., https://arxiv.org/abs/1902.04502)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.layers import AuxHead, ConvBN, ConvBNReLU, SeparableConvBNReLU, resize_to
from segkit.models.pyramid import PyramidPooling
from segkit.registry import MODELS


class _Downsample(nn.Layer):
    """[N, in, H, W] -> [N, out, H/8, W/8]."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int]):
        super().__init__()
        first, second, third = widths
        self.conv_bn_relu = ConvBNReLU(in_channels, first, 3, stride=2)
        self.dsconv_bn_relu1 = SeparableConvBNReLU(first, second, 3, stride=2, padding=1)
        self.dsconv_bn_relu2 = SeparableConvBNReLU(second, third, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dsconv_bn_relu2(self.dsconv_bn_relu1(self.conv_bn_relu(x)))


class _Bottleneck(nn.Layer):
    """Inverted residual of MobileNetV2. [N, in, h, w] -> [N, out, h/stride, w/stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int = 6):
        super().__init__()
        wide = in_channels * expansion
        self.block = nn.Sequential(
            ConvBNReLU(in_channels, wide, 1, bias=False),
            ConvBNReLU(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            ConvBN(wide, out_channels, 1, bias=False),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class _Global(nn.Layer):
    """[N, in, h, w] -> [N, out, h/4, w/4]: inverted residuals, then pyramid pooling."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int], out_channels: int):
        super().__init__()
        for number, (width, stride) in enumerate(zip(widths, (2, 2, 1)), 1):
            blocks = [_Bottleneck(in_channels, width, stride), *(_Bottleneck(width, width, 1) for _ in range(2))]
            setattr(self, f"bottleneck{number}", nn.Sequential(*blocks))
            in_channels = width
        self.ppm = PyramidPooling(in_channels, out_channels, (1, 2, 3, 6), align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.ppm(self.bottleneck3(self.bottleneck2(self.bottleneck1(x))))


class _FeatureFusion(nn.Layer):
    """Fine [N, fine, H, W] and coarse [N, coarse, h, w] maps -> [N, coarse, H, W]."""

    def __init__(self, fine: int, coarse: int, align_corners: bool):
        super().__init__()
        self.dwconv = ConvBNReLU(coarse, coarse, 3, groups=coarse, bias=False)
        self.conv_low_res = ConvBN(coarse, coarse, 1)
        self.conv_high_res = ConvBN(fine, coarse, 1)
        self.align_corners = align_corners

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        coarse = self.dwconv(resize_to(coarse, fine, align_corners=self.align_corners))
        return F.relu(self.conv_high_res(fine) + self.conv_low_res(coarse))


class _Classifier(nn.Layer):
    """[N, channels, h, w] -> class scores [N, num_classes, h, w]."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.dsconv1 = SeparableConvBNReLU(channels, channels, 3)
        self.dsconv2 = SeparableConvBNReLU(channels, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.conv = nn.Conv2D(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.dropout(self.dsconv2(self.dsconv1(x))))


@MODELS.register
class FastSCNN(nn.Layer):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], in training with `enable_auxiliary_loss` also from the shared
    layers at 1/8, for any H and W. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__()
        self.learning_to_downsample = _Downsample(in_channels, (32, 48, 64))
        self.global_feature_extractor = _Global(64, (64, 96, 128), 128)
        self.feature_fusion = _FeatureFusion(64, 128, align_corners)
        self.classifier = _Classifier(128, num_classes)
        if enable_auxiliary_loss:
            self.auxlayer = AuxHead(64, 32, num_classes)
        self.enable_auxiliary_loss = enable_auxiliary_loss
        self.train_outputs = 2 if enable_auxiliary_loss else 1
        self.align_corners = align_corners
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.learning_to_downsample(x)
        scores = [self.classifier(self.feature_fusion(fine, self.global_feature_extractor(fine)))]
        if self.training and self.enable_auxiliary_loss:
            scores.append(self.auxlayer(fine))
        return [resize_to(score, x, align_corners=self.align_corners) for score in scores]
