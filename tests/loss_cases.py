"""What the tests of losses share: plain inputs."""

from __future__ import annotations

import numpy as np
import paddle


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
