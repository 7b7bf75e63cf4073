"""Scores against PaddleSeg's values and scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segkit import metrics
from segkit.errors import InputError
from segkit.metrics import ConfusionMatrix, MultiLabelMatrix, RocCurves


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "parity/losses.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def arrays(shared):
    return np.load(shared / "parity/losses.npz")


def matrix(pred, label, num_classes, ignore_index=255) -> ConfusionMatrix:
    found = ConfusionMatrix(num_classes, ignore_index)
    for one_pred, one_label in zip(pred, label):
        found.update(one_pred, one_label)
    return found


def same(found: list, expected: list, left_out: list) -> None:
    for index, (value, other) in enumerate(zip(found, expected)):
        if index in left_out:
            assert value is None
        else:
            assert value == pytest.approx(other, rel=1e-9)


SINGLE = ["plain", "absent_in_label", "absent_in_both", "ignore_index_1", "six_classes_declared"]


@pytest.mark.parametrize("name", SINGLE)
def test_scores_are_the_references(reference, arrays, name):
    case = reference[name]
    counted = matrix(arrays[case["pred"]][:, 0], arrays[case["label"]], case["num_classes"], case["ignore_index"])
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


def test_an_ignored_class_counts_only_where_it_is_predicted(reference, arrays):
    case = reference["ignore_index_1"]
    found = matrix(arrays[case["pred"]][:, 0], arrays[case["label"]], 5, 1)
    assert found.matrix[1].sum() == 0
    assert found.matrix.sum(0).tolist() == case["pred_area"]
    assert found.compute()["class_iou"][1] == 0


def test_multi_label_scores_are_the_references(reference, arrays):
    case = reference["multilabel"]
    counted = MultiLabelMatrix(3)
    for pred, label in zip(arrays[case["pred"]], arrays[case["label"]]):
        counted.update(pred, label)
    found = counted.compute()
    for key, value in (("mIoU", "miou"), ("Acc", "acc"), ("Kappa", "kappa"), ("mDice", "mdice")):
        assert found[key] == pytest.approx(case[value]), key
    for key in ("class_iou", "class_precision", "class_recall", "class_dice"):
        assert found[key] == pytest.approx(case[key]), key
    assert np.asarray(found["confusion_matrix"]).shape == (3, 2, 2)


def test_multi_label_ignores_255(arrays, reference):
    case = reference["multilabel_255"]
    label, pred = arrays[case["label"]], arrays[case["pred"]]
    counted = MultiLabelMatrix(3)
    for one_pred, one_label in zip(pred, label):
        counted.update(one_pred, one_label)
    for index in range(3):
        valid = label[:, index] != 255
        truth, said = label[:, index][valid], pred[:, index][valid]
        assert counted.matrix[index].tolist() == [
            [int(((truth == row) & (said == column)).sum()) for column in (0, 1)] for row in (0, 1)
        ]


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


@pytest.mark.parametrize("name", ["auc_roc_c2", "auc_roc_c5"])
def test_auc_is_the_references(reference, arrays, name):
    case = reference[name]
    curves = RocCurves(case["num_classes"])
    for scores, label in zip(arrays[case["logits"]], arrays[case["label"]]):
        curves.update(scores, label[0])
    assert curves.compute() == pytest.approx(case["value"], abs=1e-4)


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
