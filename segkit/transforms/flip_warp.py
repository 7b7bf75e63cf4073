"""Random flips, rotations and other warps."""

from __future__ import annotations

import math

import numpy as np

from segkit._cv2 import cv2
from segkit.log import warn_once
from segkit.registry import TRANSFORMS
from segkit.transforms import base
from segkit.transforms.base import Sample


def _check_prob(owner: object, prob: float) -> None:
    """PaddleSeg takes 1 and above for always; a value far above is more likely a percentage, so it is said."""
    base.check_at_least(owner, "prob", prob, 0)
    if prob > 1:
        warn_once(f"{type(owner).__name__}: prob is a probability from 0 to 1; {prob} means always.")


@TRANSFORMS.register
class RandomHorizontalFlip:
    """Mirror left to right with probability `prob`."""

    def __init__(self, prob: float = 0.5):
        _check_prob(self, prob)
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return base.flip(sample, 1) if rng.random() < self.prob else sample


@TRANSFORMS.register
class RandomVerticalFlip:
    """Mirror upside down with probability `prob`."""

    def __init__(self, prob: float = 0.1):
        _check_prob(self, prob)
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return base.flip(sample, 0) if rng.random() < self.prob else sample


@TRANSFORMS.register
class RandomRotation:
    """Rotate by a random angle of at most `max_rotation` degrees; the canvas grows so that nothing is lost."""

    def __init__(
        self,
        max_rotation: float = 15,
        im_padding_value: float | list[float] = 127.5,
        label_padding_value: int = 255,
    ):
        base.check_at_least(self, "max_rotation", max_rotation, 0)
        base.check_padding(self, im_padding_value, label_padding_value)
        self.max_rotation, self.im_value, self.label_value = max_rotation, im_padding_value, label_padding_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.max_rotation == 0:
            return sample
        height, width = base.size_of(sample)
        center = width // 2, height // 2
        matrix = cv2.getRotationMatrix2D(center, rng.uniform(-self.max_rotation, self.max_rotation), 1.0)
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        size = int(height * cos + width * sin), int(height * sin + width * cos)
        matrix[:, 2] += size[1] / 2 - center[0], size[0] / 2 - center[1]
        return base.warp(sample, matrix, size, self.im_value, self.label_value)


@TRANSFORMS.register
class RandomScaleAspect:
    """A random part of at least `min_scale` of the area, its proportions from `aspect_ratio` to 1 / `aspect_ratio`,
    stretched back to the size of the image. Unchanged where either is 0 or ten draws do not fit."""

    def __init__(self, min_scale: float = 0.5, aspect_ratio: float = 0.33):
        base.require(0 <= min_scale <= 1, self, "min_scale", min_scale, "a share of the area from 0 to 1")
        base.require(0 <= aspect_ratio <= 1, self, "aspect_ratio", aspect_ratio, "a number from 0 to 1")
        self.min_scale, self.aspect_ratio = min_scale, aspect_ratio

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.min_scale == 0 or self.aspect_ratio == 0:
            return sample
        height, width = base.size_of(sample)
        for _ in range(10):
            area = height * width * rng.uniform(self.min_scale, 1.0)
            ratio = rng.uniform(self.aspect_ratio, 1.0 / self.aspect_ratio)
            part = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
            if rng.random() < 0.5:
                part = part[::-1]
            if 0 < part[0] < height and 0 < part[1] < width:
                top, left = int(rng.integers(height - part[0])), int(rng.integers(width - part[1]))
                return base.resize(base.crop(sample, top, left, part), height, width)
        return sample


@TRANSFORMS.register
class RandomAffine:
    """Scale, rotate and shift onto a canvas of `size` [width, height].

    The image is centred and scaled by a factor from `min_scale_factor` to `max_scale_factor` times the mean of the
    two that would fit it to `size`, rotated by at most `max_rotation` degrees about a point at most
    `translation_offset` pixels off the middle.
    """

    def __init__(
        self,
        size: list[int] = (224, 224),
        translation_offset: float = 0,
        max_rotation: float = 15,
        min_scale_factor: float = 0.75,
        max_scale_factor: float = 1.25,
        im_padding_value: float | list[float] = 128,
        label_padding_value: int = 255,
    ):
        self.width, self.height = base.check_size(self, "size", size)
        base.check_at_least(self, "translation_offset", translation_offset, 0)
        base.check_at_least(self, "max_rotation", max_rotation, 0)
        base.check_positive(self, "min_scale_factor", min_scale_factor)
        base.check_order(self, "min_scale_factor", min_scale_factor, "max_scale_factor", max_scale_factor)
        base.check_padding(self, im_padding_value, label_padding_value)
        self.offset, self.max_rotation = translation_offset, max_rotation
        self.low, self.high = min_scale_factor, max_scale_factor
        self.im_value, self.label_value = im_padding_value, label_padding_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        right, bottom = (max(1, side - 1) for side in reversed(base.size_of(sample)))
        x, y = (half / 2 + rng.uniform(-self.offset, self.offset) for half in (self.width, self.height))
        angle = math.radians(rng.uniform(-self.max_rotation, self.max_rotation))
        scale = rng.uniform(self.low, self.high) * (self.width / right + self.height / bottom) / 2
        a, b = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([[a, b, (1 - a) * x - b * y], [-b, a, b * x + (1 - a) * y]])
        centre = np.array([[1, 0, (self.width - right) / 2], [0, 1, (self.height - bottom) / 2], [0, 0, 1]])
        return base.warp(sample, turn @ centre, (self.height, self.width), self.im_value, self.label_value)
