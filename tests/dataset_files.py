"""Folders of photos and labels as the tests of data sets use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.palette import voc_palette

RNG = np.random.default_rng(0)


def put(path: Path, array: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(voc_palette(256).tobytes())
    picture.save(path)
    return path


def photo(path: Path, height: int = 6, width: int = 8) -> Path:
    return put(path, RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def mask(path: Path, values: Any = (0, 1), height: int = 6, width: int = 8, dtype: type = np.uint8) -> Path:
    label = np.resize(np.array(values, dtype), (height, width))
    return put(path, label)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two samples a part, listed."""
    for part in ("train", "val"):
        lines = []
        for i in range(2):
            photo(tmp_path / f"images/{part}{i}.png")
            mask(tmp_path / f"labels/{part}{i}.png")
            lines.append(f"images/{part}{i}.png labels/{part}{i}.png\n")
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    return tmp_path
