"""What single transforms promise, and what is wrong with their arguments."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose
from tests.transform_cases import make, picture, rng

# ------------------------------------------------------------------ single transforms


def test_probabilities_are_kept() -> None:
    for prob in (0.0, 0.3, 1.0):
        flip, draws = make("RandomHorizontalFlip", prob=prob), rng(0)
        flipped = np.mean([bool(flip(picture(4, 4), draws)["geometry"]) for _ in range(400)])
        assert abs(flipped - prob) < 0.07


def test_step_scaling_draws_every_step() -> None:
    transform, draws = make("ResizeStepScaling", min_scale_factor=0.5, max_scale_factor=2, scale_step_size=0.25), rng(0)
    heights = {transform(picture(40, 40), draws)["image"].shape[0] for _ in range(200)}
    assert heights == {20, 30, 40, 50, 60, 70, 80}
    anything = make("ResizeStepScaling", min_scale_factor=0.5, max_scale_factor=2, scale_step_size=0)
    assert len({anything(picture(40, 40), draws)["image"].shape[0] for _ in range(100)}) > 30


def test_resize_by_short_forgets_the_last_image() -> None:
    transform = make("ResizeByShort", short_size=60, max_size=70)
    assert transform(picture(37, 53), rng())["image"].shape[:2] == (48, 69)
    assert transform(picture(60, 64), rng())["image"].shape[:2] == (60, 64)


def test_category_max_ratio_finds_varied_crops() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[40:60, 40:60] = 1
    label[:, :10] = 255
    sample = {"image": np.zeros((100, 100, 3), np.uint8), "label": label}
    plain, varied = (
        np.mean([len(np.unique(t({**sample}, rng(s))["label"])) > 1 for s in range(60)])
        for t in (
            make("RandomPaddingCrop", crop_size=[24, 24], category_max_ratio=None),
            make("RandomPaddingCrop", crop_size=[24, 24], category_max_ratio=0.9, loop_times=30),
        )
    )
    assert varied > plain + 0.2
    ratios = []
    for seed in range(30):
        crop = make("RandomPaddingCrop", crop_size=[24, 24], category_max_ratio=0.9, loop_times=200)
        counts = np.bincount(crop({**sample}, rng(seed))["label"].ravel(), minlength=256)[:255]
        ratios.append(counts.max() / counts.sum())
    assert max(ratios) < 0.9


def test_scale_padding_invents_no_class() -> None:
    out = make("ScalePadding")(picture(), rng())
    assert set(np.unique(out["label"])) == {0, 1, 2, 3, 255}
    assert out["geometry"][0]["top"] == 8 and (out["label"][0] == 255).all() and (out["label"][-1] == 255).all()


def test_rotation_loses_nothing() -> None:
    white = {"image": np.full((40, 60, 3), 200, np.uint8), "label": np.ones((40, 60), np.uint8)}
    out = make("RandomRotation", max_rotation=45, im_padding_value=[0, 0, 0])(white, rng(3))
    assert out["image"].shape[0] > 40 and abs((out["label"] == 1).sum() - 2400) < 120
    assert (out["image"][out["label"] == 255] < 150).mean() > 0.95


def test_affine_without_randomness_centres_the_image() -> None:
    sample = picture(50, 50)
    same = {"size": [50, 50], "max_rotation": 0, "translation_offset": 0}
    out = make("RandomAffine", min_scale_factor=1, max_scale_factor=1, **same)(dict(sample), rng())
    assert (out["label"] == sample["label"]).mean() > 0.9
    out = make("RandomAffine", min_scale_factor=0.5, max_scale_factor=0.5, **same)(dict(sample), rng())
    inside = np.argwhere(out["label"] != 255)
    assert np.abs(inside.mean(0) - 24.5).max() <= 1 and np.abs(np.ptp(inside, 0) - 25).max() <= 2


def test_noise_and_blur_do_what_they_say() -> None:
    flat = {"image": np.full((64, 64, 3), 128, np.uint8)}
    spread = [make("RandomNoise", max_sigma=20)(dict(flat), rng(s))["image"].std() for s in range(20)]
    assert 0 < min(spread) < 5 and 14 < max(spread) < 21
    stripes = {"image": np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None].repeat(3, 2)}
    for kind in ("gaussian", "median", "blur"):
        blurred = make("RandomBlur", blur_type=kind)({"image": stripes["image"].copy()}, rng(1))["image"]
        assert (blurred != stripes["image"]).any() and blurred.dtype == np.uint8
        for bands in (1, 2, 5, 13):  # a band is blurred as it is alone
            image = rng(bands).integers(0, 256, (20, 20, bands), np.uint8)
            blur = make("RandomBlur", blur_type=kind, prob=1)
            got = blur({"image": image}, rng(1))["image"]
            alone = [blur({"image": image[..., [band]]}, rng(1))["image"] for band in range(bands)]
            assert np.array_equal(got, np.concatenate(alone, 2))
    untouched = make("RandomBlur", prob=0)(dict(stripes), rng())["image"]
    assert untouched is stripes["image"]


def test_distort_needs_pixel_values() -> None:
    chain = Compose([make("Normalize"), make("RandomDistort")])
    with pytest.raises(InputError, match=r"cat\.jpg: RandomDistort needs pixel values of 0 to 255 .*before Normalize"):
        chain(picture(), rng())
    deep = {**picture(), "image": np.full((8, 8, 3), 3000, np.float32)}
    with pytest.raises(InputError, match=r"float32 from 3000 to 3000\).*leave it out where photos have more bits"):
        make("RandomDistort", brightness_prob=1)(deep, rng())


def test_edge_label_follows_the_geometry() -> None:
    sample = Compose([make("AddEdgeLabel")])(picture(), rng())
    assert set(np.unique(sample["edge"])) == {0, 1} and sample["edge"].dtype == np.uint8
    later = Compose([make("AddEdgeLabel"), make("RandomHorizontalFlip")])(picture(), rng())
    assert np.array_equal(later["edge"], sample["edge"][:, ::-1])
    many = picture()
    many["label"] = many["label"].astype(np.int32) * 500
    assert np.array_equal(make("AddEdgeLabel")(many, rng())["edge"], sample["edge"])


def test_target_transforms_say_what_they_need() -> None:
    sample = picture()
    with pytest.raises(InputError, match=r"cat\.jpg: AddMultiLabelAuxiliaryCategory needs a label plane a class"):
        make("AddMultiLabelAuxiliaryCategory")(dict(sample), rng())
    planes = {**sample, "label": sample["label"][..., None]}
    with pytest.raises(InputError, match=r"cat\.jpg: GenerateInstanceTargets needs one class number a pixel"):
        make("GenerateInstanceTargets")(planes, rng())
    with pytest.raises(InputError, match=r"more classes than GenerateInstanceTargets expects \(got \[0, 1, 2, 3\]"):
        make("GenerateInstanceTargets", num_classes=3)(dict(sample), rng())
    with pytest.raises(InputError, match=r"cat\.jpg: .*Put GenerateInstanceTargets last"):
        Compose([make("GenerateInstanceTargets"), make("RandomHorizontalFlip")])(sample, rng())
    for name in ("AddEdgeLabel", "AddMultiLabelAuxiliaryCategory", "GenerateInstanceTargets"):
        assert set(make(name)({"image": sample["image"]}, rng())) == {"image"}


def test_images_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"cat\.jpg: the image does not fit into Padding \(got 64x48.*\[60, 60\]"):
        make("Padding", target_size=[60, 60])(picture(), rng())
    with pytest.raises(InputError, match=r"cat\.jpg: Normalize does not fit the image \(got 3 numbers.*4 bands"):
        make("Normalize", mean=[0.5] * 3, std=[0.5] * 3)(picture(bands=4), rng())
    with pytest.raises(InputError, match=r"cat\.jpg: im_padding_value does not fit the image \(got \[1.0, 2.0, 3.0\]"):
        make("Padding", im_padding_value=[1, 2, 3])(picture(bands=4), rng())
    with pytest.raises(InputError, match=r"cat\.jpg: resizing leaves nothing of the image"):
        make("ResizeByLong", long_size=1)(picture(2, 200), rng())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Resize", {"target_size": [512]}),
        ("Resize", {"target_size": 512}),
        ("Resize", {"target_size": [0, 512]}),
        ("Resize", {"interp": "BICUBIC"}),
        ("Resize", {"size_divisor": 0}),
        ("ResizeByLong", {"long_size": 0}),
        ("ResizeByShort", {"short_size": []}),
        ("ResizeByShort", {"max_size": 0}),
        ("LimitLong", {"min_long": 60}),
        ("LimitLong", {"max_long": -1}),
        ("ResizeRangeScaling", {"min_value": 61}),
        ("ResizeStepScaling", {"min_scale_factor": 1}),
        ("ResizeStepScaling", {"min_scale_factor": 0}),
        ("ResizeStepScaling", {"scale_step_size": -1}),
        ("Normalize", {"std": [0.5, 0]}),
        ("Normalize", {"mean": 0.5}),
        ("Normalize", {"std": [1, 2, 3], "mean": [1, 2]}),
        ("Padding", {"target_size": [1, 2, 3]}),
        ("Padding", {"label_padding_value": -1}),
        ("Padding", {"im_padding_value": "gray"}),
        ("PaddingByAspectRatio", {"aspect_ratio": 0}),
        ("RandomPaddingCrop", {"crop_size": [1, 2, 3]}),
        ("RandomPaddingCrop", {"category_max_ratio": 0}),
        ("RandomPaddingCrop", {"loop_times": 0}),
        ("RandomCenterCrop", {"retain_ratio": [0.5, 1.5]}),
        ("ScalePadding", {"target_size": [-1, 2]}),
        ("RandomNoise", {"max_sigma": -1}),
        ("RandomNoise", {"prob": -1}),
        ("RandomBlur", {"blur_type": "box"}),
        ("RandomBlur", {"prob": -0.1}),
        ("RandomRotation", {"max_rotation": -5}),
        ("RandomScaleAspect", {"min_scale": 2}),
        ("RandomScaleAspect", {"aspect_ratio": 3}),
        ("RandomDistort", {"hue_range": -1}),
        ("RandomDistort", {"sharpness_prob": -1}),
        ("RandomAffine", {"size": [1, 2, 3]}),
        ("RandomAffine", {"min_scale_factor": 2}),
        ("RandomAffine", {"translation_offset": -1}),
        ("RandomHorizontalFlip", {"prob": -0.5}),
        ("RandomVerticalFlip", {"prob": "often"}),
        ("GenerateInstanceTargets", {"num_classes": 0}),
        ("Albumentations", {"transforms": "HorizontalFlip"}),
        ("Albumentations", {"transforms": ["HorizontalFlip"]}),
    ],
)
def test_wrong_arguments_are_named(name: str, wrong: dict) -> None:
    with pytest.raises(InputError, match=rf"{name}: wrong value of `{next(iter(wrong))}` \(got .*expected"):
        make(name, **wrong)


# ------------------------------------------------------------------ albumentations


def test_albumentations_nests_and_pads_with_the_ignore_value() -> None:
    nodes = [{"type": "OneOf", "p": 1, "transforms": [{"type": "Affine", "rotate": [30, 40], "p": 1}]}]
    out = make("Albumentations", transforms=nodes)(picture(), rng())
    assert 255 in out["label"] and out["geometry"][-1]["op"] == "warp"


def test_albumentations_mistakes() -> None:
    with pytest.raises(InputError, match=r"no such augmentation 'HorizontalFlap'\. Did you mean 'HorizontalFlip'\?"):
        make("Albumentations", transforms=[{"type": "HorizontalFlap"}])
    with pytest.raises(InputError, match="HorizontalFlip takes no chance"):
        make("Albumentations", transforms=[{"type": "HorizontalFlip", "chance": 1}])
    with pytest.raises(InputError, match="RandomCrop refuses its arguments"):
        make("Albumentations", transforms=[{"type": "RandomCrop", "height": -5, "width": 3}])


def test_albumentations_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(InputError, match=r"cannot be loaded .*pip install 'albumentations>=2'"):
        TRANSFORMS.get("Albumentations")(transforms=[])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ResizeByLong", {"long_size": 10**6}),
        ("ResizeByShort", {"short_size": 10**6}),
        ("Resize", {"target_size": [8, 8], "size_divisor": 10**6}),
        ("ResizeStepScaling", {"min_scale_factor": 1e5, "max_scale_factor": 1e5}),
        ("ResizeRangeScaling", {"min_value": 10**6, "max_value": 10**6}),
        ("LimitLong", {"min_long": 10**6}),
        ("PaddingByAspectRatio", {"aspect_ratio": 1e6}),
    ],
)
def test_a_size_that_would_fill_the_memory_is_refused(name: str, arguments: dict) -> None:
    transform = TRANSFORMS.get(name)(**arguments)
    with pytest.raises(InputError, match=r"the transforms would make too many pixels of it \(got 60 x 40 -> "):
        transform(picture(40, 60), rng())
    crop = TRANSFORMS.get("RandomPaddingCrop")([8, 8])
    if hasattr(transform, "target"):
        with pytest.raises(InputError, match="would make too many pixels"):
            crop.of_resized(picture(40, 60), transform, rng())


@pytest.mark.parametrize("name, key", [("Resize", "target_size"), ("Padding", "target_size"), ("RandomPaddingCrop", "crop_size"),
                                       ("ScalePadding", "target_size")])  # fmt: skip
def test_a_size_in_the_config_that_would_fill_the_memory_is_refused(name: str, key: str) -> None:
    with pytest.raises(
        InputError, match=rf"{name}: wrong value of `{key}` .*expected at most 268,435,456 pixels in all"
    ):
        TRANSFORMS.get(name)(**{key: [100_000, 100_000]})
