"""Losses against their promises; tests/parity has PaddleSeg's numbers."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.registry import LOSSES
from tests.loss_cases import BASIC, channels_of, make, plain

# Where segkit is meant to differ from the reference; the test named beside each says what it does instead.
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
