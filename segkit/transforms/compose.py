"""A chain of transforms."""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from segkit.transforms.base import Sample


class Compose:
    """Transforms one after another: `(sample, rng) -> sample`, random by `rng` alone."""

    def __init__(self, transforms: Sequence[Callable[[Sample, np.random.Generator], Sample]]):
        self.transforms = list(transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """`sample` is left as it is; the result has its own dict and its own `geometry`."""
        sample = {**sample, "geometry": list(sample.get("geometry", ()))}
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample
