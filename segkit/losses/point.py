"""Cross entropy at sampled points (Kirillov et al., PointRend, CVPR 2020, https://arxiv.org/abs/1912.08193)."""

from __future__ import annotations

from typing import List, Literal, Sequence, Union

import paddle.nn.functional as F
from paddle import Tensor

from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.functional import in_float32, to_int
from segkit.registry import LOSSES


@LOSSES.register
class PointCrossEntropyLoss(CrossEntropyLoss):
    """`CrossEntropyLoss` at points: the label is read at the pixel nearest to each.

    Unlike PaddleSeg's, `weight` works. `data_format` is taken and has no effect.
    """

    def __init__(
        self,
        weight: Union[Literal["auto"], List[float], None] = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        data_format: Literal["NCHW", "NHWC"] = "NCHW",
        align_corners: bool = False,
    ):
        super().__init__(weight, ignore_index, top_k_percent_pixels)
        self.align_corners = align_corners

    @in_float32
    def forward(self, outputs: Sequence[Tensor], label: Tensor) -> Tensor:  # type: ignore[override]
        """`outputs`: logits `[N, C, P]` at points `[N, P, 2]`, x and y from 0 to 1; `label [N, H, W]`."""
        logits, points = outputs
        label = to_int(label).astype("float32").reshape([label.shape[0], 1, *label.shape[-2:]])
        grid = (2 * points - 1).unsqueeze(1)  # [N, 1, P, 2]
        sampled = F.grid_sample(label, grid, mode="nearest", align_corners=self.align_corners)
        return super().forward(logits.unsqueeze(2), sampled.squeeze(1).astype("int64"))
