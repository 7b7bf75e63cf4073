"""What all measurements share: taking turns, medians, how busy the machine was, tables, JSON and plots.

A measurement is a dict with "seconds" (one number or a list of them); `child` adds "memory" (GiB), "wall" (seconds of
the whole process) and "others" (cores that other programs took meanwhile, None where the system does not tell).
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Union

from segkit.runtime import MKL_KERNELS, physical_cores

ROOT = Path(__file__).resolve().parents[1]
Result = dict
_MKL_KERNELS = os.environ.get(MKL_KERNELS)  # the user's: peers do not get what segkit sets for itself
PEERS = {"paddleseg": "PaddleSeg 2.8.0", "torch": "torch"}


def describe(path: Path) -> str:
    """First line of the docstring of a file, without its command."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    return text[0].split(": `python")[0] if text else ""


def parser(description: Optional[str], rounds: int, peers: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A parser with the flags that every table has; `peers`: names of `PEERS` that it can measure beside segkit."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--rounds", type=int, default=rounds, help="how often every side is measured (default %(default)s)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw them (needs matplotlib)")
    for name in peers:
        text = f"Python that has {PEERS[name]} (benchmarks/README.md tells how to make one)"
        made.add_argument(f"--{name}", metavar="PYTHON", help=text)
    return made


# -- one measurement


def cpu_seconds() -> Optional[float]:
    """Processor seconds that the whole machine has worked, None where there is no /proc/stat."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system = (int(value) for value in file.readline().split()[1:4])
    except OSError:
        return None
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def taken_by_others(before: Optional[float], after: Optional[float], own: float, wall: float) -> Optional[float]:
    """Cores that other programs took: the machine's processor seconds less our `own`, by seconds of time."""
    if before is None or after is None or wall <= 0:
        return None
    return max(0.0, after - before - own) / wall


@contextmanager
def watched(result: Result) -> Iterator[None]:
    """Puts "wall" and "others" of the block into `result`; what this process and its ended children used is our own."""
    before, own, begin = cpu_seconds(), sum(os.times()[:4]), time.perf_counter()
    yield
    wall = time.perf_counter() - begin
    result["wall"] = wall
    result["others"] = taken_by_others(before, cpu_seconds(), sum(os.times()[:4]) - own, wall)


def tree(pid: int) -> list[int]:
    """A process and all its descendants (Linux; elsewhere the process alone)."""
    found = [pid]
    for parent in found:
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in file.read_text(encoding="ascii").split())
            except OSError:  # it has ended
                continue
    return found


def memory_of(pids: Sequence[int]) -> float:
    """GiB of those processes together, shared pages counted once (Linux; elsewhere 0)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**20


def peak_gib(usage: Any) -> float:
    """GiB of a resource usage's highest resident size, which Linux counts in KiB and macOS in bytes."""
    return usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def child(
    command: Sequence[str],
    environment: Optional[Mapping[str, Optional[str]]] = None,
    whole_tree: bool = False,
    cwd: Path = ROOT,
) -> Result:
    """Run a command; what it measured (a JSON object in its last line, if there is one), wall time, memory, others.

    Linux counts what this process held when it started the command into the command's peak: start from a small one.

    Args:
        environment: variables to set; None removes one.
        whole_tree: "memory" is that of the command and all that it started together, looked at every 0.2 s, instead
            of the peak of the largest single process.

    Raises:
        RuntimeError: the command failed; the end of what it said is in the message.
    """
    variables = {**os.environ, MKL_KERNELS: _MKL_KERNELS, **(environment or {})}
    result: Result = {}
    peaks = [0.0]
    ended = threading.Event()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, watched(result):
        process = subprocess.Popen(
            list(command), stdout=out, stderr=err, cwd=cwd, env={k: v for k, v in variables.items() if v is not None}
        )
        if whole_tree:

            def look() -> None:
                while not ended.wait(0.2):
                    peaks.append(memory_of(tree(process.pid)))

            threading.Thread(target=look, daemon=True).start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        out.seek(0)
        err.seek(0)
        said, errors = out.read(), err.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{(said + errors)[-3000:]}")
    last = said.strip().splitlines()[-1:] or [""]
    measured = json.loads(last[0]) if last[0].startswith("{") else {"seconds": result["wall"]}
    return {"memory": max(peak_gib(usage), *peaks), **result, **measured}


def this_process() -> float:
    """Peak memory of this process in GiB (on Linux without what its parent held when it was started)."""
    import resource

    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        return int(rows["VmHWM"].split()[0]) / 2**20
    except (OSError, KeyError, ValueError):
        return peak_gib(resource.getrusage(resource.RUSAGE_SELF))


@contextmanager
def busy(number: int) -> Iterator[None]:
    """`number` niced processes that compute without end beside the block, as loader workers do."""
    hogs = [subprocess.Popen([sys.executable, "-c", "import os\nos.nice(10)\nwhile True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def alternate(sides: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Every side once, then all again, `rounds` times, so that what else the machine does falls on all of them."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, measure in sides.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            results[name].append(measure())
    return results


def require_python(python: Optional[str], module: str, flag: str) -> str:
    """That interpreter, once it is known to import `module`.

    Raises:
        SystemExit: it is not given, not there, or lacks the module.
    """
    where = f"benchmarks: {flag} needs a Python that has {module}; benchmarks/README.md tells how to make one"
    if not python:
        raise SystemExit(f"{where}.")
    try:
        subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{where} (got {python}: {error}).") from None
    return python


# -- numbers


def middle(value: Union[float, Sequence[float]]) -> float:
    """The median of one run's seconds."""
    return statistics.median(value) if isinstance(value, (list, tuple)) else float(value)


def medians(runs: Sequence[Result], key: str = "seconds") -> list[float]:
    """The median of each run."""
    return [middle(run[key]) for run in runs]


def ratio(runs: Sequence[Result], others: Sequence[Result], key: str = "seconds") -> float:
    """How many times larger `runs` are than `others`: the median over the rounds, each round divided by itself."""
    return statistics.median(a / b for a, b in zip(medians(runs, key), medians(others, key)))


def digits(value: Optional[float]) -> str:
    """A number with three significant digits, without an exponent; "-" for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three significant digits."""
    lines = [list(header), ["---"] * len(header)]
    lines += [[digits(cell) if cell is None or isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def compared(results: Mapping[str, Sequence[Result]], baseline: str, unit: str = "s", key: str = "seconds") -> str:
    """A table of the sides: median of the runs' medians, lowest and highest, ratio to `baseline`, memory, others."""
    header = ["side", unit, "spread", f"{baseline} / this", "peak GiB", "others' cores"]
    rows = []
    for name, runs in results.items():
        values = medians(runs, key)
        spread = f"{digits(min(values))}-{digits(max(values))}"
        memory = max((run["memory"] for run in runs if "memory" in run), default=None)
        others = [run["others"] for run in runs if run.get("others") is not None]
        busiest = f"{statistics.median(others):.2f}" if others else "-"
        rows.append(
            [name, statistics.median(values), spread, f"{ratio(results[baseline], runs, key):.2f}", memory, busiest]
        )
    return markdown(header, rows)


# -- output


def machine(*packages: str) -> str:
    """Processor, cores, memory, system, Python and the versions of those packages that are installed."""
    names: list[str] = []
    memory = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        pass
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {physical_cores()} cores{memory}, {platform.system()}; {', '.join(versions)}"


def write_json(path: Optional[Path], results: Any, about: str) -> None:
    """All numbers and the machine line, if a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n", encoding="utf-8")


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files only.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("benchmarks: --plot needs matplotlib (pip install matplotlib).") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def bars(path: Optional[Path], results: Mapping[str, Sequence[Result]], title: str, unit: str = "seconds") -> None:
    """One bar a side, with the lowest and highest run, if a plot is asked for."""
    if path is None:
        return
    plot = pyplot()
    names = list(results)
    values = [medians(results[name]) for name in names]
    heights = [statistics.median(value) for value in values]
    spread = [[h - min(v) for h, v in zip(heights, values)], [max(v) - h for h, v in zip(heights, values)]]
    figure, axes = plot.subplots(figsize=(7, 0.45 * len(names) + 1.2))
    axes.barh(names, heights, xerr=spread, color="#4c78a8", ecolor="#333333", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    save(figure, axes, path)


def save(figure: Any, axes: Any, path: Path) -> None:
    """Write a figure, without the box round its axes."""
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    pyplot().close(figure)
