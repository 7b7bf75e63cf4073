"""Lovasz losses: smooth surrogates of the IoU (Berman et al., The Lovasz-Softmax Loss, CVPR 2018)."""

from __future__ import annotations

from typing import List, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import class_label, in_float32, is_planes, planes
from segkit.registry import LOSSES


def jaccard_slopes(truth: Tensor) -> Tensor:
    """Derivative of the Lovasz extension of the IoU loss. `truth [R, P]`: 0/1 targets of each row, hardest first.

    The intersection and union left over after each further error, as IoU losses, differenced.
    """
    positives = truth.sum(axis=1, keepdim=True)
    missed = positives - truth.cumsum(axis=1)
    union = positives + (1 - truth).cumsum(axis=1)
    loss = 1 - missed / union.clip(min=1)
    return paddle.concat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], axis=1)


def lovasz(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Lovasz loss `[R]` of `errors [R, P]` (>= 0 where valid), with 0/1 `truth` and `valid`.

    Ignored pixels are sorted behind all others, as negatives: there they change no slope before them, and their
    error is 0.
    """
    order = paddle.argsort(paddle.where(valid > 0, errors, paddle.full_like(errors, -1e30)).detach(), 1, True)
    slopes = jaccard_slopes(paddle.take_along_axis(truth * valid, order, 1))
    return (paddle.take_along_axis(errors * valid, order, 1) * slopes).sum(axis=1)


@LOSSES.register
class LovaszSoftmaxLoss(nn.Layer):
    """Lovasz loss of the softmax, averaged over classes; all images of the batch count as one.

    `classes`: "present" (those with a labelled pixel), "all", or a list of class numbers. Without a valid pixel it
    is 0, a number like any other; PaddleSeg then gives an empty tensor, of shape [0, C].
    """

    def __init__(self, ignore_index: int = 255, classes: Union[str, List[int]] = "present"):
        super().__init__()
        if classes not in ("present", "all") and (isinstance(classes, str) or not classes):
            raise InputError(
                f"LovaszSoftmaxLoss: classes is not one it knows (got {classes!r}, expected 'present', 'all' or a "
                "list of class numbers). Leave it out for 'present'."
            )
        self.ignore_index = ignore_index
        self.classes = classes

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, C >= 2, `label [N, H, W]`."""
        label = class_label(logits, label)
        channels = logits.shape[1]
        listed = list(range(channels)) if isinstance(self.classes, str) else [int(c) for c in self.classes]
        if min(listed) < 0 or max(listed) >= channels:
            raise InputError(
                f"LovaszSoftmaxLoss: classes are out of range (got {listed}, expected 0 to {channels - 1}). "
                "List only classes of the data set."
            )
        probability = F.softmax(logits, axis=1).transpose([1, 0, 2, 3]).flatten(1)  # [C, pixels]
        flat = label.flatten().unsqueeze(0)
        valid = (flat != self.ignore_index).astype(logits.dtype)
        numbers = paddle.to_tensor(listed, dtype=label.dtype).unsqueeze(1)
        truth = (flat == numbers).astype(logits.dtype) * valid
        chosen = probability if len(listed) == channels else paddle.gather(probability, numbers.squeeze(1), axis=0)
        losses = lovasz((truth - chosen).abs(), truth, valid.expand_as(truth))
        counts = paddle.ones_like(losses)
        if self.classes == "present":
            counts = (truth.sum(axis=1) > 0).astype(logits.dtype)
        return (losses * counts).sum() / counts.sum().clip(min=1)


@LOSSES.register
class LovaszHingeLoss(nn.Layer):
    """Binary Lovasz loss of the hinge errors; all images of the batch count as one.

    Takes one channel; two channels, as the difference of their logits (which is the logit of their softmax;
    PaddleSeg's value differs there); or a label plane a channel, averaged.
    """

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, 1 or 2, H, W]`, `label [N, H, W]` of 0 and 1; or planes: `logits` and `label [N, C, H, W]`."""
        if not is_planes(logits, label):
            if logits.shape[1] != 2:
                raise InputError(
                    f"LovaszHingeLoss: the model has too many classes (got {logits.shape[1]} output channels, expected "
                    "1 or 2, or a label plane a class). Use LovaszSoftmaxLoss."
                )
            logits = logits[:, 1:] - logits[:, :1]
        truth, valid = planes(logits, label, self.ignore_index)
        errors = F.relu(1 - logits * (2 * truth - 1))
        rows = [x.expand_as(logits).transpose([1, 0, 2, 3]).flatten(1) for x in (errors, truth, valid)]
        return lovasz(*rows).mean()
