"""Losses against PaddleSeg's values and gradients, and against their promises."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.errors import InputError
from segkit.registry import LOSSES
from tests import loss_cases
from tests.loss_cases import BASIC, CASES, channels_of, make, plain, relaxed, run

arrays = loss_cases.arrays


# Where segkit is meant to differ from the reference; the test named beside each says what it does instead.
DEVIATIONS = {
    "ohem_minkept0": "test_ohem_mines_by_the_threshold_alone",
    "ohem_minkept0_good": "test_ohem_mines_by_the_threshold_alone",
    "mixed_dice_ce": "test_order_of_mixed_losses_does_not_matter",
    "mixed_ce_dice": "test_order_of_mixed_losses_does_not_matter",
    "lovasz_softmax_all255": "test_no_valid_pixel",
    "lovasz_hinge_c2": "test_lovasz_hinge_of_two_channels_is_that_of_their_difference",
    "mixed_bce_hinge": "test_lovasz_hinge_of_two_channels_is_that_of_their_difference",
    "mse_ignore255": "test_mse_leaves_out_the_ignored",
    "point_ce_weight": "test_point_cross_entropy_takes_weights",
    "point_ce_weight_255": "test_point_cross_entropy_takes_weights",
    "relax": "test_relax_boundary_images_are_independent",
    "relax_noignore": "test_relax_boundary_images_are_independent",
}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_equals_the_reference(case, arrays, monkeypatch):
    if "patch" in case:
        _patch_random(case["patch"], monkeypatch)
    if "error" in case:  # the reference fails: segkit answers clearly or computes
        try:
            value, _ = run(case, arrays)
        except InputError:
            return
        assert np.isfinite(value)
        return
    value, grad = run(case, arrays)
    assert np.isfinite(value)
    if case["name"] in DEVIATIONS:
        assert DEVIATIONS[case["name"]] in globals()
        return
    expected = sum(case["values"]) if "values" in case else case["value"]
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)
    if case.get("grad"):
        reference = arrays[case["grad"]]
        scale = max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(grad, reference, rtol=0, atol=1e-5 * scale)
        # The gradients are small (many pixels): also compare in their own size.
        assert np.abs(grad - reference).max() <= 1e-4 * max(np.abs(reference).max(), 1e-9)


def _patch_random(patch: str, monkeypatch) -> None:
    if patch == "randperm=arange":
        monkeypatch.setattr(paddle, "randperm", lambda n, *a, **k: paddle.arange(n))
    else:
        generator = np.random.RandomState(3)
        monkeypatch.setattr(paddle, "rand", lambda shape, *a, **k: paddle.to_tensor(generator.rand(*shape), "float32"))


# Losses with the plain contract (logits NCHW, label NHW), and those whose inputs differ by their nature.
OTHER_INPUTS = {
    "KLLoss", "L1Loss", "MSELoss", "DistillCrossEntropyLoss", "OhemEdgeAttentionLoss", "EdgeAttentionLoss",
    "PixelContrastCrossEntropyLoss", "PointCrossEntropyLoss", "SECrossEntropyLoss", "DistillationLoss", "MaskFormerLoss",
}  # fmt: skip
RANDOM = {"DualTaskLoss"}  # draws at every call
PLAIN = [name for name in LOSSES.names() if name not in OTHER_INPUTS | RANDOM]
SIGNED = {"RMILoss", "BoundaryLoss"}  # may be negative
BORDERS = {"DetailAggregateLoss", "RelaxBoundaryLoss"}  # the border of an ignored area counts, as their docstrings say


def test_the_promised_losses_exist():
    assert set(BASIC) <= set(LOSSES.names())


@pytest.mark.parametrize("name", LOSSES.names())
def test_default_constructible_and_documented(name):
    cls = LOSSES.get(name)
    assert cls() is not None and cls.__doc__


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_label_types_and_unchanged_inputs(name, dtype):
    logits, label = plain(name, dtype)
    before = logits.numpy().copy(), label.numpy().copy()
    value = LOSSES.get(name)()(logits, label)
    value.backward()
    assert value.shape == [] and np.isfinite(float(value)) and (float(value) > 0 or name in SIGNED)
    assert np.isfinite(logits.grad.numpy()).all() and np.abs(logits.grad.numpy()).max() > 0
    assert np.array_equal(before[0], logits.numpy()) and np.array_equal(before[1], label.numpy())
    reference = LOSSES.get(name)()(logits, label.astype("int64"))
    assert float(value) == float(reference)


@pytest.mark.parametrize("name", [n for n in PLAIN if n not in BORDERS])
def test_ignored_pixels_get_no_gradient(name):
    logits, label = plain(name)
    LOSSES.get(name)()(logits, label).backward()
    assert np.all(logits.grad.numpy()[:, :, :2, :3] == 0)


@pytest.mark.parametrize("name", PLAIN)
def test_no_valid_pixel(name):
    logits, label = plain(name)
    value = LOSSES.get(name)()(logits, paddle.full_like(label, 255))
    value.backward()
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert np.all(logits.grad.numpy() == 0)


def test_no_valid_pixel_with_unusual_arguments():
    logits, label = make(2)
    empty = paddle.full_like(label, 255)
    for loss in (
        LOSSES.get("DiceLoss")(smooth=0.0),
        LOSSES.get("OhemCrossEntropyLoss")(min_kept=0, weight=[1, 2]),
        LOSSES.get("CrossEntropyLoss")(weight=[1, 2], top_k_percent_pixels=0.2),
        LOSSES.get("BCELoss")(weight="dynamic", pos_weight="dynamic"),
        LOSSES.get("FocalLoss")(gamma=0.5),
        LOSSES.get("MultiClassFocalLoss")(gamma=0.5),
    ):
        logits.clear_gradient()
        value = loss(logits, empty)
        value.backward()
        assert float(value) == pytest.approx(0, abs=1e-6), loss
        assert np.all(logits.grad.numpy() == 0), loss


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_logits_are_summed_in_float32(name, dtype):
    logits, label = plain(name)
    low = logits.astype(dtype).detach()
    low.stop_gradient = False
    value = LOSSES.get(name)()(low, label)
    value.backward()
    assert value.dtype == paddle.float32
    assert low.grad.dtype == low.dtype
    assert float(value) == pytest.approx(float(LOSSES.get(name)()(low.detach().astype("float32"), label)), rel=1e-6)


@pytest.mark.filterwarnings("ignore:amp_guard can only be enabled")  # on the CPU it does nothing
@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("name", PLAIN)
def test_under_auto_cast(name, level):
    logits, label = plain(name)
    expected = float(LOSSES.get(name)()(logits, label))
    with paddle.amp.auto_cast(level=level, dtype="bfloat16"):
        value = LOSSES.get(name)()(logits, label)
    assert value.dtype == paddle.float32 and float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in PLAIN if n not in ("MixedLoss", "DetailAggregateLoss")])
@pytest.mark.parametrize("ignore", [0, 1, -1, 7])
def test_other_ignore_index(name, ignore):
    if channels_of(name) == 1 and ignore in (0, 1):
        pytest.skip("a one-channel label has only these two values")
    logits, label = plain(name, ignore=9)
    own = paddle.where(label == 9, paddle.full_like(label, ignore), label.clip(min=0))
    as_255 = paddle.where(own == ignore, paddle.full_like(label, 255), own)
    value = LOSSES.get(name)(ignore_index=ignore)(logits, own)
    assert float(value) == pytest.approx(float(LOSSES.get(name)()(logits, as_255)), rel=1e-6)


@pytest.mark.parametrize("name", ["DiceLoss", "BCELoss", "FocalLoss"])
def test_one_channel(name):
    logits, label = make(1)
    value = LOSSES.get(name)()(logits, label)
    z, y = logits.numpy().astype("float64")[:, 0], label.numpy()
    p, valid = 1 / (1 + np.exp(-z)), y != 255
    if name == "DiceLoss":
        rows = [(2 * p[i][y[i] == 1].sum() + 1) / (p[i][valid[i]].sum() + (y[i] == 1).sum() + 1) for i in range(2)]
        expected = 1 - np.mean(rows)
    else:
        pt = np.where(y == 1, p, 1 - p)
        factor = (np.where(y == 1, 0.25, 0.75) * (1 - pt) ** 2) if name == "FocalLoss" else 1
        expected = (-np.log(pt) * factor)[valid].mean()
    assert float(value) == pytest.approx(expected, rel=1e-5)
    both = LOSSES.get("MixedLoss")([LOSSES.get(name)(), LOSSES.get("BCELoss")()], [1.0, 0.5])(logits, label)
    assert float(both) == pytest.approx(float(value) + 0.5 * float(LOSSES.get("BCELoss")()(logits, label)), rel=1e-6)
    assert float(LOSSES.get(name)()(logits, label.unsqueeze(1))) == float(value)


@pytest.mark.parametrize("name", ["DiceLoss", "BCELoss", "FocalLoss"])
def test_label_planes(name):
    """Multi-label: each plane is a one-channel problem; all are averaged (planes here have as many valid pixels)."""
    logits, label = make(3, planes=True)
    value = float(LOSSES.get(name)()(logits, label))
    each = [float(LOSSES.get(name)()(logits[:, c : c + 1], label[:, c])) for c in range(3)]
    assert value == pytest.approx(np.mean(each), rel=1e-5)


def test_ohem_mines_by_the_threshold_alone():
    logits, label = make(4)
    p = F.softmax(logits, axis=1).numpy()
    y = label.numpy()
    true = np.take_along_axis(p, np.where(y == 255, 0, y)[:, None], 1)[:, 0]
    kept = (y != 255) & (true < 0.3)
    value = LOSSES.get("OhemCrossEntropyLoss")(thresh=0.3, min_kept=0)(logits, label)
    assert float(value) == pytest.approx(-np.log(true[kept]).mean(), rel=1e-4)


def test_lovasz_hinge_of_two_channels_is_that_of_their_difference(arrays):
    logits, label = make(2)
    one = LOSSES.get("LovaszHingeLoss")()(logits[:, 1:] - logits[:, :1], label)
    assert float(LOSSES.get("LovaszHingeLoss")()(logits, label)) == pytest.approx(float(one), rel=1e-6)
    planes, labels = make(3, planes=True)
    each = [float(LOSSES.get("LovaszHingeLoss")()(planes[:, c : c + 1], labels[:, c])) for c in range(3)]
    assert float(LOSSES.get("LovaszHingeLoss")()(planes, labels)) == pytest.approx(np.mean(each), rel=1e-6)
    with pytest.raises(InputError, match=r"LovaszHingeLoss: .*got 4 output channels.*Use LovaszSoftmaxLoss"):
        LOSSES.get("LovaszHingeLoss")()(*make(4))


def test_order_of_mixed_losses_does_not_matter(arrays):
    cases = {case["name"]: case for case in CASES}
    values = cases["mixed_ce_dice"]["values"]
    for name in ("mixed_ce_dice", "mixed_dice_ce"):
        value, grad = run({**cases[name], "grad_of": "logits5"}, arrays)
        assert value == pytest.approx(sum(values), rel=1e-5)
        parts = [
            run({**cases[name], "loss": loss, "kwargs": {}, "grad_of": "logits5"}, arrays)[1]
            for loss in ("CrossEntropyLoss", "DiceLoss")
        ]
        np.testing.assert_allclose(grad, parts[0] + parts[1], atol=1e-7)


def test_mse_leaves_out_the_ignored(arrays):
    pred, label = arrays["logits1"], arrays["reg_label"]
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
def test_relax_boundary_images_are_independent(name, arrays):
    """The reference divides each image's loss by the class counts of every image; ours by its own."""
    case = next(case for case in CASES if case["name"] == name)
    logits, label = (arrays[key] for key in case["args"])
    count, loss = relaxed(logits, label)
    size = (count > 0).sum((1, 2)) + 1
    leaking = sum((count[i] * loss[i] / np.maximum(count, 1)).sum() / size[i] for i in range(2))
    assert leaking == pytest.approx(case["value"], rel=1e-5)  # so this is what the reference computes
    value, _ = run(case, arrays)
    assert value == pytest.approx(sum(loss[i].sum() / size[i] for i in range(2)), rel=1e-5)


def test_point_cross_entropy_takes_weights(arrays):
    logits, points, label = (paddle.to_tensor(arrays[key]) for key in ("point_logits", "points", "label5"))
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
