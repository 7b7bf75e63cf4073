"""Transforms: classes `(sample, rng) -> sample`, found by name through `segkit.registry.TRANSFORMS`. No paddle."""

from __future__ import annotations

from segkit.transforms.base import LABEL_KEYS, Sample
from segkit.transforms.compose import Compose

__all__ = ["LABEL_KEYS", "Compose", "Sample"]
