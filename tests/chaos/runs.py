"""Starting, killing and comparing runs. A run is a forked process, so that paddle is imported once for all of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np

from tests.tiny import make_data, tiny_config

ITERS, INTERVAL = 60, 6
CLOCK = ("batch_cost", "reader_cost", "ips")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_WAITING = (signal.SIGTERM, signal.SIGINT)
_POLYNOMIAL = {"type": "PolynomialDecay", "learning_rate": 0.05, "power": 0.9, "end_lr": 0, "warmup_iters": 5}
_COSINE = {"type": "CosineAnnealingDecay", "learning_rate": 0.01, "T_max": ITERS}
VARIANTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "adam": ({"optimizer": {"type": "AdamW", "weight_decay": 0.01}, "lr_scheduler": _COSINE},
             ["--num_workers", "1", "--accumulate_steps", "2", "--use_ema"]),
    "momentum": ({"lr_scheduler": _POLYNOMIAL}, ["--num_workers", "0", "--use_ema"]),
    "workers": ({"lr_scheduler": _POLYNOMIAL, "optimizer": {"type": "Adam"}}, ["--num_workers", "2"]),
}  # fmt: skip
"""Name -> changes to the config, flags."""


def has_bf16() -> bool:
    """Whether this CPU trains with `--precision bf16`; it does then in one of the variants."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")


@dataclass
class Bench:
    """A data set, a config for each variant, and the runs that were never stopped."""

    folder: Path
    whole: dict[str, tuple[float, float]] = field(default_factory=dict)
    """variant -> seconds to the first checkpoint and to the end of the whole run"""

    def __post_init__(self) -> None:
        import segkit.engine.train  # noqa: F401  (forked runs need not import it)
        from tests.chaos import model  # noqa: F401  (registers the network)

        data = make_data(self.folder / "data", train=14, val=3)
        for name, (changes, _) in VARIANTS.items():
            tiny_config(data, self.folder / f"{name}.yml", iters=ITERS, model={"type": "ChaosNet"},
                        loss={"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]}, **changes)  # fmt: skip

    def command(self, variant: str, out: Path, *more: str) -> list[str]:
        """The flags of a run."""
        low = ["--precision", "bf16"] if variant == "momentum" and has_bf16() else []
        return ["train", *low, "--config", str(self.folder / f"{variant}.yml"), "--save_dir", str(out), "--device", "cpu",
                "--do_eval", "--use_vdl", "--save_interval", str(INTERVAL), "--log_iters", "4",
                "--keep_checkpoint_max", "2", *VARIANTS[variant][1], *more]  # fmt: skip

    def reference(self, variant: str) -> Path:
        """The run of this variant that nobody stops."""
        out = self.folder / f"whole-{variant}"
        if variant not in self.whole:
            begin = time.perf_counter()
            run = start(self.command(variant, out), out.with_suffix(".txt"))
            while not (out / f"iter_{INTERVAL}").is_dir() and run.alive():
                time.sleep(0.005)
            first = time.perf_counter() - begin
            code = run.wait()
            if code:
                raise RuntimeError(f"{variant}: ended with {code}\n{out.with_suffix('.txt').read_text()}")
            self.whole[variant] = (first, time.perf_counter() - begin)
        return out

    def left(self, variant: str, kill: Kill, stood: Path | None, resumed: bool) -> float:
        """Seconds within which the moment of a kill lies: to the first checkpoint, from there to the end, or all that
        a resumed run takes from where it stood."""
        first, whole = self.whole[variant]
        if kill.beyond:
            return whole - first
        done = int(stood.name[5:]) / ITERS if stood else 0
        return first + (whole - first) * (1 - done) * resumed


class Forked:
    """A process that was forked."""

    def __init__(self, pid: int):
        self.pid = pid
        self.code: Optional[int] = None

    def alive(self) -> bool:
        """Whether it still runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG) if self.code is None else (0, 0)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, or minus the signal that ended it. `TimeoutError` (and its end) after so many seconds."""
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"still running after {seconds} s")
            else:
                time.sleep(0.005)
        return self.code


def start(argv: list[str], said: Path, before: Callable[[], None] = lambda: None) -> Forked:
    """`segkit ARGV` in a forked process that leads a group of its own; what it prints goes into `said`. `before` is
    called in it first. Signals wait until the command begins, so that none of them meets the harness."""
    asked = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # it has done so itself, or has ended
            os.setpgid(pid, pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, asked)
        return Forked(pid)
    code = 1
    try:  # the child never returns from here
        code = _command(argv, said, before)
    finally:
        os._exit(code)


def _command(argv: list[str], said: Path, before: Callable[[], None]) -> int:
    """The exit code of `segkit ARGV`; runs in the forked process, with signals blocked at both ends."""
    from segkit.cli.main import main
    from segkit.engine.loader import _close_open

    os.setpgid(0, 0)
    handle = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    code = 1
    try:
        before()
        for number in _WAITING:  # a new process has no handlers; here Paddle has set its own
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)  # what has come meanwhile ends it here
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python has it when the command begins
        code = main(argv)
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:  # before or after the command, which answers it
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
        sys.stdout.flush()
        sys.stderr.flush()
        _close_open()
    return code


