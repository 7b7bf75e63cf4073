"""Cross entropy near edges alone, as found by the model's own edge head (Takikawa et al., Gated-SCNN, ICCV 2019)."""

from __future__ import annotations

from typing import List

import paddle
from paddle import Tensor, nn

from segkit.losses.cross_entropy import hard_pixels
from segkit.losses.functional import class_label, in_float32, pixel_cross_entropy
from segkit.registry import LOSSES


def _edge_label(outputs: List[Tensor], label: Tensor, threshold: float, ignore_index: int) -> Tensor:
    """The label `[N, H, W]`, ignored wherever the edge output `[N, 1, H, W]` is not above `threshold`."""
    logits, edge = outputs
    label = class_label(logits, label)
    return paddle.where(edge.squeeze(1) > threshold, label, paddle.full_like(label, ignore_index))


@LOSSES.register
class EdgeAttentionLoss(nn.Layer):
    """Mean cross entropy over the pixels whose edge output is above `edge_threshold`."""

    def __init__(self, edge_threshold: float = 0.8, ignore_index: int = 255):
        super().__init__()
        self.edge_threshold = edge_threshold
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, outputs: List[Tensor], label: Tensor) -> Tensor:
        """`outputs`: logits `[N, C, H, W]` and edge `[N, 1, H, W]`; `label [N, H, W]`."""
        near = _edge_label(outputs, label, self.edge_threshold, self.ignore_index)
        loss, mask, _ = pixel_cross_entropy(outputs[0], near, self.ignore_index)
        return loss.mean() / (mask.mean() + 1e-10)


@LOSSES.register
class OhemEdgeAttentionLoss(nn.Layer):
    """`EdgeAttentionLoss` over the hard ones of these pixels (see `OhemCrossEntropyLoss`). Unlike
    PaddleSeg, `min_kept=0` mines by the threshold alone."""

    def __init__(self, edge_threshold: float = 0.8, thresh: float = 0.7, min_kept: int = 5000, ignore_index: int = 255):
        super().__init__()
        self.edge_threshold = edge_threshold
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, outputs: List[Tensor], label: Tensor) -> Tensor:
        """`outputs`: logits `[N, C, H, W]` and edge `[N, 1, H, W]`; `label [N, H, W]`."""
        near = _edge_label(outputs, label, self.edge_threshold, self.ignore_index)
        loss, mask, _ = pixel_cross_entropy(outputs[0], near, self.ignore_index)
        kept = mask * hard_pixels(loss, mask, self.thresh, self.min_kept)
        return (loss * kept).mean() / (kept.mean() + 1e-10)
