"""A quick sample of `python -m tests.chaos --kills 100`, and runs on a disk that fills up."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segkit import runtime
from segkit.engine import checkpoint
from tests.chaos.runs import INTERVAL, VARIANTS, Bench, Kill, differences, draw, outcome, start, trial

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and kills as Linux does")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("chaos"))


@pytest.mark.parametrize(
    "variant, kills",
    [
        ("momentum", [Kill(signal.SIGTERM, "its group", 2 * INTERVAL, 0)]),
        ("workers", [Kill(signal.SIGKILL, "a worker", INTERVAL, 0), Kill(signal.SIGKILL, "it", 5 * INTERVAL, 0)]),
    ],
)
def test_killed_runs_end_as_if_never_stopped(bench: Bench, variant: str, kills: list[Kill]) -> None:
    for number in range(5):  # a machine that is busy may hold the harness up until the run has ended
        made = trial(bench, variant, kills, f"{variant}-{number}")
        if made.problems or made.killed == len(kills):
            break
    assert made.killed == len(kills) and made.resumed and made.identical and not made.problems, str(made)
    assert int(made.stood.removeprefix("iter_")) >= kills[0].beyond


def test_most_kills_come_after_the_first_checkpoint_and_some_twice_or_to_a_worker() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng, list(VARIANTS)[number % 3]) for number in range(300)]
    assert 240 < sum(kills[0].beyond > 0 for kills in drawn) < 300
    assert 60 < sum(len(kills) > 1 for kills in drawn) < 140
    assert 20 < sum(kills[0].target == "a worker" for kills in drawn) < 60


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_at_the_first_moment_is_one_of_the_command(tmp_path: Path, which: signal.Signals) -> None:
    """The harness itself is never hit: its traceback would count as one of segkit's."""
    (tmp_path / "said.txt").touch()  # the kill may come before it is opened
    for _ in range(5):
        run = start(["--version"], tmp_path / "said.txt", lambda: time.sleep(0.05))
        os.killpg(run.pid, which)
        assert run.wait() == -which
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == ""


def test_a_stop_before_training_prints_no_traceback(tmp_path: Path) -> None:
    """Paddle's own handler of SIGTERM does."""

    def ask() -> None:
        runtime.require_paddle()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)  # of the child

    assert start(["--version"], tmp_path / "said.txt", ask).wait() == -signal.SIGTERM
    assert not (tmp_path / "said.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "most, message",
    [(0, r"iter_12: cannot be written \(.*the last whole"), (60_000, r"records\.segkit\.log: not all")],
)
def test_a_disk_that_fills_up_leaves_what_a_run_can_go_on_from(
    bench: Bench, tmp_path: Path, most: int, message: str
) -> None:
    """No file may grow beyond a limit, as on a full disk (0: from the second checkpoint on): a message; with room
    again, the run goes on from the last checkpoint as if nothing had been."""
    import resource

    publish = checkpoint.publish

    def limit() -> None:  # in the run's own process
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if most:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        checkpoint.publish = filled

    def filled(folder: Path, write: Callable[[Path], None]) -> None:
        if not most and folder.name == "iter_12":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        publish(folder, write)

    argv, said = bench.command("momentum", tmp_path / "out"), tmp_path / "said.txt"
    assert start(argv, said, limit).wait() == 2
    text = said.read_text(encoding="utf-8")
    assert "Traceback" not in text and re.search(message, text), text
    stands = checkpoint.find("auto", tmp_path / "out")
    assert stands is not None and (most or stands.name == "iter_6")
    assert start([*argv, "--resume_model", "auto"], said).wait() == 0
    assert f"resumed from {stands}" in said.read_text(encoding="utf-8")
    assert not differences(outcome(bench.reference("momentum")), outcome(tmp_path / "out"))
