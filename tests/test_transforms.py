"""Transforms against PaddleSeg's reference arrays, and the promises that hold for every one of them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose, color

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
GEOMETRIC = [
    name
    for name in ACTIVE
    if name not in ("Normalize", "RandomNoise", "RandomBlur", "RandomDistort")
    and not name.startswith(("Add", "Generate"))
]


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


def test_the_list_is_complete() -> None:
    assert sorted(ACTIVE) == TRANSFORMS.names()


# ------------------------------------------------------------------ PaddleSeg's numbers


def run_case(case: dict, arrays: Any) -> dict:
    image = arrays[case["img"]].astype(case["img_dtype"])
    image = image if image.ndim == 3 else image[..., None]
    if case["compose"] is not None and case["compose"].get("to_rgb", True) and image.shape[2] == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    chain = [TRANSFORMS.get(node["type"])(**{k: v for k, v in node.items() if k != "type"}) for node in case["ops"]]
    return Compose(chain)({"image": image, "label": arrays[case["label"]]}, rng())


def test_paddleseg_reference_arrays(shared: Path) -> None:
    cases = json.loads((shared / "parity" / "transforms.json").read_text())["cases"]
    arrays = np.load(shared / "parity" / "transforms.npz")
    cases = [case for case in cases if "ops" in case and "error" not in case]
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


def test_what_paddleseg_refuses_is_refused(shared: Path) -> None:
    cases = json.loads((shared / "parity" / "transforms.json").read_text())["cases"]
    arrays = np.load(shared / "parity" / "transforms.npz")
    # the band count of compose_4ch_declared3 is the reader's business here
    refused = [case for case in cases if "error" in case and case["name"] != "compose_4ch_declared3"]
    assert len(refused) == 5
    for case in refused:
        with pytest.raises(InputError, match=case["ops"][0]["type"]):
            run_case(case, arrays)


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "sharpness", "hue"])
def test_colour_operations_against_paddleseg(operation: str, shared: Path) -> None:
    cases = json.loads((shared / "parity" / "transforms.json").read_text())["cases"]
    arrays = np.load(shared / "parity" / "transforms.npz")
    cases = [case for case in cases if case.get("functional") == operation]
    assert len(cases) >= 2
    for case in cases:
        got = getattr(color, operation)(arrays["img"], case["lower"])
        difference = np.abs(got.astype(float) - arrays[f"{case['name']}__img"])
        if operation == "hue":  # both go through 8-bit HSV, which OpenCV rounds and Pillow truncates
            assert difference.mean() < 1.2 and np.percentile(difference, 99) <= 7, case["name"]
        else:
            assert difference.max() <= (0 if operation in ("brightness", "contrast") else 1), case["name"]


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
