"""Every loss against PaddleSeg's values and gradients; where segkit is meant to differ, a test says what it does instead."""

from __future__ import annotations

import json

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.errors import InputError
from segkit.registry import LOSSES
from tests.conftest import SHARED
from tests.loss_cases import make, relaxed

FILE = SHARED / "parity" / "losses.json"
CASES = [c for c in json.loads(FILE.read_text())["cases"] if c["loss"] in LOSSES] if FILE.exists() else []

DEVIATIONS = {
    "ohem_minkept0": "test_ohem_mines_by_the_threshold_alone",
    "ohem_minkept0_good": "test_ohem_mines_by_the_threshold_alone",
    "mixed_dice_ce": "test_order_of_mixed_losses_does_not_matter",
    "mixed_ce_dice": "test_order_of_mixed_losses_does_not_matter",
    "lovasz_softmax_all255": "test_lovasz_softmax_without_a_valid_pixel_is_zero",
    "lovasz_hinge_c2": "test_lovasz_hinge_of_two_channels_is_that_of_their_difference",
    "mixed_bce_hinge": "test_lovasz_hinge_of_two_channels_is_that_of_their_difference",
    "mse_ignore255": "test_mse_leaves_out_the_ignored",
    "point_ce_weight": "test_point_cross_entropy_takes_weights",
    "point_ce_weight_255": "test_point_cross_entropy_takes_weights",
    "relax": "test_relax_boundary_images_are_independent",
    "relax_noignore": "test_relax_boundary_images_are_independent",
}


def build(name: str, kwargs: dict):
    kwargs = dict(kwargs)
    if "losses" in kwargs:
        nodes = [dict(node) for node in kwargs["losses"]]
        kwargs["losses"] = [build(node.pop("type"), node) for node in nodes]
    return LOSSES.get(name)(**kwargs)


def tensors(spec, loss_arrays, leaves: dict):
    """The argument tree of a case as tensors; `leaves` collects them by array name."""
    if isinstance(spec, list):
        return [tensors(item, loss_arrays, leaves) for item in spec]
    if isinstance(spec, dict):
        return {key: tensors(item, loss_arrays, leaves) for key, item in spec.items()}
    name, _, dtype = spec.partition(":")
    array = loss_arrays[name]
    leaves[name] = paddle.to_tensor(array.astype(dtype) if dtype else array)
    return leaves[name]


def run(case: dict, loss_arrays):
    """Loss value, gradient, and whether an input changed."""
    loss = build(case["loss"], case.get("kwargs", {}))
    for name, value in case.get("setattrs", {}).items():
        setter = getattr(loss, name)
        setter.set_value(paddle.to_tensor(value, dtype="float32").reshape(setter.shape))
    leaves: dict = {}
    args = [tensors(spec, loss_arrays, leaves) for spec in case["args"]]
    before = {name: tensor.numpy().copy() for name, tensor in leaves.items()}
    watched = leaves.get(case.get("grad_of", ""))
    if watched is not None:
        watched.stop_gradient = False
    value = loss(*args)
    assert value.shape == [] and value.dtype == paddle.float32
    if not value.stop_gradient:
        value.backward()
    for name, tensor in leaves.items():
        assert np.array_equal(before[name], tensor.numpy()), f"{case['loss']} changed {name}"
    return float(value), None if watched is None or watched.grad is None else watched.grad.numpy()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_equals_the_reference(case, loss_arrays, monkeypatch):
    if "patch" in case:
        _patch_random(case["patch"], monkeypatch)
    if "error" in case:  # the reference fails: segkit answers clearly or computes
        try:
            value, _ = run(case, loss_arrays)
        except InputError:
            return
        assert np.isfinite(value)
        return
    value, grad = run(case, loss_arrays)
    assert np.isfinite(value)
    if case["name"] in DEVIATIONS:
        assert DEVIATIONS[case["name"]] in globals()
        return
    expected = sum(case["values"]) if "values" in case else case["value"]
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)
    if case.get("grad"):
        reference = loss_arrays[case["grad"]]
        # Gradients are small (many pixels): 1e-5 of the largest. Lovasz's slopes are differences of numbers near 1,
        # which float32 rounds by 2^-24, times p (1 - p), at most a quarter.
        rounding = 2**-26 if "Lovasz" in case["loss"] else 0
        np.testing.assert_allclose(grad, reference, rtol=0, atol=1e-5 * np.abs(reference).max() + rounding)


def _patch_random(patch: str, monkeypatch) -> None:
    if patch == "randperm=arange":
        monkeypatch.setattr(paddle, "randperm", lambda n, *a, **k: paddle.arange(n))
    else:
        generator = np.random.RandomState(3)
        monkeypatch.setattr(paddle, "rand", lambda shape, *a, **k: paddle.to_tensor(generator.rand(*shape), "float32"))


