"""Connectivity of the predicted areas (Chu et al., PP-HumanSeg, WACV 2022, https://arxiv.org/abs/2112.07146)."""

from __future__ import annotations

from typing import List

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit._cv2 import cv2
from segkit.losses.functional import class_label, in_float32
from segkit.registry import LOSSES


@LOSSES.register
class SemanticConnectivityLoss(nn.Layer):
    """1 - how well the connected areas of the prediction match those of the label, a mean over each image's classes.

    Each labelled area counts with the mean IoU of the predicted areas that touch it; predicted areas that touch none
    count as 0. A class that is labelled and nowhere predicted costs 1 + its share of the image. Where a class has more
    than twice as many predicted areas as labelled ones, only the first `max_pred_num_conn` - 1 are looked at.

    As in PaddleSeg a pixel of class c has the area c in its prediction, so that class 0 never matches: meant for one
    foreground class. Unlike there, where nothing is learned from it, the probability of the predicted class gets the
    gradient (as if the area were a sum of probabilities). `use_argmax=False` takes logits of one channel.
    """

    def __init__(self, ignore_index: int = 255, max_pred_num_conn: int = 10, use_argmax: bool = True):
        super().__init__()
        self.ignore_index = ignore_index
        self.max_pred_num_conn = max_pred_num_conn
        self.use_argmax = use_argmax

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        label = class_label(logits, label)
        if self.use_argmax and logits.shape[1] > 1:
            probability, found = F.softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1)
        else:
            foreground = F.sigmoid(logits[:, 0])
            found = (foreground > 0.5).astype("int64")
            probability = paddle.where(found > 0, foreground, 1 - foreground)
        valid = (label != self.ignore_index).astype(logits.dtype)
        # The value is that of a sure prediction, the gradient that of its probability.
        area = found.astype(logits.dtype) * (1 + valid * (probability - probability.detach()))
        rows = zip(found.numpy(), label.numpy(), area)
        return sum(self._image(*row) for row in rows) / logits.shape[0] + 0.0 * logits.sum()

    def _image(self, found: np.ndarray, label: np.ndarray, area: Tensor) -> Tensor:
        """The loss of one image: classes found and labelled `[H, W]`, area of each pixel `[H, W]`."""
        classes = [int(c) for c in np.unique(label) if c != self.ignore_index]
        losses: List[Tensor] = []
        for number in classes:
            labels, truth = cv2.connectedComponents((label == number).astype(np.uint8))
            predictions, answer = cv2.connectedComponents((found == number).astype(np.uint8))
            if predictions == 1:
                losses.append(paddle.to_tensor(1 + np.mean(label == number), area.dtype))
            else:
                losses.append(1 - self._connectivity(truth, labels, answer, predictions, area))
        return sum(losses) / len(classes) if classes else paddle.zeros([], area.dtype)

    def _connectivity(
        self, truth: np.ndarray, labels: int, answer: np.ndarray, predictions: int, area: Tensor
    ) -> Tensor:
        """Match of numbered areas `[H, W]` (0: none); `labels` and `predictions` are their numbers plus one."""
        pair = paddle.to_tensor((truth.astype(np.int64) * predictions + answer).ravel())
        table = paddle.scatter_nd_add(paddle.zeros([labels * predictions]), pair.unsqueeze(1), area.flatten())
        table = table.reshape([labels, predictions])
        kept = min(predictions, self.max_pred_num_conn) if predictions > 2 * labels else predictions
        overlap, predicted = table[1:, 1:kept], table[:, 1:kept].sum(0)
        labelled = paddle.to_tensor(np.bincount(truth.ravel(), minlength=labels)[1:, None], area.dtype)
        iou = overlap / (predicted + labelled - overlap)
        touching = (overlap > 0).astype(area.dtype)
        match = (iou * touching).sum(1) / touching.sum(1).clip(min=1)
        alone = (touching.sum(0) == 0).astype(area.dtype).sum()
        return match.sum() / (labels - 1 + alone)
