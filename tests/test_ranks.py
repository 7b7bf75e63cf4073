"""Two ranks on the CPU, through gloo: they train to what one rank with the double batch trains to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segkit.engine.weights import load_state
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]


def launch(ranks: int, folder: Path, *flags: str, tool: str = "train") -> subprocess.CompletedProcess:
    start = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(folder / "ranks")]
    command = [sys.executable, *(start if ranks > 1 else []), str(ROOT / "tools" / f"{tool}.py"), "--device", "cpu",
               "--num_workers", "0", "--save_dir", str(folder), *flags]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, cwd=folder.parent)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    data = make_data(folder / "data", train=16, val=5)
    config = tiny_config(data, folder / "c.yml", iters=4)
    flags = ("--config", str(config), "--do_eval", "--log_iters", "2", "--batch_size")
    one = launch(1, folder / "one", *flags, "4")
    two = launch(2, folder / "two", *flags, "2")
    for done in (one, two):
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_two_ranks_train_as_one_with_the_double_batch(runs: Path) -> None:
    """Tolerance: 1e-4 of each tensor's largest value, of 0.01 where all are smaller (biases that have hardly left 0).
    Sums over ranks are added in another order."""
    one, two = (load_state(runs / part / "iter_4" / "model.pdparams") for part in ("one", "two"))
    assert list(one) == list(two)
    for key in one:
        limit = 1e-4 * max(np.abs(one[key]).max(), 1e-2)
        assert np.abs(one[key] - two[key]).max() <= limit, key


def test_two_ranks_evaluate_each_sample_once(runs: Path) -> None:
    rows = [
        [json.loads(line) for line in (runs / part / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for part in ("one", "two")
    ]
    scores = [[row["mIoU"] for row in part if row["kind"] == "eval"] for part in rows]
    assert len(scores[0]) == len(scores[1]) == 4
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)
    for part in ("one", "two"):
        assert "#Images: 5 " in (runs / part / "train.log").read_text(encoding="utf-8")


def test_only_the_main_rank_writes(runs: Path) -> None:
    text = (runs / "two" / "train.log").read_text(encoding="utf-8")
    assert text.count("iter: 2/4") == 1
    assert "4 iterations of 4 samples (2 x 2 ranks x 1 accumulated)" in text


def test_two_ranks_share_the_photos_of_predict(runs: Path) -> None:
    photos = runs / "photos"
    photos.mkdir()
    for index in range(4):
        shutil.copy(runs / "data" / "images" / f"{index:03d}.png", photos)
    (photos / "bad.png").write_bytes(b"")
    flags = ("--model_path", str(runs / "one" / "best_model"), "--image_path", str(photos))
    done = launch(2, runs / "masks", *flags, tool="predict")
    assert done.returncode != 0
    assert sorted(path.stem for path in (runs / "masks" / "mask").glob("*.png")) == ["000", "001", "002", "003"]
    said = (runs / "masks" / "ranks" / "workerlog.0").read_text(encoding="utf-8")
    assert "4 of 5 inputs are segmented" in said
    assert "1 of 5 inputs could not be segmented, the others are done:" in said
    assert "bad.png" in said
