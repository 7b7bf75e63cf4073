"""GINet: regions of the image and words for the classes, two graphs that inform each other
(Wu et al., https://arxiv.org/abs/2009.06160)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.attention import attend
from segkit.models.backboned import BackboneModel
from segkit.models.graph import GraphConv
from segkit.models.layers import AuxHead, ConvBNReLU, sides, to_map
from segkit.models.pyramid import JointUpsampling
from segkit.registry import MODELS

_STATES, _NODES, _WORD = 256, 84, 300


class _ResidualGraphConv(GraphConv):
    """Rectified before the convolution across states instead of after it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.mixed(x)))


class _Transfer(nn.Layer):
    """What each region [N, C, nodes] takes from the words [N, C, classes] -> [N, C, nodes].

    `value_conv_vis`, for the other way, is in published weights and unused."""

    def __init__(self, channels: int):
        super().__init__()
        self.query_conv = nn.Conv1D(channels, channels // 2, 1)
        self.key_conv = nn.Conv1D(channels, channels // 2, 1)
        self.value_conv_vis = nn.Conv1D(channels, channels, 1)
        self.value_conv_word = nn.Conv1D(channels, channels, 1)

    def forward(self, words: Tensor, regions: Tensor) -> Tensor:
        return attend(self.key_conv(regions), self.query_conv(words), self.value_conv_word(words))


class _Graph(nn.Layer):
    """Regions [N, C, nodes], informed by the words [N, C, classes] with a weight that starts at 0 -> the same shape.

    `gamma_word`, the words' own weight, is in published weights and unused."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.vis_gcn = _ResidualGraphConv(_STATES, _NODES)
        self.word_gcn = _ResidualGraphConv(_STATES, num_classes)
        self.transfer = _Transfer(_STATES)
        zero = nn.initializer.Constant(0.0)
        self.gamma_vis = self.create_parameter([_NODES], default_initializer=zero)
        self.gamma_word = self.create_parameter([num_classes], default_initializer=zero)

    def forward(self, words: Tensor, regions: Tensor) -> Tensor:
        regions = self.vis_gcn(regions)
        return self.gamma_vis * self.transfer(self.word_gcn(words), regions) + regions


class _Reasoning(nn.Layer):
    """Pixels [N, C, h, w] gathered to regions, which meet the words [N, C', classes], and spread again."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv_theta = nn.Conv2D(channels, _NODES, 1)
        self.conv_phi = nn.Conv2D(channels, _STATES, 1)
        self.graph = _Graph(num_classes)
        self.extend_dim = nn.Conv2D(_STATES, channels, 1, bias_attr=False)
        self.bn = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        height, width = sides(x)
        shares = self.conv_theta(x).flatten(2)
        regions = paddle.matmul(self.conv_phi(x).flatten(2), shares, transpose_y=True) / (height * width)
        found = to_map(paddle.matmul(self.graph(words, regions), shares), x)
        return x + self.bn(self.extend_dim(found))


class BatchNormOfWeights(nn.BatchNorm1D):
    """For an input that is made of weights alone. Paddle Inference 3.3 computes such operators as it loads a graph, and
    stumbles over what `batch_norm` returns beside its result; so in evaluation it is written out. [N, C] -> [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        scale = self.weight * paddle.rsqrt(self._variance + self._epsilon)
        return x * scale + (self.bias - self._mean * scale)


class _Head(nn.Layer):
    def __init__(self, num_classes: int, channels: int):
        super().__init__()
        width = channels // 4
        self.inp = self.create_parameter([num_classes, _WORD], default_initializer=nn.initializer.Constant(0.0))
        self.inp.stop_gradient = True  # word vectors of the classes' names, where somebody fills them in
        self.fc1 = nn.Sequential(nn.Linear(_WORD, 128), BatchNormOfWeights(128), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(128, _STATES), BatchNormOfWeights(_STATES), nn.ReLU())
        self.conv5 = ConvBNReLU(channels, width, 3, bias=False)
        self.gloru = _Reasoning(width, num_classes)
        self.conv6 = nn.Sequential(nn.Dropout(0.1), nn.Conv2D(width, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        words = self.fc2(self.fc1(self.inp)).transpose([1, 0]).unsqueeze(0)
        return self.conv6(self.gloru(self.conv5(x), words))


@MODELS.register
class GINet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `jpu`: `JointUpsampling` of the last three maps before the head. Keys and outputs are PaddleSeg's.
    """

    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        enable_auxiliary_loss: bool = True,
        align_corners: bool = True,
        jpu: bool = True,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        low, high = self.map_channels[2:]
        self.jpu = JointUpsampling(self.map_channels[1:], 512) if jpu else None
        self.head = _Head(num_classes, 4 * 512 if jpu else high)
        self.auxlayer = AuxHead(low, low // 4, num_classes, bias=False) if enable_auxiliary_loss else None

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.head(maps[3] if self.jpu is None else self.jpu(maps[1:]))]
        if self.auxlayer is not None and self.training:
            scores.append(self.auxlayer(maps[2]))
        return scores
