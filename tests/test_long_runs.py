"""Long trainings: what they hold stays flat, and what ends them is kept for a look."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit.config import Config
from segkit.engine import evidence, train
from segkit.engine.checkpoint import Progress
from segkit.errors import InputError
from segkit.options import TrainOptions
from tests.tiny import make_data, tiny_config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), train=6, val=2)


def options(folder: Path, **changes: object) -> TrainOptions:
    return TrainOptions(**{"save_dir": str(folder), "num_workers": 0, "device": "cpu", **changes})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open files are counted in /proc")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_files_stay_flat(data: Path, tmp_path: Path, monkeypatch, workers: int) -> None:
    """Open files and tensors after each of many evaluations. python -m benchmarks memory_soak looks for hours."""
    seen: list[tuple[int, int]] = []
    save = train.save

    def watched(run: train.Run) -> Path:
        gc.collect()
        tensors = sum(isinstance(thing, paddle.Tensor) for thing in gc.get_objects())
        seen.append((len(os.listdir("/proc/self/fd")), tensors))
        return save(run)

    monkeypatch.setattr(train, "save", watched)
    cfg = Config(tiny_config(data, tmp_path / "c.yml", iters=10))
    train.train(cfg, options(tmp_path / "out", do_eval=True, save_interval=1, num_workers=workers))
    assert len(seen) == cfg.iters
    for counts in zip(*seen):  # pipes of workers that have just ended may still be open at a look
        assert min(counts[5:]) <= max(counts[:5]), seen


def test_a_loss_that_is_not_finite_leaves_its_batch(data: Path, tmp_path: Path) -> None:
    cfg = Config(tiny_config(data, tmp_path / "c.yml", optimizer={"type": "SGD"}, iters=60)).update(
        {"lr_scheduler.learning_rate": 3e38}
    )
    with pytest.raises(InputError, match=r"copies of them, and what the network was fed, are in (.*)\.") as caught:
        train.train(cfg, options(tmp_path / "out", num_workers=0))
    (folder,) = (tmp_path / "out").glob("not_finite_*")
    assert str(folder) in str(caught.value)
    rows = [line.split("\t") for line in (folder / "files.txt").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2  # a batch: on the CPU each iteration is looked at
    for number, (photo, label) in enumerate(rows):
        assert (folder / f"{number:02d}_photo.png").read_bytes() == Path(photo).read_bytes()
        assert (folder / f"{number:02d}_label.png").read_bytes() == Path(label).read_bytes()
    with np.load(folder / "batch_0.npz") as fed:
        assert fed["image"].dtype == np.float32 and fed["image"].shape[:2] == (2, 3)
        assert fed["label"].shape == (2, *fed["image"].shape[2:])


def test_evidence_that_cannot_be_written_does_not_hide_the_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not evidence.keep(tmp_path / "file" / "below", [], ["a.png"], [])
    assert evidence.keep(tmp_path / "gone", [], ["moved.png"], [("moved.png", None)])
    assert (tmp_path / "gone" / "files.txt").read_text() == "moved.png\t\n"


@pytest.mark.parametrize(
    "position, counted, now, expected",
    [([3, 6], 4, 4, (3, 6)), ([3, 6], 4, 8, (3, 3)), ([3, 5], 4, 8, (3, 2)), ([3, 3], 8, 4, (3, 6)), ([0, 0], 0, 4, (0, 0))],
)  # fmt: skip
def test_an_epoch_goes_on_at_its_first_unused_sample(position, counted, now, expected) -> None:
    """Where ranks or batch size change; a batch that was used in part comes again."""
    progress = Progress(position=list(position), global_batch=counted)
    assert progress.start(now) == expected
    assert progress.start(now) == expected  # and is now counted so
