"""Transforms that pad and crop. Sizes in configs are [width, height]; padding goes to the right and the bottom."""

from __future__ import annotations

import numpy as np

from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import base, window
from segkit.transforms.base import Sample
from segkit.transforms.resize import Resizing


@TRANSFORMS.register
class Padding:
    """Pad right and bottom to `target_size` [width, height]; a larger image is an error."""

    def __init__(
        self, target_size: list[int], im_padding_value: float | list[float] = 127.5, label_padding_value: int = 255
    ):
        self.width, self.height = base.check_size(self, "target_size", target_size)
        base.check_padding(self, im_padding_value, label_padding_value)
        self.im_value, self.label_value = im_padding_value, label_padding_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = base.size_of(sample)
        if height > self.height or width > self.width:
            raise InputError(
                f"{base.where(sample)}: the image does not fit into Padding (got {width}x{height}, target_size is "
                f"[{self.width}, {self.height}]). Enlarge target_size, or put Resize, ResizeByLong or LimitLong before."
            )
        return base.pad(sample, 0, 0, (self.height, self.width), self.im_value, self.label_value)


@TRANSFORMS.register
class PaddingByAspectRatio:
    """Pad right or bottom until width / height is `aspect_ratio`."""

    def __init__(
        self,
        aspect_ratio: float = 1,
        im_padding_value: float | list[float] = 127.5,
        label_padding_value: int = 255,
    ):
        base.check_positive(self, "aspect_ratio", aspect_ratio)
        base.check_padding(self, im_padding_value, label_padding_value)
        self.ratio, self.im_value, self.label_value = aspect_ratio, im_padding_value, label_padding_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = base.size_of(sample)
        if width / height > self.ratio:
            height = max(height, int(width / self.ratio))
        else:
            width = max(width, int(height * self.ratio))
        return base.pad(sample, 0, 0, (height, width), self.im_value, self.label_value)


@TRANSFORMS.register
class RandomPaddingCrop:
    """A random part of `crop_size` [width, height]; a smaller image is padded right and bottom first.

    With `category_max_ratio` below 1 a part is drawn up to `loop_times` more times until it shows two classes or more,
    none of which covers that share of its pixels (those of `ignore_index` not counted).
    """

    def __init__(
        self,
        crop_size: list[int] = (512, 512),
        im_padding_value: float | list[float] = 127.5,
        label_padding_value: int = 255,
        category_max_ratio: float | None = None,
        ignore_index: int = 255,
        loop_times: int = 10,
    ):
        self.width, self.height = base.check_size(self, "crop_size", crop_size)
        base.check_padding(self, im_padding_value, label_padding_value)
        if category_max_ratio is not None:
            base.check_positive(self, "category_max_ratio", category_max_ratio)
        base.check_at_least(self, "loop_times", loop_times, 1)
        self.im_value, self.label_value = im_padding_value, label_padding_value
        self.max_ratio = 1.0 if category_max_ratio is None else category_max_ratio
        self.ignore_index, self.loop_times = ignore_index, loop_times

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        canvas = self._canvas(*base.size_of(sample))
        sample = base.pad(sample, 0, 0, canvas, self.im_value, self.label_value)
        top, left = self._choose(canvas, sample.get("label"), rng)
        return base.crop(sample, top, left, (self.height, self.width))

    def of_resized(self, sample: Sample, resizing: Resizing, rng: np.random.Generator) -> Sample:
        """What `resizing` and then this transform would give, made of the part that is kept where that pays.

        The same draws and the same labels; pixel values differ by 1 of 255 at most.
        """
        target = resizing.target(*base.size_of(sample), rng)
        base.check_pixels(sample, *target[:2])
        size, crop = target[:2], (self.height, self.width)
        if not window.pays(sample, target, crop):
            return self(resizing.apply(sample, target), rng)
        canvas, label = self._canvas(*size), sample.get("label")
        if self.max_ratio < 1 and label is not None and label.ndim == 2:
            label = base.resize_array(label, *size, base.INTERPOLATIONS["NEAREST"])
            label = base.pad_array(label, 0, 0, canvas, self.label_value)
        place = self._choose(canvas, label, rng)
        return window.resize_and_crop(sample, size, canvas, place, crop, self.im_value, self.label_value)

    def _canvas(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after padding."""
        return max(height, self.height), max(width, self.width)

    def _choose(self, canvas: tuple[int, int], label: np.ndarray | None, rng: np.random.Generator) -> tuple[int, int]:
        """(top, left) of the part; `label` is that of the whole canvas where `category_max_ratio` asks for it."""
        top, left = self._draw(canvas, rng)
        if self.max_ratio < 1 and label is not None and label.ndim == 2:
            for _ in range(self.loop_times):
                if self._varied(label[top : top + self.height, left : left + self.width]):
                    break
                top, left = self._draw(canvas, rng)
        return top, left

    def _draw(self, canvas: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        return int(rng.integers(canvas[0] - self.height + 1)), int(rng.integers(canvas[1] - self.width + 1))

    def _varied(self, label: np.ndarray) -> bool:
        counts = np.bincount(label.ravel(), minlength=self.ignore_index + 1)
        counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.max_ratio


@TRANSFORMS.register
class RandomCenterCrop:
    """Cut a random number of pixels off the sides: at least `retain_ratio` [of width, of height] is left."""

    def __init__(self, retain_ratio: list[float] = (0.5, 0.5)):
        good = isinstance(retain_ratio, (list, tuple)) and len(retain_ratio) == 2
        good = good and all(isinstance(v, (int, float)) and 0 < v <= 1 for v in retain_ratio)
        base.require(good, self, "retain_ratio", retain_ratio, "two numbers above 0 and at most 1, of width and height")
        self.retain_ratio = retain_ratio

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = base.size_of(sample)
        left, width = self._cut(width, self.retain_ratio[0], rng)
        top, height = self._cut(height, self.retain_ratio[1], rng)
        return base.crop(sample, top, left, (height, width))

    @staticmethod
    def _cut(side: int, retain: float, rng: np.random.Generator) -> tuple[int, int]:
        """(offset, length): fewer than (1 - retain) of the pixels go, part of them before the offset."""
        lost = int(rng.integers(max(1, int(side * (1 - retain)))))
        return int(rng.integers(lost)) if lost else 0, side - lost


@TRANSFORMS.register
class ScalePadding:
    """Pad both sides of the shorter direction to a square, then resize to `target_size` [width, height], the image
    by cubic interpolation and the label by nearest (PaddleSeg: by cubic, which invents classes)."""

    def __init__(
        self,
        target_size: list[int] = (512, 512),
        im_padding_value: float | list[float] = 127.5,
        label_padding_value: int = 255,
    ):
        self.width, self.height = base.check_size(self, "target_size", target_size)
        base.check_padding(self, im_padding_value, label_padding_value)
        self.im_value, self.label_value = im_padding_value, label_padding_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = base.size_of(sample)
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        im_value = self.im_value
        if sample["image"].dtype == np.uint8:  # PaddleSeg truncates here, where Padding rounds: 127, not 128
            im_value = np.trunc(im_value)
        sample = base.pad(sample, top, left, (side, side), im_value, self.label_value)
        return base.resize(sample, self.height, self.width, "CUBIC")
