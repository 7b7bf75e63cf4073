"""Two ranks on the CPU, through gloo: they train to what one rank with the double batch trains to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.engine import checkpoint
from segkit.engine.sampler import EpochSampler
from segkit.engine.weights import load_state
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(ranks: int, folder: Path, *flags: str, tool: str = "train") -> list[str]:
    start = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(folder / "ranks")]
    return [sys.executable, *(start if ranks > 1 else []), str(ROOT / "tools" / f"{tool}.py"), "--device", "cpu",
            "--num_workers", "0", "--save_dir", str(folder), *flags]  # fmt: skip


def launch(ranks: int, folder: Path, *flags: str, tool: str = "train") -> subprocess.CompletedProcess:
    return subprocess.run(
        command(ranks, folder, *flags, tool=tool), capture_output=True, text=True, timeout=180, env=ONE_THREAD,
        cwd=folder.parent,
    )  # fmt: skip


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


def files(folder: Path) -> list[str]:
    """What a run has written, without the launcher's own folder."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("ranks"))


def test_only_the_main_rank_writes(runs: Path) -> None:
    assert files(runs / "two") == files(runs / "one")
    text = (runs / "two" / "train.log").read_text(encoding="utf-8")
    assert text.count("iter: 2/4") == 1
    assert "4 iterations of 4 samples (2 x 2 ranks x 1 accumulated)" in text


@pytest.mark.parametrize("before, ranks, batch", [("one", 2, "2"), ("two", 1, "4")])
def test_a_run_goes_on_with_another_number_of_ranks(runs: Path, before: str, ranks: int, batch: str) -> None:
    """To the weights of the runs that were not stopped; tolerance as above."""
    folder = runs / f"{before}_then_{ranks}"
    flags = ("--config", str(runs / "c.yml"), "--do_eval", "--batch_size", batch, "--resume_model")
    if ranks == 1:
        out = ("--save_dir", str(folder), "--num_workers", "0", "--device", "cpu")
        assert main(["train", *out, *flags, str(runs / before / "iter_2")]) == 0
    else:
        done = launch(ranks, folder, *flags, str(runs / before / "iter_2"))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    whole, parts = (load_state(part / "iter_4" / "model.pdparams") for part in (runs / before, folder))
    for key in whole:
        limit = 1e-4 * max(np.abs(whole[key]).max(), 1e-2)
        assert np.abs(whole[key] - parts[key]).max() <= limit, key
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["iter"] for row in rows if row["kind"] == "eval"] == [3, 4]


def test_a_rank_that_fails_ends_all_with_its_message(runs: Path, tmp_path: Path) -> None:
    """A photo that the second rank alone reads first is cut short: the first rank would wait for it without end."""
    data = make_data(tmp_path / "data", train=16, val=2)
    bad = data / "images" / f"{EpochSampler(16, 4, seed=42).order(0)[2]:03d}.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    config = tiny_config(data, tmp_path / "c.yml", iters=4)
    done = launch(2, tmp_path / "out", "--config", str(config), "--batch_size", "2")
    assert done.returncode != 0
    own = (tmp_path / "out" / "ranks" / "workerlog.1").read_text(encoding="utf-8")
    assert f"{bad}: " in own and "segkit: error:" in own and "Traceback" not in own


def test_sigterm_stops_two_ranks_with_one_checkpoint(runs: Path, tmp_path: Path) -> None:
    """They stop at the same iteration, none waits for the other, and the checkpoint is one to go on from."""
    out, log = tmp_path / "out", tmp_path / "out" / "train.log"
    flags = ("--config", str(runs / "c.yml"), "--iters", "5000", "--save_interval", "5000", "--log_iters", "2")
    run = subprocess.Popen(
        command(2, out, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ONE_THREAD, cwd=tmp_path
    )
    while run.poll() is None and not (log.is_file() and "iter: 4/" in log.read_text(encoding="utf-8")):
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[0].decode()
    assert run.returncode, said
    (last,) = checkpoint.iterations(out)
    progress = checkpoint.read_progress(last / "trainer.json")
    assert 4 <= progress.iteration < 5000 and progress.iteration % 2 == 0 and not checkpoint.damaged(last)
    assert f"stopped at iteration {progress.iteration}. To go on" in log.read_text(encoding="utf-8")
    for number in range(2):
        own = (out / "ranks" / f"workerlog.{number}").read_text(encoding="utf-8")
        assert "Traceback" not in own, own


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
