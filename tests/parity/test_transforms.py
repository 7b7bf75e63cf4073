"""Every transform, and the undoing of geometry, against PaddleSeg's reference arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkit import postprocess
from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose, color
from tests.transform_cases import rng


def run_case(case: dict, arrays: Any) -> dict:
    image = arrays[case["img"]].astype(case["img_dtype"])
    image = image if image.ndim == 3 else image[..., None]
    if case["compose"] is not None and case["compose"].get("to_rgb", True) and image.shape[2] == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    chain = [TRANSFORMS.get(node["type"])(**{k: v for k, v in node.items() if k != "type"}) for node in case["ops"]]
    return Compose(chain)({"image": image, "label": arrays[case["label"]]}, rng())


def test_paddleseg_reference_arrays(transform_cases: list[dict], transform_arrays: Any) -> None:
    arrays = transform_arrays
    cases = [case for case in transform_cases if "ops" in case and "error" not in case]
    assert len(cases) > 80
    for case in cases:
        name, got = case["name"], run_case(case, arrays)
        want, label = arrays[f"{name}__img"], arrays[f"{name}__label"]
        image, got_label = got["image"], got["label"]
        if case["compose"] is not None:  # PaddleSeg's Compose ends with bands first
            image = image.transpose(2, 0, 1)
            got_label = got_label.transpose(2, 0, 1) if got_label.ndim == 3 else got_label
        assert image.dtype == want.dtype and got_label.dtype == label.dtype, name
        difference = np.abs(image.reshape(want.shape).astype(float) - want).max()
        assert difference <= (1 if want.dtype == np.uint8 or want.max() > 2 else 1e-5), (name, difference)
        if name.startswith("scalepad"):
            continue  # reference: cubic labels; here nearest, see test_scale_padding_invents_no_class
        if name == "pad_multilabel":  # reference: only the first plane gets the ignore value
            label = label.copy()
            label[37:], label[:, 53:] = 255, 255
        assert np.array_equal(got_label, label), name
        if name == "add_edge":
            assert np.array_equal(got["edge"], arrays["add_edge__edge"])
        if name == "instances":
            for key in ("image_shape", "gt_classes", "gt_masks"):
                assert np.array_equal(got["instances"][key], arrays[f"instances__inst_{key}"]), key


def test_what_paddleseg_refuses_is_refused(transform_cases: list[dict], transform_arrays: Any) -> None:
    arrays = transform_arrays
    # the band count of compose_4ch_declared3 is the reader's business here
    refused = [case for case in transform_cases if "error" in case and case["name"] != "compose_4ch_declared3"]
    assert len(refused) == 5
    for case in refused:
        with pytest.raises(InputError, match=case["ops"][0]["type"]):
            run_case(case, arrays)


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "sharpness", "hue"])
def test_colour_operations_against_paddleseg(
    operation: str, transform_cases: list[dict], transform_arrays: Any
) -> None:
    arrays = transform_arrays
    cases = [case for case in transform_cases if case.get("functional") == operation]
    assert len(cases) >= 2
    for case in cases:
        got = getattr(color, operation)(arrays["img"], case["lower"])
        difference = np.abs(got.astype(float) - arrays[f"{case['name']}__img"])
        if operation == "hue":  # both go through 8-bit HSV, which OpenCV rounds and Pillow truncates
            assert difference.mean() < 1.2 and np.percentile(difference, 99) <= 7, case["name"]
        else:
            assert difference.max() <= (0 if operation in ("brightness", "contrast") else 1), case["name"]


def test_paddleseg_reverse_transforms(transform_cases: list[dict], transform_arrays: Any) -> None:
    arrays = transform_arrays
    cases = [case for case in transform_cases if "reverse" in case]
    assert len(cases) == 6
    for case in cases:
        scores = arrays[case["logit"]][0]
        sizes = [size for _, size in case["reverse"]] + [list(scores.shape[1:])]
        geometry = []
        for (op, size), to in zip(case["reverse"], sizes[1:]):
            step = {"op": "resize", "from": size, "to": to}
            geometry.append({**step, "op": "pad", "top": 0, "left": 0} if op == "padding" else step)
        got = postprocess.undo(scores, geometry, "linear" if case["mode"] == "bilinear" else "nearest")
        np.testing.assert_allclose(got, arrays[f"{case['name']}__img"][0], atol=3e-5, err_msg=case["name"])