@dataclass
class Kill:
    """What hits a run, and when."""

    signal: signal.Signals
    target: str
    """`it`, `its group` or `a worker`"""
    beyond: int
    """the iteration whose checkpoint must stand; 0: at any moment"""
    share: float
    """of the time that is left then: 0 at once, 1 at the end"""

    def __str__(self) -> str:
        moment = f"{self.share:.0%} " + (f"beyond iter_{self.beyond}" if self.beyond else "from its start")
        return f"{self.signal.name} to {self.target}, {moment}"


def draw(rng: np.random.Generator, variant: str) -> list[Kill]:
    """One kill, nine times in ten beyond the first checkpoint; every third time one more while the run is resumed, its
    start included; every sixth of a run with workers hits one of these."""

    def target() -> tuple[signal.Signals, str]:
        if VARIANTS[variant][1][1] != "0" and rng.random() < 1 / 6:
            return signal.SIGKILL, "a worker"
        return SIGNALS[int(rng.integers(len(SIGNALS)))], ("it", "its group")[int(rng.integers(2))]

    kills = [Kill(*target(), INTERVAL if rng.random() < 0.9 else 0, rng.random())]
    if rng.random() < 1 / 3:
        kills.append(Kill(*target(), 0, rng.random()))
    return kills


@dataclass
class Trial:
    """A run that was killed, once or twice, and resumed."""

    variant: str
    kills: list[Kill]
    """those meant, of which those beyond `killed` came too late"""
    killed: int = 0
    """how often it was"""
    stood: str = ""
    """the checkpoint that it was resumed from after the first time"""
    resumed: bool = False
    """it went on to the end"""
    identical: bool = False
    """what it left is what the run left that was never stopped"""
    problems: list[str] = field(default_factory=list)

    @property
    def by_worker(self) -> bool:
        """Whether it was ended by the death of a worker."""
        return any(kill.target == "a worker" for kill in self.kills[: self.killed])

    def __str__(self) -> str:
        how = "; then ".join(map(str, self.kills[: max(self.killed, 1)]))
        return f"{self.variant:8} {how}; {self.stood or 'no checkpoint yet'}: " + (
            "; ".join(self.problems) or ("identical" if self.killed else "had ended before")
        )


def trial(bench: Bench, variant: str, kills: list[Kill], number: Union[int, str]) -> Trial:
    """Start a run, kill it, resume it (and kill that too, where there is a second kill), and compare it with the one
    that was never stopped. `number`: of its folder."""
    whole = bench.reference(variant)
    made = Trial(variant, kills)
    out, said = bench.folder / f"run-{number}", bench.folder / f"run-{number}.txt"
    try:
        made.resumed = _killed_and_resumed(bench, made, out, said)
    except TimeoutError as error:
        made.problems.append(str(error))
    if "Traceback" in said.read_text(encoding="utf-8"):
        made.problems.append(f"a traceback in {said}")
    found = (
        differences(outcome(whole), outcome(out)) if (out / f"iter_{ITERS}").is_dir() else ["it has no last iteration"]
    )
    made.identical = not found
    made.problems += found
    if not made.problems:
        shutil.rmtree(out)
    return made


