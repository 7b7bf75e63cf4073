"""FastFCN: joint pyramid upsampling in the place of a dilated backbone, with ENCNet's head
(Wu et al., https://arxiv.org/abs/1903.11816)."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.models.encoding import EncodingModel
from segkit.models.layers import ConvBNReLU
from segkit.models.pyramid import JointUpsampling
from segkit.registry import MODELS


@MODELS.register
class FastFCN(EncodingModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation; in training also the auxiliary head's (with
    `aux_loss`) and the image's class scores [N, num_classes] (with `use_se_loss`).

    `num_codes`: codewords; `add_lateral`: the two finest maps join the others. Keys and outputs are PaddleSeg's.
    """

    classifier = "cls_seg"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        num_codes: int = 32,
        mid_channels: int = 512,
        use_jpu: bool = True,
        aux_loss: bool = True,
        use_se_loss: bool = True,
        add_lateral: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0, 1, 2, 3), in_channels, False, pretrained)
        self.jpu_layer = JointUpsampling(self.map_channels[1:], mid_channels) if use_jpu else None
        width, kernel = (4 * mid_channels, 1) if use_jpu else (self.map_channels[-1], 3)
        self.bottleneck = ConvBNReLU(width, mid_channels, kernel, bias=False)
        laterals = self.map_channels[:2] if add_lateral else []
        self._add_encoding(num_classes, mid_channels, num_codes, laterals, False, use_se_loss, auxiliary=aux_loss)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.maps(x)
        joint = maps[3] if self.jpu_layer is None else self.jpu_layer(maps[1:])
        return self._scores(self.bottleneck(joint), maps[:2], maps[2], x)
