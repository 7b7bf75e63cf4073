"""How long each stage takes, and which one the others wait for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

STAGES = {"read": "decode + preprocess", "run": "run", "mask": "postprocess", "write": "write"}
TOTAL = "end to end"


class Clock:
    """Seconds a photo of each stage. Threads may use it at the same time."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in (*STAGES, TOTAL)}

    @contextlib.contextmanager
    def stage(self, name: str, photos: int = 1) -> Iterator[None]:
        """Count the block's time, in equal shares where it works on several photos."""
        begin = time.perf_counter()
        yield
        share = (time.perf_counter() - begin) / photos
        self.seconds[name] += [share] * photos

    def add(self, name: str, seconds: float) -> None:
        """Count one photo's time."""
        self.seconds[name].append(seconds)


def latencies(clock: Clock) -> dict[str, dict[str, float]]:
    """Median, 90th and 99th percentile in milliseconds of each stage and from file to file."""
    found = {}
    for name, seconds in clock.seconds.items():
        if seconds:
            values = 1000 * np.percentile(seconds, (50, 90, 99))
            found[name] = dict(zip(("median_ms", "p90_ms", "p99_ms"), (round(float(value), 3) for value in values)))
    return found


def busy_shares(clock: Clock, wall: float, threads: Mapping[str, int]) -> dict[str, float]:
    """Share of the time `wall` (seconds) that the `threads` of each stage worked; some stages share theirs."""
    return {name: round(sum(clock.seconds[name]) / (wall * threads[name]), 4) for name in STAGES}


def bound_by(busy: Mapping[str, float]) -> str:
    """The stage that was busy most; postprocessing and writing are done by the same threads, and count together."""
    together = {"read": busy["read"], "run": busy["run"], "finish": busy["mask"] + busy["write"]}
    top = max(together, key=lambda name: together[name])
    if top != "finish":
        return STAGES[top]
    return STAGES["mask" if busy["mask"] > busy["write"] else "write"]


def peak_memory() -> Optional[float]:
    """Largest resident size of this process in MiB, None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (2**20 if sys.platform == "darwin" else 2**10), 1)


def table(found: Mapping[str, Any]) -> str:
    """The result of a benchmark as lines of text."""
    lines = [f"{'':22}{'median ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'busy':>8}"]
    for name, row in found["latency"].items():
        busy = f"{found['busy'][name]:8.0%}" if name in found["busy"] else ""
        cells = "".join(f"{row[key]:10.2f}" for key in ("median_ms", "p90_ms", "p99_ms"))
        lines.append(f"{STAGES.get(name, name):22}{cells}{busy}")
    memory = "" if found["peak_memory_mib"] is None else f", peak memory {found['peak_memory_mib']:.0f} MiB"
    speed = f"{found['seconds']:.2f} s, {found['images_per_second']:.2f} a second"
    lines.append(f"the whole run: {found['images']} images in {speed}{memory}; bound by: {found['bound_by']}")
    return "\n".join(lines)
