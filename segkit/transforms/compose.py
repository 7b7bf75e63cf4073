"""A chain of transforms."""

from __future__ import annotations

from itertools import count
from typing import Any, Callable, Sequence

import numpy as np

from segkit.transforms.base import Sample
from segkit.transforms.color import Normalize
from segkit.transforms.crop import RandomPaddingCrop
from segkit.transforms.flip_warp import RandomHorizontalFlip, RandomVerticalFlip
from segkit.transforms.late import at_once, is_postponed
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
        with at_once():  # another Compose among the transforms does not know what follows it
            steps = iter(zip(count(), self.transforms, [*self.transforms[1:], None]))
            for number, transform, following in steps:
                if _is_own(transform, Resizing) and _is_own(following, RandomPaddingCrop):
                    sample = following.of_resized(sample, transform, rng)
                    next(steps)
                elif number == late:
                    sample = transform.postpone(sample, rng)
                else:
                    sample = transform(sample, rng)
        return sample

    def _late(self) -> int | None:
        """The number of the Normalize after which pixel values are not looked at any more."""
        for number, transform in reversed(list(enumerate(self.transforms))):
            if _is_own(transform, Normalize):
                return number
            if not _is_own(transform, _PIXEL_BLIND):
                break
        return None


def _is_own(transform: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether it is of one of `kinds` and does what that class does: not a user's subclass with other ideas."""
    return isinstance(transform, kinds) and type(transform).__module__.startswith(__package__ + ".")
