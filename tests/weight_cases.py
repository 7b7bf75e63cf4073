"""What the tests of weights files share: a small network and arrays of every type."""

from __future__ import annotations

import numpy as np
import paddle


class Net(paddle.nn.Layer):
    """A layer of each kind that a report tells apart."""

    def __init__(self, classes: int = 2, width: int = 3):
        super().__init__()
        self.body = paddle.nn.Linear(4, width)
        self.norm = paddle.nn.BatchNorm1D(width)
        self.head = paddle.nn.Linear(width, classes)


def values(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """Copies of its parameters and buffers."""
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """The same names in the same order, and the same values."""
    assert list(first) == list(second)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def every_type() -> dict[str, np.ndarray]:
    """An array of each type that safetensors and Paddle share, odd sizes, a scalar and an empty one among them."""
    kinds = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
    found = {kind: (np.arange(15).reshape(3, 5) % 7).astype(kind) for kind in kinds}
    return {**found, "scalar": np.full((), 3, "float32"), "empty": np.zeros((0, 2), "float32")}
