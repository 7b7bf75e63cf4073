"""The reference numbers beside the checkout, for several files of tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def loss_arrays(shared: Path) -> Any:
    return np.load(shared / "parity" / "losses.npz")


@pytest.fixture(scope="session")
def transform_arrays(shared: Path) -> Any:
    return np.load(shared / "parity" / "transforms.npz")


@pytest.fixture(scope="session")
def transform_cases(shared: Path) -> list[dict]:
    return json.loads((shared / "parity" / "transforms.json").read_text())["cases"]
