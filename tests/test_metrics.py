"""Scores against scikit-learn and by hand; tests/parity has PaddleSeg's values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segkit import metrics
from segkit.errors import InputError
from segkit.metrics import ConfusionMatrix, MultiLabelMatrix, RocCurves
from tests.metric_cases import matrix


def test_scores_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for trial in range(10):
        classes = int(rng.integers(2, 8))
        label = rng.integers(0, classes, (3, 9, 11))
        pred = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, classes, label.shape))
        label[rng.random(label.shape) < 0.1] = 255
        counted = matrix(pred, label, classes)
        found = counted.compute()
        truth, said = label[label != 255], pred[label != 255]
        labels = list(range(classes))
        assert counted.matrix.tolist() == metrics.confusion_matrix(truth, said, labels=labels).tolist()
        assert found["Acc"] == pytest.approx(metrics.accuracy_score(truth, said))
        assert found["Kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, said))
        assert found["mIoU"] == pytest.approx(metrics.jaccard_score(truth, said, labels=labels, average="macro")), trial
        assert found["class_dice"] == pytest.approx(metrics.f1_score(truth, said, labels=labels, average=None))
        assert found["mDice"] == pytest.approx(metrics.f1_score(truth, said, labels=labels, average="macro"))
        precision, recall, _, _ = metrics.precision_recall_fscore_support(truth, said, labels=labels)
        assert found["class_precision"] == pytest.approx(precision) and found["class_recall"] == pytest.approx(recall)


@pytest.mark.parametrize("ignore_index, classes", [(255, 7), (3, 7), (-1, 256), (0, 256), (299, 300)])
def test_bytes_are_counted_as_other_integers_are(monkeypatch, ignore_index, classes):
    monkeypatch.setattr(metrics, "_EXACT", 1000)  # several parts, the last one shorter
    rng = np.random.default_rng(0)
    label, pred = rng.integers(0, min(classes, 256), (2, 61, 67)).astype(np.uint8)
    if ignore_index == 255:
        label[rng.random(label.shape) < 0.2] = 255
    pred[label == ignore_index] = 254  # no class where there are few
    quick, slow = (ConfusionMatrix(classes, ignore_index) for _ in range(2))
    quick.update(pred.T, label.T)
    slow.update(pred.astype(np.int32), label.astype(np.int64))
    np.testing.assert_array_equal(quick.matrix, slow.matrix)
    assert quick.matrix.dtype == np.int64 and quick.matrix.sum() == (label != ignore_index).sum()


@pytest.mark.parametrize("kind", ["label", "prediction"])
def test_bytes_that_are_no_class_are_refused(kind):
    good, bad = np.zeros((4, 5), np.uint8), np.full((4, 5), 9, np.uint8)
    maps = (bad, good) if kind == "prediction" else (good, bad)
    with pytest.raises(InputError, match=rf"{kind}: values outside the classes \(got 9, expected 0 to 2\)"):
        ConfusionMatrix(3).update(*maps)


def test_hand_counted_example():
    counted = ConfusionMatrix(3, class_names=["ground", "dove", "hawk"])
    counted.update(np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 255]], np.uint8))
    found = counted.compute()
    assert found["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found["class_iou"] == [0.5, 0.5, None]
    assert found["mIoU"] == 0.5 and found["Acc"] == pytest.approx(2 / 3) and found["num_images"] == 1
    assert found["class_precision"] == [0.5, 1.0, None] and found["class_recall"] == [1.0, 0.5, None]
    assert found["mDice"] == pytest.approx(2 / 3) and found["Kappa"] == pytest.approx(0.4)
    assert found["absent_classes"] == ["hawk"] and found["class_names"] == ["ground", "dove", "hawk"]


def test_merged_parts_equal_the_whole_and_json_is_valid():
    rng = np.random.default_rng(1)
    pred, label = rng.integers(0, 4, (4, 5, 6)), rng.integers(0, 3, (4, 5, 6))
    whole, first, second = matrix(pred, label, 5), matrix(pred[:1], label[:1], 5), matrix(pred[1:], label[1:], 5)
    first.merge(second)
    assert first.compute() == whole.compute()
    text = json.dumps(whole.compute(), allow_nan=False)
    assert json.loads(text)["class_iou"][4] is None
    with pytest.raises(ValueError, match="count different classes"):
        whole.merge(ConfusionMatrix(4))


def test_nothing_labelled_gives_zeros_and_valid_json():
    counted = matrix(np.zeros((1, 4, 4), int), np.full((1, 4, 4), 255), 2)
    found = counted.compute()
    assert [found[key] for key in ("mIoU", "Acc", "Kappa", "mDice")] == [0.0, 0.0, 0.0, 0.0]
    assert found["absent_classes"] == ["0", "1"]
    json.dumps(found, allow_nan=False)


def test_perfect_prediction_of_a_single_class():
    found = matrix(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int), 2).compute()
    assert (found["mIoU"], found["Acc"], found["Kappa"], found["mDice"]) == (1.0, 1.0, 1.0, 1.0)


def test_inputs_are_not_changed_and_any_integer_type_will_do():
    label = np.array([[0, 1], [2, 255]], np.uint8)
    pred = np.array([[2, 1], [2, 2]], np.int32)
    before = label.copy(), pred.copy()
    counted = ConfusionMatrix(3)
    counted.update(pred, label)
    assert (label == before[0]).all() and (pred == before[1]).all()
    assert counted.matrix.sum() == 3
    big = ConfusionMatrix(200)
    big.update(np.array([[199]], np.uint8), np.array([[199]], np.uint8))
    assert big.matrix[199, 199] == 1


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        ([[0, 7]], [[0, 1]], r"prediction: values outside the classes \(got 7, expected 0 to 2\)"),
        ([[0, 1]], [[0, 9]], r"label: values outside the classes \(got 9, expected 0 to 2\).*ignore_index"),
        ([[0, -1]], [[0, 1]], "prediction: values outside the classes .got -1"),
        ([[0, 1, 1]], [[0, 1]], r"differ in size \(got \[1, 3\] and \[1, 2\]\)"),
    ],
)
def test_wrong_maps_are_refused(pred, label, message):
    with pytest.raises(InputError, match=message):
        ConfusionMatrix(3).update(np.array(pred), np.array(label))


def test_multi_label_planes_hold_zero_and_one():
    with pytest.raises(InputError, match=r"label: values outside the classes \(got 2, expected 0 to 1"):
        MultiLabelMatrix(1).update(np.zeros((1, 2, 2), int), np.full((1, 2, 2), 2))


def test_one_name_a_class():
    with pytest.raises(InputError, match=r"one name a class \(got 1 for 2 classes"):
        ConfusionMatrix(2, class_names=["only"])


@pytest.mark.parametrize("sharpness", [0.5, 5, 40])
def test_auc_is_scikit_learns_also_where_probabilities_crowd_at_the_ends(sharpness):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 20000)
    logit = sharpness * (label - 0.5 + rng.standard_normal(label.shape))
    positive = (1 / (1 + np.exp(-logit))).astype(np.float32)
    first, second = RocCurves(2), RocCurves(2)
    first.update(np.stack([1 - positive[:9000], positive[:9000]]), label[:9000])
    second.update(np.stack([1 - positive[9000:], positive[9000:]]), label[9000:])
    first.merge(second)
    assert first.class_areas()[1] == pytest.approx(metrics.roc_auc_score(label, positive), abs=1e-4)


def test_auc_of_planes_ignores_and_leaves_out_one_sided_classes():
    probabilities = np.array([[[0.1, 0.9, 0.5]], [[0.3, 0.3, 0.3]]], np.float32)
    label = np.array([[[0, 1, 255]], [[0, 0, 0]]])
    curves = RocCurves(2)
    curves.update(probabilities, label)
    assert curves.class_areas() == [1.0, None] and curves.compute() == 1.0
    assert RocCurves(2).compute() == 0.0
