"""What models with a backbone and a head share."""

from __future__ import annotations

from typing import Sequence

from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import resize_to
from segkit.registry import BACKBONES


class BackboneModel(nn.Layer):
    """[N, in_channels, H, W] -> scores [N, num_classes, H, W], the main ones first: `self.head` of a backbone's maps.

    A subclass makes `self.head`, a layer from the maps that `backbone_indices` picks to a list of scores, of which
    it gives the main one alone in evaluation. `backbone` None is `default_backbone` for images of `in_channels`
    bands; a backbone that is given brings its own number of bands. `map_count` is how many maps the head takes
    (None: any number).
    """

    default_backbone = "ResNet50_vd"
    map_count: int | None = None
    align_mode = 0
    """1: scores are raised from the pixels' corners instead of their centres, as some published weights expect."""

    def __init__(
        self,
        backbone: nn.Layer | None,
        backbone_indices: Sequence[int],
        in_channels: int,
        align_corners: bool,
        pretrained: str | None,
    ):
        super().__init__()
        if backbone is None:
            backbone = BACKBONES.get(self.default_backbone)(in_channels=in_channels)
        self.backbone = backbone
        self.backbone_indices = _checked(backbone_indices, len(backbone.feat_channels), self.map_count)
        self.map_channels = [backbone.feat_channels[index] for index in self.backbone_indices]
        self.align_corners = align_corners
        self.pretrained = pretrained

    def maps(self, x: Tensor) -> list[Tensor]:
        """The backbone's maps that the head takes."""
        found = self.backbone(x)
        return [found[index] for index in self.backbone_indices]

    def answers(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps -> scores of any size, the main ones first: the head's, unless a subclass has more than a head."""
        return self.head(maps)

    def forward(self, x: Tensor) -> list[Tensor]:
        how = {"align_corners": self.align_corners, "align_mode": self.align_mode}
        return [resize_to(score, x, **how) for score in self.answers(self.maps(x))]


def _checked(indices: Sequence[int], available: int, wanted: int | None) -> list[int]:
    fits = all(-available <= index < available for index in indices)
    if not fits or not indices or (wanted is not None and len(indices) != wanted):
        count = "one or more indices" if wanted is None else f"{wanted} of them"
        raise InputError(
            f"model.backbone_indices: does not fit the model and its backbone (got {list(indices)}, expected {count}, "
            f"each below {available}). Leave it out for the usual ones."
        )
    return list(indices)
