"""Shapes of convolutions, small models, and how their results are compared."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import paddle

# input, filters, kernel, options
CONVOLUTIONS = [
    ((2, 3, 64, 64), 16, 3, {"padding": 1}),
    ((2, 16, 33, 47), 32, 3, {"padding": 1, "bias": False}),
    ((2, 16, 33, 47), 32, 3, {"stride": 2, "padding": 1}),
    ((1, 64, 40, 40), 64, 3, {"padding": 2, "dilation": 2, "bias": False}),
    ((2, 32, 31, 29), 24, 1, {}),
    ((2, 32, 32, 32), 48, 1, {"stride": 2, "bias": False}),
    ((2, 32, 32, 32), 32, 3, {"padding": 1, "groups": 32}),
    ((2, 20, 33, 35), 20, 3, {"stride": 2, "padding": 1, "groups": 20}),
    ((2, 16, 32, 32), 96, 3, {"stride": 2, "padding": 1, "groups": 16}),
    ((2, 24, 30, 30), 48, 3, {"padding": 6, "dilation": 6, "groups": 3}),
    ((1, 7, 17, 19), 5, 5, {"padding": 2}),
    ((2, 64, 16, 16), 2, 1, {}),
    ((2, 8, 28, 30), 8, (3, 5), {"stride": (2, 1), "padding": [1, 2], "dilation": (1, 2), "groups": 2, "bias": False}),
    ((1, 16, 20, 20), 8, 3, {"padding": [0, 1, 2, 0]}),
    ((2, 32, 9, 9), 64, 7, {"stride": 2, "padding": 3, "bias": False}),
    ((3, 1, 50, 50), 1, 3, {"padding": 1}),
    ((3, 5, 12, 13), 7, 3, {"padding": "same"}),
    ((2, 8, 21, 30), 16, 3, {"padding": "same", "stride": 2}),
    ((2, 8, 21, 30), 16, 4, {"padding": "SAME", "stride": 2}),
    ((2, 8, 21, 30), 8, 3, {"padding": "same", "dilation": 2}),
    ((2, 8, 21, 30), 8, 3, {"padding": "valid", "groups": 4}),
    ((2, 8, 21, 30), 16, (1, 5), {"padding": "same", "bias": False}),
    ((2, 6, 11, 12), 6, 3, {"padding": [[0, 0], [0, 0], [1, 2], [0, 3]]}),
    ((5, 4, 8, 8), 4, 3, {"padding": 1, "groups": 4, "dilation": 2}),
    ((2, 4, 1, 1), 8, 1, {}),
    ((2, 4, 2, 2), 8, 3, {"padding": 1}),
    ((4, 129, 6, 5), 17, 3, {"padding": 1}),
    ((1, 3, 30, 30), 8, 3, {"stride": 3, "padding": 0}),
]
TRANSPOSED = [
    ((2, 16, 17, 19), 8, 2, {"stride": 2}),
    ((2, 16, 16, 16), 8, 4, {"stride": 2, "padding": 1, "bias": False}),
    ((1, 8, 15, 15), 12, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 16, 12, 12), 16, 4, {"stride": 2, "padding": 1, "groups": 16, "bias": False}),
    ((2, 12, 10, 11), 8, 3, {"dilation": 2, "groups": 2}),
    ((3, 4, 7, 9), 6, 3, {"stride": (3, 2), "padding": [1, 0]}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": [1, 0, 0, 1]}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": "same"}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": "valid"}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": 1, "output_size": [14, 18]}),
    ((1, 5, 6, 6), 5, 3, {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
]


def random_case(seed: int) -> tuple[tuple[int, ...], int, Any, dict[str, Any], bool]:
    """Anything that Paddle computes."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[int(rng.integers(len(values)))]  # noqa: E731
    groups = pick(1, 1, 2, 3)
    channels, filters = groups * int(rng.integers(1, 9)), groups * int(rng.integers(1, 9))
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    transposed = bool(rng.random() < 0.3)
    most = [max(1, d * (k - 1) // 2 + 1) for d, k in zip(dilation, kernel)]
    padding = [int(rng.integers(most[i // 2])) for i in range(4)]
    if not transposed and rng.random() < 0.25:
        padding = pick("same", "valid")
    shape = (int(rng.integers(1, 6)), channels, int(rng.integers(10, 26)), int(rng.integers(10, 26)))
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    return shape, filters, kernel, {**options, "bias": bool(rng.random() < 0.5)}, transposed


CASES = [
    *((*case, False) for case in CONVOLUTIONS),
    *((*case, True) for case in TRANSPOSED),
    *(random_case(seed) for seed in range(30)),
]


def run(function: Callable[..., Any], arrays: list[Any], seed: int = 1) -> list[np.ndarray]:
    """Output and all gradients."""
    tensors = [None if a is None else paddle.to_tensor(a, stop_gradient=False) for a in arrays]
    y = function(*tensors)
    weigh = np.random.default_rng(seed).standard_normal(y.shape).astype("float32")
    y.backward(paddle.to_tensor(weigh))
    return [y.numpy(), *(t.grad.numpy() for t in tensors if t is not None)]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype("float64"), b.ravel().astype("float64")
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-30))


def block() -> paddle.nn.Layer:
    paddle.seed(3)
    return paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 16, 3, padding="same"),
        paddle.nn.BatchNorm2D(16),
        paddle.nn.ReLU(),
        paddle.nn.Conv2D(16, 16, 3, padding=1, groups=16, bias_attr=False),
        paddle.nn.Conv2DTranspose(16, 4, 2, stride=2),
    )


IMAGE = np.random.default_rng(5).standard_normal((4, 3, 24, 20)).astype("float32")


def gradients(model: paddle.nn.Layer, image: np.ndarray = IMAGE) -> list[np.ndarray]:
    model.clear_gradients()
    y = model(paddle.to_tensor(image))
    (y * y).mean().backward()
    return [y.numpy(), *parameter_gradients(model)]


def parameter_gradients(model: paddle.nn.Layer) -> list[np.ndarray]:
    return [p.grad.numpy() for p in model.parameters() if not p.stop_gradient]


def assert_close(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    largest = max(np.abs(b).max() for b in expected[1:])
    for a, b in zip(got, expected):  # a bias before BatchNorm has no gradient but rounding
        assert np.abs(a - b).max() < 1e-4 * max(np.abs(b).max(), 0.1 * largest)
