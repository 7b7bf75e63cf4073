"""Transforms that change the size of the whole image. Sizes in configs are [width, height], as in PaddleSeg."""

from __future__ import annotations

import math
from typing import Literal, Tuple

import numpy as np

from segkit.registry import TRANSFORMS
from segkit.transforms import base
from segkit.transforms.base import INTERPOLATIONS, Sample

Target = Tuple[int, int, str]
"""height, width and a name of INTERPOLATIONS"""


def _scaled(height: int, width: int, scale: float) -> Target:
    """Both sides times `scale`, rounded half to even as Python does."""
    return round(height * scale), round(width * scale), "LINEAR"


class Resizing:
    """A transform that is known by the size it gives, so that a crop after it can do without the rest."""

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        """What an image of that size becomes. Draws what is random about it."""
        raise NotImplementedError

    def apply(self, sample: Sample, target: Target) -> Sample:
        """The image and its labels at that size."""
        return base.resize(sample, *target)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.apply(sample, self.target(*base.size_of(sample), rng))


@TRANSFORMS.register
class Resize(Resizing):
    """Resize to `target_size` [width, height].

    `keep_ratio`: the largest size of the image's proportions whose long side is at most the longer number and whose
    short side is at most the shorter one. `size_divisor`: sides are then rounded up to its multiples.
    `interp` RANDOM draws one of the five methods for every image; labels are always NEAREST.
    """

    def __init__(
        self,
        target_size: list[int] = (512, 512),
        interp: Literal["NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4", "RANDOM"] = "LINEAR",
        keep_ratio: bool = False,
        size_divisor: int | None = None,
    ):
        self.width, self.height = base.check_size(self, "target_size", target_size)
        base.check_choice(self, "interp", interp, [*INTERPOLATIONS, "RANDOM"])
        if size_divisor is not None:
            base.check_at_least(self, "size_divisor", size_divisor, 1)
        self.interp, self.keep_ratio, self.size_divisor = interp, keep_ratio, size_divisor

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        interp = self.interp
        if interp == "RANDOM":
            interp = list(INTERPOLATIONS)[rng.integers(len(INTERPOLATIONS))]
        sides, (height, width) = (height, width), (self.height, self.width)
        if self.keep_ratio:
            scale = min(max(width, height) / max(sides), min(width, height) / min(sides))
            height, width = (int(side * scale + 0.5) for side in sides)
        if self.size_divisor:
            height, width = (math.ceil(side / self.size_divisor) * self.size_divisor for side in (height, width))
        return height, width, interp


@TRANSFORMS.register
class ResizeByLong(Resizing):
    """Resize so that the long side is `long_size` pixels."""

    def __init__(self, long_size: int):
        base.check_at_least(self, "long_size", long_size, 1)
        self.long_size = long_size

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        return _scaled(height, width, self.long_size / max(height, width))


@TRANSFORMS.register
class ResizeByShort(Resizing):
    """Resize so that the short side is `short_size` pixels (one of them at random where it is a list).

    Where the long side would pass `max_size`, the short side becomes smaller for this image (for this one only;
    PaddleSeg keeps the smaller value for all that follow).
    """

    def __init__(self, short_size: int | list[int], max_size: float | None = None):
        self.sizes = list(short_size) if isinstance(short_size, (list, tuple)) else [short_size]
        base.require(len(self.sizes) > 0, self, "short_size", short_size, "a number or a list of numbers")
        for size in self.sizes:
            base.check_at_least(self, "short_size", size, 1)
        if max_size is not None:
            base.check_at_least(self, "max_size", max_size, 1)
        self.max_size = math.inf if max_size is None else max_size

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        short, long = sorted((height, width))
        size = self.sizes[0] if len(self.sizes) == 1 else self.sizes[rng.integers(len(self.sizes))]
        if size / short * long > self.max_size:
            size = max(1, int(self.max_size / long * short))
        return _scaled(height, width, size / short)


@TRANSFORMS.register
class LimitLong(Resizing):
    """Resize only images whose long side is above `max_long` or below `min_long`, to that limit."""

    def __init__(self, max_long: int | None = None, min_long: int | None = None):
        for name, value in (("max_long", max_long), ("min_long", min_long)):
            if value is not None:
                base.check_at_least(self, name, value, 1)
        if max_long is not None and min_long is not None:
            base.check_order(self, "min_long", min_long, "max_long", max_long)
        self.max_long, self.min_long = max_long, min_long

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        long = max(height, width)
        if self.max_long is not None and long > self.max_long:
            return _scaled(height, width, self.max_long / long)
        if self.min_long is not None and long < self.min_long:
            return _scaled(height, width, self.min_long / long)
        return height, width, "LINEAR"

    def apply(self, sample: Sample, target: Target) -> Sample:
        return sample if target[:2] == base.size_of(sample) else super().apply(sample, target)


@TRANSFORMS.register
class ResizeRangeScaling(Resizing):
    """Resize so that the long side is a random number of pixels from `min_value` to `max_value`."""

    def __init__(self, min_value: int = 400, max_value: int = 600):
        base.check_at_least(self, "min_value", min_value, 1)
        base.check_order(self, "min_value", min_value, "max_value", max_value)
        self.min_value, self.max_value = min_value, max_value

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        long = int(rng.uniform(self.min_value, self.max_value) + 0.5)
        return _scaled(height, width, long / max(height, width))


@TRANSFORMS.register
class ResizeStepScaling(Resizing):
    """Scale by a random factor from `min_scale_factor` to `max_scale_factor` in steps of `scale_step_size` (0: any)."""

    def __init__(self, min_scale_factor: float = 0.75, max_scale_factor: float = 1.25, scale_step_size: float = 0.25):
        base.check_positive(self, "min_scale_factor", min_scale_factor)
        base.check_order(self, "min_scale_factor", min_scale_factor, "max_scale_factor", max_scale_factor)
        base.check_at_least(self, "scale_step_size", scale_step_size, 0)
        self.low, self.high = min_scale_factor, max_scale_factor
        self.factors = None
        if scale_step_size > 0:
            # the small number keeps 0.5 to 2.0 in steps of 0.1 at 16 factors where the division gives 14.999...
            count = int((max_scale_factor - min_scale_factor) / scale_step_size + 1 + 1e-9)
            self.factors = np.linspace(min_scale_factor, max_scale_factor, count) if count > 1 else [min_scale_factor]

    def target(self, height: int, width: int, rng: np.random.Generator) -> Target:
        if self.factors is None:
            return _scaled(height, width, rng.uniform(self.low, self.high))
        return _scaled(height, width, float(self.factors[rng.integers(len(self.factors))]))
