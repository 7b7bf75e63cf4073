"""HRNet: branches of several resolutions side by side, exchanging their maps over and over
(Wang et al., https://arxiv.org/abs/1908.07919)."""

from __future__ import annotations

from typing import Callable, Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.attention import attentive_mean
from segkit.models.layers import ConvBN, ConvBNReLU, Padding, normal_weights, resize_to, to_map
from segkit.registry import BACKBONES

_Make = Callable[[int, int], nn.Layer]


class Bottleneck(nn.Layer):
    """[N, in, h, w] -> [N, 4 width, h, w]; the first of a stage projects its shortcut."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, width, 1, bias=False)
        self.conv2 = ConvBNReLU(width, width, 3, bias=False)
        self.conv3 = ConvBN(width, width * 4, 1, bias=False)
        project = in_channels != width * 4
        self.conv_down = ConvBN(in_channels, width * 4, 1, bias=False) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + self.conv_down(x))


class _PolarizedAttention(nn.Layer):
    """Channels weighted by attention over pixels, plus pixels weighted by attention over channels
    (Liu et al., https://arxiv.org/abs/2107.00782). [N, C, h, w] -> [N, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv_q_right = nn.Conv2D(channels, 1, 1, bias_attr=False)
        self.conv_v_right = nn.Conv2D(channels, half, 1, bias_attr=False)
        self.conv_up = nn.Conv2D(half, channels, 1, bias_attr=False)
        self.conv_q_left = nn.Conv2D(channels, half, 1, bias_attr=False)
        self.conv_v_left = nn.Conv2D(channels, half, 1, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = self.conv_up(attentive_mean(self.conv_v_right(x), self.conv_q_right(x)))
        query = F.adaptive_avg_pool2d(self.conv_q_left(x), 1).flatten(2)
        likeness = paddle.matmul(query, self.conv_v_left(x).flatten(2), transpose_x=True)
        pixels = to_map(F.softmax(likeness, axis=-1), x)
        return x * F.sigmoid(pixels) + x * F.sigmoid(channels)


class _Basic(nn.Layer):
    def __init__(self, channels: int, attention: bool):
        super().__init__()
        self.conv1 = ConvBNReLU(channels, channels, 3, bias=False)
        self.deattn = _PolarizedAttention(channels) if attention else nn.Identity()
        self.conv2 = ConvBN(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.deattn(self.conv1(x))) + x)


class _Branches(nn.Layer):
    """Residual blocks for each resolution by itself."""

    def __init__(self, name: str, channels: Sequence[int], blocks: int, attention: bool):
        super().__init__()
        self.names = [[f"bb_{name}_branch_layer_{b + 1}_{n + 1}" for n in range(blocks)] for b in range(len(channels))]
        for names, width in zip(self.names, channels):
            for block in names:
                self.add_sublayer(block, _Basic(width, attention))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        found = []
        for names, x in zip(self.names, maps):
            for block in names:
                x = getattr(self, block)(x)
            found.append(x)
        return found


class _Fuse(nn.Layer):
    """Every resolution's map, moved to every other's and added."""

    def __init__(self, name: str, channels: Sequence[int], align_corners: bool, padding: Padding | None):
        super().__init__()
        self.align_corners = align_corners
        self.paths: list[list[list[str]]] = []
        for to, width in enumerate(channels):
            self.paths.append([])
            for start, first in enumerate(channels):
                place = f"residual_{name}_layer_{to + 1}_{start + 1}"
                names = [place] if start > to else [f"{place}_{step + 1}" for step in range(to - start)]
                self.paths[to].append(names)
                if start > to:
                    self.add_sublayer(place, ConvBN(first, width, 1, bias=False))
                for step, key in enumerate(names if start < to else []):
                    last = step == len(names) - 1
                    cls, out = (ConvBN, width) if last else (ConvBNReLU, first)
                    self.add_sublayer(key, cls(first, out, 3, stride=2, padding=padding, bias=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fused = []
        for to, paths in enumerate(self.paths):
            total = maps[to]
            for start, names in enumerate(paths):
                if start == to:
                    continue
                x = maps[start]
                for name in names:
                    x = getattr(self, name)(x)
                total = total + resize_to(x, maps[to], align_corners=self.align_corners)
            fused.append(F.relu(total))
        return fused


class _Module(nn.Layer):
    def __init__(
        self,
        name: str,
        channels: Sequence[int],
        blocks: int,
        align_corners: bool,
        padding: Padding | None,
        attention: bool,
    ):
        super().__init__()
        self.branches_func = _Branches(name, channels, blocks, attention)
        self.fuse_func = _Fuse(name, channels, align_corners, padding)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return self.fuse_func(self.branches_func(maps))


class Stage(nn.Sequential):
    """`modules` rounds of `blocks` residual blocks in each branch and an exchange. Maps -> maps of the same sizes.

    `padding`: of what halves a map, None for 'same'. `attention`: inside each residual block."""

    def __init__(
        self,
        name: str,
        channels: Sequence[int],
        modules: int,
        blocks: int,
        align_corners: bool,
        padding: Padding | None = None,
        attention: bool = False,
    ):
        places = [f"{name}_{index + 1}" for index in range(modules)]
        super().__init__(
            *(
                (f"stage_{place}", _Module(place, channels, blocks, align_corners, padding, attention))
                for place in places
            )
        )


class Transition(nn.Layer):
    """Maps of `before` channels -> maps of `after`: a convolution where the number changes, a new map at half the
    coarsest one's size where there are more."""

    def __init__(self, name: str, before: Sequence[int], after: Sequence[int], padding: Padding | None = None):
        super().__init__()
        self.names: list[str | None] = []
        for index, width in enumerate(after):
            new = index >= len(before)
            channels = before[-1] if new else before[index]
            self.names.append(f"transition_{name}_layer_{index + 1}" if new or channels != width else None)
            if self.names[-1] is not None:
                conv = ConvBNReLU(channels, width, 3, stride=2 if new else 1, padding=padding, bias=False)
                self.add_sublayer(self.names[-1], conv)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        given = [*maps, *maps[-1:] * (len(self.names) - len(maps))]
        return [x if name is None else getattr(self, name)(x) for name, x in zip(self.names, given)]


class NumberedTransition(nn.LayerList):
    """`Transition` under the keys 0, 1, ...: `halve(in, out)` makes the layer of a new map, `widen(in, out)` that of a
    map of another width."""

    def __init__(self, before: Sequence[int], after: Sequence[int], halve: _Make, widen: _Make):
        steps: list[nn.Layer] = []
        for index, width in enumerate(after):
            if index >= len(before):
                steps.append(halve(before[-1], width))
            else:
                steps.append(nn.Identity() if width == before[index] else widen(before[index], width))
        super().__init__(steps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        given = [*maps, *maps[-1:] * (len(self) - len(maps))]
        return [step(x) for step, x in zip(self, given)]


class _HRNet(nn.Layer):
    """[N, in_channels, H, W] -> one map at 1/4: all four branches' maps, raised and concatenated.

    `align_corners` is the interpolations'. `padding_same` halves maps as published weights expect (odd pixels are
    padded at the right and bottom), False as most other libraries do (on both sides). `use_psa` adds polarized
    self-attention to each residual block. `pretrained` is a file of
    classification weights that the engine loads. Keys are PaddleSeg's.
    """

    width: int
    stem_width = 64
    blocks = 4
    stem_blocks = 4
    modules: Sequence[int] = (1, 4, 3)

    def __init__(
        self,
        align_corners: bool = False,
        padding_same: bool = True,
        use_psa: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.align_corners = align_corners
        self.pretrained = pretrained
        padding = None if padding_same else 1
        self.conv_layer1_1 = ConvBNReLU(in_channels, 64, 3, stride=2, padding=padding, bias=False)
        self.conv_layer1_2 = ConvBNReLU(64, 64, 3, stride=2, padding=padding, bias=False)
        wide = self.stem_width * 4
        widths = [64, *[wide] * (self.stem_blocks - 1)]
        self.la1 = nn.Sequential(
            *((f"bb_layer2_{i + 1}", Bottleneck(width, self.stem_width)) for i, width in enumerate(widths))
        )
        before = [wide]
        for number, modules in enumerate(self.modules, start=2):
            channels = [self.width * 2**branch for branch in range(number)]
            self.add_sublayer(f"tr{number - 1}", Transition(f"tr{number - 1}", before, channels, padding))
            stage = Stage(f"st{number}", channels, modules, self.blocks, align_corners, padding, use_psa)
            self.add_sublayer(f"st{number}", stage)
            before = channels
        self.feat_channels = [sum(before)]
        normal_weights(self, 0.001)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.la1(self.conv_layer1_2(self.conv_layer1_1(x)))]
        for transition, stage in ((self.tr1, self.st2), (self.tr2, self.st3), (self.tr3, self.st4)):
            maps = stage(transition(maps))
        raised = [resize_to(coarse, maps[0], align_corners=self.align_corners) for coarse in maps[1:]]
        return [paddle.concat([maps[0], *raised], axis=1)]


@BACKBONES.register
class HRNet_W18_Small_V1(_HRNet):
    width, stem_width, stem_blocks, blocks, modules = 16, 32, 1, 2, (1, 1, 1)


@BACKBONES.register
class HRNet_W18_Small_V2(_HRNet):
    width, stem_blocks, blocks, modules = 18, 2, 2, (1, 3, 2)


@BACKBONES.register
class HRNet_W18(_HRNet):
    width = 18


@BACKBONES.register
class HRNet_W30(_HRNet):
    width = 30


@BACKBONES.register
class HRNet_W32(_HRNet):
    width = 32


@BACKBONES.register
class HRNet_W40(_HRNet):
    width = 40


@BACKBONES.register
class HRNet_W44(_HRNet):
    width = 44


@BACKBONES.register
class HRNet_W48(_HRNet):
    width = 48


@BACKBONES.register
class HRNet_W60(_HRNet):
    width = 60


@BACKBONES.register
class HRNet_W64(_HRNet):
    width = 64
