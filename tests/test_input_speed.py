"""The input pipeline's short cuts against the plain way: one part of a resized image, late normalisation, workers."""

from __future__ import annotations

import os

import cv2
import numpy as np
import paddle
import pytest

from segkit.datasets.dataset import Dataset
from segkit.engine import loader as module
from segkit.engine.collate import collate, collate_one, normalised
from segkit.engine.loader import eval_loader, scaled, train_loader
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose, color, late, window


def make(name: str, **arguments):
    return TRANSFORMS.get(name)(**arguments)


def photo(height: int, width: int, seed: int = 0, bands: int = 3) -> dict:
    """Noise, the hardest to resize alike."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (height, width, bands)).astype(np.uint8),
        "label": rng.integers(0, 20, (height, width)).astype(np.uint8),
        "edge": rng.integers(0, 2, (height, width)).astype(np.uint8),
        "path": f"{seed}.png",
    }


SCALING = {"min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25}


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize(
    "resizing",
    [
        make("ResizeStepScaling", **SCALING),
        make("ResizeStepScaling", **{**SCALING, "scale_step_size": 0}),
        make("Resize", target_size=[300, 260], interp="RANDOM"),
        make("ResizeByShort", short_size=[120, 333]),
        make("LimitLong", max_long=400, min_long=300),
    ],
    ids=["steps", "any", "random", "short", "limit"],
)
def test_scale_and_crop_is_the_same_as_one_after_the_other(resizing, bands):
    crops = [
        make("RandomPaddingCrop", crop_size=[128, 96]),
        make("RandomPaddingCrop", crop_size=[700, 96], im_padding_value=list(range(10, 10 * bands + 1, 10))),
        make("RandomPaddingCrop", crop_size=[100, 64], category_max_ratio=0.055, loop_times=5),
    ]
    fused, draws = 0, 0
    for seed in range(36):
        height, width = [(120, 160), (97, 131), (480, 640), (333, 500)][seed % 4]
        sample, crop = photo(height, width, seed, bands), crops[seed % 3]
        rng, plain_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        got = Compose([resizing, crop])(sample, rng)
        want = crop(resizing({**sample, "geometry": []}, plain_rng), plain_rng)
        assert rng.random() == plain_rng.random(), "other draws"
        assert np.array_equal(got["label"], want["label"]) and np.array_equal(got["edge"], want["edge"])
        assert got["image"].shape == want["image"].shape and got["geometry"] == want["geometry"]
        difference = np.abs(got["image"].astype(int) - want["image"])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
        target = resizing.target(height, width, np.random.default_rng(seed))
        fused, draws = fused + window.pays(sample, target, (crop.height, crop.width)), draws + 1
    assert 0 < fused < draws or not isinstance(resizing, TRANSFORMS.get("ResizeStepScaling"))


def test_nearest_neighbour_chooses_the_same_pixels_also_at_ties():
    """640 -> 490 looks exactly between two pixels, where rounding decides and differs within a part."""
    rng = np.random.default_rng(0)
    for source, target in ((640, 490), (512, 392), (480, 761), (500, 792), (480, 600), (333, 255)):
        label = rng.integers(0, 256, (source, 8)).astype(np.uint8)
        whole = cv2.resize(label, (8, target), interpolation=cv2.INTER_NEAREST)
        for top in range(0, target - 100, 7):
            part = window.resize_window(label, (target, 8), (top, 0), (100, 8), cv2.INTER_NEAREST)
            assert np.array_equal(part, whole[top : top + 100]), (source, target, top)


def test_only_the_part_is_resized(monkeypatch):
    """The reason for all this: a crop of a street scene does not pay for the whole of it."""
    seen = []
    real = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda a, size, **k: seen.append(size[0] * size[1]) or real(a, size, **k))
    chain = Compose([make("ResizeStepScaling", min_scale_factor=2, max_scale_factor=2), make("RandomPaddingCrop")])
    chain(photo(600, 1200), np.random.default_rng(0))
    assert max(seen) < 530 * 530


def test_hue_turns_the_hue_alone_and_wraps():
    image = photo(40, 50, 3)["image"]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL).astype(int)
    for shift in (-18, 17.4, 0, 255):
        turned = hsv.copy()
        turned[..., 0] = (turned[..., 0] + round(shift)) % 256
        want = cv2.cvtColor(turned.astype(np.uint8), cv2.COLOR_HSV2RGB_FULL)
        assert np.array_equal(color.hue(image, shift), want)


# ------------------------------------------------------------------ normalisation in the batch


NORMAL = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class Photos(Dataset):
    """Seeded noise instead of files."""

    def __init__(self, transforms: list, bands: int = 3, count: int = 6):
        self.transforms, self.bands, self.count, self._label_transforms = Compose(transforms), bands, count, []
        self.num_classes, self.ignore_index, self.use_multilabel, self.training = 20, 255, False, True

    edge = False

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> dict:
        return photo(24, 30, index, self.bands)


def plain(dataset, keys) -> np.ndarray:
    """The images of those keys (epoch, number), float32 [N, C, H, W], by numpy alone."""
    images = [dataset.get(n, np.random.default_rng([42, epoch, n]))["image"] for epoch, n in keys]
    return np.stack([image.astype(np.float32).transpose(2, 0, 1) for image in images])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("transforms", "bands"),
    [
        ([make("RandomDistort"), make("Normalize", **NORMAL), make("RandomHorizontalFlip"), make("AddEdgeLabel")], 3),
        ([make("RandomHorizontalFlip"), make("Normalize")], 5),
        ([make("Normalize", **NORMAL), make("RandomPaddingCrop", crop_size=[40, 20], im_padding_value=7)], 3),
        ([make("RandomHorizontalFlip")], 3),
    ],
    ids=["late", "five bands", "in the middle", "none"],
)
def test_batches_are_normalised_as_by_the_transform(transforms, bands, workers):
    dataset = Photos(transforms, bands)
    with train_loader(dataset, 2, workers) as batches:
        keys = iter(batches.sampler)
        for _ in range(4):
            batch = next(batches)
            assert batch["image"].dtype == paddle.float32 and "normalize" not in batch
            assert np.array_equal(batch["image"].numpy(), plain(dataset, next(keys)))
    for index, sample in enumerate(eval_loader(dataset, workers)):
        rng = np.random.default_rng([0, 0, index])
        want = dataset.get(index, rng)["image"].astype(np.float32).transpose(2, 0, 1)
        assert np.array_equal(sample.image.numpy()[0], want)


def test_normalisation_is_put_off_only_where_nothing_looks_at_pixels_after_it():
    last = [make("Resize", target_size=[8, 8]), make("Normalize"), make("RandomVerticalFlip"), make("AddEdgeLabel")]
    then_cropped = [make("Normalize"), make("RandomPaddingCrop", crop_size=[8, 8])]
    with late.postponed():
        bytes_left, floats = (Compose(chain)(photo(9, 9), np.random.default_rng(0)) for chain in (last, then_cropped))
    outside = Compose(last)(photo(9, 9), np.random.default_rng(0))
    assert bytes_left["image"].dtype == np.uint8 and bytes_left["normalize"].shape == (256, 3)
    assert floats["image"].dtype == outside["image"].dtype == np.float32
    assert "normalize" not in floats and "normalize" not in outside
    with late.postponed():
        sample = {**photo(9, 9), "image": np.ones((9, 9, 3), np.float32)}
        assert Compose(last)(sample, np.random.default_rng(0))["image"].dtype == np.float32


class Ranged(TRANSFORMS.get("RandomHorizontalFlip")):
    """A user's transform that stands on one of segkit's and looks at pixels."""

    def __call__(self, sample, rng):
        assert sample["image"].dtype == np.float32
        return {**sample, "image": sample["image"] - sample["image"].min()}


class Doubled(TRANSFORMS.get("Normalize")):
    """A user's normalisation."""

    def __call__(self, sample, rng):
        return {**sample, "image": 2 * super().__call__(sample, rng)["image"]}


