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
from wcwidth import wcswidth

from segkit import log, progress, terminal
from segkit.cli import main as cli
from segkit.engine import trainlog
from segkit.engine.summary import Description, Row
from tests.tiny import make_data, tiny_config
from tests.tiny_model import make_all

ROOT = Path(__file__).resolve().parents[1]
NOISE = re.compile(
    r"ccache|glog|WARNING: Logging before|FLAGS_|\w+Warning:|^[IWE]\d{4} |PreconditionNotMet|\[[WE]:onnxruntime", re.M
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
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, timeout=300,
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
    assert max(map(len, watched.lines)) <= columns
    for line, after in zip(watched.lines, watched.lines[1:]):
        # What the terminal itself broke would go on at the first column.
        assert len(line) < columns or re.match(rf" {{12}}|{STAMP}|[+|]|$", after), (line, after)
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
        r"^  device +cpu, \d+ threads?, fp32$",
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


TOOLS = {
    "val": "val --model_path {best} --device cpu",
    "predict": "predict --model_path {best} --image_path {images} --save_dir {out}/predicted --device cpu",
    "export": "export --model_path {best} --save_dir {out}/exported",
    "infer": "infer --config {out}/exported --image_path {images} --save_dir {out}/inferred --added --benchmark",
    "report": "report --model_path {best} --save_dir {out}/report --device cpu",
}


@pytest.fixture(scope="module")
def tools() -> Iterator[tuple[dict[str, list[str]], dict[str, str]]]:
    """Name of each tool -> its words, and -> what it wrote into a file, all of them one after the other in a process."""
    with tempfile.TemporaryDirectory(prefix="s") as name:
        places = {"best": make_all(Path(name)), "images": Path(name) / "data" / "images", "out": name}
        words = {tool: line.format(**places).split() for tool, line in TOOLS.items()}
        code = (
            "import sys\nfrom segkit.cli.main import main\n"
            f"for words in {list(words.values())!r}:\n"
            "    print('=====', file=sys.stderr, flush=True)\n"
            "    assert main(words) == 0"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        before, *said = done.stdout.split("=====\n")
        yield words, {tool: before + text for tool, text in zip(words, said)}


@pytest.mark.parametrize("tool", TOOLS)
def test_other_tools_into_a_file(tools, tool: str) -> None:
    said = tools[1][tool]
    assert not NOISE.search(said), said
    assert re.search(STAMP, said) and not re.search("[\033\r]|%\\|", said), said


@pytest.mark.parametrize("tool", TOOLS)
def test_other_tools_on_a_terminal(tools, tool: str) -> None:
    seen = Watched([sys.executable, "-m", "segkit", *tools[0][tool]], 80)
    assert not NOISE.search(seen.raw), seen.raw
    assert "%|" not in "\n".join(seen.lines), "a bar was left behind"
    assert bool(seen.bars) == (tool != "export") and max(map(len, seen.bars), default=0) <= 80
    broken = [
        a + b for a, b in zip(seen.lines, seen.lines[1:]) if len(a) == 80 and not re.match(rf"\s|{STAMP}|[+|]", b)
    ]
    assert not broken, "by the terminal, not between words"


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


@pytest.mark.parametrize("columns", [40, 80])
def test_chinese_takes_two_columns(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = [
        f"{name} {share} %" for name, share in (("背景", 61.2), ("人行道", 9.5), ("交通信号灯", 0.4), ("café", 1.0))
    ]
    row = f"  classes   {', '.join(3 * names)} of the pixels in 4 labels"
    lines = terminal.wrapped(row, io.StringIO()).split("\n")
    assert max(map(wcswidth, lines)) <= columns < min(wcswidth(f"{a} {b.split()[0]}") for a, b in zip(lines, lines[1:]))
    assert all(line.startswith(" " * 12 + line[12]) for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == row.strip()
    assert terminal.columns_of("e\u0301") == 1 and terminal.wrapped(26 * "背", io.StringIO()) == 26 * "背"


ROWS = [
    Row("encode.down_sample_list.0.1._conv", "Conv2D", [1, 64, 224, 224], 36_864, 1_849_688_064),
    Row("backbone.stage4.2.fuse_layers.fuse_layers.1.2._batch_norm", "SyncBatchNorm", [1, 512, 14, 14], 2048, 0),
]


@pytest.mark.parametrize("columns", [80, 100, 200, None])
def test_the_layer_table_fits(columns) -> None:
    lines = Description(ROWS, 38_912, 37_888, 1_849_688_064).table(columns).splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("parameters:"))]
    assert max(map(len, table)) <= (columns or 134)
    borders = table[0].startswith("+-")
    assert borders == (columns != 80)
    names = "".join(re.match(r"\|? *(\S*)", line)[1] for line in table)
    assert all(row.name in names for row in ROWS)
    assert all(f"{row.flops:,}" in "\n".join(table) and str(row.output) in "\n".join(table) for row in ROWS)


def test_info_asks_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    argv = ["info", "--config", str(ROOT / "configs" / "dovenet_dove.yml"), "--input_shape", "1", "3", "64", "64"]
    widest = []
    for watched in (False, True):
        monkeypatch.setattr(terminal, "is_terminal", lambda stream, watched=watched: watched)
        monkeypatch.setenv("COLUMNS", "80")
        assert cli.main(argv) == 0
        widest.append(max(map(len, capsys.readouterr().out.splitlines())))
    assert widest[1] <= 80 < widest[0]
