"""Transforms under which something surely happens, and pictures for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkit.registry import TRANSFORMS

# arguments under which a transform surely does something to a 48 x 64 sample
ACTIVE: dict[str, dict] = {
    "Resize": {"target_size": [40, 30], "interp": "RANDOM"},
    "ResizeByLong": {"long_size": 50},
    "ResizeByShort": {"short_size": [40, 60], "max_size": 70},
    "LimitLong": {"max_long": 50},
    "ResizeRangeScaling": {"min_value": 40, "max_value": 60},
    "ResizeStepScaling": {"min_scale_factor": 0.5, "max_scale_factor": 0.75, "scale_step_size": 0.05},
    "Normalize": {},
    "Padding": {"target_size": [70, 80]},
    "PaddingByAspectRatio": {"aspect_ratio": 1},
    "RandomPaddingCrop": {"crop_size": [50, 60], "category_max_ratio": 0.6},
    "RandomCenterCrop": {"retain_ratio": [0.5, 0.5]},
    "ScalePadding": {"target_size": [56, 60]},
    "RandomNoise": {"prob": 1},
    "RandomBlur": {"prob": 1, "blur_type": "random"},
    "RandomRotation": {"max_rotation": 30},
    "RandomScaleAspect": {},
    "RandomDistort": {"brightness_prob": 1, "sharpness_prob": 1, "hue_prob": 1},
    "RandomAffine": {"size": [60, 50], "translation_offset": 5},
    "RandomHorizontalFlip": {"prob": 1},
    "RandomVerticalFlip": {"prob": 1},
    "AddEdgeLabel": {},
    "AddMultiLabelAuxiliaryCategory": {},
    "GenerateInstanceTargets": {"num_classes": 9},
    "Albumentations": {"transforms": [{"type": "Affine", "rotate": [-40, 40], "p": 1}]},
}


def make(name: str, **changes: Any) -> Any:
    if name == "Albumentations":
        pytest.importorskip("albumentations", reason="the optional extra albumentations is not installed")
    return TRANSFORMS.get(name)(**{**ACTIVE[name], **changes})


def picture(height: int = 48, width: int = 64, bands: int = 3) -> dict:
    """A sample whose image shows its label: class k is gray level 60 k, so that both can be compared."""
    y, x = np.mgrid[0:height, 0:width]
    label = ((x // 16 + y // 12) % 4).astype(np.uint8)
    return {"image": np.repeat((label * 60)[..., None], bands, 2), "label": label, "path": "cat.jpg", "geometry": []}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
