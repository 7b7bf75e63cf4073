"""The report's measures against scikit-learn and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, jaccard_score, precision_recall_curve, roc_auc_score, roc_curve

from segkit.metrics import RocCurves
from segkit.report.bootstrap import differences
from segkit.report.measures import BoundaryIoU, Calibration, ObjectSizes, object_ious, two_class_curves


def random_photo(seed: int, classes: int = 3, size: tuple[int, int] = (30, 40)):
    """(probabilities [C, H, W], mask, label with some 255, which pixels count)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(classes, *size)).repeat(3, 1)[:, : size[0]] * 2
    found = np.exp(scores) / np.exp(scores).sum(0)
    label = np.where(rng.random(size) < 0.7, found.argmax(0), rng.integers(0, classes, size)).astype(np.uint8)
    label[rng.random(size) < 0.05] = 255
    return found.astype(np.float32), found.argmax(0).astype(np.uint8), label, label != 255


def test_calibration_is_scikit_learns() -> None:
    photos = [random_photo(seed) for seed in (0, 1)]
    measure = Calibration()
    for photo in photos:
        measure.update(*photo)
    found = measure.compute()
    sure = np.concatenate([p.max(0)[valid] for p, _, _, valid in photos]).astype(float)
    right = np.concatenate([(mask == label)[valid] for _, mask, label, valid in photos])
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    np.testing.assert_allclose(found["accuracy"], accuracy)
    np.testing.assert_allclose(found["confidence"], confidence)
    weights = np.array(found["count"]) / len(sure)
    assert found["ece"] == pytest.approx((np.abs(accuracy - confidence) * weights).sum())
    assert found["mce"] == pytest.approx(np.abs(accuracy - confidence).max())


def test_nothing_counts() -> None:
    probabilities, mask, label, valid = random_photo(0)
    measure = Calibration()
    measure.update(probabilities, mask, np.full_like(label, 255), np.zeros_like(valid))
    assert measure.compute()["ece"] is None


def test_curves_are_scikit_learns() -> None:
    probabilities, _, label, valid = random_photo(2, classes=2, size=(90, 80))
    measure = RocCurves(2)
    measure.update(probabilities, label)
    found = two_class_curves(measure)
    true, sure = label[valid] == 1, probabilities[1][valid]
    wrong, right, _ = roc_curve(true, sure)
    np.testing.assert_allclose(np.interp(found["roc"][0], wrong, right), found["roc"][1], atol=0.02)
    assert found["auc"] == pytest.approx(roc_auc_score(true, sure), abs=1e-3)
    assert found["ap"] == pytest.approx(average_precision_score(true, sure), abs=2e-3)
    precision, recall, _ = precision_recall_curve(true, sure)
    np.testing.assert_allclose(
        np.interp(found["pr"][0][5:], recall[::-1], precision[::-1]), found["pr"][1][5:], atol=0.02
    )
    assert found["half"]["iou"] == pytest.approx(jaccard_score(true, sure > 0.5))
    tried = [jaccard_score(true, sure > cut) for cut in np.linspace(0.01, 0.99, 99)]
    assert found["best"]["iou"] >= max(tried) - 1e-9
    assert jaccard_score(true, sure > found["best"]["threshold"]) == pytest.approx(found["best"]["iou"], abs=2e-3)


def test_curves_of_one_class_alone_are_none() -> None:
    measure = RocCurves(2)
    measure.update(np.full((2, 4, 4), 0.5, np.float32), np.zeros((4, 4), np.uint8))
    assert two_class_curves(measure) == {}


