"""What a report counts beside the confusion matrix, sample by sample, in memory that the photos' number does not grow:
calibration, IoU by the size of objects, boundary IoU, and the curves of two classes."""

from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np

from segkit._cv2 import cv2
from segkit.metrics import RocCurves, scores_from_areas

SIDES = (8, 16, 32, 64, 128, 256)
"""where the size classes of objects part: the side in pixels of a square of the object's area"""
_BINS = 15
_POINTS = 200


class Calibration:
    """How often the network is right where it is so sure: pixels by the probability of the class that they were given.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with its 15 bins of equal width.
    """

    def __init__(self) -> None:
        self.edges = np.linspace(0, 1, _BINS + 1)
        self.count, self.right = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)
        self.sure = np.zeros(_BINS)

    def update(self, probabilities: np.ndarray, mask: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Add one photo: float32 [C, H, W], class maps [H, W], and which pixels count, bool [H, W]."""
        sure = np.take_along_axis(probabilities, mask[None].astype(np.int64), 0)[0][valid].astype(np.float64)
        bins = np.searchsorted(self.edges[1:-1], sure)
        self.count += np.bincount(bins, minlength=_BINS)
        self.sure += np.bincount(bins, sure, minlength=_BINS)
        self.right += np.bincount(bins[(mask == label)[valid]], minlength=_BINS)

    def compute(self) -> dict[str, Any]:
        """`ece` and `mce` (the mean and the greatest gap between confidence and accuracy, None without pixels) and, of
        the bins that are not empty, `count`, `confidence` and `accuracy`."""
        seen = self.count > 0
        count = self.count[seen]
        confidence, accuracy = self.sure[seen] / count, self.right[seen] / count
        gap = np.abs(confidence - accuracy)
        return {
            "ece": float((gap * count).sum() / count.sum()) if count.size else None,
            "mce": float(gap.max()) if count.size else None,
            "count": count.tolist(),
            "confidence": confidence.tolist(),
            "accuracy": accuracy.tolist(),
        }


class ObjectSizes:
    """IoU of single objects by their size. An object is what hangs together (8 neighbours) of one class in a label; it
    is compared with those parts of the prediction that touch it, less what lies on other objects of its class."""

    def __init__(self, num_classes: int):
        self.count = np.zeros((num_classes, len(SIDES) + 1), np.int64)
        self.total = np.zeros(self.count.shape)

    def update(self, mask: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Add one photo: class maps [H, W], and which pixels count, bool [H, W]."""
        for number in np.unique(label[valid]).tolist():
            areas, iou = object_ious((mask == number) & valid, (label == number) & valid)
            bins = np.searchsorted(SIDES, np.sqrt(areas), side="right")
            self.count[number] += np.bincount(bins, minlength=len(SIDES) + 1)
            self.total[number] += np.bincount(bins, iou, minlength=len(SIDES) + 1)

    def compute(self) -> dict[str, Any]:
        """`sides`, and per class and size class `count` and the mean `iou` (None where there is no object)."""
        iou = np.divide(self.total, self.count, out=np.full(self.total.shape, np.nan), where=self.count > 0)
        rows = [[None if math.isnan(value) else value for value in row] for row in iou.tolist()]
        return {"sides": list(SIDES), "count": self.count.tolist(), "iou": rows}


def object_ious(predicted: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(areas, IoUs) of the objects in `labelled`; both bool [H, W]. See `ObjectSizes`."""
    parts, found = cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)
    objects, numbers = cv2.connectedComponents(labelled.astype(np.uint8), connectivity=8)
    pairs, overlap = np.unique(numbers.astype(np.int64) * parts + found, return_counts=True)
    own, part = pairs // parts, pairs % parts
    areas = np.bincount(own, overlap, objects)
    outside = np.bincount(part[own == 0], overlap[own == 0], parts)  # of each part, what lies on no object
    both = (own > 0) & (part > 0)
    hit = np.bincount(own[both], overlap[both], objects)
    beside = np.bincount(own[both], outside[part[both]], objects)
    return areas[1:], (hit / np.maximum(areas + beside, 1))[1:]


class BoundaryIoU:
    """IoU of the bands along the inner side of the classes' outlines, summed over the photos.

    A band is as wide as 2 % of the photo's diagonal; the photo's own border counts as outline. Ignored pixels belong
    neither to the label nor to the prediction.
    Source: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021.
    """

    def __init__(self, num_classes: int):
        self.common, self.union = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)

    def update(self, mask: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Add one photo: class maps [H, W], and which pixels count, bool [H, W]."""
        width = max(1, round(0.02 * math.hypot(*label.shape)))
        for number in np.union1d(np.unique(label[valid]), np.unique(mask[valid])).tolist():
            said, true = band((mask == number) & valid, width), band((label == number) & valid, width)
            self.common[number] += np.count_nonzero(said & true)
            self.union[number] += np.count_nonzero(said | true)

    def compute(self) -> list[Optional[float]]:
        """A number a class; None for a class that is neither labelled nor predicted."""
        return [float(top / bottom) if bottom else None for top, bottom in zip(self.common, self.union)]


def band(region: np.ndarray, width: int) -> np.ndarray:
    """Of a region, bool [H, W], the pixels at most `width` (larger of rows and columns) from one outside it."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(region.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return region & (inner == 0)


def two_class_curves(curves: RocCurves) -> dict[str, Any]:
    """Of class 1 against class 0: `roc` (false and true positive rate), `pr` (recall, precision), at most 200 points
    each, `auc`, `ap` (average precision), `best` (the threshold of the highest IoU, with `iou`, `precision` and
    `recall`) and `half`, the same at 0.5. Empty where one of the classes has no pixel."""
    no, yes = curves.histograms[1].astype(np.float64)
    if not (no.sum() and yes.sum()):
        return {}
    found, wrong = np.cumsum(yes[::-1]), np.cumsum(no[::-1])  # what lies above each threshold, from the highest down
    at = curves.thresholds()[::-1]
    recall, precision = found / yes.sum(), found / np.maximum(found + wrong, 1)
    iou = found / (yes.sum() + wrong)
    last = np.flatnonzero((yes + no)[::-1])  # a threshold between two values that occur says nothing new

    def score(index: int) -> dict[str, float]:
        return {"threshold": float(at[index]), "iou": float(iou[index]), "precision": float(precision[index]),
                "recall": float(recall[index])}  # fmt: skip

    way = np.cumsum(np.hypot(np.diff(wrong[last], prepend=0) / no.sum(), np.diff(recall[last], prepend=0)))
    shown = last[np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], _POINTS)).clip(0, len(last) - 1))]
    steps = np.diff(recall[last], prepend=0)
    return {
        "roc": [[0.0, *(wrong[shown] / no.sum())], [0.0, *recall[shown]]],
        "pr": [recall[shown].tolist(), precision[shown].tolist()],
        "auc": curves.class_areas()[1],
        "ap": float((steps * precision[last]).sum()),
        "best": score(int(last[np.argmax(iou[last])])),
        "half": score(int(np.searchsorted(-at, -0.5, side="left"))),
    }


def image_score(counts: np.ndarray) -> Optional[float]:
    """mIoU of one photo from its pixels [3, C], rightly predicted, predicted and labelled, over the classes that it
    shows; None where nothing counts."""
    return scores_from_areas(*counts)["mIoU"] if counts[2].sum() else None
