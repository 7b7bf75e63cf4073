"""Batches: order, sharing, resuming, errors."""

from __future__ import annotations

import logging
import os
import sys

import numpy as np
import paddle
import pytest

from segkit import log
from segkit.engine import loader as module
from segkit.engine.collate import collate, to_chw
from segkit.engine.loader import eval_loader, train_loader
from segkit.engine.read_ahead import tensor_of
from segkit.engine.sampler import EpochSampler
from segkit.errors import InputError
from tests import loader_cases
from tests.loader_cases import Photos

fresh = loader_cases.fresh


class Broken(Photos):
    def get(self, index, rng):
        if index == 3:
            raise InputError("photos/3.png: cannot be decoded (got 0 bytes). Replace the file.")
        if index == 5:
            raise KeyError("a bug")
        return super().get(index, rng)


class Shapes(Photos):
    def get(self, index, rng):
        sample = super().get(index, rng)
        if index % 2:
            sample["image"] = sample["image"][:2]
            sample["label"] = sample["label"][:2]
        return sample


@pytest.fixture
def lines():
    """What is logged."""
    records: list = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    log.logger.addHandler(handler)
    yield records
    log.logger.removeHandler(handler)


def take(count: int, dataset, batch_size=2, **kwargs) -> list:
    with train_loader(dataset, batch_size, **{"num_workers": 0, "seed": 7, **kwargs}) as batches:
        return [
            (batch["path"], batch["image"].numpy(), batch["label"].numpy()) for _, batch in zip(range(count), batches)
        ]


def same(a: list, b: list) -> None:
    assert len(a) == len(b)
    for one, two in zip(a, b):
        assert one[0] == two[0]
        assert np.array_equal(one[1], two[1]) and np.array_equal(one[2], two[2])


def keys(sampler: EpochSampler, count: int) -> list:
    return [batch for _, batch in zip(range(count), sampler)]


def test_batch_has_everything():
    with train_loader(Photos(4), 2, num_workers=0) as batches:
        batch = next(batches)
        assert batches.batches_per_epoch == 2 and batches.position == (0, 1)
    assert batch["image"].shape == [2, 3, 4, 5] and batch["image"].dtype == paddle.float32
    assert batch["label"].shape == [2, 4, 5] and batch["label"].dtype == paddle.uint8
    assert batch["edge"].shape == [2, 4, 5]
    numbers = [int(path.split("/")[1][0]) for path in batch["path"]]
    assert batch["label"].numpy()[:, 0, 0].tolist() == numbers
    assert np.floor(batch["image"].numpy()[:, 0, 0, 0]).tolist() == numbers
    assert set(batch) == {"image", "label", "edge", "path"}


def test_images_of_any_type_become_float32_chw():
    for dtype in (np.uint8, np.float64):
        array = np.arange(24, dtype=dtype).reshape(2, 4, 3)
        assert to_chw(array).dtype == np.float32 and to_chw(array)[1, 0, 2] == array[0, 2, 1]
    assert to_chw(np.zeros((2, 4), np.uint8)).shape == (1, 2, 4)
    sample = {"image": np.zeros((2, 4, 3), np.uint8), "label": np.zeros((2, 4, 5), np.int32), "path": "a"}
    assert collate([sample])["label"].shape == (1, 5, 2, 4)


def test_every_epoch_holds_every_sample_once_in_a_new_order():
    sampler = EpochSampler(10, 3, seed=1)
    assert sampler.batches_per_epoch == 3
    epochs = [sorted(sampler.order(e).tolist()) for e in range(3)]
    assert epochs == [list(range(10))] * 3
    assert not np.array_equal(sampler.order(0), sampler.order(1))
    assert not np.array_equal(sampler.order(0), EpochSampler(10, 3, seed=2).order(0))
    assert np.array_equal(sampler.order(1), EpochSampler(10, 5, seed=1).order(1))


def test_iteration_goes_on_over_epochs():
    batches = keys(EpochSampler(5, 2, seed=1), 5)
    assert [epoch for batch in batches for epoch, _ in batch] == [0] * 4 + [1] * 4 + [2] * 2
    assert all(len({n for _, n in batches[i] + batches[i + 1]}) == 4 for i in (0, 2))


