"""Near-identical photos are found, photos of the same kind are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit._cv2 import cv2
from segkit.data.duplicates import groups, look, near, near_pairs
from segkit.io import read_image


def _copy(image: np.ndarray) -> np.ndarray:
    """Compressed hard, smaller, brighter."""
    coded = cv2.imdecode(cv2.imencode(".jpg", image, [1, 50])[1], 1)
    return np.clip(cv2.resize(coded, None, fx=0.7, fy=0.7) * 1.1 + 5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["cats8", "em_membrane", "coco_json_nuts", "drive"])
def test_copies_are_near_and_others_are_not(name: str, shared: Path) -> None:
    images = [read_image(path) for path in sorted((shared / "data" / name / "images").iterdir())]
    looks = [look(image) for image in images]
    assert near_pairs(looks) == []
    assert all(near(item, look(_copy(image))) for item, image in zip(looks, images))


def test_a_pair_hidden_in_neu_seg(shared: Path) -> None:
    """Of the two parts of the original set; the eye agrees."""
    folder = shared / "data" / "neu_seg" / "images"
    names = sorted(folder.iterdir())
    pairs = near_pairs([look(read_image(path)) for path in names])
    assert [(names[a].stem, names[b].stem) for a, b in pairs] == [("test_000043", "training_003863")]


def test_flat_pictures_are_not_near() -> None:
    assert near_pairs([look(np.full((40, 50, 3), 7, np.uint8)), look(np.full((40, 50, 3), 200, np.uint8))]) == []


def test_any_number_type_and_band_count() -> None:
    rng = np.random.default_rng(0)
    bands = rng.normal(size=(64, 48, 12)).astype(np.float32).cumsum(0).cumsum(1)
    assert near(look(bands), look((bands * 100).astype(np.int16)))


def test_chains_are_one_group() -> None:
    assert groups(6, [(0, 1), (1, 4), (2, 3)]) == [0, 0, 2, 2, 0, 5]
