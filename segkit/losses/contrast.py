"""Pixel contrast (Wang et al., ICCV 2021, https://arxiv.org/abs/2101.11939)."""

from __future__ import annotations

from typing import Dict, List, Tuple

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import in_float32, to_int
from segkit.registry import LOSSES


@LOSSES.register
class PixelContrastCrossEntropyLoss(nn.Layer):
    """InfoNCE between sampled pixels of the batch: those of one class attract, others repel.

    For each class of each image with more than `max_views` pixels, so many are drawn (at most `max_views`, at most
    `max_samples` in all), half of them wrongly classified ones where there are enough. A batch without such a class
    gives 0 (PaddleSeg fails).
    """

    def __init__(
        self,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        ignore_index: int = 255,
        max_samples: int = 1024,
        max_views: int = 100,
    ):
        super().__init__()
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.ignore_index = ignore_index
        self.max_samples = max_samples
        self.max_views = max_views

    @in_float32
    def forward(self, outputs: Dict[str, Tensor], label: Tensor) -> Tensor:
        """`outputs`: "seg" logits `[N, C, h, w]` and "embed" `[N, D, h, w]` of unit length; `label [N, H, W]`."""
        if not isinstance(outputs, dict) or not {"seg", "embed"} <= set(outputs):
            raise InputError(
                "PixelContrastCrossEntropyLoss: the output has no 'seg' and 'embed' (got "
                f"{sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__}). Use it on an output of "
                "HRNetW48Contrast, and another loss elsewhere."
            )
        embedding = outputs["embed"]
        small = F.interpolate(to_int(label).unsqueeze(1).astype("float32"), embedding.shape[2:], mode="nearest")
        truth = small.squeeze(1).astype("int64").flatten(1)
        answer = outputs["seg"].argmax(axis=1).flatten(1)
        vectors, classes = self._anchors(embedding.flatten(2).transpose([0, 2, 1]), truth, answer)
        return self._contrast(vectors, classes) if vectors else embedding.sum() * 0.0

    def _anchors(self, embedding: Tensor, truth: Tensor, answer: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
        """For each (image, class): sampled vectors `[V, D]` and their class `[V]`. `embedding [N, P, D]`."""
        chosen = []
        for image in range(truth.shape[0]):
            present, counts = paddle.unique(truth[image], return_counts=True)
            for number, count in zip(present.tolist(), counts.tolist()):
                if number != self.ignore_index and count > self.max_views:
                    chosen.append((image, number))
        views = min(self.max_samples // max(1, len(chosen)), self.max_views)
        vectors, classes = [], []
        for image, number in chosen if views else ():
            own = truth[image] == number
            right = answer[image] == number
            wrong, easy = (paddle.nonzero(paddle.logical_and(own, part)).flatten() for part in (~right, right))
            keep_wrong, keep_easy = _shares(wrong.shape[0], easy.shape[0], views)
            index = paddle.concat([_draw(wrong, keep_wrong), _draw(easy, keep_easy)])
            vectors.append(paddle.gather(embedding[image], index))
            classes.append(paddle.full([index.shape[0]], number, "int64"))
        return vectors, classes

    def _contrast(self, vectors: List[Tensor], classes: List[Tensor]) -> Tensor:
        anchors, number = paddle.concat(vectors), paddle.concat(classes)
        similarity = paddle.matmul(anchors, anchors, transpose_y=True) / self.temperature
        similarity = similarity - similarity.max(axis=1, keepdim=True)
        same = (number.unsqueeze(0) == number.unsqueeze(1)).astype(anchors.dtype)
        others = same - paddle.eye(same.shape[0], dtype=same.dtype)
        raised = paddle.exp(similarity)
        repelled = (raised * (1 - same)).sum(1, keepdim=True)
        log_probability = similarity - paddle.log(raised + repelled)
        mean = (others * log_probability).sum(1) / others.sum(1).clip(min=1)
        return -mean.mean() * self.temperature / self.base_temperature


def _shares(wrong: int, easy: int, views: int) -> Tuple[int, int]:
    """How many of the wrongly and of the rightly classified pixels to take, `views` in all where there are enough."""
    if wrong >= views / 2 and easy >= views / 2:
        return views // 2, views - views // 2
    if wrong >= views / 2:
        return views - easy, easy
    return wrong, views - wrong if easy >= views / 2 else easy


def _draw(index: Tensor, count: int) -> Tensor:
    """`count` of the row, at random."""
    if index.shape[0] == 0:
        return index
    return paddle.gather(index, paddle.randperm(index.shape[0])[:count])