@pytest.mark.parametrize("used", [0, 1, 2, 3, 7])
def test_resuming_continues_at_the_next_batch(used):
    whole = take(10, Photos(7))
    same(take(10 - used, Photos(7), start=used), whole[used:])
    with train_loader(Photos(7), 2, num_workers=0, seed=7) as batches:
        for _ in range(used):
            next(batches)
        position = batches.position
    assert position == divmod(used, 3)
    same(take(10 - used, Photos(7), start=position), whole[used:])
    assert keys(EpochSampler(7, 2, 7, start=(0, 3)), 1) == keys(EpochSampler(7, 2, 7, start=(1, 0)), 1)


def test_two_ranks_read_what_one_reads_with_twice_the_batch(monkeypatch):
    one = keys(EpochSampler(11, 4, seed=3), 4)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    ranks = []
    for rank in "01":
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        ranks.append(keys(EpochSampler(11, 2, seed=3), 4))
    assert [a + b for a, b in zip(*ranks)] == one


def test_repeats_pass_over_the_list_with_other_augmentations():
    sampler = EpochSampler(3, 3, repeats=4)
    assert sampler.batches_per_epoch == 4
    assert sorted(sampler.order(0) % 3) == sorted([0, 1, 2] * 4)
    images = np.concatenate([image[:, 0, 0, 0] for _, image, _ in take(4, Photos(3), 3, repeats=4)])
    assert len(set(images.tolist())) == 12


def test_augmentation_depends_on_seed_epoch_and_sample_alone():
    def values(**kwargs):
        return {v for _, image, _ in take(6, Photos(4), **kwargs) for v in image[:, 0, 0, 0].tolist()}

    assert values() == values(batch_size=2) and len(values()) == 12
    assert not values() & values(seed=8)
    assert values() >= {v for _, image, _ in take(3, Photos(4), batch_size=4) for v in image[:, 0, 0, 0].tolist()}


def test_batch_larger_than_the_data_set_trains_with_one_warning(lines):
    batches = take(3, Photos(3), batch_size=8)
    assert [image.shape[0] for _, image, _ in batches] == [8, 8, 8]
    for paths, image, _ in batches:
        assert len(set(paths)) == 3 and len(set(image[:, 0, 0, 0].tolist())) == 8
    take(1, Photos(3), batch_size=8)
    assert len(lines) == 1
    assert "a batch of 8 is larger than the data set of 3 samples" in lines[0]
    assert "Set --batch_size to at most 3" in lines[0]