def test_ohem_mines_by_the_threshold_alone():
    logits, label = make(4)
    p = F.softmax(logits, axis=1).numpy()
    y = label.numpy()
    true = np.take_along_axis(p, np.where(y == 255, 0, y)[:, None], 1)[:, 0]
    kept = (y != 255) & (true < 0.3)
    value = LOSSES.get("OhemCrossEntropyLoss")(thresh=0.3, min_kept=0)(logits, label)
    assert float(value) == pytest.approx(-np.log(true[kept]).mean(), rel=1e-4)


def test_lovasz_hinge_of_two_channels_is_that_of_their_difference(loss_arrays):
    logits, label = make(2)
    one = LOSSES.get("LovaszHingeLoss")()(logits[:, 1:] - logits[:, :1], label)
    assert float(LOSSES.get("LovaszHingeLoss")()(logits, label)) == pytest.approx(float(one), rel=1e-6)
    planes, labels = make(3, planes=True)
    each = [float(LOSSES.get("LovaszHingeLoss")()(planes[:, c : c + 1], labels[:, c])) for c in range(3)]
    assert float(LOSSES.get("LovaszHingeLoss")()(planes, labels)) == pytest.approx(np.mean(each), rel=1e-6)
    with pytest.raises(InputError, match=r"LovaszHingeLoss: .*got 4 output channels.*Use LovaszSoftmaxLoss"):
        LOSSES.get("LovaszHingeLoss")()(*make(4))


def test_order_of_mixed_losses_does_not_matter(loss_arrays):
    cases = {case["name"]: case for case in CASES}
    values = cases["mixed_ce_dice"]["values"]
    for name in ("mixed_ce_dice", "mixed_dice_ce"):
        value, grad = run({**cases[name], "grad_of": "logits5"}, loss_arrays)
        assert value == pytest.approx(sum(values), rel=1e-5)
        parts = [
            run({**cases[name], "loss": loss, "kwargs": {}, "grad_of": "logits5"}, loss_arrays)[1]
            for loss in ("CrossEntropyLoss", "DiceLoss")
        ]
        np.testing.assert_allclose(grad, parts[0] + parts[1], atol=1e-7)


def test_mse_leaves_out_the_ignored(loss_arrays):
    pred, label = loss_arrays["logits1"], loss_arrays["reg_label"]
    valid = label != 255
    for name, error in (("MSELoss", (pred - label) ** 2), ("L1Loss", np.abs(pred - label))):
        logits = paddle.to_tensor(pred, stop_gradient=False)
        value = LOSSES.get(name)()(logits, paddle.to_tensor(label))
        value.backward()
        assert float(value) == pytest.approx(error[valid].mean(), rel=1e-5)
        assert np.all(logits.grad.numpy()[~valid] == 0)
        assert float(LOSSES.get(name)(reduction="sum")(logits, paddle.to_tensor(label[:, 0]))) == pytest.approx(
            error[valid].sum(), rel=1e-5
        )
        empty = LOSSES.get(name)()(logits, paddle.full_like(logits, 255))
        assert float(empty) == 0


@pytest.mark.parametrize("name", ["relax", "relax_noignore"])
def test_relax_boundary_images_are_independent(name, loss_arrays):
    """The reference divides each image's loss by the class counts of every image; ours by its own."""
    case = next(case for case in CASES if case["name"] == name)
    logits, label = (loss_arrays[key] for key in case["args"])
    count, loss = relaxed(logits, label)
    size = (count > 0).sum((1, 2)) + 1
    leaking = sum((count[i] * loss[i] / np.maximum(count, 1)).sum() / size[i] for i in range(2))
    assert leaking == pytest.approx(case["value"], rel=1e-5)  # so this is what the reference computes
    value, _ = run(case, loss_arrays)
    assert value == pytest.approx(sum(loss[i].sum() / size[i] for i in range(2)), rel=1e-5)


def test_point_cross_entropy_takes_weights(loss_arrays):
    logits, points, label = (paddle.to_tensor(loss_arrays[key]) for key in ("point_logits", "points", "label5"))
    height, width = label.shape[1:]
    places = points.numpy()
    rows = np.clip(np.rint(places[..., 1] * height - 0.5), 0, height - 1).astype(int)
    columns = np.clip(np.rint(places[..., 0] * width - 0.5), 0, width - 1).astype(int)
    y = np.stack([label.numpy()[n][rows[n], columns[n]] for n in range(len(rows))])
    valid, weight = y != 255, np.array([0.5, 1.0, 1.5, 2.0, 3.0])
    log_p = F.log_softmax(logits, axis=1).numpy()
    each = -np.take_along_axis(log_p, np.where(valid, y, 0)[:, None], 1)[:, 0]
    w = weight[np.where(valid, y, 0)] * valid
    value = LOSSES.get("PointCrossEntropyLoss")(weight=weight.tolist())([logits, points], label)
    assert float(value) == pytest.approx((each * w).sum() / w.sum(), rel=1e-4)


def test_lovasz_softmax_without_a_valid_pixel_is_zero(loss_arrays):
    """The reference gives an empty tensor."""
    value, grad = run(next(case for case in CASES if case["name"] == "lovasz_softmax_all255"), loss_arrays)
    assert value == 0 and not grad.any()
