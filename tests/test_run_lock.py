"""One run at a time in a folder: the second is told, and a run that was killed blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segkit.config import Config
from segkit.engine.run_lock import only_run_in
from segkit.engine.train import train
from segkit.errors import InputError
from tests.train_cases import config, data, options

__all__ = ["config", "data"]
ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import os, sys, time
from pathlib import Path
from segkit.engine.run_lock import only_run_in
with only_run_in(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2:] else -1
    if child:
        print(child, flush=True)
        sys.stdin.read()
    else:
        time.sleep(60)  # a data worker
print("left", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, *more: str) -> tuple[subprocess.Popen, int]:
    """A process that trains in `folder` as far as the lock knows, and the number of its worker."""
    made = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    return made, int(made.stdout.readline())


def test_a_second_run_is_told_and_touches_nothing(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".iter_2.part").mkdir(parents=True)
    (out / "iter_1").mkdir()
    (out / "metrics.jsonl").write_text('{"kind": "train", "iter": 1}\n', encoding="utf-8")
    first, _ = hold(out)
    try:
        message = rf"^--save_dir .*out: another run trains there \(process {first.pid} on .*\)\. .* choose another"
        with pytest.raises(InputError, match=message):
            train(Config(config), options(out))
    finally:
        first.kill()
        first.wait()
    assert sorted(path.name for path in out.iterdir()) == [".iter_2.part", ".lock", "iter_1", "metrics.jsonl"]
    assert (out / "metrics.jsonl").read_text(encoding="utf-8") == '{"kind": "train", "iter": 1}\n'


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked on Linux alone")
def test_a_killed_run_blocks_nobody_even_while_its_worker_lives(tmp_path: Path) -> None:
    first, worker = hold(tmp_path, "with a worker")
    with pytest.raises(InputError, match="another run trains there"), only_run_in(tmp_path):
        pass
    first.kill()
    first.wait()
    try:
        with only_run_in(tmp_path):
            assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text(encoding="utf-8")
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_run_that_has_ended_leaves_the_folder_free(tmp_path: Path) -> None:
    first, _ = hold(tmp_path)
    first.stdin.close()
    assert first.stdout.readline() == "left\n"
    with only_run_in(tmp_path):
        pass
    first.wait()


def test_other_ranks_leave_it_to_the_main_one(tmp_path: Path, monkeypatch) -> None:
    first, _ = hold(tmp_path)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    with only_run_in(tmp_path):
        assert f"process {first.pid} on " in (tmp_path / ".lock").read_text(encoding="utf-8")
    first.kill()
    first.wait()


def test_a_disk_without_locks_is_warned_of(tmp_path: Path, monkeypatch, logged) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with only_run_in(tmp_path):
        assert any("cannot be locked" in line for line in logged)
