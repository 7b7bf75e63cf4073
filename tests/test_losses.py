"""Losses against PaddleSeg's values and gradients, and against their promises."""

from __future__ import annotations

import json

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.errors import InputError
from segkit.registry import LOSSES
from tests.conftest import SHARED

FILE = SHARED / "parity" / "losses.json"
CASES = [c for c in json.loads(FILE.read_text())["cases"] if c["loss"] in LOSSES] if FILE.exists() else []
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


@pytest.fixture(scope="module")
def arrays():
    if not FILE.exists():
        pytest.skip(f"{FILE} is absent")
    return np.load(FILE.with_suffix(".npz"))


def build(name: str, kwargs: dict):
    kwargs = dict(kwargs)
    if "losses" in kwargs:
        nodes = [dict(node) for node in kwargs["losses"]]
        kwargs["losses"] = [build(node.pop("type"), node) for node in nodes]
    return LOSSES.get(name)(**kwargs)


def tensors(spec, arrays, leaves: dict):
    """The argument tree of a case as tensors; `leaves` collects them by array name."""
    if isinstance(spec, list):
        return [tensors(item, arrays, leaves) for item in spec]
    if isinstance(spec, dict):
        return {key: tensors(item, arrays, leaves) for key, item in spec.items()}
    name, _, dtype = spec.partition(":")
    array = arrays[name]
    leaves[name] = paddle.to_tensor(array.astype(dtype) if dtype else array)
    return leaves[name]


def run(case: dict, arrays):
    """Loss value, gradient, and whether an input changed."""
    loss = build(case["loss"], case.get("kwargs", {}))
    for name, value in case.get("setattrs", {}).items():
        setter = getattr(loss, name)
        setter.set_value(paddle.to_tensor(value, dtype="float32").reshape(setter.shape))
    leaves: dict = {}
    args = [tensors(spec, arrays, leaves) for spec in case["args"]]
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


def make(channels: int, dtype: str = "int64", ignore: int = 255, planes: bool = False):
    """Seeded logits `[2, C, 9, 7]` and a fitting label with some ignored pixels."""
    rng = np.random.default_rng(3)
    logits = paddle.to_tensor(rng.standard_normal((2, channels, 9, 7)).astype("float32"), stop_gradient=False)
    shape = (2, channels, 9, 7) if planes else (2, 9, 7)
    label = rng.integers(0, 2 if planes else max(2, channels), shape)
    label[..., :2, :3] = ignore
    return logits, paddle.to_tensor(label.astype(dtype))


BASIC = ["CrossEntropyLoss", "DiceLoss", "BCELoss", "OhemCrossEntropyLoss", "MixedLoss", "FocalLoss"]
# Losses with the plain contract (logits NCHW, label NHW), and those whose inputs differ by their nature.
OTHER_INPUTS = {
    "KLLoss", "L1Loss", "MSELoss", "DistillCrossEntropyLoss", "OhemEdgeAttentionLoss", "EdgeAttentionLoss",
    "PixelContrastCrossEntropyLoss", "PointCrossEntropyLoss", "SECrossEntropyLoss", "DistillationLoss",
}  # fmt: skip
PLAIN = [name for name in LOSSES.names() if name not in OTHER_INPUTS]
ONE_CHANNEL = {"LovaszHingeLoss", "DetailAggregateLoss"}


def channels_of(name: str) -> int:
    return 1 if name in ONE_CHANNEL else 2


def test_the_promised_losses_exist():
    assert set(BASIC) <= set(LOSSES.names())


@pytest.mark.parametrize("name", LOSSES.names())
def test_default_constructible_and_documented(name):
    cls = LOSSES.get(name)
    assert cls() is not None and cls.__doc__


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_label_types_and_unchanged_inputs(name, dtype):
    logits, label = make(channels_of(name), dtype)
    before = logits.numpy().copy(), label.numpy().copy()
    value = LOSSES.get(name)()(logits, label)
    value.backward()
    assert value.shape == [] and np.isfinite(float(value)) and float(value) > 0
    assert np.isfinite(logits.grad.numpy()).all() and np.abs(logits.grad.numpy()).max() > 0
    assert np.array_equal(before[0], logits.numpy()) and np.array_equal(before[1], label.numpy())
    reference = LOSSES.get(name)()(logits, label.astype("int64"))
    assert float(value) == float(reference)


