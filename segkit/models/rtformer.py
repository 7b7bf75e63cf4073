"""RTFormer: two branches whose attention costs as much as the map is large (Wang et al.,
https://arxiv.org/abs/2210.07124)."""

from __future__ import annotations

from functools import partial
from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.dual_resolution import ContextPyramid, norm_first, residual_stage, split_shortcut
from segkit.models.layers import resize_to, scale_learning_rate
from segkit.models.transformer import DropPath, to_map, to_tokens
from segkit.registry import MODELS


class _Basic(nn.Layer):
    """Two 3x3 convolutions around a shortcut. [N, in, h, w] -> [N, out, h/stride, w/stride]."""

    expansion = 1
    act_alone = True

    def __init__(self, in_channels: int, out_channels: int, stride: int, downsample: nn.Layer | None, act: bool):
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(out_channels)
        self.conv2 = nn.Conv2D(out_channels, out_channels, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(out_channels)
        self.downsample = downsample
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut
        return F.relu(x) if self.act else x


_stage = partial(residual_stage, _Basic, shortcut=split_shortcut)


class _Mlp(nn.Layer):
    """Two 3x3 convolutions with GELU between. [N, C, h, w] -> the same shape."""

    def __init__(self, channels: int, drop: float):
        super().__init__()
        self.norm = nn.BatchNorm2D(channels, epsilon=1e-6)
        self.conv1 = nn.Conv2D(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.conv2(self.drop(F.gelu(self.conv1(self.norm(x))))))


class _LearnedAttention(nn.Layer):
    """Attention to learned keys and values. [N, in, h, w] -> [N, out, h, w], half the size where `in` is not `out`.

    Weights are normalised over the map, then over each head's keys.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int):
        super().__init__()
        draw = nn.initializer.Normal(std=0.001)
        self.heads = heads
        self.norm = nn.BatchNorm2D(in_channels)
        self.k = self.create_parameter([out_channels, in_channels, 1, 1], default_initializer=draw)
        self.v = self.create_parameter([out_channels, out_channels, 1, 1], default_initializer=draw)
        self.stride = 1 if in_channels == out_channels else 2

    def forward(self, x: Tensor) -> Tensor:
        like = F.conv2d(self.norm(x), self.k, stride=self.stride)
        channels = like.shape[1]
        weights = F.softmax(like.reshape([0, self.heads, channels // self.heads, -1]), axis=3)
        weights = weights / (weights.sum(axis=2, keepdim=True) + 1e-6)
        weights = to_map(weights.reshape([0, channels, -1]).transpose([0, 2, 1]), like)
        return F.conv2d(weights, self.v)


class _CrossAttention(nn.Layer):
    """Attention of the fine map [N, C, h, w] to keys and values [N, C, cells, cells] of the coarse one -> its shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        keys, values = keys.flatten(2), to_tokens(values)
        weights = F.softmax(to_tokens(self.norm(x)) @ keys * keys.shape[2] ** -0.5, axis=-1)
        return to_map(weights @ values, x)


class _Block(nn.Layer):
    """Fine [N, fine, h, w] and coarse maps -> the same, the coarse one with `out` channels (at half the size where that
    is new) and, with `inject`, with the fine one added."""

    def __init__(
        self, fine: int, coarse: int, out: int, heads: int, drop: float, drop_path: float, inject: bool, cells: int
    ):
        super().__init__()
        if coarse != out:
            conv = nn.Conv2D(coarse, out, 1, stride=2, bias_attr=False)
            self.attn_shortcut_l = nn.Sequential(nn.BatchNorm2D(coarse), conv)
        else:
            self.attn_shortcut_l = nn.Identity()
        self.attn_l = _LearnedAttention(coarse, out, heads)
        self.mlp_l = _Mlp(out, drop)
        self.drop_path = DropPath(drop_path)
        self.compression = nn.Sequential(*norm_first(out, fine))
        self.attn_h = _CrossAttention(fine)
        self.mlp_h = _Mlp(fine, drop)
        to_keys = nn.Conv2D(out, 2 * fine, 1, bias_attr=False)
        nn.initializer.TruncatedNormal(std=0.02)(to_keys.weight)
        self.cross_kv = nn.Sequential(nn.BatchNorm2D(out), nn.AdaptiveMaxPool2D(cells), to_keys)
        self.inject = inject
        if inject:
            self.down = nn.Sequential(*_halve(fine, out // 2), *_halve(out // 2, out))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.attn_shortcut_l(coarse) + self.drop_path(self.attn_l(coarse))
        coarse = coarse + self.drop_path(self.mlp_l(coarse))
        fine = fine + resize_to(self.compression(coarse), fine)
        keys, values = self.cross_kv(coarse).split(2, axis=1)
        fine = fine + self.drop_path(self.attn_h(fine, keys, values))
        fine = fine + self.drop_path(self.mlp_h(fine))
        return fine, (coarse + self.down(fine) if self.inject else coarse)


def _halve(in_channels: int, out_channels: int) -> list[nn.Layer]:
    conv = nn.Conv2D(in_channels, out_channels, 3, stride=2, padding=1, bias_attr=False)
    return [nn.BatchNorm2D(in_channels), nn.ReLU(), conv]


class _Head(nn.Layer):
    """[N, in, h, w] -> class scores [N, num_classes, h, w]."""

    def __init__(self, in_channels: int, width: int, num_classes: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2D(in_channels)
        self.conv1 = nn.Conv2D(in_channels, width, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv2 = nn.Conv2D(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


@MODELS.register
class RTFormer(nn.Layer):
    """[N, in_channels, H, W] -> [N, num_classes, H, W], in training with `use_aux_head` also from the fine branch at
    1/8, for any H and W.

    `layer_nums`: blocks of the four stages before attention (the last is PaddleSeg's and without effect there too);
    `base_channels`: width at 1/4, 64 or 32 in published weights; `spp_channels`, `head_channels`: widths of the
    context pyramid and the head; `num_heads`, `cross_size`: heads, and cells along a side that the fine branch looks
    at; `drop_rate`, `drop_path_rate`: dropout and stochastic depth; `use_injection`: whether the fine branch goes back
    into the coarse one, in each of two blocks; `lr_mult` scales the head's learning rate. `pretrained` is a path that
    the engine loads. Keys and outputs are PaddleSeg's.
    """

    def __init__(
        self,
        num_classes: int,
        layer_nums: Sequence[int] = (2, 2, 2, 2),
        base_channels: int = 64,
        spp_channels: int = 128,
        num_heads: int = 8,
        head_channels: int = 128,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        use_aux_head: bool = True,
        use_injection: Sequence[bool] = (True, True),
        lr_mult: float = 10.0,
        cross_size: int = 12,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        width, fine, coarse = base_channels, 2 * base_channels, 8 * base_channels
        if coarse % num_heads:
            raise InputError(
                f"model.num_heads: does not divide 8 times base_channels, {coarse} (got {num_heads}). Take 8."
            )
        self.conv1 = nn.Sequential(
            nn.Conv2D(in_channels, width, 3, stride=2, padding=1),
            nn.BatchNorm2D(width),
            nn.ReLU(),
            nn.Conv2D(width, width, 3, stride=2, padding=1),
            nn.BatchNorm2D(width),
            nn.ReLU(),
        )
        self.layer1 = _stage(width, width, layer_nums[0])
        self.layer2 = _stage(width, fine, layer_nums[1], 2)
        self.layer3 = _stage(fine, 4 * width, layer_nums[2], 2)
        self.layer3_ = _stage(fine, fine, 1)
        self.compression3 = nn.Sequential(*norm_first(4 * width, fine))
        shared = (num_heads, drop_rate, drop_path_rate)
        self.layer4 = _Block(fine, 4 * width, coarse, *shared, use_injection[0], cross_size)
        self.layer5 = _Block(fine, coarse, coarse, *shared, use_injection[1], cross_size)
        self.spp = ContextPyramid(coarse, spp_channels, fine, count_padding=True)
        self.seghead = _Head(2 * fine, 2 * head_channels, num_classes)
        self.seghead_extra = _Head(fine, head_channels, num_classes) if use_aux_head else None
        for head in (self.spp, self.seghead, self.seghead_extra):
            if head is not None:
                scale_learning_rate(head, lr_mult)
        for layer in self.sublayers():
            if isinstance(layer, nn.BatchNorm2D):
                layer._momentum = 0.1  # PaddleSeg's: running values are nine tenths those of the last batch
        self.train_outputs = 2 if use_aux_head else 1
        self.pretrained = pretrained

    def forward(self, x: Tensor) -> list[Tensor]:
        eighth = self.layer2(F.relu(self.layer1(self.conv1(x))))
        coarse = self.layer3(F.relu(eighth))
        middle = self.layer3_(F.relu(eighth + resize_to(self.compression3(coarse), eighth)))
        fine, coarse = self.layer4(F.relu(middle), F.relu(coarse))
        fine, coarse = self.layer5(F.relu(fine), F.relu(coarse))
        context = resize_to(self.spp(coarse), fine)
        scores = [self.seghead(paddle.concat([fine, context], axis=1))]
        if self.training and self.seghead_extra is not None:
            scores.append(self.seghead_extra(middle))
        return [resize_to(score, x) for score in scores]
