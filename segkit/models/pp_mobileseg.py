"""PP-MobileSeg: StrideFormer and a thin head (Tang et al., https://arxiv.org/abs/2304.05152)."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.mobile_attention import FuseHead
from segkit.registry import MODELS

_UPSAMPLES = ("intepolate", "interpolate", "vim")


@MODELS.register
class PPMobileSeg(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `backbone` None is MobileSeg_Base. `upsample` is PaddleSeg's `intepolate` or `vim`, which there gives labels without
    scores in deployment; here both give scores. `pretrained` is a path that the engine loads. Keys and outputs are
    PaddleSeg's.
    """

    default_backbone = "MobileSeg_Base"
    train_outputs = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        head_use_dw: bool = True,
        align_corners: bool = False,
        upsample: str = "intepolate",
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, (0,), in_channels, align_corners, pretrained)
        if upsample not in _UPSAMPLES:
            raise InputError(f"model.upsample: unknown (got '{upsample}', expected one of {', '.join(_UPSAMPLES)}).")
        self.decode_head = FuseHead(self.map_channels[0], num_classes, head_use_dw)

    def head(self, maps: list[Tensor]) -> list[Tensor]:
        """The backbone's map -> the scores."""
        return [self.decode_head(maps[0])]
