"""Palettes against the published VOC colours and hand-written lists."""

from __future__ import annotations

import numpy as np
import pytest

from segkit.errors import InputError
from segkit.palette import check_palette, parse_custom_color, voc_palette


def test_voc_palette_is_the_published_one() -> None:
    # the 21 classes and the void colour of the PASCAL VOC 2012 labels
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 21: (128, 64, 128), 255: (224, 224, 192)}
    palette = voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert {k: tuple(int(v) for v in palette[k]) for k in known} == known
    assert len(np.unique(palette, axis=0)) == 256


def test_voc_palette_of_any_length() -> None:
    assert voc_palette(3).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_custom_color() -> None:
    assert parse_custom_color([0, 0, 0, 255, 1, 2], 2).tolist() == [[0, 0, 0], [255, 1, 2]]
    with pytest.raises(InputError, match=r"got 4, expected 3 for each of 2 classes = 6"):
        parse_custom_color([0, 0, 0, 255], 2)
    with pytest.raises(InputError, match=r"colours out of range \(got \[256, -1\]"):
        parse_custom_color([0, 0, 256, 1, 2, -1], 2)


@pytest.mark.parametrize("bad", [[[0, 0]], [[0, 0, 0], [1, 2]], [[0, 0, 300]], "red", [[0.5, 0, 0]]])
def test_check_palette_refuses(bad: object) -> None:
    with pytest.raises(InputError, match=r"data\.yml: not a palette .*one triple"):
        check_palette(bad, "data.yml")


def test_check_palette_takes_lists() -> None:
    assert check_palette([[0, 0, 0], [255, 255, 255]], "x").dtype == np.uint8