def blobs(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    for _ in range(5):
        top, left = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        mask[top : top + rng.integers(2, 14), left : left + rng.integers(2, 14)] = True
    return mask


def test_boundary_iou_is_that_of_brute_force() -> None:
    common = union = 0
    measure = BoundaryIoU(2)
    for seed in range(3):
        label, mask = blobs(seed).astype(np.uint8), blobs(seed).astype(np.uint8)
        mask = np.roll(mask, 1 + seed, 1)
        label[:3, :5] = 255
        measure.update(mask, label, label != 255)
        width = round(0.02 * np.hypot(*label.shape))
        assert width == 1
        bands = []
        for region in ((mask == 1) & (label != 255), label == 1):
            padded = np.pad(region, width)
            shape = region.shape
            near = [
                padded[y : y + shape[0], x : x + shape[1]] for y in range(2 * width + 1) for x in range(2 * width + 1)
            ]
            bands.append(region & ~np.all(near, axis=0))
        common += (bands[0] & bands[1]).sum()
        union += (bands[0] | bands[1]).sum()
    assert measure.compute()[1] == pytest.approx(common / union)


def test_boundary_iou_of_the_same_and_of_the_absent() -> None:
    measure = BoundaryIoU(3)
    label = blobs(7, (300, 400)).astype(np.uint8)
    measure.update(label, label, np.ones(label.shape, bool))
    assert measure.compute() == [1.0, 1.0, None]


def brute_objects(region: np.ndarray) -> list[set[tuple[int, int]]]:
    """What hangs together by 8 neighbours, by flooding."""
    left = set(map(tuple, np.argwhere(region).tolist()))
    found = []
    while left:
        todo, group = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            group.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(group)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_compared_as_by_brute_force(seed: int) -> None:
    predicted, labelled = np.roll(blobs(seed), 2, 0) | blobs(seed + 90), blobs(seed)
    areas, ious = object_ious(predicted, labelled)
    others = set(map(tuple, np.argwhere(labelled).tolist()))
    parts, expected = brute_objects(predicted), []
    for own in brute_objects(labelled):
        said = set().union(*(part - (others - own) for part in parts if part & own))
        expected.append((len(own), len(own & said) / len(own | said)))
    np.testing.assert_allclose(sorted(zip(areas, ious)), sorted(expected))


def test_sizes_of_objects() -> None:
    label = np.zeros((80, 80), np.uint8)
    label[2:6, 2:6] = label[20:36, 20:36] = 1
    mask = label.copy()
    mask[2:6, 2:4] = 0
    measure = ObjectSizes(2)
    measure.update(mask, label, np.ones(label.shape, bool))
    found = measure.compute()
    assert found["count"][1] == [1, 0, 1, 0, 0, 0, 0]
    assert found["iou"][1][:3] == [0.5, None, 1.0]
    assert found["count"][0] == [0, 0, 0, 0, 1, 0, 0]


def miou(counts: np.ndarray) -> float:
    hits, predicted, labelled = counts.sum(0)
    return float(np.mean([h / (p + t - h) for h, p, t in zip(hits, predicted, labelled) if p + t]))


def test_bootstrap_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(3)
    labelled = rng.integers(20, 200, (40, 3))
    hits = (labelled * rng.uniform(0.5, 0.9, (40, 3))).astype(int)
    first = np.stack([hits, labelled, labelled], 1)
    better = np.minimum(hits + rng.integers(-8, 20, (40, 3)), labelled)
    second = np.stack([better, labelled, labelled], 1)
    first[:, :, 2] = second[:, :, 2] = 0
    found = differences(first, second)
    assert found["mIoU"]["first"] == pytest.approx(miou(first))
    assert found["mIoU"]["delta"] == pytest.approx(miou(second) - miou(first))
    draws = [rng.integers(0, 40, 40) for _ in range(2000)]
    deltas = [miou(second[index]) - miou(first[index]) for index in draws]
    low, high = np.percentile(deltas, (2.5, 97.5))
    assert [found["mIoU"]["low"], found["mIoU"]["high"]] == pytest.approx([low, high], abs=0.004)
    assert found["classes"][2] is None
    assert found["classes"][0]["second"] == pytest.approx(miou(second[:, :, :1]))


def test_a_class_that_is_labelled_nowhere_changes_no_divisor() -> None:
    """Both runs predict class 2, which no label has, in one photo each: of the same mIoU they stay in every draw."""
    rng = np.random.default_rng(5)
    labelled = np.concatenate([rng.integers(50, 90, (20, 2)), np.zeros((20, 1), int)], 1)
    hits = labelled // 2
    first, second = (np.stack([hits, labelled, labelled], 1) for _ in range(2))
    first[3, 1, 2] = second[11, 1, 2] = 1
    found = differences(first, second)
    score = found["mIoU"]
    assert score["first"] == score["second"] == pytest.approx(miou(first))
    assert score["low"] == score["high"] == 0 and score["p"] == 1
    assert found["classes"][2]["delta"] == 0
    second[11, 1, 2] = 0
    alone = differences(first, second)["mIoU"]
    assert alone["delta"] == pytest.approx(miou(second) - miou(first)), "the scores are val's"
    assert alone["low"] == 0 and alone["high"] == pytest.approx(alone["delta"], abs=0.02), "one photo may be missed"


def test_a_rare_class_counts_for_both_runs_or_for_none() -> None:
    """Class 1 is labelled in one photo of ten, and the second run predicts it in another one too."""
    labelled = np.full((10, 2), 100)
    labelled[1:, 1] = 0
    first = np.stack([labelled // 2, labelled, labelled], 1)
    second = first.copy()
    second[7, 1, 1] = 40
    low, high = (differences(first, second)["mIoU"][key] for key in ("low", "high"))
    rng = np.random.default_rng(0)
    deltas = []
    for index in (rng.integers(0, 10, 10) for _ in range(2000)):
        sums = [run[index].sum(0) for run in (first, second)]
        there = [number for number in (0, 1) if any(s[1:, number].any() for s in sums)]
        scores = [sum(s[0, n] / max(s[1, n] + s[2, n] - s[0, n], 1) for n in there) / len(there) for s in sums]
        deltas.append(scores[1] - scores[0])
    assert [low, high] == pytest.approx(np.percentile(deltas, (2.5, 97.5)).tolist(), abs=0.03)
    assert high == 0, "the second run is never better: it has more that is wrong"


def test_bootstrap_knows_equal_from_different() -> None:
    labelled = np.full((30, 2), 100)
    first = np.stack([np.full((30, 2), 50), labelled, labelled], 1)
    same = differences(first, first)["mIoU"]
    assert same["p"] == 1 and same["low"] == same["high"] == 0
    raised = first.copy()
    raised[:, 0] += 10
    found = differences(first, raised)["mIoU"]
    assert found["low"] > 0 and found["p"] < 0.01
    assert differences(raised, first)["mIoU"]["high"] < 0
