"""Cross entropy and its hard-pixel variants."""

from __future__ import annotations

from typing import List, Literal, Optional, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.losses.functional import check_weight, class_label, in_float32, pixel_cross_entropy, weight_tensor
from segkit.registry import LOSSES


@LOSSES.register
class CrossEntropyLoss(nn.Layer):
    """Mean cross entropy over the valid pixels.

    `weight`: one factor per class, or auto (from the training labels, by `segkit.train`); the mean is then divided by
    the pixels' weights. `top_k_percent_pixels`: only
    that share (0 to 1) of the pixels, the hardest, counts. `avg_non_ignore=False` divides by all pixels, the
    ignored and the unweighted alike, as mmsegmentation does. `data_format`: layout of the logits. `label_smoothing`:
    the share of the target that is spread evenly over all classes (Szegedy et al., https://arxiv.org/abs/1512.00567).
    """

    def __init__(
        self,
        weight: Union[Literal["auto"], List[float], None] = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        avg_non_ignore: bool = True,
        data_format: Literal["NCHW", "NHWC"] = "NCHW",
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        name = type(self).__name__
        self.weight = check_weight(name, weight)
        self.ignore_index = ignore_index
        self.top_k_percent_pixels = check_share(name, top_k_percent_pixels)
        self.avg_non_ignore = avg_non_ignore
        self.channel_axis = data_format.index("C")
        if not 0 <= label_smoothing < 1:
            raise InputError(
                f"{name}: label_smoothing is out of range (got {label_smoothing}, expected at least 0 and below 1). "
                "Usual values are 0.05 and 0.1."
            )
        self.label_smoothing = label_smoothing

    @in_float32
    def forward(self, logits: Tensor, label: Tensor, semantic_weights: Optional[Tensor] = None) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`; `semantic_weights [N, H, W]` multiplies each pixel's loss."""
        weight = None
        if self.weight is not None:
            weight = weight_tensor(type(self).__name__, self.weight, logits, self.channel_axis)
        loss, mask, each = pixel_cross_entropy(logits, label, self.ignore_index, weight, self.channel_axis)
        if self.label_smoothing:
            even = -F.log_softmax(logits, axis=self.channel_axis)  # against every class alike
            if weight is not None:
                even = even * weight.reshape([-1 if axis == self.channel_axis % 4 else 1 for axis in range(4)])
            even = even.mean(axis=self.channel_axis) * mask
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        if semantic_weights is not None:
            loss = loss * semantic_weights.astype(loss.dtype)
        return self.mean(loss, mask, each)

    def mean(self, loss: Tensor, mask: Tensor, each: Optional[Tensor]) -> Tensor:
        """The mean of each pixel's `loss [N, H, W]` (0 where ignored) as the arguments say. `mask`: 1 where valid;
        `each`: class weight of each pixel."""
        if self.top_k_percent_pixels < 1:
            return _hardest(loss, each, self.top_k_percent_pixels)
        if not self.avg_non_ignore:
            return loss.mean()
        return loss.mean() / ((mask if each is None else mask * each).mean() + 1e-8)


def check_share(name: str, share: float) -> float:
    """`share` where it is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise InputError(
            f"{name}: top_k_percent_pixels is out of range (got {share}, expected above 0 and at most 1). "
            "0.2 means the hardest fifth of the pixels."
        )
    return share


def _hardest(loss: Tensor, each: Optional[Tensor], share: float) -> Tensor:
    """Mean over the `share` of all pixels with the largest loss, divided by the mean of their class weights."""
    flat = loss.flatten()
    top, index = paddle.topk(flat, max(1, int(share * flat.shape[0])))
    if each is None:
        return top.mean()
    return top.mean() / (paddle.gather(each.flatten(), index).mean() + 1e-8)


@LOSSES.register
class OhemCrossEntropyLoss(nn.Layer):
    """Online hard example mining: cross entropy of the pixels whose true class has a probability below `thresh`,
    or of the `min_kept` hardest where these are more.

    A batch with fewer than `min_kept` valid pixels is not mined. Unlike PaddleSeg, `min_kept=0` mines by the
    threshold alone (there it turns the mining off), and no value is fetched from the device.
    """

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: int = 10000,
        ignore_index: int = 255,
        weight: Union[Literal["auto"], List[float], None] = None,
    ):
        super().__init__()
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index
        self.weight = check_weight("OhemCrossEntropyLoss", weight)

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        loss, valid, _ = pixel_cross_entropy(logits, label, self.ignore_index)
        kept = valid * hard_pixels(loss, valid, self.thresh, self.min_kept)
        if self.weight is not None:
            weight = weight_tensor("OhemCrossEntropyLoss", self.weight, logits)
            loss, _, _ = pixel_cross_entropy(logits, label, self.ignore_index, weight)
        return (loss * kept).mean() / (kept.mean() + 1e-5)


def hard_pixels(loss: Tensor, valid: Tensor, thresh: float, min_kept: int) -> Tensor:
    """Float mask of the pixels that OHEM keeps among the `valid` ones. `loss`: cross entropy of each pixel, so that
    the probability of its true class is exp(-loss), which rounds to 1 long before the loss rounds to 0."""
    loss = loss.detach()
    limit = -paddle.log(paddle.to_tensor(max(thresh, 1e-30), dtype=loss.dtype))
    if min_kept > 0:
        hardest = paddle.where(valid > 0, loss, paddle.full_like(loss, -1.0)).flatten()
        last = paddle.topk(hardest, min(min_kept, hardest.shape[0]))[0][-1]
        limit = paddle.minimum(limit, last)
    mined = (loss > limit).astype(loss.dtype)
    return paddle.where(valid.sum() > min_kept, mined, paddle.ones_like(mined))


@LOSSES.register
class BootstrappedCrossEntropyLoss(nn.Layer):
    """Cross entropy of the hardest pixels of each image: those whose loss is above `loss_th`, but at least `min_K`.

    Unlike PaddleSeg, an image smaller than `min_K` pixels counts whole instead of failing.
    """

    def __init__(
        self,
        min_K: int = 4096,
        loss_th: float = 0.3,
        weight: Union[Literal["auto"], List[float], None] = None,
        ignore_index: int = 255,
    ):
        super().__init__()
        self.min_k = min_K
        self.loss_th = loss_th
        self.weight = check_weight("BootstrappedCrossEntropyLoss", weight)
        self.ignore_index = ignore_index

    @in_float32
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """`logits [N, C, H, W]`, `label [N, H, W]`."""
        weight = None
        if self.weight is not None:
            weight = weight_tensor("BootstrappedCrossEntropyLoss", self.weight, logits)
        loss, _, _ = pixel_cross_entropy(logits, class_label(logits, label), self.ignore_index, weight)
        return sum(self._hardest(row) for row in loss.flatten(1)) / loss.shape[0]

    def _hardest(self, loss: Tensor) -> Tensor:
        """Mean of the hardest pixels of one image `[H * W]`."""
        count = loss.shape[0]
        if count <= self.min_k:
            return loss.mean()
        ordered = paddle.topk(loss, self.min_k + 1)[0]
        above = (loss > self.loss_th).astype(loss.dtype)
        by_threshold = (loss * above).sum() / above.sum().clip(min=1)
        return paddle.where(ordered[-1] > self.loss_th, by_threshold, ordered[:-1].mean())
