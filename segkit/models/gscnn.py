"""Gated-SCNN: a stream of its own for shapes, which the other's maps open pixel by pixel, and whose edges go into the
pyramid (Takikawa et al., https://arxiv.org/abs/1907.05740)."""

from __future__ import annotations

from typing import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.backbones.resnet_vd import BasicBlock
from segkit.models.canny import canny
from segkit.models.layers import ConvBNReLU, resize_to
from segkit.models.pyramid import ASPP, FineDecoder
from segkit.registry import MODELS

_WIDTHS = (64, 32, 16, 8)  # of the stem's map, and of the shape stream behind each gate
_LOW, _HIGH = 10, 100  # Canny's thresholds


class _Gate(nn.Layer):
    """The map, weighted in 1..2 by what it and a guide have in common (Eq. 1 and 2). [N, C, H, W] and [N, 1, H, W]
    -> [N, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        both = channels + 1
        self._gate_conv = nn.Sequential(
            nn.BatchNorm2D(both), nn.Conv2D(both, both, 1), nn.ReLU(),
            nn.Conv2D(both, 1, 1), nn.BatchNorm2D(1), nn.Sigmoid(),
        )  # fmt: skip
        self.conv = nn.Conv2D(channels, channels, 1, bias_attr=False)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.conv(x * (self._gate_conv(paddle.concat([x, guide], axis=1)) + 1))


class _EdgeASPP(ASPP):
    """`ASPP` with a map of edges [N, 1, H, W] beside the others. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, rates: Sequence[int], in_channels: int, out_channels: int, align_corners: bool):
        super().__init__(rates, in_channels, out_channels, align_corners, extra=1)
        self.edge_conv = ConvBNReLU(1, out_channels, 1, bias=False)

    def forward(self, x: Tensor, edge: Tensor) -> Tensor:
        return self.joined(x, self.edge_conv(resize_to(edge, x, align_corners=self.align_corners)))


class _Head(nn.Layer):
    """The image, the stem's map and four others -> scores of the first of these's size, and the edges' probability
    [N, 1, H, W]."""

    def __init__(
        self, num_classes: int, channels: list[int], rates: Sequence[int], out_channels: int, align_corners: bool
    ):
        super().__init__()
        self.align_corners = align_corners
        for number, (width, narrow, deep) in enumerate(zip(_WIDTHS, _WIDTHS[1:], channels[1:]), 1):
            setattr(self, f"dsn{number}", nn.Conv2D(deep, 1, 1))
            setattr(self, f"res{number}", BasicBlock(width, width, stride=1, dilation=1, project=False))
            setattr(self, f"d{number}", nn.Conv2D(width, narrow, 1))
            setattr(self, f"gate{number}", _Gate(narrow))
        self.fuse = nn.Conv2D(_WIDTHS[-1], 1, 1, bias_attr=False)
        self.cw = nn.Conv2D(2, 1, 1, bias_attr=False)
        self.aspp = _EdgeASPP(rates, channels[-1], out_channels, align_corners)
        self.decoder = FineDecoder(num_classes, channels[0], out_channels, align_corners)

    def edges(self, image: Tensor, stem: Tensor, maps: list[Tensor]) -> Tensor:
        """The shape stream: [N, 1, H, W] in 0..1."""
        shape = resize_to(stem, image, align_corners=self.align_corners)
        for number, deep in enumerate(maps[1:], 1):
            guide = resize_to(getattr(self, f"dsn{number}")(deep), image, align_corners=self.align_corners)
            shape = getattr(self, f"d{number}")(getattr(self, f"res{number}")(shape))
            shape = getattr(self, f"gate{number}")(shape, guide)
        return F.sigmoid(self.fuse(shape))

    def forward(self, image: Tensor, stem: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        edge = self.edges(image, stem, maps)
        found = canny(_to_bytes(image), _LOW, _HIGH).astype(edge.dtype)
        both = F.sigmoid(self.cw(paddle.concat([edge, found], axis=1)))
        return self.decoder(self.aspp(maps[-1], both), maps[0]), edge


def _to_bytes(image: Tensor) -> Tensor:
    """From -1..1 to 0..255, whole. What lies beyond comes back at the other end, as in PaddleSeg's bytes."""
    values = paddle.trunc((image * 0.5 + 0.5) * 255)
    return values - 256 * paddle.floor(values / 256)


@MODELS.register
class GSCNN(BackboneModel):
    """[N, in_channels, H, W] -> in training four: scores [N, num_classes, H, W], the pair of them and the edges'
    probability [N, 1, H, W] for a loss that takes both, the edges alone, and the scores again for `DualTaskLoss`; in
    evaluation the scores alone.

    `backbone`: ResNet_vd or ResNet, whose first 64 channels the shapes start from; another is an `InputError`.
    `aspp_ratios`: dilations, (1, 12, 24, 36) at an output stride of 8. Images are expected as Normalize gives them with
    a mean and std of 0.5: Canny's edges, drawn by OpenCV in PaddleSeg and by the graph itself here, are those of
    their 0..255. Keys and outputs are PaddleSeg's.
    """

    train_outputs = 4
    map_count = 4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (0, 1, 2, 3),
        aspp_ratios: Sequence[int] = (1, 6, 12, 18),
        aspp_out_channels: int = 256,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        if not hasattr(self.backbone, "stages"):
            raise InputError(
                f"model.backbone: has no stem that the shapes can start from (got {type(self.backbone).__name__}, "
                "expected a ResNet or ResNet_vd). Choose one, such as ResNet50_vd."
            )
        self.head = _Head(num_classes, self.map_channels, aspp_ratios, aspp_out_channels, align_corners)

    def forward(self, x: Tensor) -> list:
        stem = self.backbone.stem(x)
        maps = self.backbone.stages(stem)
        scores, edge = self.head(x, stem, [maps[index] for index in self.backbone_indices])
        scores = resize_to(scores, x, align_corners=self.align_corners)
        return [scores, (scores, edge), edge, scores] if self.training else [scores]