class Mixed(Photos):
    """A data set whose `get` computes with what the transforms gave."""

    def get(self, index, rng):
        sample = super().get(index, rng)
        return {**sample, "image": (sample["image"] + super().get((index + 1) % len(self), rng)["image"]) / 2}


TWICE = make("Normalize", **NORMAL)


@pytest.mark.parametrize(
    "dataset",
    [
        Photos([make("Normalize", **NORMAL), Ranged(1.0)]),
        Photos([Doubled(), make("RandomVerticalFlip")]),
        Photos([TWICE, make("RandomVerticalFlip"), TWICE]),
        Photos([make("Normalize"), make("Normalize", **NORMAL)]),
        Photos([Compose([make("RandomHorizontalFlip"), make("Normalize")]), Compose([Ranged()])]),
        Mixed([make("Normalize")]),
    ],
    ids=["subclass after it", "subclass of it", "one object twice", "two", "nested", "own get"],
)
def test_what_looks_at_pixels_sees_them_normalised(dataset):
    with train_loader(dataset, 2, 0) as batches:
        keys = next(iter(batches.sampler))
        np.testing.assert_array_equal(next(batches)["image"].numpy(), plain(dataset, keys))


class Elsewhere(TRANSFORMS.get("RandomPaddingCrop")):
    """A user's crop: always at the top left."""

    def __call__(self, sample, rng):
        return {**sample, "image": sample["image"][:8, :8], "label": sample["label"][:8, :8]}


