"""Photos, masks and COCO files for the tests of data convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkit.data.convert import ConvertOptions, convert
from segkit.io import read_label


def run(source: Path, out: Path, **options: Any):
    return convert(str(source), str(out), ConvertOptions(**options))[0]


def photo(path: Path, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(sum(map(ord, path.name))).integers(0, 255, (*size, 3), np.uint8)).save(path)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def got(out: Path, name: str = "a") -> np.ndarray:
    return read_label(out / "labels" / f"{name}.png")
