"""Data sets: found by name through `segkit.registry.DATASETS`. No paddle."""

from __future__ import annotations

from segkit.datasets.dataset import Dataset

__all__ = ["Dataset"]
