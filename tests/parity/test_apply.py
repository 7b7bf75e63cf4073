"""How a model is applied, against PaddleSeg's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from segkit.deploy.windows import windows_of
from segkit.engine import apply
from segkit.engine.apply import TestTime as How
from segkit.postprocess import class_map, undo
from tests.apply_cases import Conv


@pytest.mark.parametrize("name", ["slide_a", "slide_b", "slide_c", "slide_d"])
def test_windows_as_paddleseg(transform_cases, transform_arrays, name):
    case = next(case for case in transform_cases if case["name"] == name)
    how = How(windows=windows_of(*(case["slide"][key] for key in ("crop_size", "stride"))))
    found = apply.scores(Conv(transform_arrays["toy_w"]), transform_arrays["toy_x"], how)
    np.testing.assert_allclose(found, transform_arrays[f"{name}__img"], rtol=1e-6, atol=3e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", ["infer_plain", "aug_flip", "aug_ms", "aug_vh"])
def test_scales_and_flips_as_paddleseg(transform_cases, transform_arrays, name):
    case = next(case for case in transform_cases if case["name"] == name).get("aug", {})
    scales = case.get("scales", 1.0)
    how = How(
        scales=tuple(scales) if isinstance(scales, list) else (scales,),
        flip_horizontal=case.get("flip_horizontal", False),
        flip_vertical=case.get("flip_vertical", False),
    )
    found = apply.scores(Conv(transform_arrays["toy_w"]), transform_arrays["toy_x"], how)[0]
    geometry = [{"op": "resize", "from": [45, 60], "to": [40, 56]}]
    np.testing.assert_allclose(undo(found, geometry), transform_arrays[f"{name}__logit"][0], atol=1e-4)
    agreed = (class_map(found, geometry) == transform_arrays[f"{name}__pred"][0, 0]).mean()
    assert agreed > 0.999


def test_multilabel_as_paddleseg(transform_arrays):
    found = apply.scores(Conv(transform_arrays["toy_w"]), transform_arrays["toy_x"])[0]
    geometry = [{"op": "resize", "from": [45, 60], "to": [40, 56]}]
    agreed = class_map(found, geometry, multilabel=True) == transform_arrays["infer_multilabel__pred"][0]
    assert agreed.mean() > 0.999
