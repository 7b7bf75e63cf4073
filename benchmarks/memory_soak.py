"""Memory and open files of a training over time: `python -m benchmarks memory_soak --iters 5000 --evaluate-every 25`.

Trains a small U-Net with worker processes and evaluations in between (on the CPU through oneDNN), looks at the main
process and its workers every few seconds, and prints a table and how much a process grows per hour after the warm-up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from benchmarks import harness, real_data

WARM_UP = 0.25  # of the time: caches fill, the first evaluations come


def sample(pid: int) -> dict[str, float]:
    """Resident MiB, open files and number of the main process and of all its descendants together."""
    main, *others = [look(p) for p in harness.tree(pid)]
    return {
        "main_mib": main[0],
        "main_files": main[1],
        "workers": len(others),
        "workers_mib": sum(o[0] for o in others),
        "workers_files": sum(o[1] for o in others),
    }


def look(pid: int) -> tuple[float, int]:
    """Resident MiB and open files of one process; zeros where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        resident = sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return resident / 1024, len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0.0, 0


def growth(rows: Sequence[dict[str, float]], key: str) -> float:
    """What `key` gains in an hour: the slope of a straight line through the rows after the warm-up, evaluations (they
    have workers of their own) left out."""
    usual = float(np.median([row["workers"] for row in rows]))
    rows = [row for row in rows if row["minutes"] >= WARM_UP * rows[-1]["minutes"] and row["workers"] == usual]
    if len(rows) < 2:
        return float("nan")
    return float(np.polyfit([row["minutes"] for row in rows], [row[key] for row in rows], 1)[0] * 60)


def small(folder: Path) -> Path:
    """Write the config of a U-Net of four channels on 40 drawn photos, 8 of them to evaluate on."""
    from tests.tiny import make_data, tiny_config

    return tiny_config(make_data(folder / "data", train=32, val=8, size=(96, 128)), folder / "config.yml")


def soak(args: Any, out: Path) -> list[dict[str, float]]:
    """Train for so many iterations or minutes and return what was seen."""
    config = real_data.config(args.data.name, args.data.parent, out) if args.data else small(out)
    flags = [
        "--iters",
        str(args.iters or 10_000_000),
        "--save_interval",
        str(args.evaluate_every),
        "--do_eval",
        "--num_workers",
    ]
    flags += [str(args.workers), "--keep_checkpoint_max", "2", "--log_iters", "50", "--save_dir", str(out / "run")]
    rows: list[dict[str, float]] = []
    with open(out / "log.txt", "w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "segkit", "train", "--config", str(config), "--device", "cpu", *flags]
        process = subprocess.Popen([*command, *args.flags.split()], stdout=log, stderr=subprocess.STDOUT)
        try:
            begin = time.monotonic()
            while args.iters or time.monotonic() - begin < args.minutes * 60:
                time.sleep(args.every)
                if process.poll() == 0 and args.iters:
                    break
                if process.poll() is not None:
                    raise SystemExit(f"memory_soak: the training ended early; its log:\n{tail(out / 'log.txt', 30)}")
                rows.append({"minutes": (time.monotonic() - begin) / 60, **sample(process.pid)})
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return rows


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def plot(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """Resident memory over time."""
    plt = harness.pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for key, name in (("main_mib", "main process"), ("workers_mib", "workers together")):
        axes.plot([row["minutes"] for row in rows], [row[key] for row in rows], label=name)
    axes.set(title=title, xlabel="minutes", ylabel="resident MiB", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table."""
    parser = harness.parser(__doc__, rounds=1)
    parser.add_argument(
        "--data", type=Path, help="neu_seg or another set of benchmarks.real_data (default: 40 drawn photos)"
    )
    parser.add_argument("--minutes", type=float, default=30, help="end after so long (default %(default)s)")
    parser.add_argument("--iters", type=int, help="train so many iterations instead")
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--evaluate-every", type=int, default=200, help="iterations (default %(default)s)")
    parser.add_argument("--flags", default="", help="further flags of `segkit train`, in one string")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(args, Path(folder))
        log = (Path(folder) / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    trained = [line for line in log if "[TRAIN]" in line][-1:]
    about = harness.machine("paddlepaddle")
    evaluations = sum("[EVAL] #Images" in line for line in log)
    print(
        f"{about}; {rows[-1]['minutes']:.1f} minutes, {args.workers} workers, {evaluations} evaluations; the last line"
    )
    print("of the training: " + "".join(trained))
    keys = ("main_mib", "main_files", "workers", "workers_mib", "workers_files")
    shown = rows[:: max(1, len(rows) // 12)]
    table = [[f"{row['minutes']:.1f}", *(f"{row[key]:.0f}" for key in keys)] for row in shown]
    table.append(["growth an hour", *(f"{growth(rows, key):+.1f}" for key in keys)])
    header = ["minute", "main process MiB", "its open files", "workers", "workers MiB", "their open files"]
    print("\n" + harness.markdown(header, table))
    harness.write_json(args.json, {"rows": rows}, about)
    if args.plot:
        length = f"{args.iters:,} iterations" if args.iters else f"{args.minutes:g} minutes"
        plot(args.plot, rows, f"A training of {length} with {evaluations} evaluations")


if __name__ == "__main__":
    main()
