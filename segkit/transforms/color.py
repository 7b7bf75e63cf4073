"""Transforms of pixel values. 8-bit images stay 8-bit until Normalize: tables of 256 entries instead of arithmetic."""

from __future__ import annotations

from typing import Literal

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import base
from segkit.transforms.base import Sample

_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's SMOOTH filter
_LEVELS = np.arange(256, dtype=np.float32)


@TRANSFORMS.register
class Normalize:
    """float32 (image / 255 - mean) / std. `mean` and `std`: one number for all bands, or one a band."""

    def __init__(self, mean: list[float] = (0.5,), std: list[float] = (0.5,)):
        for name, value in (("mean", mean), ("std", std)):
            good = isinstance(value, (list, tuple)) and len(value) > 0
            good = good and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
            base.require(good, self, name, value, "a list of numbers, one a band")
        base.require(all(v != 0 for v in std), self, "std", std, "numbers other than 0")
        base.require(
            len(mean) == len(std) or 1 in (len(mean), len(std)),
            self,
            "std",
            std,
            f"as many numbers as mean, {len(mean)}",
        )
        self.mean, self.std = np.array(mean, np.float64), np.array(std, np.float64)
        self._table = self._scaled(np.repeat(_LEVELS[None, :, None], max(len(mean), len(std)), 2))
        self._tables: dict[int, np.ndarray] = {}  # by bands; the samples of a batch share one

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["image"]
        self._check_bands(sample)
        if image.dtype == np.uint8:
            sample["image"] = cv2.LUT(image, self._table).reshape(image.shape)
        else:
            sample["image"] = self._scaled(image)
        return sample

    def postpone(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Leave an 8-bit image as it is and say in `normalize` what its values become; see segkit.transforms.late."""
        if sample["image"].dtype != np.uint8:
            return self(sample, rng)
        self._check_bands(sample)
        bands = sample["image"].shape[2]
        if bands not in self._tables:
            self._tables[bands] = np.ascontiguousarray(np.broadcast_to(self._table[0], (256, bands)))
        sample["normalize"] = self._tables[bands]
        return sample

    def _check_bands(self, sample: Sample) -> None:
        bands, given = sample["image"].shape[2], self._table.shape[2]
        if given not in (1, bands):
            raise InputError(
                f"{base.where(sample)}: Normalize does not fit the image (got {given} numbers in mean or std, the "
                f"image has {bands} bands). Give one number, or {bands}; or set img_channels of the data set."
            )

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        scaled = image.astype(np.float32) / np.float32(255)
        scaled -= self.mean
        scaled /= self.std
        return scaled


def _as_uint8(sample: Sample, owner: object) -> np.ndarray:
    """The image as 8 bits; float images are taken when they hold 0 to 255."""
    image = sample["image"]
    if image.dtype == np.uint8:
        return image
    if image.size and (image.min() < 0 or image.max() > 255):
        raise InputError(
            f"{base.where(sample)}: {type(owner).__name__} needs pixel values of 0 to 255 (got {image.dtype} from "
            f"{image.min():g} to {image.max():g}). It is for photos of 8 bits, before Normalize: move it there, and "
            "leave it out where photos have more bits."
        )
    return image.astype(np.uint8)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 image times `factor`, cut to 0-255 (Pillow's ImageEnhance.Brightness, truncating)."""
    return cv2.LUT(image, np.clip(_LEVELS * np.float32(factor), 0, 255).astype(np.uint8)).reshape(image.shape)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 image drawn towards (`factor` < 1) or away from its mean luminance (Pillow's ImageEnhance.Contrast)."""
    luminance = _luminance(image)
    mean = np.float32(int(cv2.mean(luminance.reshape(len(luminance), -1))[0] + 0.5))
    return cv2.LUT(image, np.clip(mean + np.float32(factor) * (_LEVELS - mean), 0, 255).astype(np.uint8)).reshape(
        image.shape
    )


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 RGB drawn towards or away from its gray version (Pillow's ImageEnhance.Color); other bands: unchanged."""
    if image.shape[2] != 3:
        return image
    gray = cv2.cvtColor(_luminance(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, gray, 1 - factor, 0)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """uint8 RGB with its hue turned by `shift` of 256 levels, through 8-bit HSV; other bands: unchanged."""
    if image.shape[2] != 3:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    rows = hsv.reshape(len(hsv), -1)  # whole rows of H, S, V, H, ...: 8-bit additions wrap as the hue does
    rows += np.tile(np.array([round(shift) % 256, 0, 0], np.uint8), image.shape[1])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 image drawn towards or away from its smoothed version, not the rim (Pillow's ImageEnhance.Sharpness)."""
    smooth = cv2.filter2D(image, -1, _SMOOTH).reshape(image.shape)
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0).reshape(image.shape)


def _luminance(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W] of RGB; of other band counts all bands side by side, for their mean."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image


@TRANSFORMS.register
class RandomDistort:
    """Brightness, contrast, saturation, hue and sharpness in random order, each with its probability.

    Factors are drawn from 1 - range to 1 + range, the hue shift from -`hue_range` to `hue_range` of 256 levels. The
    image stays uint8. Saturation and hue leave images of other than 3 bands alone.
    """

    _OPERATIONS = (brightness, contrast, saturation, hue, sharpness)

    def __init__(
        self,
        brightness_range: float = 0.5,
        brightness_prob: float = 0.5,
        contrast_range: float = 0.5,
        contrast_prob: float = 0.5,
        saturation_range: float = 0.5,
        saturation_prob: float = 0.5,
        hue_range: float = 18,
        hue_prob: float = 0.5,
        sharpness_range: float = 0.5,
        sharpness_prob: float = 0,
    ):
        self.ranges = (brightness_range, contrast_range, saturation_range, hue_range, sharpness_range)
        self.probs = (brightness_prob, contrast_prob, saturation_prob, hue_prob, sharpness_prob)
        for operation, spread, prob in zip(self._OPERATIONS, self.ranges, self.probs):
            base.check_at_least(self, f"{operation.__name__}_range", spread, 0)
            base.check_at_least(self, f"{operation.__name__}_prob", prob, 0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        order = rng.permutation(5)
        chances, draws = rng.random(5), rng.uniform(-1, 1, 5)
        image = None
        for index in order:
            if chances[index] < self.probs[index]:
                image = _as_uint8(sample, self) if image is None else image
                operation, amount = self._OPERATIONS[index], draws[index] * self.ranges[index]
                image = operation(image, amount if operation is hue else max(0.0, 1 + amount))
        if image is not None:
            sample["image"] = image.astype(sample["image"].dtype, copy=False)
        return sample


@TRANSFORMS.register
class RandomBlur:
    """With probability `prob` blur by a window of 3 to 9 pixels. `random` draws gaussian, median or box blur."""

    def __init__(self, prob: float = 0.1, blur_type: Literal["gaussian", "median", "blur", "random"] = "gaussian"):
        base.check_at_least(self, "prob", prob, 0)
        base.check_choice(self, "blur_type", blur_type, ["gaussian", "median", "blur", "random"])
        self.prob, self.blur_type = prob, blur_type

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        window = int(rng.integers(3, 10)) | 1
        kind, draw = self.blur_type, rng.random()
        if kind == "random":
            kind = "gaussian" if draw < 0.3 else "median" if draw < 0.6 else "blur"
        image = _as_uint8(sample, self)
        if kind == "gaussian":
            blurred = cv2.GaussianBlur(image, (window, window), 0)
        elif kind == "median":
            bands = image.shape[2]
            parts = [image] if bands in (1, 3, 4) else np.split(image, bands, axis=2)  # OpenCV knows no other numbers
            blurred = np.dstack([cv2.medianBlur(np.ascontiguousarray(part), window) for part in parts])
        else:
            blurred = cv2.blur(image, (window, window))
        sample["image"] = blurred.reshape(image.shape).astype(sample["image"].dtype, copy=False)
        return sample


@TRANSFORMS.register
class RandomNoise:
    """With probability `prob` add normal noise of a random standard deviation of at most `max_sigma`, of 255."""

    def __init__(self, prob: float = 0.5, max_sigma: float = 10.0):
        base.check_at_least(self, "prob", prob, 0)
        base.check_at_least(self, "max_sigma", max_sigma, 0)
        self.prob, self.max_sigma = prob, max_sigma

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        image = _as_uint8(sample, self)
        noise = rng.standard_normal(image.shape, np.float32)
        noise *= rng.random() * self.max_sigma
        noise += image
        np.clip(np.rint(noise, out=noise), 0, 255, out=noise)
        sample["image"] = noise.astype(sample["image"].dtype)
        return sample
