"""What the tests of losses share: PaddleSeg's cases and plain inputs."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from segkit.registry import LOSSES
from tests.conftest import SHARED

FILE = SHARED / "parity" / "losses.json"
CASES = [c for c in json.loads(FILE.read_text())["cases"] if c["loss"] in LOSSES] if FILE.exists() else []


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


def make(channels: int, dtype: str = "int64", ignore: int = 255, planes: bool = False, size: tuple = (9, 7)):
    """Seeded logits `[2, C, 9, 7]` and a fitting label with some ignored pixels."""
    rng = np.random.default_rng(3)
    logits = paddle.to_tensor(rng.standard_normal((2, channels, *size)).astype("float32"), stop_gradient=False)
    shape = (2, channels, *size) if planes else (2, *size)
    label = rng.integers(0, 2 if planes else max(2, channels), shape)
    label[..., :2, :3] = ignore
    return logits, paddle.to_tensor(label.astype(dtype))


BASIC = ["CrossEntropyLoss", "DiceLoss", "BCELoss", "OhemCrossEntropyLoss", "MixedLoss", "FocalLoss"]
ONE_CHANNEL = {"LovaszHingeLoss", "DetailAggregateLoss"}


def channels_of(name: str) -> int:
    return 1 if name in ONE_CHANNEL else 2


def plain(name: str, dtype: str = "int64", ignore: int = 255):
    """`make` for this loss; RMI compares neighbourhoods of maps made three times smaller."""
    return make(channels_of(name), dtype, ignore, size=(19, 22) if name == "RMILoss" else (9, 7))


def relaxed(logits: np.ndarray, label: np.ndarray, border: int = 1):
    """For each pixel: number of classes within `border`, and -log of the sum of their probabilities (numpy loops)."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    count, loss = np.zeros(label.shape), np.zeros(label.shape)
    for n, y, x in np.ndindex(*label.shape):
        near = label[n, max(0, y - border) : y + border + 1, max(0, x - border) : x + border + 1]
        classes = [c for c in np.unique(near) if c != 255]
        count[n, y, x] = len(classes)
        loss[n, y, x] = -np.log(p[n, classes, y, x].sum()) if classes else 0
    return count, loss
