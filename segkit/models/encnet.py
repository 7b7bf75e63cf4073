"""ENCNet: channels weighted by what the whole image holds (Zhang et al., https://arxiv.org/abs/1803.08904)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.encoding import EncodingModel
from segkit.models.layers import ConvBNReLU
from segkit.registry import MODELS


@MODELS.register
class ENCNet(EncodingModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation; in training also the auxiliary head's and,
    with `use_se_loss`, the image's class scores [N, num_classes].

    `num_codes`: codewords; `add_lateral`: the finer maps join the coarsest. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "ResNet101_vd"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (1, 2, 3),
        num_codes: int = 32,
        mid_channels: int = 512,
        use_se_loss: bool = True,
        add_lateral: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, False, pretrained)
        self.bottleneck = ConvBNReLU(self.map_channels[-1], mid_channels, 3)
        laterals = self.map_channels[:-1] if add_lateral else []
        self._add_encoding(num_classes, mid_channels, num_codes, laterals, bias=True, use_se_loss=use_se_loss)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.maps(x)
        return self._scores(self.bottleneck(maps[-1]), maps[:-1], maps[-2], x)
