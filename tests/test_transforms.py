"""The promises that hold for every transform; tests/parity has PaddleSeg's arrays."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from segkit.registry import TRANSFORMS
from segkit.transforms import Compose, base, color
from segkit.transforms.crop import Padding, PaddingByAspectRatio
from segkit.transforms.resize import ResizeByShort
from tests.transform_cases import ACTIVE, make, picture, rng

GEOMETRIC = [
    name
    for name in ACTIVE
    if name not in ("Normalize", "RandomNoise", "RandomBlur", "RandomDistort")
    and not name.startswith(("Add", "Generate"))
]


def test_the_list_is_complete() -> None:
    assert sorted(ACTIVE) == TRANSFORMS.names()


def test_colour_operations_against_pillow() -> None:
    image = rng(3).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    pillow = {
        color.brightness: ImageEnhance.Brightness,
        color.contrast: ImageEnhance.Contrast,
        color.saturation: ImageEnhance.Color,
        color.sharpness: ImageEnhance.Sharpness,
    }
    for operation, enhancer in pillow.items():
        for factor in (0.0, 0.63, 1.0, 1.4):
            want = np.asarray(enhancer(Image.fromarray(image)).enhance(factor)).astype(int)
            assert np.abs(operation(image, factor) - want).max() <= 1, (operation.__name__, factor)
    assert np.abs(color.hue(image, 256).astype(int) - color.hue(image, 0)).max() == 0


# ------------------------------------------------------------------ promises of every transform


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_random_by_the_generator_alone_and_arrays_untouched(name: str) -> None:
    transform = make(name)
    sample = picture()
    if name == "AddMultiLabelAuxiliaryCategory":
        sample["label"] = (sample["label"][..., None] == [1, 2]).astype(np.uint8)
    image, label = sample["image"].copy(), sample["label"].copy()
    sample["image"].flags.writeable = sample["label"].flags.writeable = False
    results = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)
        before = random.getstate(), np.random.get_state()[1].tolist()
        results.append(Compose([transform])(sample, rng(5)))
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    first, second = results
    assert np.array_equal(first["image"], second["image"]) and np.array_equal(first["label"], second["label"])
    assert np.array_equal(sample["image"], image) and np.array_equal(sample["label"], label)
    assert sample["geometry"] == [] and first["image"].ndim == 3
    json.dumps(first["geometry"])
    other = [Compose([transform])(picture() if label.ndim == 2 else sample, rng(seed)) for seed in range(6, 14)]
    if name.startswith("Random") and name not in ("RandomHorizontalFlip", "RandomVerticalFlip"):
        assert any(o["image"].shape != first["image"].shape or (o["image"] != first["image"]).any() for o in other), (
            "no two draws differ"
        )


@pytest.mark.parametrize("name", GEOMETRIC)
def test_image_and_label_stay_together(name: str) -> None:
    """Where the label says class k the image is of gray level 60 k, but for the pixels beside a border."""
    pad = {"im_padding_value": 240} if "padding_value" in " ".join(make(name).__init__.__code__.co_varnames) else {}
    if name == "Albumentations":
        pad = {"transforms": [{"type": "Affine", "rotate": [20, 40], "p": 1, "fill": 240}]}
    transform = make(name, **pad)
    for seed in range(4):
        out = Compose([transform])(picture(), rng(seed))
        image, label = out["image"], out["label"]
        assert image.shape[:2] == label.shape and set(np.unique(label)) <= {0, 1, 2, 3, 255}
        expected = np.where(label == 255, 240, label.astype(int) * 60)
        assert (np.abs(image[..., 0].astype(int) - expected) <= 20).mean() > 0.75, (name, seed)
        assert out["geometry"], "the step is recorded"
        assert out["geometry"][-1].get("to", list(label.shape)) == list(label.shape)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands_and_label_planes(name: str, bands: int) -> None:
    if name == "Albumentations" and bands == 13:
        pytest.skip("the bands that another library takes are its own affair")
    transform = make(name)
    sample = picture(bands=bands)
    sample["edge"] = sample["label"] % 2
    sample["label"] = (sample["label"][..., None] == np.arange(5)).astype(np.uint8)
    out = Compose([transform])(sample, rng(1))
    height, width = out["image"].shape[:2]
    assert out["image"].shape == (height, width, bands) and out["image"].dtype == np.uint8
    assert out["label"].shape == (height, width, 5) and out["edge"].shape == (height, width)
    assert set(np.unique(out["label"])) <= {0, 1, 255}
    padded = (out["label"] == 255).any(2)
    assert ((out["label"] == 255).all(2) == padded).all(), "the ignore value is in every plane"
    assert ((out["edge"] == 255) == padded).all()


@pytest.mark.parametrize("name", GEOMETRIC)
def test_labels_of_many_classes_and_images_without_label(name: str) -> None:
    if name == "Albumentations":
        pytest.skip("the label types that another library takes are its own affair")
    sample = picture()
    sample["label"] = sample["label"].astype(np.int32) + 300
    out = Compose([make(name)])(sample, rng(1))
    assert out["label"].dtype == np.int32 and set(np.unique(out["label"])) <= {255, 300, 301, 302, 303}
    bare = Compose([make(name)])({"image": picture()["image"]}, rng(1))
    if name != "RandomPaddingCrop":  # the label decides where it crops
        assert np.array_equal(bare["image"], out["image"])


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_float_images(name: str) -> None:
    sample = picture()
    if name == "AddMultiLabelAuxiliaryCategory":
        sample["label"] = sample["label"][..., None]
    as_bytes = Compose([make(name)])({**sample}, rng(2))["image"]
    as_float = Compose([make(name)])({**sample, "image": sample["image"].astype(np.float32)}, rng(2))["image"]
    assert as_float.dtype == np.float32 and as_float.shape == as_bytes.shape
    if name not in ("Resize", "ScalePadding"):  # cubic overshoots 0-255 in floats
        np.testing.assert_allclose(as_float, as_bytes, atol=1)


def test_no_transform_makes_more_pixels_than_allowed(monkeypatch):
    def made(transform, *size):
        return transform({"image": np.zeros((*size, 3), np.uint8), "path": "a.png"}, np.random.default_rng(0))

    cases = ((ResizeByShort(50), (1, 900)), (PaddingByAspectRatio(1), (900, 1)), (Padding([1500, 800]), (2, 2)))
    for transform, size in cases:
        monkeypatch.setenv("SEGKIT_MAX_PIXELS", "100000")
        with pytest.raises(
            base.TooLarge, match=r"a\.png: the transforms would make too many pixels .* at most 100,000"
        ):
            made(transform, *size)
        monkeypatch.delenv("SEGKIT_MAX_PIXELS")
        made(transform, *size)
        with base.at_most(1000), pytest.raises(base.TooLarge, match="at most 1,000 in all"):
            made(transform, *size)
