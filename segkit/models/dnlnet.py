"""DNLNet: non-local attention split into a pairwise term, freed of the mean, and a term that is the same for every
pixel (Yin et al., https://arxiv.org/abs/2006.06668)."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.models.attention import attend, attentive_mean
from segkit.models.backboned import BackboneModel
from segkit.models.context_head import ContextHead
from segkit.models.layers import ConvBNReLU, to_map
from segkit.registry import MODELS


class _NonLocal(nn.Layer):
    """[N, C, h, w] -> [N, C, h, w]. A lower `temperature` sharpens the attention."""

    def __init__(self, channels: int, reduction: int, use_scale: bool, temperature: float):
        super().__init__()
        hidden = channels // reduction
        self.scale = (hidden**-0.5 if use_scale else 1.0) / temperature
        self.g = nn.Conv2D(channels, hidden, 1)
        self.conv_out = ConvBNReLU(hidden, channels, 1, bias=False)
        self.theta = nn.Conv2D(channels, hidden, 1)
        self.phi = nn.Conv2D(channels, hidden, 1)
        self.conv_mask = nn.Conv2D(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        values = self.g(x)
        queries, keys = self.theta(x).flatten(2), self.phi(x).flatten(2)
        queries, keys = (pixels - pixels.mean(axis=-1, keepdim=True) for pixels in (queries, keys))
        pairwise = to_map(attend(queries, keys, values.flatten(2), self.scale), x)
        return x + self.conv_out(pairwise + attentive_mean(values, self.conv_mask(x)))


class _Head(ContextHead):
    def __init__(
        self,
        num_classes: int,
        channels: list[int],
        reduction: int,
        use_scale: bool,
        temperature: float,
        concat_input: bool,
        auxiliary: bool,
    ):
        width = channels[1] // 4
        super().__init__(num_classes, channels, width, concat_input, auxiliary, bias=False)
        self.dnl_block = _NonLocal(width, reduction, use_scale, temperature)
        self.conv0 = ConvBNReLU(channels[1], width, 3, bias=False)
        self.conv1 = ConvBNReLU(width, width, 3, bias=False)

    def context(self, x: Tensor) -> Tensor:
        """[N, width, h, w]."""
        return self.conv1(self.dnl_block(self.conv0(x)))


@MODELS.register
class DNLNet(BackboneModel):
    """[N, in_channels, H, W] -> [N, num_classes, H, W] and, in training, another from the auxiliary head.

    `reduction`: of channels inside the attention; `use_scale` divides likeness by the root of those, `temperature`
    divides it further; `concat_input` shows the head the backbone's map once more. Keys and outputs are PaddleSeg's.
    """

    map_count = 2
    align_mode = 1

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (2, 3),
        reduction: int = 2,
        use_scale: bool = True,
        temperature: float = 0.05,
        concat_input: bool = True,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        self.head = _Head(
            num_classes, self.map_channels, reduction, use_scale, temperature, concat_input, enable_auxiliary_loss
        )
