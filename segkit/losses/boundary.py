"""Losses of the borders between classes."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit._cv2 import cv2
from segkit.errors import InputError
from segkit.losses.functional import class_label, in_float32, is_planes, planes
from segkit.registry import LOSSES


@LOSSES.register
class RelaxBoundaryLoss(nn.Layer):
    """Near a border any of the classes around is right: -log of the sum of the probabilities of all classes within
    `border` pixels (Zhu et al., CVPR 2019, https://arxiv.org/abs/1812.01593). A sum over the images of each one's mean.

    An ignored pixel with a labelled one within `border` counts, as in PaddleSeg. `calculate_weights` weighs the
    classes of each image by up to 1 + `upper_bound`, rare ones more (PaddleSeg fails there). Unlike in PaddleSeg the
    images of a batch do not influence each other, and a `border` other than 1 works.
    """

    def __init__(
        self, border: int = 1, calculate_weights: bool = False, upper_bound: float = 1.0, ignore_index: int = 255
    ):
        super().__init__()
        if border < 0:
            raise InputError(
                f"RelaxBoundaryLoss: border is negative (got {border}, expected 0 or more pixels). The paper takes 1."
            )
        self.border = border
        self.calculate_weights = calculate_weights
        self.upper_bound = upper_bound
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        classes = paddle.arange(logits.shape[1]).reshape([1, -1, 1, 1])
        label = class_label(logits, label).astype(classes.dtype)
        right = paddle.logical_and(label.unsqueeze(1) == classes, (label != self.ignore_index).unsqueeze(1))
        right = right.astype(logits.dtype)
        right = F.max_pool2d(right, 2 * self.border + 1, stride=1, padding=self.border)
        count = right.sum(1)  # classes around each pixel [N, H, W]
        valid = (count > 0).astype(logits.dtype)
        among = paddle.where(
            paddle.logical_or(right > 0, (count == 0).unsqueeze(1)), logits, paddle.full_like(logits, -1e30)
        )
        loss = (paddle.logsumexp(logits, axis=1) - paddle.logsumexp(among, axis=1)) * valid
        if self.calculate_weights:
            share = right.sum([2, 3]) / right.sum([1, 2, 3]).clip(min=1).unsqueeze(1)  # [N, C]
            weight = (share > 0).astype(share.dtype) * self.upper_bound * (1 - share) + 1
            loss = loss * (right * weight.unsqueeze([2, 3])).sum(1) / count.clip(min=1)
        return (loss.sum([1, 2]) / (valid.sum([1, 2]) + 1)).sum()


@LOSSES.register
class BoundaryLoss(nn.Layer):
    """Mean over the valid pixels and classes of the probability times the signed distance, in pixels, to the class's
    true border: negative inside, positive outside (Kervadec et al., MIDL 2019, https://arxiv.org/abs/1812.07032).

    It may be negative, and alone it is satisfied by little: add it to DiceLoss or CrossEntropyLoss with MixedLoss, with
    a small coefficient. A class that an image lacks, or that fills it, has distance 0 there.
    """

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]` or planes `[N, C, H, W]`."""
        target, mask = planes(logits, label, self.ignore_index)
        probability = F.sigmoid(logits) if is_planes(logits, label) else F.softmax(logits, axis=1)
        inside = target.numpy() > 0
        distance = np.stack([[_signed_distance(plane) for plane in image] for image in inside])
        loss = probability * paddle.to_tensor(distance, dtype=logits.dtype, place=logits.place) * mask
        return loss.mean() / (mask.mean() + 1e-10)


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    """float32 `[H, W]`: the distance to the nearest pixel of the other kind, minus one half; negative where inside."""
    if inside.all() or not inside.any():
        return np.zeros(inside.shape, np.float32)
    outward, inward = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (~inside, inside))
    return np.where(inside, 0.5 - inward, outward - 0.5).astype(np.float32)
