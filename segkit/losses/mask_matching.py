"""The loss of MaskFormer: predicted masks are matched with the label's, each with one (Cheng et al.,
https://arxiv.org/abs/2107.06278, Sec. 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import in_float32
from segkit.registry import LOSSES

_MASK, _DICE = 20.0, 1.0  # weights against the classification's
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [min(R, K)] of the pairs that cost [R, K] least in total, each row and column once; rows
    ascending (the Hungarian method with shortest augmenting paths: Jonker and Volgenant, 1987)."""
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width + 1)
    owner = np.full(width + 1, -1)  # of each column; the last one stands for the row that seeks
    for row in range(count):
        owner[width], column = row, width
        reach, before = np.full(width, np.inf), np.full(width, width)
        done = np.zeros(width + 1, bool)
        while owner[column] >= 0:
            done[column] = True
            seeker, free = owner[column], ~done[:width]
            offer = cost[seeker] - row_price[seeker] - column_price[:width]
            better = free & (offer < reach)
            reach[better], before[better] = offer[better], column
            nearest = int(np.argmin(np.where(free, reach, np.inf)))
            step = reach[nearest]
            row_price[owner[done]] += step
            column_price[done] -= step
            reach[free] -= step
            column = nearest
        while column != width:
            owner[column] = owner[before[column]]
            column = before[column]
    columns = np.flatnonzero(owner[:width] >= 0)
    order = np.argsort(owner[columns])
    return np.arange(count), columns[order]


@LOSSES.register
class MaskFormerLoss(nn.Layer):
    """Cross entropy of the queries' classes, plus 20 times the focal loss and the Dice loss of the masks matched with
    the label's, one for each class that an image shows; added over the decoder's layers.

    A query without a mask should say nothing, which counts `eos_coef`. A batch without a valid pixel gives 0, as in
    PaddleSeg. The masks are made from the label, so that GenerateInstanceTargets is not needed. In distributed
    training each process divides by its own number of masks.
    """

    def __init__(self, num_classes: int = 150, eos_coef: float = 0.1, ignore_index: int = 255):
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        weights = paddle.ones([num_classes + 1])
        weights[-1] = eos_coef
        self.register_buffer("class_weights", weights, persistable=False)

    @in_float32
    def forward(self, outputs: dict[str, Any], label: Tensor) -> Tensor:
        """`outputs`: MaskFormer's in training; `label [N, H, W]`. `InputError` for those of another model."""
        if not isinstance(outputs, dict):
            raise InputError(
                "MaskFormerLoss: the model gives class scores (expected the masks of MaskFormer). Use another loss, "
                "such as CrossEntropyLoss, or model.type: MaskFormer."
            )
        if outputs["pred_logits"].shape[-1] != self.num_classes + 1:
            raise InputError(
                f"MaskFormerLoss: num_classes: got {self.num_classes}, but the model has "
                f"{outputs['pred_logits'].shape[-1] - 1} classes. Give the loss the same number."
            )
        label = label.astype("int64")
        classes = [self._classes(image) for image in label.numpy()]
        count = max(1, sum(map(len, classes)))
        total = paddle.zeros([])
        for layer in [outputs, *outputs.get("aux_outputs", [])]:
            total = total + self._of_layer(layer["pred_logits"], layer["pred_masks"], label, classes, count)
        return total

    def _classes(self, image: np.ndarray) -> np.ndarray:
        found = np.unique(image)
        return found[found != self.ignore_index].astype("int64")

    def _of_layer(self, logits: Tensor, masks: Tensor, label: Tensor, classes: list[np.ndarray], count: int) -> Tensor:
        wanted = np.full(logits.shape[:2], self.num_classes, "int64")
        total = paddle.zeros([])
        for image, own in enumerate(classes):
            if not len(own):
                continue
            truth = (label[image].unsqueeze(0) == paddle.to_tensor(own).reshape([-1, 1, 1])).astype(masks.dtype)
            queries, targets = assign(_costs(logits[image], masks[image], truth, own))
            wanted[image, queries] = own[targets]
            chosen = paddle.index_select(masks[image], paddle.to_tensor(queries))
            chosen = F.interpolate(chosen.unsqueeze(0), size=truth.shape[1:], mode="bilinear")[0].flatten(1)
            truth = paddle.index_select(truth, paddle.to_tensor(targets)).flatten(1)
            total = total + (_MASK * _focal(chosen, truth) + _DICE * _dice(chosen, truth)) / count
        if (wanted == self.num_classes).all():
            return total + 0 * (logits.sum() + masks.sum())
        return total + F.cross_entropy(logits, paddle.to_tensor(wanted), weight=self.class_weights)


@paddle.no_grad()
def _costs(logits: Tensor, masks: Tensor, truth: Tensor, classes: np.ndarray) -> np.ndarray:
    """What it costs that a query [Q, classes + 1], [Q, h, w] stands for a mask [M, H, W] of one of `classes` [M]:
    [Q, M]."""
    certainty = paddle.index_select(F.softmax(logits, axis=-1), paddle.to_tensor(classes), axis=1)
    truth = F.interpolate(truth.unsqueeze(0), size=masks.shape[1:], mode="nearest")[0].flatten(1)
    masks = masks.flatten(1)
    found = F.sigmoid(masks)
    inside = _ALPHA * (1 - found) ** _GAMMA * F.softplus(-masks)
    outside = (1 - _ALPHA) * found**_GAMMA * F.softplus(masks)
    focal = paddle.matmul(inside, truth, transpose_y=True) + paddle.matmul(outside, 1 - truth, transpose_y=True)
    overlap = 2 * paddle.matmul(found, truth, transpose_y=True)
    dice = 1 - (overlap + 1) / (found.sum(1, keepdim=True) + truth.sum(1) + 1)
    costs = _MASK * focal / masks.shape[1] + _DICE * dice - certainty
    return np.nan_to_num(costs.numpy())  # of broken numbers any match will do: the loss is no number then either


def _focal(masks: Tensor, truth: Tensor) -> Tensor:
    """Added over masks [M, pixels], the mean over their pixels (Lin et al., https://arxiv.org/abs/1708.02002)."""
    error = paddle.abs(F.sigmoid(masks) - truth)
    weight = _ALPHA * truth + (1 - _ALPHA) * (1 - truth)
    loss = weight * error**_GAMMA * F.binary_cross_entropy_with_logits(masks, truth, reduction="none")
    return loss.mean(1).sum()


def _dice(masks: Tensor, truth: Tensor) -> Tensor:
    """Added over masks [M, pixels]."""
    found = F.sigmoid(masks)
    return (1 - (2 * (found * truth).sum(1) + 1) / (found.sum(1) + truth.sum(1) + 1)).sum()
