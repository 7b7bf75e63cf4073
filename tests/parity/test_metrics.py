"""Every score against PaddleSeg's values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segkit.metrics import MultiLabelMatrix, RocCurves
from tests.metric_cases import matrix


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "parity/losses.json").read_text())["metrics"]


def same(found: list, expected: list, left_out: list) -> None:
    for index, (value, other) in enumerate(zip(found, expected)):
        if index in left_out:
            assert value is None
        else:
            assert value == pytest.approx(other, rel=1e-9)


SINGLE = ["plain", "absent_in_label", "absent_in_both", "ignore_index_1", "six_classes_declared"]


@pytest.mark.parametrize("name", SINGLE)
def test_scores_are_the_references(reference, loss_arrays, name):
    case = reference[name]
    counted = matrix(
        loss_arrays[case["pred"]][:, 0], loss_arrays[case["label"]], case["num_classes"], case["ignore_index"]
    )
    assert counted.matrix.tolist() == case["confusion_rows_label_cols_pred"]
    found = counted.compute()
    absent = [i for i in range(case["num_classes"]) if case["pred_area"][i] + case["label_area"][i] == 0]
    for key in ("class_iou", "class_precision", "class_recall", "class_dice"):
        if name == "ignore_index_1" and key != "class_precision":
            continue  # the reference counts labelled pixels that it ignores: see the next test
        same(found[key], case[key], absent)
    assert found["absent_classes"] == [str(index) for index in absent]
    assert found["Acc"] == pytest.approx(case["acc"])
    if name == "ignore_index_1":
        return
    assert found["Kappa"] == pytest.approx(case["kappa"])
    present = [value for index, value in enumerate(case["class_iou"]) if index not in absent]
    assert found["mIoU"] == pytest.approx(np.mean(present))
    present = [value for index, value in enumerate(case["class_dice"]) if index not in absent]
    assert found["mDice"] == pytest.approx(np.mean(present))
    if not absent:
        assert found["mIoU"] == pytest.approx(case["miou"]) and found["mDice"] == pytest.approx(case["mdice"])


def test_an_ignored_class_counts_only_where_it_is_predicted(reference, loss_arrays):
    case = reference["ignore_index_1"]
    found = matrix(loss_arrays[case["pred"]][:, 0], loss_arrays[case["label"]], 5, 1)
    assert found.matrix[1].sum() == 0
    assert found.matrix.sum(0).tolist() == case["pred_area"]
    assert found.compute()["class_iou"][1] == 0


def test_multi_label_scores_are_the_references(reference, loss_arrays):
    case = reference["multilabel"]
    counted = MultiLabelMatrix(3)
    for pred, label in zip(loss_arrays[case["pred"]], loss_arrays[case["label"]]):
        counted.update(pred, label)
    found = counted.compute()
    for key, value in (("mIoU", "miou"), ("Acc", "acc"), ("Kappa", "kappa"), ("mDice", "mdice")):
        assert found[key] == pytest.approx(case[value]), key
    for key in ("class_iou", "class_precision", "class_recall", "class_dice"):
        assert found[key] == pytest.approx(case[key]), key
    assert np.asarray(found["confusion_matrix"]).shape == (3, 2, 2)


def test_multi_label_ignores_255(reference, loss_arrays):
    case = reference["multilabel_255"]
    label, pred = loss_arrays[case["label"]], loss_arrays[case["pred"]]
    counted = MultiLabelMatrix(3)
    for one_pred, one_label in zip(pred, label):
        counted.update(one_pred, one_label)
    for index in range(3):
        valid = label[:, index] != 255
        truth, said = label[:, index][valid], pred[:, index][valid]
        assert counted.matrix[index].tolist() == [
            [int(((truth == row) & (said == column)).sum()) for column in (0, 1)] for row in (0, 1)
        ]


@pytest.mark.parametrize("name", ["auc_roc_c2", "auc_roc_c5"])
def test_auc_is_the_references(reference, loss_arrays, name):
    case = reference[name]
    curves = RocCurves(case["num_classes"])
    for scores, label in zip(loss_arrays[case["logits"]], loss_arrays[case["label"]]):
        curves.update(scores, label[0])
    assert curves.compute() == pytest.approx(case["value"], abs=1e-4)
