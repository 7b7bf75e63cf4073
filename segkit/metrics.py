"""Scores of a segmentation from one streaming confusion matrix, and the area under the ROC curve. No Paddle."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError
from segkit.log import warn_once

_EXACT = 2**24  # whole numbers that float32 holds


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)


def scores_from_areas(hits: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> dict[str, Any]:
    """PaddleSeg's scores from each class's pixel counts [C]: rightly predicted, predicted, labelled.

    A class that is neither labelled nor predicted is `None` in the lists and left out of the means (PaddleSeg
    counts its IoU as 1 and its Dice as 0); `absent` holds the indices. Without any labelled pixel the means are 0.
    """
    hits, predicted, labelled = (np.asarray(area, np.float64) for area in (hits, predicted, labelled))
    present = predicted + labelled > 0
    iou = _ratio(hits, predicted + labelled - hits)
    dice = _ratio(2 * hits, predicted + labelled)
    total = labelled.sum()
    agreed = hits.sum() / total if total else 0.0
    by_chance = (predicted * labelled).sum() / total**2 if total else 0.0
    kappa = (agreed - by_chance) / (1 - by_chance) if by_chance != 1 else 1.0

    def listed(values: np.ndarray) -> list[float | None]:
        return [float(value) if there else None for value, there in zip(values, present)]

    return {
        "mIoU": float(iou[present].mean()) if present.any() else 0.0,
        "Acc": float(hits.sum() / predicted.sum()) if predicted.sum() else 0.0,
        "Kappa": float(kappa),
        "mDice": float(dice[present].mean()) if present.any() else 0.0,
        "class_iou": listed(iou),
        "class_precision": listed(_ratio(hits, predicted)),
        "class_recall": listed(_ratio(hits, labelled)),
        "class_dice": listed(dice),
        "absent": np.flatnonzero(~present).tolist(),
    }


def _check_range(kind: str, values: np.ndarray, num_classes: int) -> None:
    wrong = np.unique(values[(values < 0) | (values >= num_classes)])
    if wrong.size:
        shown = ", ".join(map(str, wrong[:10]))
        raise InputError(
            f"{kind}: values outside the classes (got {shown}, expected 0 to {num_classes - 1}). "
            "Correct num_classes, or make the unwanted values the ignore_index."
        )


class ConfusionMatrix:
    """Counts pixels by true and predicted class; `matrix` is int64 [C, C], rows true, columns predicted."""

    def __init__(self, num_classes: int, ignore_index: int = 255, class_names: Sequence[str] | None = None):
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = list(class_names or map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise InputError(
                f"class_names: one name a class (got {len(self.class_names)} for {num_classes} classes). "
                "Correct class_names or num_classes."
            )
        self.num_images = 0
        self.matrix = self._empty()

    def _empty(self) -> np.ndarray:
        return np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, pred: np.ndarray, label: np.ndarray) -> None:
        """Add one photo: integer class maps of one shape; pixels labelled `ignore_index` do not count."""
        _check_shapes(pred, label)
        bytes_will_do = label.dtype == pred.dtype == np.uint8 and self.num_classes <= 256
        counts = self._count_bytes(label, pred) if bytes_will_do else None
        self.matrix += self._count(label, pred) if counts is None else counts
        self.num_images += 1

    def _count_bytes(self, label: np.ndarray, pred: np.ndarray) -> np.ndarray | None:
        """int64 [C, C] of uint8 maps from one pass over them; None where a value is no class."""
        table = pair_counts(label, pred)
        if 0 <= self.ignore_index < 256:
            table[self.ignore_index] = 0
        counts = table[: self.num_classes, : self.num_classes]
        return counts if counts.sum() == table.sum() else None

    def _count(self, label: np.ndarray, pred: np.ndarray) -> np.ndarray:
        valid = label != self.ignore_index
        label, pred = label[valid].astype(np.int64), pred[valid].astype(np.int64)
        _check_range("label", label, self.num_classes)
        _check_range("prediction", pred, self.num_classes)
        counts = np.bincount(label * self.num_classes + pred, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add what another one counted, say another rank's."""
        if self.matrix.shape != other.matrix.shape:
            raise ValueError(f"matrices of shapes {self.matrix.shape} and {other.matrix.shape} count different classes")
        self.matrix += other.matrix
        self.num_images += other.num_images

    def areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel counts [C] for `scores_from_areas`."""
        return np.diag(self.matrix), self.matrix.sum(0), self.matrix.sum(1)

    def compute(self) -> dict[str, Any]:
        """All scores, in plain Python types that JSON takes: those of `scores_from_areas`, with `class_names`,
        `confusion_matrix`, `num_images` and `absent_classes` (names)."""
        found = scores_from_areas(*self.areas())
        absent = [self.class_names[index] for index in found.pop("absent")]
        if len(absent) == self.num_classes:
            warn_once("Nothing was scored: every label pixel is the ignore_index. Correct the labels or ignore_index.")
        return {
            **found,
            "class_names": self.class_names,
            "confusion_matrix": self.matrix.tolist(),
            "num_images": self.num_images,
            "absent_classes": absent,
        }


class MultiLabelMatrix(ConfusionMatrix):
    """Each class judged by itself; `matrix` is int64 [C, 2, 2]: rows true no/yes, columns predicted no/yes.

    Scores are PaddleSeg's: Acc is the share of right ones among all predicted yes, and Kappa comes of the yes
    areas alone.
    """

    def _empty(self) -> np.ndarray:
        return np.zeros((self.num_classes, 2, 2), np.int64)

    def update(self, pred: np.ndarray, label: np.ndarray) -> None:
        """Add one photo: planes [C, H, W] of 0 and 1; a pixel of a plane labelled `ignore_index` does not count."""
        _check_shapes(pred, label)
        for index in range(self.num_classes):
            valid = label[index] != self.ignore_index
            truth, said = label[index][valid].astype(np.int64), pred[index][valid].astype(np.int64)
            _check_range("label", truth, 2)
            _check_range("prediction", said, 2)
            self.matrix[index] += np.bincount(truth * 2 + said, minlength=4).reshape(2, 2)
        self.num_images += 1

    def areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.matrix[:, 1, 1], self.matrix[:, :, 1].sum(1), self.matrix[:, 1, :].sum(1)


def pair_counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How often each pair of values occurs in two uint8 arrays of one shape: int64 [256, 256], rows by `first`.

    OpenCV's histogram needs no copies, and half of the time of `np.bincount`.
    """
    table = np.zeros((256, 256), np.int64)
    flat = [np.ascontiguousarray(array).reshape(1, -1) for array in (first, second)]
    for start in range(0, first.size, _EXACT):  # its counters are float32
        parts = [array[:, start : start + _EXACT] for array in flat]
        table += cv2.calcHist(parts, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return table


def _check_shapes(pred: np.ndarray, label: np.ndarray) -> None:
    if pred.shape != label.shape:
        raise InputError(
            f"prediction and label differ in size (got {list(pred.shape)} and {list(label.shape)}). "
            "Evaluate on labels of the photos' own size."
        )


# Probabilities are binned by their leading float32 bits, p above 1/2 by those of 1 - p, which keeps apart what
# lies close to either end; 8 bits of mantissa are left.
_SHIFT = 15
_HALF = int(np.float32(0.5).view(np.uint32)) >> _SHIFT


def _bins(probability: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(probability, np.float32), 0, 1)
    upper = p > 0.5
    code = (np.where(upper, 1 - p, p).view(np.uint32) >> _SHIFT).astype(np.int64)
    return np.where(upper, 2 * _HALF - code, code)


class RocCurves:
    """Area under the ROC curve of each class against the rest, from histograms: the memory is that of the
    histograms (2 MB a class), whatever the number of photos, and the error below 1e-3."""

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.histograms = np.zeros((num_classes, 2, 2 * _HALF + 1), np.int64)

    def update(self, probabilities: np.ndarray, label: np.ndarray) -> None:
        """Add one photo: probabilities [C, ...] and its class map [...] (or label planes [C, ...])."""
        planes = label.ndim == probabilities.ndim
        for index in range(self.num_classes):
            plane = label[index] if planes else label
            valid = plane != self.ignore_index
            positive = plane[valid] == (1 if planes else index)
            bins = _bins(probabilities[index][valid])
            for side in (0, 1):
                chosen = bins[positive == bool(side)]
                self.histograms[index, side] += np.bincount(chosen, minlength=2 * _HALF + 1)

    @staticmethod
    def thresholds() -> np.ndarray:
        """float64: the probability at which each bin of `histograms` begins, rising; 0.5 ends a bin."""
        bits = np.arange(_HALF + 1, dtype=np.uint32) << _SHIFT
        lower = bits.view(np.float32).astype(np.float64)
        return np.concatenate([lower, 1 - lower[:0:-1]])

    def merge(self, other: RocCurves) -> None:
        """Add what another one counted."""
        self.histograms += other.histograms

    def class_areas(self) -> list[float | None]:
        """The area of each class; None where all pixels or no pixel are of that class."""
        found: list[float | None] = []
        for no, yes in self.histograms.astype(np.float64):
            pairs = no.sum() * yes.sum()
            below = np.cumsum(no) - no
            found.append(float((yes * (below + no / 2)).sum() / pairs) if pairs else None)
        return found

    def compute(self) -> float:
        """The mean over the classes that have one; 0 where none has."""
        areas = [area for area in self.class_areas() if area is not None]
        return float(np.mean(areas)) if areas else 0.0
