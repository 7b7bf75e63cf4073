"""oneDNN's interpolation, cross entropy, ReLU and max-pooling against Paddle's own: outputs, gradients, fall-backs."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.engine import onednn
from segkit.engine.onednn import activation, cross_entropy, functional, library, pooling, resampling
from segkit.engine.onednn.library import Unavailable
from tests.convolution_cases import distance, run

try:
    library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)


def both(compute: Any, name: str) -> list[list[np.ndarray]]:
    """What Paddle's kernel gives, then oneDNN's, which must have been used once."""
    expected = compute()
    before = onednn.counts[name]
    with onednn.convolutions():
        got = compute()
    assert onednn.counts[name] == before + 1
    return [expected, got]


@pytest.mark.parametrize("seed", range(24))
def test_bilinear_equals_paddles(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "LEAST", 0)
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 5, 7, 8, 16, 19, 24, 33, 64]))
    shape = (int(rng.integers(1, 4)), channels, *(int(n) for n in rng.integers(1, 40, 2)))
    options = {"size": [int(n) for n in rng.integers(1, 60, 2)]}
    if seed % 3 == 0:
        options = {"scale_factor": [2, 4][seed % 2]}
    x = rng.standard_normal(shape).astype("float32")
    expected, got = both(lambda: run(lambda t: F.interpolate(t, mode="bilinear", **options), [x]), resampling.BILINEAR)
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-4


@pytest.mark.parametrize("scales", [(2, 2), (3, 3), (4, 2), (5, 3), (8, 8), (2, 1), (16, 16)])
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (3, 19, 1, 4), (4, 2, 6, 1), (1, 1, 3, 3)])
def test_enlargement_by_whole_numbers(shape: Any, scales: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "LEAST", 0)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    size = [n * s for n, s in zip(shape[2:], scales)]
    expected, got = both(lambda: run(lambda t: F.interpolate(t, size=size, mode="bilinear"), [x]), resampling.BILINEAR)
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-5


def test_bilinear_of_a_view_and_without_gradients() -> None:
    x = np.random.default_rng(0).standard_normal((2, 30, 64, 16)).astype("float32")

    def compute() -> list[np.ndarray]:
        with paddle.no_grad():
            return [F.interpolate(paddle.to_tensor(x).transpose([0, 3, 1, 2]), size=[60, 70], mode="bilinear").numpy()]

    expected, got = both(compute, resampling.BILINEAR)
    assert distance(got[0], expected[0]) < 1e-5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": [64, 64], "align_corners": True}, "corners aligned"),
        ({"size": [64, 64], "align_mode": 1}, "mode 1"),
        ({"scale_factor": 1.7}, "a scale that the size is no multiple of"),
    ],
)
def test_bilinear_that_paddle_computes(options: dict[str, Any], reason: str) -> None:
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 16, 40, 41)).astype("float32"))
    expected = F.interpolate(x, mode="bilinear", **options).numpy()
    name = f"bilinear interpolation: {reason}"
    before = onednn.counts[name]
    with onednn.convolutions():
        got = F.interpolate(x, mode="bilinear", **options).numpy()
    assert np.array_equal(got, expected)
    assert onednn.counts[name] == before + 1


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_cross_entropy_equals_paddles(seed: int, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LEAST", 0)
    rng = np.random.default_rng(seed)
    n, channels, height, width = (int(v) for v in (rng.integers(1, 4), rng.integers(2, 30), *rng.integers(1, 50, 2)))
    x = (rng.standard_normal((n, channels, height, width)) * rng.choice([1, 6])).astype("float32")
    label = rng.integers(0, channels, (n, height, width))
    label[rng.random(label.shape) < 0.3] = 255
    label[0, 0, 0] = 1
    target = paddle.to_tensor(label.astype(["int64", "int32"][seed % 2]))

    def compute() -> list[np.ndarray]:
        loss = lambda t: F.cross_entropy(t, target, ignore_index=255, reduction=reduction, axis=1)  # noqa: E731
        return run(loss, [x])

    expected, got = both(compute, cross_entropy.CROSS_ENTROPY)
    assert [a.shape for a in got] == [a.shape for a in expected]
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-4


def test_cross_entropy_of_a_hopeless_pixel() -> None:
    x = np.zeros((1, 2, 200, 200), "float32")
    x[:, 1] = 100
    with onednn.convolutions():
        loss = F.cross_entropy(paddle.to_tensor(x), paddle.zeros([1, 200, 200], "int64"), axis=1)
    assert float(loss) == pytest.approx(100)  # Paddle's own kernel stops at 64


def test_softmax_comes_with_the_cross_entropy() -> None:
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 5, 90, 90)).astype("float32"))
    label = paddle.ones([1, 1, 90, 90], "int64")
    with onednn.convolutions():
        _, softmax = F.softmax_with_cross_entropy(x, label, axis=1, return_softmax=True)
    assert np.allclose(softmax.numpy(), F.softmax(x, axis=1).numpy(), atol=1e-6)


def test_labels_that_are_no_class_are_left_to_paddle() -> None:
    x, label = paddle.zeros([1, 5, 90, 90]), paddle.full([1, 90, 90], 7, "int64")
    name = "cross entropy: labels that are no class"
    before = onednn.counts[name]
    with onednn.convolutions(), pytest.raises(Exception, match=r"(?i)label|class"):
        F.cross_entropy(x, label, axis=1)
    assert onednn.counts[name] == before + 1


@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (2, 1000), (6,), (1, 1, 1, 1)])
def test_relu_equals_paddles(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "LEAST", 0)
    x = np.random.default_rng(0).integers(-2, 3, shape).astype("float32")  # zeros among them
    expected, got = both(lambda: run(F.relu, [x]), activation.RELU)
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a, b)


def test_relu_of_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "LEAST", 0)
    x = np.array([np.nan, -np.inf, np.inf, -0.0] * 9, "float32")
    expected, got = both(lambda: run(F.relu, [x]), activation.RELU)
    np.testing.assert_array_equal(got[0], expected[0])


def test_relu_in_a_layer_of_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "LEAST", 0)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    expected, got = both(lambda: run(lambda t: paddle.nn.ReLU()(t.t()), [x]), activation.RELU)
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a, b)


def test_output_of_a_relu_changed_in_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "LEAST", 0)
    x = paddle.randn([2, 3])
    x.stop_gradient = False
    with onednn.convolutions():
        y = F.relu(x)
        y.scale_(2.0)
        with pytest.raises((RuntimeError, OSError), match="the gradient of a ReLU needs was changed in place"):
            y.sum().backward()


def test_a_relu_without_backward_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "LEAST", 0)
    x = paddle.randn([3, 5])
    x.stop_gradient = False
    freed = []

    class Counted(activation.ReluGradient):
        def __del__(self) -> None:
            freed.append(1)

    monkeypatch.setattr(activation, "ReluGradient", Counted)
    functional._cache.clear()
    with onednn.convolutions():
        y = F.relu(x)
        functional._cache.clear()
        assert not freed
        del y
        gc.collect()
    assert freed == [1]


@pytest.mark.parametrize("seed", range(24))
def test_max_pooling_equals_paddles(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "LEAST", 0)
    rng = np.random.default_rng(seed)
    size = [int(n) for n in rng.integers(1, 5, 2)]
    padding = [int(rng.integers(0, n // 2 + 1)) for n in size]
    if seed % 3 == 0:
        padding = [padding[0], 0, 0, padding[1]]  # top, bottom, left, right
    options = {"kernel_size": size, "stride": [int(n) for n in rng.integers(1, 4, 2)], "padding": padding}
    shape = (int(rng.integers(1, 4)), int(rng.choice([1, 16, 20])), *(int(n) for n in rng.integers(5, 30, 2)))
    x = rng.standard_normal(shape).astype("float32")
    if seed % 2:
        x = np.maximum(np.round(x), 0)  # many that are equal: the first of them gets the gradient
    expected, got = both(lambda: run(lambda t: F.max_pool2d(t, **options), [x]), pooling.MAX_POOLING)
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-6


def test_max_pooling_of_a_big_map_without_gradients() -> None:
    """There oneDNN's fast kernel wants its own layout."""
    x = paddle.randn([1, 20, 400, 400])
    with paddle.no_grad():
        expected, got = both(lambda: [F.max_pool2d(x, 2).numpy()], pooling.MAX_POOLING)
    np.testing.assert_array_equal(got[0], expected[0])
    both(lambda: [F.max_pool2d(x[:, :3], 2).numpy()], "oneDNN: max-pooling: no fast kernel for few channels")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ceil_mode": True}, "max-pooling: adaptive, rounded up or padded by a rule"),
        ({"padding": "same"}, "max-pooling: adaptive, rounded up or padded by a rule"),
        ({"data_format": "NHWC"}, "max-pooling: data format NHWC"),
    ],
)
def test_max_pooling_that_paddle_computes(options: dict[str, Any], reason: str) -> None:
    x = paddle.randn([1, 64, 33, 64])
    expected, got = both(lambda: [F.max_pool2d(x, 2, 2, **options).numpy()], reason)
    np.testing.assert_array_equal(got[0], expected[0])


def test_averages_and_small_maps_are_left_to_paddle() -> None:
    before = onednn.counts.copy()
    with onednn.convolutions():
        F.avg_pool2d(paddle.randn([1, 64, 64, 64]), 2)
        F.max_pool2d(paddle.randn([1, 4, 8, 8]), 2)
        F.relu(paddle.randn([1, 4, 8, 8]))
    assert onednn.counts == before
