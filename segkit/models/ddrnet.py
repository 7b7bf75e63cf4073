"""DDRNet: a fine and a coarse branch that exchange maps (Hong et al., https://arxiv.org/abs/2101.06085)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.dual_resolution import (
    Basic,
    Bottleneck,
    ContextPyramid,
    conv_bn,
    conv_bn_relu,
    residual_stage,
    split_shortcut,
)
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.registry import MODELS


def _stage(block: type, in_channels: int, width: int, count: int = 1, stride: int = 1) -> nn.Sequential:
    return residual_stage(block, in_channels, width, count, stride, split_shortcut)


class _Head(nn.Layer):
    """[N, in, h, w] -> class scores [N, num_classes, h, w]."""

    def __init__(self, in_channels: int, width: int, num_classes: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2D(in_channels)
        self.conv_bn_relu = conv_bn_relu(in_channels, width, 3)
        self.conv = nn.Conv2D(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_bn_relu(F.relu(self.bn1(x))))


@MODELS.register
class DDRNet_23(nn.Layer):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], in training with `enable_auxiliary_loss` also from the fine
    branch at 1/8, for any H and W.

    `base_channels` is the width at 1/4; with 64, keys and outputs are PaddleSeg's. `pretrained` is a path that the
    engine loads.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        enable_auxiliary_loss: bool = False,
        pretrained: str | None = None,
        base_channels: int = 64,
    ):
        super().__init__()
        width, fine = base_channels, 2 * base_channels
        self.conv1 = nn.Sequential(
            ConvBNReLU(in_channels, width, 3, stride=2, padding=1), ConvBNReLU(width, width, 3, stride=2, padding=1)
        )
        self.layer1 = _stage(Basic, width, width, 2)
        self.layer2 = _stage(Basic, width, 2 * width, 2, stride=2)
        self.layer3 = _stage(Basic, 2 * width, 4 * width, 2, stride=2)
        self.layer4 = _stage(Basic, 4 * width, 8 * width, 2, stride=2)
        self.compression3 = conv_bn(4 * width, fine, 1)
        self.compression4 = conv_bn(8 * width, fine, 1)
        self.down3 = conv_bn(fine, 4 * width, 3, stride=2)
        self.down4 = nn.Sequential(
            conv_bn_relu(fine, 4 * width, 3, stride=2, padding=1),
            conv_bn(4 * width, 8 * width, 3, stride=2, padding=1),
        )
        self.layer3_ = _stage(Basic, 2 * width, fine, 2)
        self.layer4_ = _stage(Basic, fine, fine, 2)
        self.layer5_ = _stage(Bottleneck, fine, fine)
        self.layer5 = _stage(Bottleneck, 8 * width, 8 * width, stride=2)
        self.spp = ContextPyramid(16 * width, 2 * width, 4 * width)
        self.enable_auxiliary_loss = enable_auxiliary_loss
        if enable_auxiliary_loss:
            self.aux_head = _Head(fine, 2 * width, num_classes)
        self.head = _Head(4 * width, 2 * width, num_classes)
        self.train_outputs = 2 if enable_auxiliary_loss else 1
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        start = F.relu(self.layer2(F.relu(self.layer1(self.conv1(x)))))
        coarse, fine = self.layer3(start), self.layer3_(start)
        raised = resize_to(self.compression3(F.relu(coarse)), fine)
        coarse, fine = F.relu(coarse + self.down3(F.relu(fine))), fine + raised
        middle = fine
        coarse, fine = self.layer4(coarse), self.layer4_(F.relu(fine))
        raised = resize_to(self.compression4(F.relu(coarse)), fine)
        coarse, fine = F.relu(coarse + self.down4(F.relu(fine))), F.relu(fine + raised)
        fine = self.layer5_(fine)
        scores = [self.head(fine + resize_to(self.spp(self.layer5(coarse)), fine))]
        if self.training and self.enable_auxiliary_loss:
            scores.append(self.aux_head(middle))
        return [resize_to(score, x) for score in scores]
