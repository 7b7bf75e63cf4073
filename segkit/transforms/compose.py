"""A chain of transforms."""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from segkit.transforms.base import Sample
from segkit.transforms.color import Normalize
from segkit.transforms.crop import RandomPaddingCrop
from segkit.transforms.flip_warp import RandomHorizontalFlip, RandomVerticalFlip
from segkit.transforms.late import is_postponed
from segkit.transforms.resize import Resizing
from segkit.transforms.targets import AddEdgeLabel, AddMultiLabelAuxiliaryCategory, GenerateInstanceTargets

_PIXEL_BLIND = (
    AddEdgeLabel,
    AddMultiLabelAuxiliaryCategory,
    GenerateInstanceTargets,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)


class Compose:
    """Transforms one after another: `(sample, rng) -> sample`, random by `rng` alone."""

    def __init__(self, transforms: Sequence[Callable[[Sample, np.random.Generator], Sample]]):
        self.transforms = list(transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """`sample` is left as it is; the result has its own dict and its own `geometry`."""
        sample = {**sample, "geometry": list(sample.get("geometry", ()))}
        late = self._late() if is_postponed() else None
        steps = iter(zip(self.transforms, [*self.transforms[1:], None]))
        for transform, following in steps:
            if isinstance(transform, Resizing) and isinstance(following, RandomPaddingCrop):
                sample = following.of_resized(sample, transform, rng)
                next(steps)
            elif transform is late:
                sample = transform.postpone(sample, rng)
            else:
                sample = transform(sample, rng)
        return sample

    def _late(self) -> Normalize | None:
        """The Normalize after which pixel values are not looked at any more."""
        for transform in reversed(self.transforms):
            if isinstance(transform, Normalize):
                return transform
            if not isinstance(transform, _PIXEL_BLIND):
                break
        return None
