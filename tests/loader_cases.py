"""Data sets that the tests of loaders read."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit import log


class Photos:
    """Sample i: an image full of i plus the rng's first number, and a label full of i."""

    def __init__(self, count: int, size: int = 4):
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def get(self, index: int, rng: np.random.Generator) -> dict:
        image = np.full((self.size, self.size + 1, 3), index + rng.random(), np.float32)
        label = np.full((self.size, self.size + 1), index, np.uint8)
        return {"image": image, "label": label, "edge": label // 2, "path": f"photos/{index}.png", "geometry": []}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(log, "_said", set())
    paddle.set_device("cpu")
