"""The cache of decoded samples: same samples, bounded, shared by processes, gone at the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

from segkit import log
from segkit.datasets import cache as module
from segkit.datasets.dataset import Dataset
from segkit.engine.loader import eval_loader, train_loader
from segkit.errors import InputError
from segkit.registry import TRANSFORMS


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    records: list = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    log.logger.addHandler(handler)
    level = log.logger.level
    log.logger.setLevel(logging.INFO)
    yield records
    log.logger.setLevel(level)
    log.logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Caches below this test's folder alone."""
    for name in ("shm", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", str(tmp_path / "shm"))
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def root(tmp_path):
    """Six photos of 40x30 with labels, as a data set."""
    folder, rng = tmp_path / "set", np.random.default_rng(0)
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.jpg"), rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 3, (30, 40)).astype(np.uint8))
    text = "".join(f"{n}.jpg {n}.png\n" for n in range(6))
    (folder / "train.txt").write_text(text)
    (folder / "val.txt").write_text(text)
    return folder


def photos(root, cache: str = "none", mode: str = "train") -> Dataset:
    chain = [
        TRANSFORMS.get("ResizeStepScaling")(),
        TRANSFORMS.get("RandomPaddingCrop")([32, 32]),
        TRANSFORMS.get("RandomDistort")(),
        TRANSFORMS.get("Normalize")(),
    ]
    return Dataset(chain if mode == "train" else chain[-1:], str(root), 3, mode, cache=cache)


def batches(dataset, workers: int, count: int = 9) -> list:
    with train_loader(dataset, 2, workers) as loader:
        return [(b["image"].numpy(), b["label"].numpy(), b["path"]) for b in (next(loader) for _ in range(count))]


def lose(root) -> None:
    """Only a cache knows the photos after this."""
    for file in [*root.glob("*.jpg"), *root.glob("*.png")]:
        file.write_bytes(b"")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_the_same_batches_with_and_without(root, tmp_path, kind, workers):
    cached = photos(root, kind)
    for got, want in zip(batches(cached, workers), batches(photos(root), 0)):
        assert np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1]) and got[2] == want[2]
    assert len(list((tmp_path / {"ram": "shm", "disk": "tmp"}[kind]).glob("segkit-cache-*/*.image.npy"))) == 6
    before = batches(photos(root), 0)
    lose(root)
    for got, want in zip(batches(cached, workers), before):
        assert np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_with_a_cache(root, workers):
    cached = photos(root, "ram", "val")
    for _ in range(2):
        for got, want in zip(eval_loader(cached, workers), eval_loader(photos(root, mode="val"), 0)):
            assert np.array_equal(got.image.numpy(), want.image.numpy()) and np.array_equal(got.label, want.label)


def test_the_limit_holds_and_is_said(root, lines, monkeypatch):
    monkeypatch.setattr(module, "_place", lambda kind: (module.SHARED_MEMORY, 50000))
    cached = photos(root, "ram")
    assert cached._cache.limit == 25000 and "at most 0 MB (all samples need about 0 MB)" in lines[-1]
    want = batches(photos(root), 0)
    for got, plain in zip(batches(cached, 0), want):
        assert np.array_equal(got[0], plain[0])
    kept = [index for index in range(6) if cached._cache.get(index)]
    size = sum(os.path.getsize(os.path.join(cached._cache.folder, f)) for f in os.listdir(cached._cache.folder))
    assert len(kept) == 1 and size <= 25000
    assert sum("cache: full" in line for line in lines) == 1


def test_the_limit_follows_free_memory_and_the_ranks(root, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 8 << 20)
    assert photos(root, "ram")._cache.limit == 4 << 20
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    assert photos(root, "ram")._cache.limit == 1 << 20


def test_two_caches_leave_memory_for_the_training(root, monkeypatch):
    """What the other one takes after this one was made counts as well."""
    free = 8 << 20
    monkeypatch.setattr(module, "available_memory", lambda: free)
    cached = photos(root, "ram")
    cached.read(0)
    free = 1 << 20
    cached.read(1)
    assert cached._cache.get(0) and not cached._cache.get(1)


def test_training_goes_on_where_nothing_can_be_written(root, lines):
    cached = photos(root, "disk")
    module.shutil.rmtree(cached._cache.folder)
    for got, want in zip(batches(cached, 0, 3), batches(photos(root), 0, 3)):
        assert np.array_equal(got[0], want[0])
    assert sum("cache: nothing more is kept" in line for line in lines) == 1


def test_an_unknown_kind_is_named(root):
    with pytest.raises(InputError, match=r"cache: unknown \(got 'yes', expected none, ram, disk\). Use one of them"):
        photos(root, "yes")


def test_the_folder_goes_with_the_data_set(root, tmp_path):
    cached = photos(root, "ram")
    cached.read(0)
    assert list((tmp_path / "shm").iterdir())
    del cached
    assert not list((tmp_path / "shm").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(root, tmp_path):
    code = textwrap.dedent(f"""
        import sys
        from segkit.datasets import cache
        cache.SHARED_MEMORY = {str(tmp_path / "shm")!r}
        kept = cache.Cache("ram")
        print(kept.folder, flush=True)
        sys.stdin.read()
    """)
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, living = (run.stdout.readline().strip() for run in runs)
    runs[0].send_signal(signal.SIGKILL)
    runs[0].wait(20)
    assert os.path.isdir(killed) and os.path.isdir(living)
    own = photos(root, "ram")
    assert not os.path.exists(killed) and os.path.isdir(living) and os.path.isdir(own._cache.folder)
    runs[1].communicate("", timeout=20)
    assert not os.path.exists(living), "removed at the end of the process"
