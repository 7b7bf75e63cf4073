"""How a model is applied, against slow loops; tests/parity has PaddleSeg's numbers."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.deploy.pipeline import mask_of
from segkit.deploy.windows import Windows
from segkit.engine import apply
from segkit.engine.apply import TestTime as How
from segkit.engine.apply import test_time as settings
from segkit.engine.onednn import counts
from segkit.engine.onednn.functional import ONEDNN
from segkit.engine.onednn.library import Unavailable, load
from segkit.errors import InputError
from segkit.metrics import ConfusionMatrix
from segkit.options import EvalOptions, PredictOptions
from segkit.postprocess import class_map
from tests.apply_cases import Conv


@pytest.fixture
def toy():
    rng = np.random.default_rng(0)
    return Conv(rng.standard_normal((4, 3, 5, 5)).astype("float32")), rng.standard_normal((2, 3, 40, 56)).astype(
        "float32"
    )


@pytest.mark.parametrize("window, stride", [((24, 16), (10, 7)), ((17, 23), (17, 23)), ((56, 8), (56, 3))])
def test_windows_against_a_loop(toy, window, stride):
    model, x = toy
    found = apply.scores(model, x, How(windows=Windows(window, stride)))
    total, count = np.zeros((2, 4, 40, 56)), np.zeros((40, 56))
    wide, high = window
    for top in {min(t, 40 - high) for t in range(0, 40, stride[1])}:
        for left in {min(t, 56 - wide) for t in range(0, 56, stride[0])}:
            area = np.s_[..., top : top + high, left : left + wide]
            total[area] += model(paddle.to_tensor(x[area]))[0].numpy()
            count[area] += 1
    np.testing.assert_allclose(found, total / count, atol=1e-5)


def test_windows_are_batched_and_bounded():
    model = Conv(np.ones((2, 3, 5, 5), "float32"))
    apply.scores(model, np.zeros((1, 3, 300, 400), "float32"), How(windows=Windows((64, 64), (64, 64))))
    assert max(shape[0] for shape in model.seen) == 16
    assert {shape[1:] for shape in model.seen} == {(3, 64, 64)}
    model.seen.clear()
    apply.scores(model, np.zeros((1, 3, 1030, 1100), "float32"), How(windows=Windows((1024, 1024), (512, 512))))
    assert {shape[0] for shape in model.seen} == {1}


def test_a_window_larger_than_the_photo_is_the_plain_pass(toy):
    model, x = toy
    plain = apply.scores(model, x)
    np.testing.assert_array_equal(apply.scores(model, x, How(windows=Windows((100, 90), (50, 50)))), plain)


def test_windows_over_scales_and_flips(toy):
    model, x = toy
    both = How(scales=(0.5, 1.0), flip_horizontal=True, windows=Windows((200, 200), (100, 100)))
    plain = How(scales=(0.5, 1.0), flip_horizontal=True)
    np.testing.assert_allclose(apply.scores(model, x, both), apply.scores(model, x, plain), atol=1e-4)


def test_scaled_sizes_are_rounded(toy):
    model, x = toy
    apply.scores(model, x[:1], How(scales=(0.715, 0.001)))
    assert [shape[2:] for shape in model.seen] == [(29, 40), (1, 1)]


def test_classes_are_those_of_the_scores(toy):
    """On a GPU class numbers, on the CPU the scores, of which classes are made plane by plane."""
    model, x = toy
    with apply.Applied(model) as applied:
        found = applied.classes(x)
    for one, scores in zip(found, apply.scores(model, x)):
        classes = one if one.dtype.kind in "iu" else class_map(one, [])
        np.testing.assert_array_equal(classes, class_map(scores, []))


@pytest.mark.parametrize(("classes", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "int32")])
def test_classes_leave_the_device_in_few_bytes(classes, dtype):
    """What is done on a GPU, done on the CPU: the same counts as from the scores."""
    scores = np.random.default_rng(0).standard_normal((2, classes, 6, 5)).astype("float32")
    scores[:, -1] += 1
    found = apply._numbers(paddle.to_tensor(scores))
    assert found.dtype == dtype
    matrices = [ConfusionMatrix(classes, ignore_index=-1) for _ in range(2)]
    for numbers, planes in zip(found, scores):
        label = np.zeros((6, 5), dtype)
        for matrix, output in zip(matrices, (numbers, planes)):
            matrix.update(mask_of(output, []), label)
    np.testing.assert_array_equal(matrices[0].matrix, matrices[1].matrix)


def test_kernels_are_chosen(toy):
    model, x = toy
    try:
        load()
        through_onednn = 1
    except Unavailable:  # then Paddle's own serve, see test_onednn_context.py
        through_onednn = 0
    before = counts[ONEDNN]
    plain = apply.scores(model, x, How(onednn=False))
    assert counts[ONEDNN] == before
    np.testing.assert_allclose(apply.scores(model, x), plain, rtol=1e-5, atol=1e-5)
    assert counts[ONEDNN] == before + through_onednn
    np.testing.assert_array_equal(plain, model(paddle.to_tensor(x))[0])


def test_bf16_on_the_cpu_is_close_or_refused(toy):
    model, x = toy
    exact = apply.scores(model, x)
    try:
        rough = apply.scores(model, x, How(precision="bf16"))
    except InputError as error:
        assert "--precision bf16" in str(error)
    else:
        assert rough.dtype == np.float32
        assert 0 < np.abs(exact - rough).max() < 0.02 * np.abs(exact).max()
    np.testing.assert_array_equal(apply.scores(model, x), exact)


def test_fp16_needs_a_gpu(toy):
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        apply.scores(*toy, How(precision="fp16"))


def test_evaluation_mode_puts_every_layer_back():
    model = paddle.nn.Sequential(paddle.nn.Dropout(), paddle.nn.BatchNorm2D(3))
    model[1].eval()
    with apply.evaluation_mode(model):
        assert not any(layer.training for layer in model.sublayers(include_self=True))
    assert model.training and model[0].training and not model[1].training


def test_flags_over_the_config():
    config = {"aug_eval": True, "scales": 1.5, "is_slide": True, "crop_size": [30, 20], "stride": [10, 10]}
    how = settings(EvalOptions(), config)
    assert how == How(scales=(1.5,), windows=Windows((30, 20), (10, 10)))
    how = settings(EvalOptions(scales=[0.5, 2], flip_vertical=True, crop_size=[60, 60]), config)
    assert how == How(scales=(0.5, 2.0), flip_vertical=True, windows=Windows((60, 60), (10, 10)))
    assert how.flips == [(False, False), (False, True)]
    assert settings(EvalOptions(aug_eval=False, is_slide=False), config).plain


def test_predict_has_its_own_switch():
    config = {"aug_eval": True, "scales": [0.5], "flip_horizontal": True}
    assert settings(PredictOptions(), config).plain
    assert settings(PredictOptions(aug_pred=True), config) == How(scales=(0.5,), flip_horizontal=True)


def test_default_stride_is_two_thirds():
    assert settings(EvalOptions(is_slide=True, crop_size=[90, 60])).windows.stride == (60, 40)


@pytest.mark.parametrize(
    "options, message",
    [
        (EvalOptions(crop_size=[8, 8]), r"--crop_size without --is_slide has no effect"),
        (EvalOptions(stride=[8, 8]), r"--stride without --is_slide"),
        (EvalOptions(scales=[0.5], flip_horizontal=True), r"--scales, --flip_horizontal without --aug_eval"),
        (PredictOptions(flip_vertical=True), r"--flip_vertical without --aug_pred"),
        (EvalOptions(is_slide=True), r"is_slide needs crop_size"),
        (EvalOptions(is_slide=True, crop_size=[0, 8]), r"crop_size: expected two integers above 0.*got \[0, 8\]"),
        (EvalOptions(is_slide=True, crop_size=[8, 8], stride=[9, 8]), r"stride \[9, 8\] is larger than crop_size"),
        (EvalOptions(aug_eval=True, scales=[1.0, 0.0]), r"scales: expected numbers above 0 \(got \[1.0, 0.0\]"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(InputError, match=message):
        settings(options)


def test_neighbours_of_one_shape_are_put_together():
    shapes = [(3, 4, 5)] * 5 + [(3, 5, 4)] * 2 + [None, None] + [(3, 4, 5)] + [(3, 90, 90)] * 2
    items = list(enumerate(shapes))
    found = list(apply.together(items, lambda item: item[1], 80))
    assert [len(batch) for batch in found] == [4, 1, 2, 1, 1, 1, 1, 1]
    assert [item for batch in found for item in batch] == items
    assert all(len(batch) == 1 for batch in apply.together(items, lambda item: item[1], 0))
    assert list(apply.together([], len, 80)) == []
