"""Canny's edges as operations on tensors, beside OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import paddle
import pytest

from segkit.models.canny import canny

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def fading() -> np.ndarray:
    """A step between two halves that is sure at the left, weak from the middle on, and ends before the right."""
    image = np.full((20, 300, 3), 100, np.uint8)
    image[10:] += np.linspace(60, 0, 300).astype(np.uint8)[:, None]
    return image


IMAGES = {
    "noise": noise(97, 131, 3),
    "one band": noise(33, 47, 1),
    "four bands": noise(33, 47, 4),
    "one pixel": noise(1, 1, 3),
    "narrow": noise(1, 40, 3),
    "smooth": cv2.GaussianBlur(noise(120, 160, 3), (0, 0), 3),
    "smoother": cv2.GaussianBlur(noise(120, 160, 3), (0, 0), 7),
    "fading": fading(),
    "weak part": fading()[:, 200:],
    "flat": np.full((8, 9, 3), 7, np.uint8),
}


@pytest.mark.parametrize("name", IMAGES)
def test_edges_are_opencvs(name):
    image = IMAGES[name]
    found = canny(paddle.to_tensor(image.transpose(2, 0, 1)[None].astype("float32")), 10, 100)
    assert found.stop_gradient and found.shape == [1, 1, *image.shape[:2]]
    np.testing.assert_array_equal(found[0, 0].numpy(), cv2.Canny(image, 10, 100) / 255)


def test_weak_edges_count_where_they_hang_together_with_sure_ones():
    whole, part = (cv2.Canny(IMAGES[name], 10, 100) for name in ("fading", "weak part"))
    assert whole[:, 200:270].any(0).all() and not part.any()
