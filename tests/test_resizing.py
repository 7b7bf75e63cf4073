"""Bilinear resizing by OpenCV: Paddle's numbers, only where it may, and Paddle's own function afterwards."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.engine import apply, resizing
from segkit.engine.resizing import bilinear_by_opencv


@pytest.fixture
def used(monkeypatch):
    """What OpenCV computed."""
    shapes, resized = [], resizing._resized

    def watched(x, height, width):
        shapes.append((*x.shape, height, width))
        return resized(x, height, width)

    monkeypatch.setattr(resizing, "_resized", watched)
    return shapes


@pytest.mark.parametrize(
    "shape, size",
    [((1, 3, 16, 32), (64, 128)), ((2, 5, 37, 41), (64, 77)), ((2, 4, 90, 61), (45, 30)), ((1, 6, 1, 1), (40, 50))],
)
def test_paddles_numbers(used, shape, size):
    paddle.seed(0)
    x = paddle.randn(shape)
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    turned = F.interpolate(x.transpose([0, 1, 3, 2]), size, mode="bilinear")
    with bilinear_by_opencv():
        np.testing.assert_allclose(F.interpolate(x, size=size, mode="bilinear"), expected, atol=3e-5)
        np.testing.assert_allclose(F.interpolate(x.transpose([0, 1, 3, 2]), size, None, "bilinear"), turned, atol=3e-5)
    assert len(used) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nearest"},
        {"mode": "bilinear", "align_corners": True},
        {"mode": "bilinear", "align_mode": 1},
        {"mode": "bilinear", "data_format": "NHWC"},
        {"mode": "bicubic"},
    ],
)
def test_other_kinds_are_paddles(used, options):
    x = paddle.randn([1, 8, 24, 32])
    expected = F.interpolate(x, [48, 64], **options)
    with bilinear_by_opencv():
        np.testing.assert_array_equal(F.interpolate(x, [48, 64], **options), expected)
        double = F.interpolate(x, scale_factor=2, mode="bilinear")
        assert F.interpolate(x.astype("float64"), [48, 64], mode="bilinear").dtype == paddle.float64
        assert F.interpolate(x, [9, 9], mode="bilinear").shape == [1, 8, 9, 9]
    assert double.shape == [1, 8, 48, 64]
    assert used == []


def test_gradients_and_graphs_are_paddles(used):
    x = paddle.randn([1, 2, 24, 32])
    x.stop_gradient = False
    net = paddle.nn.Upsample(size=[48, 64], mode="bilinear")
    graph = paddle.jit.to_static(Twice(), full_graph=True)
    with bilinear_by_opencv():
        net(x).sum().backward()
        graph(x.detach())
    np.testing.assert_allclose(x.grad, 4, rtol=1e-4)
    assert used == []
    with bilinear_by_opencv(), paddle.no_grad():
        net(x)
    assert len(used) == 1


def test_the_function_is_put_back(used):
    before = F.interpolate
    with pytest.raises(KeyError), bilinear_by_opencv():
        with bilinear_by_opencv():
            assert F.interpolate is not before
        assert F.interpolate is not before
        raise KeyError
    assert F.interpolate is before


class Twice(paddle.nn.Layer):
    """Photos twice as large."""

    def forward(self, x):
        return [F.interpolate(x, [2 * side for side in x.shape[2:]], mode="bilinear")]


@pytest.mark.parametrize("onednn", [True, False])
def test_no_onednn_means_paddles_resizing_too(used, onednn):
    with apply.Applied(Twice(), apply.TestTime(onednn=onednn)) as applied:
        applied.scores(np.zeros((1, 3, 24, 32), np.float32))
    assert len(used) == onednn
