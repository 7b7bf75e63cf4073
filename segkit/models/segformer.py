"""SegFormer: a Mix Transformer and a head of linear layers (Xie et al., https://arxiv.org/abs/2105.15203)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.models.transformer import to_map, to_tokens
from segkit.registry import MODELS


class _Project(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.proj(to_tokens(x)), x)


class _Fuse(ConvBNReLU):
    """1x1 convolution, BatchNorm and ReLU of maps that lie behind one another, raised to the last one's size.

    Each map meets its share of the filters at its own size and the results are raised and added: raising and a 1x1
    convolution commute, and the coarse maps cost next to nothing.
    """

    def __init__(self, channels: int, count: int, align_corners: bool):
        super().__init__(channels * count, channels, 1, bias=False)
        self.align_corners = align_corners

    def forward(self, maps: list[Tensor]) -> Tensor:
        shares = self._conv.weight.split(len(maps), axis=1)
        parts = [F.conv2d(x, share) for x, share in zip(maps, shares)]
        first, *others = [resize_to(part, maps[-1], align_corners=self.align_corners) for part in parts]
        return F.relu(self._batch_norm(sum(others, first)))


@MODELS.register
class SegFormer(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is MixVisionTransformer_B0; `embedding_dim` is the head's width, 256 for B0 and B1 and 768 for the
    larger ones in published weights. `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "MixVisionTransformer_B0"
    train_outputs = 1
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        embedding_dim: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0, 1, 2, 3), in_channels, align_corners, pretrained)
        for number, channels in enumerate(self.map_channels, 1):
            setattr(self, f"linear_c{number}", _Project(channels, embedding_dim))
        self.dropout = nn.Dropout2D(0.1)
        self.linear_fuse = _Fuse(embedding_dim, len(self.map_channels), align_corners)
        self.linear_pred = nn.Conv2D(embedding_dim, num_classes, 1)

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> the scores."""
        projected = [getattr(self, f"linear_c{number}")(maps[number - 1]) for number in range(4, 0, -1)]
        return [self.linear_pred(self.dropout(self.linear_fuse(projected)))]