def test_batch_larger_than_the_data_set_over_ranks(lines, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    assert len(keys(EpochSampler(5, 4), 1)[0]) == 4
    assert "a batch of 8 (4 on each of 2 processes)" in lines[0] and "at most 2" in lines[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_same_batches_whatever_the_number_of_workers(workers):
    same(take(7, Photos(5), num_workers=workers), take(7, Photos(5)))


class Instances(Photos):
    """With what a loss on masks needs."""

    def get(self, index, rng):
        return {**super().get(index, rng), "instances": {"gt_masks": np.ones((2, 4, 4), np.uint8)}}


@pytest.mark.parametrize("workers", [0, 1])
def test_arrays_within_a_sample_become_tensors_too(workers):
    with train_loader(Instances(4), 2, workers) as batches:
        masks = [one["gt_masks"] for one in next(batches)["instances"]]
    assert all(isinstance(mask, paddle.Tensor) and mask.shape == [2, 4, 4] for mask in masks) and len(masks) == 2


def test_starting_workers_leaves_the_global_generator_alone():
    np.random.seed(0)
    expected = np.random.rand(3)
    np.random.seed(0)
    take(2, Photos(5), num_workers=1)
    assert np.array_equal(np.random.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_surfaces_as_itself(workers):
    with pytest.raises(InputError, match=r"^photos/3.png: cannot be decoded .got 0 bytes.. Replace the file.$"):
        take(20, Broken(5), num_workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_keeps_its_type_and_traceback(workers):
    class Bug(Broken):
        def get(self, index, rng):
            return super().get(5 if index == 3 else index, rng)

    with pytest.raises(KeyError, match="a bug") as caught:
        take(20, Bug(5), num_workers=workers)
    if workers:
        assert "in a data-reading process" in str(caught.value.__cause__)
        assert 'raise KeyError("a bug")' in str(caught.value.__cause__)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes(workers):
    message = (
        r"photos/\d.png: images of one batch differ in size \(got: photos/\d.png is \dx5x3, photos/\d.png is \dx5x3 "
        r".*Add Resize or RandomPaddingCrop"
    )
    with pytest.raises(InputError, match=message):
        take(1, Shapes(4), batch_size=4, num_workers=workers)
    assert len(take(4, Shapes(4), batch_size=1)) == 4


def test_image_and_label_of_different_sizes():
    sample = {"image": np.zeros((4, 4, 3)), "label": np.zeros((4, 5), np.uint8), "path": "p.png"}
    with pytest.raises(
        InputError, match=r"p.png: after the transforms, image and label differ in size .got 4x4x3 and 4x5,"
    ):
        collate([sample])["failure"].throw()


def test_impossible_settings():
    with pytest.raises(InputError, match=r"data set: no sample .*Check the list file"):
        train_loader(Photos(0), 2)
    with pytest.raises(InputError, match=r"batch_size: too small .got 0, .*Set batch_size to 1"):
        train_loader(Photos(3), 0)
    with pytest.raises(InputError, match=r"repeats: too small .got 0"):
        train_loader(Photos(3), 1, repeats=0)
    with pytest.raises(InputError, match=r"num_workers: negative .got -1, expected 0 or more"):
        train_loader(Photos(3), 1, num_workers=-1)


def test_workers_are_for_linux(lines, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with train_loader(Photos(3), 1, num_workers=2) as loader:
        assert loader.workers == 0
    assert len(lines) == 1 and "on Linux only (got 2)" in lines[0] and "Nothing needs to be done" in lines[0]


def test_little_shared_memory_falls_back_to_pipes(lines, monkeypatch):
    monkeypatch.setattr(module, "_shared_memory_left", lambda: 1000)
    same(take(3, Photos(5), num_workers=1), take(3, Photos(5)))
    assert len(lines) == 1 and "/dev/shm: too small for 1 workers" in lines[0] and "--shm-size" in lines[0]


def test_default_workers(monkeypatch):
    assert module.default_workers() == 0
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert module.default_workers() == (min(2, os.cpu_count()) if sys.platform.startswith("linux") else 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_reads_in_order_with_labels_as_they_are(workers):
    class Val(Photos):
        def get(self, index, rng):
            sample = super().get(index, rng)
            sample["label"] = np.full((9, 7), index, np.int32)
            sample["geometry"] = [{"op": "resize", "from": [9, 7], "to": [4, 5]}]
            return sample

    with eval_loader(Val(5), num_workers=workers) as samples:
        assert len(samples) == 5
        rows = list(samples)
    assert [s.index for s in rows] == list(range(5)) and [s.path for s in rows][2] == "photos/2.png"
    assert rows[0].image.shape == [1, 3, 4, 5] and rows[0].image.dtype == paddle.float32
    assert rows[3].label.shape == (9, 7) and rows[3].label.dtype == np.int32 and rows[3].label[0, 0] == 3
    assert rows[0].geometry == [{"op": "resize", "from": [9, 7], "to": [4, 5]}]
    assert [s.index for s in eval_loader(Val(5), 0, limit=2)] == [0, 1]


def test_evaluation_of_unlabelled_photos_and_of_no_photo():
    class Bare(Photos):
        def get(self, index, rng):
            return {"image": super().get(index, rng)["image"], "path": "x"}

    assert [s.label for s in eval_loader(Bare(2), 0)] == [None, None]
    assert list(eval_loader(Bare(0), 2)) == []


def test_ranks_share_an_evaluation_without_duplicates(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "3")
    seen = []
    for rank in "012":
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        seen += [s.index for s in eval_loader(Photos(5), 0)]
    assert sorted(seen) == list(range(5))


def test_evaluation_of_a_bad_sample():
    with pytest.raises(InputError, match=r"photos/3.png: cannot be decoded"):
        list(eval_loader(Broken(5), 0))


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int32", "int64", "bool", "float16"])
@pytest.mark.parametrize("place", [None, paddle.CPUPlace()], ids=["here", "cpu"])
def test_arrays_become_equal_tensors_of_their_own(kind, place):
    array = (np.random.default_rng(0).random((3, 4, 5)) * 9).astype(kind)
    for given in (array, array.transpose(2, 0, 1), array[:0]):
        made = tensor_of(given, place)
        assert made.shape == list(given.shape) and str(made.dtype).endswith(kind)
        np.testing.assert_array_equal(made.numpy(), given)
    made = tensor_of(array, place)
    array[:] = 0
    assert made.numpy().any()