def test_a_users_crop_after_a_resize_is_the_users():
    sample = photo(60, 60)
    resize = make("Resize", target_size=[120, 120])
    got = Compose([resize, Elsewhere([8, 8])])(sample, np.random.default_rng(0))
    whole = resize({**sample, "geometry": []}, None)
    assert np.array_equal(got["image"], whole["image"][:8, :8])


def test_a_batch_of_bytes_and_floats_is_floats():
    normalise = make("Normalize", **NORMAL)
    one, two = photo(6, 7, 1), photo(6, 7, 2)
    two["image"] = two["image"].astype(np.float32)
    with late.postponed():
        samples = [Compose([normalise])(sample, np.random.default_rng(0)) for sample in (one, two)]
    batch = collate(samples)
    want = [normalise(dict(sample), None)["image"].transpose(2, 0, 1) for sample in (one, two)]
    np.testing.assert_allclose(batch["image"], want, atol=1e-6)
    assert batch["image"].dtype == np.float32 and np.array_equal(collate_one(samples[:1])["image"][0], want[0])


def test_what_a_gpu_computes_is_within_rounding_of_the_table():
    with late.postponed():
        sample = Compose([make("Normalize", **NORMAL)])(photo(50, 60), np.random.default_rng(0))
    batch = collate([sample])
    assert batch["image"].dtype == np.uint8
    got = scaled(paddle.to_tensor(batch["image"]), paddle.to_tensor(batch["normalize"])).numpy()
    np.testing.assert_allclose(got, normalised(batch)["image"], atol=1e-6)


# ------------------------------------------------------------------ worker processes


class Self(Photos):
    """What a worker knows of itself."""

    def get(self, index: int, rng: np.random.Generator) -> dict:
        facts = [os.nice(0), cv2.getNumThreads(), int(os.environ["OMP_NUM_THREADS"]), os.getpid()]
        return {"image": np.array(facts, np.float32).reshape(1, 4, 1), "path": "me"}


def test_a_worker_is_nice_and_has_one_thread():
    before = os.nice(0), os.environ.get("OMP_NUM_THREADS")
    with train_loader(Self([]), 1, num_workers=1) as batches:
        niceness, threads, omp, process = next(batches)["image"].numpy().ravel().tolist()
    assert process != os.getpid() and (niceness, threads, omp) == (min(19, before[0] + module.NICENESS), 1, 1)
    assert (os.nice(0), os.environ.get("OMP_NUM_THREADS")) == before