def _killed_and_resumed(bench: Bench, made: Trial, out: Path, said: Path) -> bool:
    """Whether the run reached its end after the kills; what went wrong is noted in `made`."""
    from segkit.engine import checkpoint

    said.touch()  # a run may be killed before it opens it
    flags: list[str] = []
    for kill in [*made.kills, None]:
        stood = checkpoint.find("auto", out) if out.is_dir() else None
        if made.killed == 1:
            made.stood = stood.name if stood else ""
        begun = said.stat().st_size
        run = start(bench.command(made.variant, out, *flags), said)
        if kill is not None:
            _hit(run, kill, out, kill.share * bench.left(made.variant, kill, stood, bool(flags)))
        code, text = run.wait(), said.read_bytes()[begun:].decode("utf-8")
        if code == 0 or (flags and code == 2 and "this run is finished" in text):
            return bool(flags)
        if kill is None:
            made.problems.append(f"resumed, ended with {code}")
            return False
        made.killed += 1
        made.problems += _unlike(kill, code, text)
        flags = ["--resume_model", "auto"]
    raise AssertionError("the last run is not killed")


def _hit(run: Forked, kill: Kill, out: Path, seconds: float) -> None:
    """Wait for the moment, so many seconds after the checkpoint that the kill waits for, and send the signal."""
    while kill.beyond and not (out / f"iter_{kill.beyond}").is_dir() and run.alive():
        time.sleep(0.005)
    time.sleep(seconds)
    pids = [run.pid]
    while run.alive() and kill.target == "a worker":
        pids = _workers(run.pid)
        if pids:
            break
        time.sleep(0.005)
    if run.alive():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            (os.killpg if kill.target == "its group" else os.kill)(pids[-1], kill.signal)


def _workers(pid: int) -> list[int]:
    """The data-reading processes of a run: its children that run the same command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if parent == pid and (folder / "cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def _unlike(kill: Kill, code: int, text: str) -> list[str]:
    """What is wrong with how a run ended that was killed so."""
    if kill.target == "a worker":
        expected = code == 2 and "num_workers: a data-reading process died" in text
        return [] if expected else [f"its worker dead, it ended with {code}"]
    return [] if code in (-kill.signal, 128 + kill.signal) else [f"ended with {code}"]


def outcome(out: Path) -> dict[str, Any]:
    """Everything of a finished run that may not depend on whether it was stopped, in comparable form."""
    from segkit.engine.weights import load_objects

    last = out / f"iter_{ITERS}"
    found: dict[str, Any] = {}
    for path in [*sorted(last.glob("*.pd*")), out / "best_model" / "model.pdparams"]:
        arrays = load_objects(path)
        found[str(path.relative_to(out))] = {key: np.asarray(value).tobytes() for key, value in arrays.items()}
    found["trainer.json"] = json.loads((last / "trainer.json").read_text(encoding="utf-8"))
    rows = (json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found["metrics.jsonl"] = [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]
    found["VisualDL"] = points(out / "vdlrecords.segkit.log")
    found["left over"] = sorted(path.name for path in out.glob(".*"))
    return found


def points(path: Path) -> dict[str, list]:
    """Tag -> (step, value or picture) of a VisualDL file, clock readings aside."""
    from visualdl.proto.record_pb2 import Record
    from visualdl.reader.record_reader import RecordReader

    found: dict[str, list] = {}
    for data in RecordReader(str(path)).get_all():
        for value in Record.FromString(data).values:
            if value.tag.startswith(("Train/", "Evaluate/")) and value.tag.split("/")[1] not in CLOCK:
                point = value.value if value.HasField("value") else value.image.encoded_image_string
                found.setdefault(value.tag, []).append((value.id, point))
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two outcomes, a line each."""
    lines = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            lines += [f"{key}: {name}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        elif a != b:
            lines.append(f"{key}: {a!r:.300} / {b!r:.300}")
    return lines
