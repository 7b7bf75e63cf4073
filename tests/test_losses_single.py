"""What single losses teach, leave out and refuse."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.errors import InputError
from segkit.registry import LOSSES
from tests.loss_cases import BASIC, make, plain, relaxed


def test_cross_entropy_in_channels_last():
    logits, label = make(4)
    for kwargs in ({}, {"weight": [1, 2, 3, 4]}, {"top_k_percent_pixels": 0.3}):
        first = LOSSES.get("CrossEntropyLoss")(**kwargs)(logits, label)
        last = LOSSES.get("CrossEntropyLoss")(data_format="NHWC", **kwargs)(logits.transpose([0, 2, 3, 1]), label)
        assert float(first) == pytest.approx(float(last), rel=1e-6)


def test_ohem_keeps_the_hardest():
    logits, label = make(4)
    losses = np.sort(F.cross_entropy(logits, label, axis=1, ignore_index=255, reduction="none").numpy().ravel())
    value = LOSSES.get("OhemCrossEntropyLoss")(thresh=0.001, min_kept=11)(logits, label)
    assert float(value) == pytest.approx(losses[-10:].mean(), rel=1e-3)  # as PaddleSeg: the last one drops out


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


def test_mixed_loss_defaults_and_mismatch():
    logits, label = make(3)
    parts = [float(LOSSES.get(name)()(logits, label)) for name in ("CrossEntropyLoss", "DiceLoss")]
    assert float(LOSSES.get("MixedLoss")()(logits, label)) == pytest.approx(sum(parts), rel=1e-6)
    with pytest.raises(
        InputError, match=r"MixedLoss: losses and coef do not match \(got 1 losses and 2 coef.*Write a coef"
    ):
        LOSSES.get("MixedLoss")([LOSSES.get("DiceLoss")()], [1, 2])


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


def test_label_smoothing_is_cross_entropy_against_a_softened_label():
    logits, label = make(4)
    log_p, y = F.log_softmax(logits, axis=1).numpy(), label.numpy()
    valid = y != 255
    wanted = np.moveaxis(np.eye(4)[np.where(valid, y, 0)], -1, 1) * 0.9 + 0.1 / 4
    each = -(wanted * log_p).sum(1)
    smooth = LOSSES.get("CrossEntropyLoss")(label_smoothing=0.1)
    assert float(smooth(logits, label)) == pytest.approx(each[valid].mean(), rel=1e-5)
    weight = np.array([1.0, 2.0, 0.5, 3.0])
    weighted = -(wanted * log_p * weight.reshape(1, 4, 1, 1)).sum(1)[valid].sum() / weight[y[valid]].sum()
    value = LOSSES.get("CrossEntropyLoss")(weight=weight.tolist(), label_smoothing=0.1)(logits, label)
    assert float(value) == pytest.approx(weighted, rel=1e-5)
    with pytest.raises(InputError, match=r"label_smoothing is out of range .got 1, .*Usual values"):
        LOSSES.get("CrossEntropyLoss")(label_smoothing=1)


def test_relax_boundary_of_other_widths_and_with_weights():
    logits, label = (tensor.numpy() for tensor in make(5))
    for border in (0, 2):
        count, loss = relaxed(logits, label, border)
        expected = sum(loss[i].sum() / ((count[i] > 0).sum() + 1) for i in range(2))
        value = LOSSES.get("RelaxBoundaryLoss")(border=border)(paddle.to_tensor(logits), paddle.to_tensor(label))
        assert float(value) == pytest.approx(expected, rel=1e-5)
    # One class alone has the share 1, so the weight 1; two classes of one half each weigh 1 + upper_bound / 2.
    halves = np.zeros((1, 4, 4), "int64")
    halves[:, :, 2:] = 1
    logits, label = paddle.to_tensor(logits[:1, :2, :4, :4]), paddle.to_tensor(halves)
    once, twice = (
        float(LOSSES.get("RelaxBoundaryLoss")(border=0, calculate_weights=on)(logits, label)) for on in (False, True)
    )
    assert twice == pytest.approx(1.5 * once, rel=1e-6)
    with pytest.raises(InputError, match=r"border is negative .got -1, .*The paper takes 1"):
        LOSSES.get("RelaxBoundaryLoss")(border=-1)


def test_relax_boundary_deep_inside_an_ignored_area_nothing_is_learned():
    logits, label = make(6)
    LOSSES.get("RelaxBoundaryLoss")()(logits, label).backward()
    assert np.all(logits.grad.numpy()[:, :, 0, :2] == 0) and np.abs(logits.grad.numpy()[:, :, 4:]).max() > 0


def test_boundary_loss_is_the_mean_signed_distance():
    label = np.zeros((1, 7, 9), "int64")
    label[0, 2:5, 3:6] = 1
    sure = np.stack([label == 0, label == 1], 1).astype("float32") * 60
    rows = [(y, x) for y in range(7) for x in range(9)]
    inside = {(y, x) for y, x in rows if label[0, y, x]}

    def distance(place, other):  # to the nearest pixel of the other kind, minus one half
        return min(np.hypot(place[0] - y, place[1] - x) for y, x in other) - 0.5

    outside = set(rows) - inside
    expected = -(sum(distance(p, outside) for p in inside) + sum(distance(p, inside) for p in outside)) / (63 * 2)
    value = LOSSES.get("BoundaryLoss")()(paddle.to_tensor(sure), paddle.to_tensor(label))
    assert float(value) == pytest.approx(expected, rel=0.02)  # OpenCV's distances are good to 2 %
    wrong = LOSSES.get("BoundaryLoss")()(paddle.to_tensor(sure[:, ::-1].copy()), paddle.to_tensor(label))
    assert float(wrong) > 0
    one_class = LOSSES.get("BoundaryLoss")()(paddle.to_tensor(sure), paddle.zeros([1, 7, 9], "int64"))
    assert float(one_class) == 0


@pytest.mark.parametrize("name", ["TverskyLoss", "FocalTverskyLoss"])
def test_tversky(name):
    logits, label = make(3)
    even = LOSSES.get("TverskyLoss")(alpha=0.5, beta=0.5)(logits, label)
    assert float(even) == pytest.approx(float(LOSSES.get("DiceLoss")()(logits, label)), rel=1e-5)
    p, y = F.softmax(logits, axis=1).numpy().astype("float64"), label.numpy()
    rows = []
    for n, c in np.ndindex(2, 3):
        valid, own = y[n] != 255, y[n] == c
        hit, fp, fn = p[n, c][own].sum(), p[n, c][valid & ~own].sum(), (1 - p[n, c][own]).sum()
        rows.append(1 - (hit + 0.5) / (hit + 0.2 * fp + 0.8 * fn + 0.5))
    power = 1 if name == "TverskyLoss" else 0.75
    value = LOSSES.get(name)(alpha=0.2, beta=0.8)(logits, label)
    assert float(value) == pytest.approx((np.array(rows) ** power).mean(), rel=1e-5)
    with pytest.raises(InputError, match=rf"{name}: alpha and beta are prices .got -1 and 2, .*rare class"):
        LOSSES.get(name)(alpha=-1, beta=2)


def test_focal_tversky_of_a_sure_answer_has_a_finite_gradient():
    label = paddle.to_tensor(np.random.default_rng(0).integers(0, 2, (1, 5, 5)))
    logits = paddle.stack([1 - label, label], 1).astype("float32") * 80
    logits.stop_gradient = False
    LOSSES.get("FocalTverskyLoss")()(logits, label).backward()
    assert np.isfinite(logits.grad.numpy()).all()
    with pytest.raises(InputError, match=r"gamma is not above 0 .got 0, .*4/3"):
        LOSSES.get("FocalTverskyLoss")(gamma=0)


def test_rmi_messages_and_a_perfect_answer():
    logits, label = plain("RMILoss")
    loss = LOSSES.get("RMILoss")()
    sure = paddle.stack([label == 0, label == 1], 1).astype("float32") * 40 - 20
    assert float(loss(sure, label)) < float(loss(logits, label))
    with pytest.raises(InputError, match=r"pictures are too small .got maps of \[3, 3\].*at least 4 x 4.*larger crops"):
        LOSSES.get("RMILoss")(rmi_radius=4)(logits[:, :, :9, :7], label[:, :9, :7])
    with pytest.raises(
        InputError, match=r"num_classes does not fit the model's output .got 5, expected 2.*Leave num_classes out"
    ):
        LOSSES.get("RMILoss")(num_classes=5)(logits, label)
    for kwargs, words in (
        ({"rmi_radius": 0}, "rmi_radius is out of range .got 0, expected 1 to 10"),
        ({"rmi_pool_way": 3}, "rmi_pool_way is not one it knows .got 3"),
        ({"rmi_pool_size": 2}, "rmi_pool_size and rmi_pool_stride differ .got 2 and 3"),
    ):
        with pytest.raises(InputError, match=words):
            LOSSES.get("RMILoss")(**kwargs)


def test_connectivity_prefers_whole_areas_and_teaches():
    label = paddle.zeros([1, 12, 12], "int64")
    label[:, 2:10, 2:10] = 1
    whole = paddle.stack([label == 0, label == 1], 1).astype("float32") * 4
    torn = whole.clone()
    torn[:, 1, 6] = 0.0  # a line through the area
    torn[:, 0, 6] = 4.0
    torn.stop_gradient = False
    loss = LOSSES.get("SemanticConnectivityLoss")()
    # Class 0 never matches (its pixels have the area 0): it costs 1 of the two classes.
    assert float(loss(whole, label)) == pytest.approx(0.5, rel=1e-6)
    value = loss(torn, label)
    upper, lower = 4 * 8 / 64, 3 * 8 / 64
    assert float(value) == pytest.approx((1 + 1 - (upper + lower) / 2) / 2, rel=1e-5)
    value.backward()
    assert np.abs(torn.grad.numpy()).max() > 0
    assert float(loss(whole, paddle.ones_like(label))) > 0.25
    nowhere = paddle.stack([label == 9, label == 1], 1).astype("float32") * -4
    assert float(loss(nowhere, label)) == pytest.approx((1 + 1 + 64 / 144) / 2, rel=1e-5)
    one = LOSSES.get("SemanticConnectivityLoss")(use_argmax=False)(whole[:, 1:] - 2, label)
    assert float(one) == pytest.approx(0.5, rel=1e-6)


def test_pixel_contrast_without_a_large_class_is_zero_and_says_what_it_needs():
    label = paddle.to_tensor(np.random.default_rng(0).integers(0, 3, (2, 8, 8)))
    outputs = {"seg": paddle.rand([2, 3, 4, 4]), "embed": F.normalize(paddle.rand([2, 6, 4, 4]) - 0.5, axis=1)}
    outputs["embed"].stop_gradient = False
    loss = LOSSES.get("PixelContrastCrossEntropyLoss")()
    value = loss(outputs, label)
    value.backward()
    assert float(value) == 0 and np.all(outputs["embed"].grad.numpy() == 0)
    value = LOSSES.get("PixelContrastCrossEntropyLoss")(max_views=2)(outputs, label.astype("uint8"))
    assert np.isfinite(float(value)) and float(value) > 0
    with pytest.raises(InputError, match=r"no 'seg' and 'embed' .got Tensor.*HRNetW48Contrast"):
        loss(outputs["seg"], label)


def test_dual_task_is_reproducible_and_leaves_out_the_ignored():
    logits, label = make(3)
    loss = LOSSES.get("DualTaskLoss")()
    paddle.seed(3)
    first = loss(logits, label)
    first.backward()
    assert np.all(logits.grad.numpy()[:, :, :2, :3] == 0) and np.abs(logits.grad.numpy()).max() > 0
    paddle.seed(3)
    assert float(loss(logits, label.astype("uint8"))) == float(first)
    assert float(loss(logits, paddle.full_like(label, 255))) == 0
    assert np.isfinite(float(loss(logits[:, :, :2, :3], label[:, :2, :3])))  # smaller than the smoothing


def test_presence_counts_no_ignored_pixel():
    label = paddle.to_tensor(np.array([[[0, 2], [255, 2]]]))
    logits = paddle.to_tensor([[3.0, -3.0, 3.0]])
    sure = LOSSES.get("SECrossEntropyLoss")()(logits, label)
    assert float(sure) == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)
    assert float(LOSSES.get("SECrossEntropyLoss")()(logits.reshape([1, 3, 1, 1]), label)) == float(sure)


def test_distillation_sees_no_ignored_pixel_and_is_least_for_the_teacher_itself():
    logits, label = make(3)
    teacher = logits.detach() * 2
    loss = LOSSES.get("DistillCrossEntropyLoss")()
    loss(logits, teacher, label).backward()
    assert np.all(logits.grad.numpy()[:, :, :2, :3] == 0)
    assert float(loss(teacher, teacher, label)) < float(loss(logits, teacher, label))
    features = [paddle.rand([2, 4, 3, 3]) for _ in range(2)]
    assert float(LOSSES.get("DistillationLoss")()([features, [f * 3 for f in features]])) == pytest.approx(0, abs=1e-6)
