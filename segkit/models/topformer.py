"""TopFormer: a token pyramid with attention on phones (Zhang et al., https://arxiv.org/abs/2204.05525)."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.models.backboned import BackboneModel
from segkit.models.layers import resize_to
from segkit.models.mobile_attention import FuseHead
from segkit.registry import MODELS


@MODELS.register
class TopFormer(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is TopTransformer_Base. `head_use_dw`: the head's first convolution keeps channels apart.
    `pretrained` is a path that the engine loads. Keys and outputs are PaddleSeg's.
    """

    default_backbone = "TopTransformer_Base"
    train_outputs = 1
    map_count = 3

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        head_use_dw: bool = False,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0, 1, 2), in_channels, align_corners, pretrained)
        self.decode_head = FuseHead(self.map_channels[0], num_classes, head_use_dw)

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's maps -> the scores of their sum."""
        finest, *others = maps
        raised = [resize_to(x, finest, align_corners=self.align_corners) for x in others]
        return [self.decode_head(sum(raised, finest))]
