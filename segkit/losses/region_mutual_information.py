"""Region mutual information (Zhao et al., NeurIPS 2019, https://arxiv.org/abs/1910.12037)."""

from __future__ import annotations

from typing import Literal, Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import in_float32, planes
from segkit.registry import LOSSES

_ALPHA = 5e-4  # on the diagonals, so that the covariances can be inverted
_LEAST_PROBABILITY = 1e-6


@LOSSES.register
class RMILoss(nn.Layer):
    """Lower bound of the mutual information between the label's and the prediction's neighbourhoods, negated.

    Every pixel stands for the vector of its `rmi_radius` x `rmi_radius` neighbourhood; the loss is half the log
    determinant of the label vectors' covariance given the prediction's (Eq. 12 of the paper), a mean over the images
    and a sum over the classes. It may be negative. Only this part: add a pixel loss with MixedLoss.

    `rmi_pool_way` makes the maps smaller first by `rmi_pool_size`: 0 maximum, 1 mean, 2 interpolation (PaddleSeg's 3
    never worked). `loss_weight_lambda` is taken and has no effect, as in PaddleSeg.
    """

    def __init__(
        self,
        num_classes: Optional[int] = None,
        rmi_radius: int = 3,
        rmi_pool_way: Literal[0, 1, 2] = 0,
        rmi_pool_size: int = 3,
        rmi_pool_stride: int = 3,
        loss_weight_lambda: float = 0.5,
        ignore_index: int = 255,
    ):
        super().__init__()
        if not 1 <= rmi_radius <= 10:
            raise InputError(
                f"RMILoss: rmi_radius is out of range (got {rmi_radius}, expected 1 to 10). The paper takes 3."
            )
        if rmi_pool_way not in (0, 1, 2):
            raise InputError(
                f"RMILoss: rmi_pool_way is not one it knows (got {rmi_pool_way}, expected 0, 1 or 2). "
                "Take 0 (maximum), 1 (mean) or 2 (interpolation)."
            )
        if rmi_pool_size != rmi_pool_stride:
            raise InputError(
                f"RMILoss: rmi_pool_size and rmi_pool_stride differ (got {rmi_pool_size} and {rmi_pool_stride}, "
                "expected the same number). Give both the same value."
            )
        self.num_classes = num_classes
        self.radius = rmi_radius
        self.pool_way = rmi_pool_way
        self.pool_size = rmi_pool_size
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]` or planes `[N, C, H, W]`."""
        if self.num_classes is not None and logits.shape[1] not in (1, self.num_classes):
            raise InputError(
                f"RMILoss: num_classes does not fit the model's output (got {self.num_classes}, expected "
                f"{logits.shape[1]}). Leave num_classes out: it follows the data set."
            )
        target, mask = planes(logits, label, self.ignore_index)
        probability = F.sigmoid(logits) * mask + _LEAST_PROBABILITY
        if self.pool_size > 1:
            target, probability = self._smaller(target, "nearest"), self._smaller(probability, "bilinear")
        if min(target.shape[2:]) < self.radius:
            raise InputError(
                f"RMILoss: the pictures are too small (got maps of {list(target.shape[2:])} after pooling, expected at "
                f"least {self.radius} x {self.radius}). Train on larger crops, or lower rmi_pool_size or rmi_radius."
            )
        truth, found = self._neighbourhoods(target), self._neighbourhoods(probability)  # [N, C, radius^2, places]
        diagonal = _ALPHA * paddle.eye(truth.shape[2], dtype=truth.dtype)
        cross = paddle.matmul(truth, found, transpose_y=True)
        precision = paddle.inverse(paddle.matmul(found, found, transpose_y=True) + diagonal)
        unexplained = paddle.matmul(truth, truth, transpose_y=True) - paddle.matmul(
            paddle.matmul(cross, precision), cross, transpose_y=True
        )
        root = paddle.linalg.cholesky(unexplained + diagonal)
        half_log_det = paddle.log(paddle.diagonal(root, axis1=-2, axis2=-1) + 1e-8).sum(-1)  # [N, C]
        each_class = half_log_det.mean(0) / truth.shape[2]
        return each_class.sum().astype(logits.dtype) * mask.max()

    def _smaller(self, x: Tensor, interpolation: str) -> Tensor:
        size = self.pool_size
        if self.pool_way == 2:
            shape = [max(1, n // size) for n in x.shape[2:]]
            return F.interpolate(x, shape, mode=interpolation, align_corners=interpolation == "bilinear")
        pool = F.max_pool2d if self.pool_way == 0 else F.avg_pool2d
        return pool(x, kernel_size=size, stride=size, padding=size // 2)

    def _neighbourhoods(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` -> `[N, C, radius^2, places]` in float64, the mean of each row taken off."""
        n, c, h, w = x.shape
        vectors = F.unfold(x.reshape([n * c, 1, h, w]), self.radius).astype("float64")
        vectors = vectors - vectors.mean(axis=-1, keepdim=True)
        return vectors.reshape([n, c, self.radius**2, -1])
