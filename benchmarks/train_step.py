"""Seconds of a training step on the CPU, Paddle's convolutions against oneDNN's: `python -m benchmarks.train_step`.

Every measurement is a process of its own; the ways take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

from segkit import registry, runtime

# name: (precision or None for Paddle's own convolutions, malloc tuned, threads as Paddle sets them)
WAYS = {
    "Paddle as it comes (1 thread)": (None, False, True),
    "Paddle": (None, False, False),
    "Paddle + malloc": (None, True, False),
    "oneDNN": ("fp32", False, False),
    "oneDNN + malloc": ("fp32", True, False),
    "oneDNN bf16": ("bf16", False, False),
    "oneDNN bf16 + malloc": ("bf16", True, False),
}
MODELS = {
    "UNet16": ("UNet", {"num_classes": 2, "base_channels": 16}, (4, 3, 224, 224)),
    "UNet": ("UNet", {"num_classes": 2}, (2, 3, 512, 512)),
    "BiSeNetV2": ("BiSeNetV2", {"num_classes": 2}, (4, 3, 512, 512)),
}


def measure(model: str, way: str, steps: int) -> dict[str, Any]:
    """Seconds of each of `steps` steps after the first, peak memory and the last loss, in this process."""
    precision, malloc, _ = WAYS[way]
    runtime.require_paddle()
    import paddle
    import paddle.nn.functional as F

    from segkit.engine.memory import tune_malloc
    from segkit.engine.onednn import convolutions, counts

    malloc = malloc and tune_malloc()
    name, arguments, shape = MODELS[model]
    paddle.seed(1)
    net = registry.MODELS.get(name)(**arguments)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=net.parameters())
    image, label = paddle.randn(shape), paddle.randint(0, arguments["num_classes"], [shape[0], *shape[2:]])
    seconds = []
    with convolutions(precision is not None, precision or "fp32"):
        for _ in range(steps + 1):
            start = time.perf_counter()
            loss = sum(F.cross_entropy(y, label, axis=1) for y in net(image))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            value = float(loss)
            seconds.append(time.perf_counter() - start)
    import resource

    return {
        "seconds": seconds[1:],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "loss": value,
        "malloc": malloc,
        "convolutions": dict(counts),
    }


@contextmanager
def busy(number: int) -> Iterator[None]:
    """`number` niced processes that compute without end, as loader workers do."""
    hogs = [subprocess.Popen([sys.executable, "-c", "import os\nos.nice(10)\nwhile True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def used_by_others(before: tuple[float, float], own: float) -> float:
    """Cores taken by other processes since `before`, a result of `cpu_seconds`; `own`: our processor seconds."""
    total, now = cpu_seconds()
    return max(0.0, (total - before[0] - own) / (now - before[1]))


def cpu_seconds() -> tuple[float, float]:
    """Processor seconds of the whole machine, and the time."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system = (int(v) for v in file.readline().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK"), time.perf_counter()


def in_process(model: str, way: str, steps: int) -> dict[str, Any]:
    """`measure` in a new process; "others" is what other processes took meanwhile, in cores."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--one", model, way, "--steps", str(steps)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if WAYS[way][2]:
        environment["OMP_NUM_THREADS"] = "1"  # what Paddle sets when nobody else does
    before, own = cpu_seconds(), os.times()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"{model}, {way}: {result.stderr[-2000:]}")
    after = os.times()
    taken = after.children_user + after.children_system - own.children_user - own.children_system
    return {**json.loads(result.stdout.splitlines()[-1]), "others": used_by_others(before, taken)}


def table(model: str, results: dict[str, list[dict[str, Any]]], baseline: str) -> list[str]:
    """Lines of the Markdown table of one model."""
    medians = {way: [statistics.median(r["seconds"]) for r in runs] for way, runs in results.items()}
    shape = "x".join(str(n) for n in MODELS[model][2])
    lines = [
        "",
        f"{model}, {shape}: seconds a step (median of the runs' medians, lowest and highest)",
        "",
        f"| way | step | spread | {baseline} / this | peak GiB | others' cores | loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, runs in results.items():
        middle = statistics.median(medians[way])
        ratio = statistics.median(a / b for a, b in zip(medians[baseline], medians[way]))
        others = statistics.median(r["others"] for r in runs)
        memory = max(r["memory"] for r in runs)
        spread = f"{min(medians[way]):.3f}-{max(medians[way]):.3f}"
        lines.append(
            f"| {way} | {middle:.3f} | {spread} | {ratio:.2f} | {memory:.1f} | {others:.2f} | {runs[0]['loss']:.5f} |"
        )
    return lines


def machine() -> str:
    """Processor, cores and versions."""
    runtime.require_paddle()
    import paddle

    from segkit.engine.onednn import library

    processor = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    try:
        found = library.load()
        onednn = f"oneDNN {found.version}, instruction set {found.isa:#x}, {found.threads} threads"
    except library.Unavailable as reason:
        onednn = f"no oneDNN: {reason}"
    return (
        f"{names[0] if names else processor}, {runtime.physical_cores()} cores; Python {platform.python_version()}, "
        f"Paddle {paddle.__version__}, {onednn}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["UNet16", "BiSeNetV2"], choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way")
    parser.add_argument("--steps", type=int, default=4, help="steps timed in each process, after one untimed")
    parser.add_argument("--busy", type=int, default=0, help="niced processes that compute beside it")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WAY"), help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.steps)))
        return
    print(f"{machine()}; {args.rounds} rounds of {args.steps} steps, {args.busy} busy processes beside", flush=True)
    for model in args.models:
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in args.ways}
        with busy(args.busy):
            for _ in range(args.rounds):
                for way, runs in results.items():
                    runs.append(in_process(model, way, args.steps))
        print("\n".join(table(model, results, args.ways[0])), flush=True)


if __name__ == "__main__":
    main()
