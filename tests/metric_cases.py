"""What the tests of metrics share."""

from __future__ import annotations

from segkit.metrics import ConfusionMatrix


def matrix(pred, label, num_classes, ignore_index=255) -> ConfusionMatrix:
    found = ConfusionMatrix(num_classes, ignore_index)
    for one_pred, one_label in zip(pred, label):
        found.update(one_pred, one_label)
    return found
