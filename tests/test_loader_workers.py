"""The workers of loaders: what kills or hangs them is told, and they end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from segkit.engine import loader as module
from segkit.engine.loader import train_loader
from segkit.engine.sampler import EpochSampler
from segkit.errors import InputError
from tests import loader_cases
from tests.loader_cases import Photos

fresh = loader_cases.fresh


class Stuck(Photos):
    """The fourth sample that is read is never there."""

    def __init__(self, count: int, how: str):
        super().__init__(count)
        self.how = how
        self.bad = int(EpochSampler(count, 2, seed=7).order(0)[3])
        self.files = [(f"photos/{index}.png", None) for index in range(count)]

    def get(self, index, rng):
        if index == self.bad:
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(30)
        return super().get(index, rng)


def test_a_killed_worker_is_reported_by_the_next_batch_and_nowhere_else():
    with train_loader(Photos(50), 2, num_workers=1) as batches:
        next(batches)
        os.kill(batches._iterator._workers[0].pid, signal.SIGKILL)
        time.sleep(0.3)  # a training step
        with pytest.raises(InputError, match=r"num_workers: a data-reading process died .*\(got: .*--num_workers 0"):
            for _ in range(100):
                next(batches)


def test_a_worker_that_dies_names_its_sample():
    photos = Stuck(5, "dies")
    message = (
        rf"a data-reading process died while it read photos/{photos.bad}\.png .*lower --num_workers .*--num_workers 0"
    )
    with train_loader(photos, 2, 2, seed=7) as batches, pytest.raises(InputError, match=message):
        for _ in range(20):
            next(batches)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_reader_that_hangs_names_its_sample(workers, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.7)
    begin = time.perf_counter()
    pids: list = []
    photos = Stuck(5, "hangs")
    message = rf"^photos/{photos.bad}\.png: reading hangs \(no batch for 0\.7 s\)\. Look at that file and at the disk"
    with train_loader(photos, 2, workers, seed=7) as batches, pytest.raises(InputError, match=message):
        for _ in range(20):
            next(batches)
            pids = [worker.pid for worker in batches._iterator._workers] if workers else []
    assert time.perf_counter() - begin < 10
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


def test_closing_early_ends_the_workers():
    batches = train_loader(Photos(50), 2, num_workers=2)
    next(batches)
    pids = [worker.pid for worker in batches._iterator._workers]
    assert all(map(alive, pids))
    begin = time.perf_counter()
    batches.close()
    batches.close()
    assert time.perf_counter() - begin < 3 and not any(map(alive, pids))


SCRIPT = """
import os, sys, time, signal
sys.path.insert(0, {tests!r})
from loader_cases import Photos
from segkit.engine.loader import eval_loader, train_loader
a, b = train_loader(Photos(50), 2, num_workers=1), eval_loader(Photos(50), num_workers=1)
c = train_loader(Photos(50), 2, num_workers=0)
next(a), next(b), next(c)
print(a._iterator._workers[0].pid, flush=True)
{end}
"""


def script(end: str) -> subprocess.Popen:
    code = SCRIPT.format(tests=os.path.dirname(__file__), end=end)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_exit_with_open_loaders_is_quick_and_quiet():
    run = script("")
    err = run.communicate(timeout=60)[1]
    noise = [line for line in err.splitlines() if "OMP_NUM_THREADS" not in line]
    assert run.returncode == 0 and not noise, err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process signals of Linux")
def test_workers_survive_sigterm_but_not_their_parent():
    """A SIGTERM for the whole group is the parent's to answer; after a SIGKILL of the parent nothing is left."""
    run = script(
        textwrap.dedent("""
        signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
        os.kill(a._iterator._workers[0].pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(20):
            next(a)
        print("still reading", flush=True)
        time.sleep(60)
        """)
    )
    worker = int(run.stdout.readline())
    assert run.stdout.readline().strip() == "asked to stop"
    assert run.stdout.readline().strip() == "still reading"
    run.kill()
    run.communicate(timeout=30)
    for _ in range(100):
        if not alive(worker):
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlives its parent")
