"""What a run says on terminals of 80 and 160 columns, played by pyte, and into a file."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from fcntl import ioctl
from pathlib import Path
from typing import Iterator

import pyte
import pytest

from segkit import log, progress, terminal
from segkit.engine import trainlog
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]
NOISE = re.compile(
    r"ccache|glog|WARNING: Logging before|FLAGS_|UserWarning|DeprecationWarning|^[IWE]\d{4} |PreconditionNotMet", re.M
)
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


class Watched:
    """`raw`: all that came; `lines`: what the terminal shows at the end, scrolled lines included; `bars`: every state of
    a line that a bar was in, `low`: the lowest line that something was written to while it ran."""

    def __init__(self, command: list[str], columns: int, **extra: str):
        self.raw = _play(command, columns, extra)
        self.screen = pyte.HistoryScreen(columns, 200, history=2000)
        stream = pyte.Stream(self.screen)
        self.bars: set[str] = set()
        for part in re.split(r"(?<=[\r\n])|(?=\r)", self.raw):
            stream.feed(part)
            row = self.screen.display[self.screen.cursor.y].rstrip()
            if re.search(r"\d+%\|", row):
                self.bars.add(row)
        self.lines = [line.rstrip() for line in self.screen.display]
        while self.lines and not self.lines[-1]:
            self.lines.pop()


def _play(command: list[str], columns: int, extra: dict[str, str]) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    parts: list[bytes] = []

    def read() -> None:
        while True:
            try:
                parts.append(os.read(ours, 1 << 16))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, timeout=120,
            env={**environment, "TERM": "xterm-256color", **extra},
        )  # fmt: skip
    finally:
        os.close(theirs)
        reader.join(5)
        os.close(ours)
    text = b"".join(parts).decode()
    assert done.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s") as name:  # pytest's own folders have names longer than a line
        folder = Path(name)
        tiny_config(make_data(folder / "data", train=4, val=4), folder / "c.yml", iters=6)
        yield folder


def train(world: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "segkit", "train", "--config", str(world / "c.yml"), "--save_dir", str(world / "run")),
        *("--do_eval", "--device", "cpu", "--num_workers", "0", "--log_iters", "2", "--save_interval", "3", *more),
    ]  # fmt: skip


@pytest.fixture(scope="module", params=[(80, {}), (160, {"NO_COLOR": "1"})], ids=["80", "160"])
def watched(world: Path, request: pytest.FixtureRequest) -> Watched:
    columns, extra = request.param
    return Watched(train(world), columns, **extra)


def test_a_training_on_a_terminal(watched: Watched) -> None:
    columns = watched.screen.columns
    text = "\n".join(watched.lines)
    assert not NOISE.search(watched.raw)
    assert "%|" not in text, "a bar was left behind"
    widest = max(map(len, watched.lines))
    assert widest <= columns and not re.search(
        r"\S$", "\n".join(line for line in watched.lines if len(line) == columns)
    )
    lines = [line for line in watched.lines if "[TRAIN]" in line]
    assert len(lines) == 3 and all(re.match(rf"{STAMP} \[TRAIN\] epoch: ", line) for line in lines)
    unfolded = re.sub(r"\n {20}", " ", text)
    assert re.search(r"\[TRAIN\] epoch: \d, iter: 4/6, loss: \S+, lr: \S+, batch_cost: \S+, reader_cost: \S+, ips: "
                     r"\S+ samples/sec \| ETA \d\d:\d\d:\d\d$", unfolded, re.M)  # fmt: skip


def test_the_bar_shows_where_the_run_stands(watched: Watched) -> None:
    assert watched.bars and max(map(len, watched.bars)) <= watched.screen.columns
    last = [bar for bar in watched.bars if re.search(r"\| [56]/6 ", bar)]
    pattern = r"\d+%\|.*\| \d/6 loss \d+\.\d{4} lr \d\.\de-\d\d \d+\.\d images/s best mIoU \d\.\d{4} ETA \d\d:\d\d$"
    assert any(re.search(pattern, bar) for bar in last), watched.bars


def test_the_screen_at_the_start(watched: Watched) -> None:
    text = re.sub(r"\n {12}", " ", "\n".join(watched.lines))
    for pattern in (
        r"^  device +cpu, \d+ threads, fp32$",
        r"^  data +4 training and 4 validation images, 2 classes$",
        r"^  classes +ground \d+\.\d %, square \d+\.\d % of the pixels in 4 labels$",
        r"^  model +UNet, 53,198 parameters, about 0\.\d+ GFLOPs at 16x16$",
        r"^  steps +6 iterations of 2 samples, 3\.0 epochs$",
        r"^  schedule +Momentum, PolynomialDecay, seed 42$",
        r"^  output +\S+run$",
    ):
        assert re.search(pattern, text, re.M), f"{pattern}\n{text}"


def test_colours_are_for_those_who_want_them(watched: Watched) -> None:
    assert ("\033[1m" in watched.raw) == (watched.screen.columns == 80)  # the other has NO_COLOR


def test_into_a_file(world: Path) -> None:
    done = subprocess.run(train(world, "--json"), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "\033" not in done.stderr and "\r" not in done.stderr and "%|" not in done.stderr
    assert not NOISE.search(done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("  ", "+", "|"))]
    assert all(re.match(STAMP, line) for line in lines), "every line has its time"
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["save_dir"] == str(world / "run") and found["checkpoint"] == str(world / "run" / "iter_6")
    scores = [json.loads(line) for line in (world / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert found["mIoU"] == max(row["mIoU"] for row in scores if row["kind"] == "eval")


def test_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    monkeypatch.setattr(trainlog, "is_terminal", lambda stream: True)
    try:
        for quiet in (False, True):
            log.setup(quiet)
            train_log = trainlog.TrainLog(tmp_path, 2, (0, 0), 1.0, 2)
            assert (train_log._bar is None) == quiet
            with progress.progress(3, "val") as bar:
                assert isinstance(bar, progress._NoBar) == quiet
            train_log.close()
    finally:
        log.setup()


def test_lines_are_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    file = io.StringIO()
    line = "2026-01-31 12:00:00 one two three four five six"
    assert terminal.wrapped(line, file) == "2026-01-31 12:00:00 one two three four\n                    five six"
    row = "  data      many words that do not fit here"
    assert terminal.wrapped(row, file) == "  data      many words that do not fit\n            here"
    table = "| " + "x " * 30 + "|"
    assert terminal.wrapped(table, file) == table
    path = "/a" * 30
    assert path in terminal.wrapped(f"see {path}", file)