@pytest.mark.parametrize("name", PLAIN)
def test_ignored_pixels_get_no_gradient(name):
    logits, label = make(channels_of(name))
    LOSSES.get(name)()(logits, label).backward()
    assert np.all(logits.grad.numpy()[:, :, :2, :3] == 0)


@pytest.mark.parametrize("name", PLAIN)
def test_no_valid_pixel(name):
    logits, label = make(channels_of(name))
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
    logits, label = make(channels_of(name))
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
    logits, label = make(channels_of(name))
    expected = float(LOSSES.get(name)()(logits, label))
    with paddle.amp.auto_cast(level=level, dtype="bfloat16"):
        value = LOSSES.get(name)()(logits, label)
    assert value.dtype == paddle.float32 and float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in PLAIN if n not in ("MixedLoss",)])
@pytest.mark.parametrize("ignore", [0, 1, -1, 7])
def test_other_ignore_index(name, ignore):
    if channels_of(name) == 1 and ignore in (0, 1):
        pytest.skip("a one-channel label has only these two values")
    logits, label = make(channels_of(name), ignore=9)
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


def test_cross_entropy_in_channels_last():
    logits, label = make(4)
    for kwargs in ({}, {"weight": [1, 2, 3, 4]}, {"top_k_percent_pixels": 0.3}):
        first = LOSSES.get("CrossEntropyLoss")(**kwargs)(logits, label)
        last = LOSSES.get("CrossEntropyLoss")(data_format="NHWC", **kwargs)(logits.transpose([0, 2, 3, 1]), label)
        assert float(first) == pytest.approx(float(last), rel=1e-6)


def test_ohem_mines_by_the_threshold_alone():
    logits, label = make(4)
    p = F.softmax(logits, axis=1).numpy()
    y = label.numpy()
    true = np.take_along_axis(p, np.where(y == 255, 0, y)[:, None], 1)[:, 0]
    kept = (y != 255) & (true < 0.3)
    value = LOSSES.get("OhemCrossEntropyLoss")(thresh=0.3, min_kept=0)(logits, label)
    assert float(value) == pytest.approx(-np.log(true[kept]).mean(), rel=1e-4)


def test_ohem_keeps_the_hardest():
    logits, label = make(4)
    losses = np.sort(F.cross_entropy(logits, label, axis=1, ignore_index=255, reduction="none").numpy().ravel())
    value = LOSSES.get("OhemCrossEntropyLoss")(thresh=0.001, min_kept=11)(logits, label)
    assert float(value) == pytest.approx(losses[-10:].mean(), rel=1e-3)  # as PaddleSeg: the last one drops out


def test_lovasz_hinge_of_two_channels_is_that_of_their_difference(arrays):
    logits, label = make(2)
    one = LOSSES.get("LovaszHingeLoss")()(logits[:, 1:] - logits[:, :1], label)
    assert float(LOSSES.get("LovaszHingeLoss")()(logits, label)) == pytest.approx(float(one), rel=1e-6)
    planes, labels = make(3, planes=True)
    each = [float(LOSSES.get("LovaszHingeLoss")()(planes[:, c : c + 1], labels[:, c])) for c in range(3)]
    assert float(LOSSES.get("LovaszHingeLoss")()(planes, labels)) == pytest.approx(np.mean(each), rel=1e-6)
    with pytest.raises(InputError, match=r"LovaszHingeLoss: .*got 4 output channels.*Use LovaszSoftmaxLoss"):
        LOSSES.get("LovaszHingeLoss")()(*make(4))


def test_lovasz_softmax_is_one_minus_iou_for_a_sure_answer():
    """On hard predictions the Lovasz extension is the IoU loss itself."""
    rng = np.random.default_rng(0)
    label, answer = rng.integers(0, 3, (2, 6, 5)), rng.integers(0, 3, (2, 6, 5))
    logits = paddle.to_tensor(np.moveaxis(np.eye(3, dtype="float32")[answer], -1, 1) * 1e4)
    ious = [((label == c) & (answer == c)).sum() / ((label == c) | (answer == c)).sum() for c in range(3)]
    value = LOSSES.get("LovaszSoftmaxLoss")()(logits, paddle.to_tensor(label))
    assert float(value) == pytest.approx(1 - np.mean(ious), rel=1e-5)
    with pytest.raises(InputError, match=r"classes are out of range \(got \[3\], expected 0 to 2"):
        LOSSES.get("LovaszSoftmaxLoss")(classes=[3])(logits, paddle.to_tensor(label))
    with pytest.raises(InputError, match=r"classes is not one it knows .got 'some'"):
        LOSSES.get("LovaszSoftmaxLoss")(classes="some")


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


