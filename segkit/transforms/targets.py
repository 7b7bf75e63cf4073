"""Transforms that make further training targets out of the label. They do nothing where a sample has none."""

from __future__ import annotations

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import base
from segkit.transforms.base import Sample


def _flat_label(sample: Sample, owner: object) -> np.ndarray:
    label = sample["label"]
    if label.ndim != 2:
        raise InputError(
            f"{base.where(sample)}: {type(owner).__name__} needs one class number a pixel (got a label of shape "
            f"{list(label.shape)}, expected [H, W]). It does not go with multi-label data."
        )
    return label


@TRANSFORMS.register
class AddEdgeLabel:
    """Add `edge` (uint8 [H, W], 1 near a border between classes), which later transforms move with the label.

    As PaddleSeg does for PIDNet: Canny's edges of the label, without a rim of 6 pixels, widened by a 4x4 square.
    """

    _RIM, _WIDTH = 6, 4

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.get("label") is None:
            return sample
        label = _flat_label(sample, self)
        if label.dtype != np.uint8:
            label = (np.unique(label, return_inverse=True)[1] % 256).reshape(label.shape).astype(np.uint8)
        found = cv2.Canny(np.ascontiguousarray(label), 0.1, 0.2)
        edge = np.zeros_like(found)
        inner = slice(self._RIM, -self._RIM)
        edge[inner, inner] = found[inner, inner]
        widened = cv2.dilate(edge, np.ones((self._WIDTH, self._WIDTH), np.uint8))
        sample["edge"] = (widened > 50).astype(np.uint8)
        return sample


@TRANSFORMS.register
class AddMultiLabelAuxiliaryCategory:
    """Put a plane before those of a multi-label label [H, W, C]: 1 where no class is set. Gives [H, W, C + 1]."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        label = sample.get("label")
        if label is None:
            return sample
        if label.ndim != 3:
            raise InputError(
                f"{base.where(sample)}: AddMultiLabelAuxiliaryCategory needs a label plane a class (got a label of "
                f"shape {list(label.shape)}, expected [H, W, classes]). Use multi-label data, or leave it out."
            )
        nothing = (~label.any(axis=2)).astype(label.dtype)
        sample["label"] = np.concatenate([nothing[..., None], label], axis=2)
        return sample


@TRANSFORMS.register
class GenerateInstanceTargets:
    """Add `instances`, one mask for each class that the label shows, for losses that match masks. Put it last.

    gt_classes: int64 [num_classes], the classes in ascending order, then `ignore_index`. gt_masks: uint8
    [num_classes, H, W] of 0 and 1, zero where there is no class. image_shape: int64 [2], `image.shape[1:]` as in
    PaddleSeg.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        base.check_at_least(self, "num_classes", num_classes, 1)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.get("label") is None:
            return sample
        label = _flat_label(sample, self)
        counts = np.bincount(label.ravel(), minlength=self.ignore_index + 1)
        counts[self.ignore_index] = 0
        found = np.flatnonzero(counts)
        if len(found) > self.num_classes:
            raise InputError(
                f"{base.where(sample)}: more classes than GenerateInstanceTargets expects (got {found.tolist()}, "
                f"expected at most num_classes: {self.num_classes}). Mend num_classes or the label."
            )
        classes = np.full(self.num_classes, self.ignore_index, np.int64)
        classes[: len(found)] = found
        masks = np.zeros((self.num_classes, *label.shape), np.uint8)
        np.equal(label[None], found[:, None, None], out=masks[: len(found)].view(bool))
        shape = np.array(sample["image"].shape[1:], np.int64)
        sample["instances"] = {"image_shape": shape, "gt_classes": classes, "gt_masks": masks}
        return sample