def test_mixed_loss_defaults_and_mismatch():
    logits, label = make(3)
    parts = [float(LOSSES.get(name)()(logits, label)) for name in ("CrossEntropyLoss", "DiceLoss")]
    assert float(LOSSES.get("MixedLoss")()(logits, label)) == pytest.approx(sum(parts), rel=1e-6)
    with pytest.raises(
        InputError, match=r"MixedLoss: losses and coef do not match \(got 1 losses and 2 coef.*Write a coef"
    ):
        LOSSES.get("MixedLoss")([LOSSES.get("DiceLoss")()], [1, 2])


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


@pytest.mark.parametrize("temperature", [1, 4])
def test_kl_of_equal_and_of_ignored_pixels_is_zero(temperature):
    logits, label = make(3)
    loss = LOSSES.get("KLLoss")(temperature=temperature)
    assert float(loss(logits, logits.detach())) == pytest.approx(0, abs=1e-7)
    value = loss(logits, logits.detach() * 2, paddle.full_like(label, 255))
    value.backward()
    assert float(value) == 0 and np.all(logits.grad.numpy() == 0)


@pytest.mark.parametrize("name", ["EdgeAttentionLoss", "OhemEdgeAttentionLoss"])
def test_edge_attention_sees_edges_alone(name):
    logits, label = make(3, "uint8")
    edge = paddle.zeros([2, 1, 9, 7])
    edge[:, :, 4:6] = 0.9
    value = LOSSES.get(name)()([logits, edge], label)
    value.backward()
    expected = F.cross_entropy(logits[:, :, 4:6], label.astype("int64")[:, 4:6], axis=1)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert np.all(logits.grad.numpy()[:, :, :4] == 0) and label.dtype == paddle.uint8
    half = LOSSES.get(name)()([logits.astype("float16"), edge.astype("float16")], label)
    assert half.dtype == paddle.float32 and float(half) == pytest.approx(float(value), rel=1e-2)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "DiceLoss", "BCELoss", "OhemCrossEntropyLoss"])
def test_weights_of_the_wrong_kind(name):
    logits, label = make(3)
    with pytest.raises(
        InputError, match=rf"{name}: weight has the wrong length \(got 2 numbers, expected 3.*Give 3 num"
    ):
        LOSSES.get(name)(weight=[1, 2])(logits, label)
    for wrong in ("much", [1, "a"], [-1.0, 1.0], []):
        with pytest.raises(InputError, match=rf"{name}: weight is not a list of numbers >= 0 .*Write it as weight: \["):
            LOSSES.get(name)(weight=wrong)


def test_bce_weights():
    logits, label = make(3)
    weighted = LOSSES.get("BCELoss")(weight=[1, 0, 2])(logits, label)
    parts = [
        float(LOSSES.get("BCELoss")()(logits[:, c : c + 1], (label == c) * 1 + (label == 255) * 255)) for c in range(3)
    ]
    assert float(weighted) == pytest.approx((parts[0] + 2 * parts[2]) / 3, rel=1e-5)
    with pytest.raises(InputError, match=r"BCELoss: pos_weight is neither a number nor 'dynamic'.*pos_weight: 2.0"):
        LOSSES.get("BCELoss")(pos_weight="big")


def test_messages():
    logits, label = make(3)
    with pytest.raises(InputError, match=r"top_k_percent_pixels is out of range .got 0, .*hardest fifth"):
        LOSSES.get("CrossEntropyLoss")(top_k_percent_pixels=0)
    with pytest.raises(InputError, match=r"FocalLoss: .*got 3 output channels.*Use MultiClassFocalLoss"):
        LOSSES.get("FocalLoss")()(logits, label)
    with pytest.raises(InputError, match=r"cross entropy needs a channel per class .*num_classes: 1"):
        LOSSES.get("CrossEntropyLoss")()(logits[:, :1], label)
    for name in BASIC[:5]:
        with pytest.raises(
            InputError, match=r"does not fit the model's output \(got label \[2, 9, 6\], expected \[2, 9, 7\]"
        ):
            LOSSES.get(name)()(logits, label[:, :, :6])
    with pytest.raises(InputError, match=r"Label planes .use_multilabel. need BCELoss"):
        LOSSES.get("CrossEntropyLoss")()(*make(3, planes=True))
