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
    """Seconds a photo of each stage, which threads may count at the same time, and in `waits` the seconds for which
    the engine's thread waited for photos ("read") and for masks to be finished ("finish")."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in (*STAGES, TOTAL)}
        self.waits = {"read": 0.0, "finish": 0.0}

    @contextlib.contextmanager
    def stage(self, name: str, photos: int = 1) -> Iterator[None]:
        """Count the block's time, in equal shares where it works on several photos."""
        begin = time.perf_counter()
        yield
        share = (time.perf_counter() - begin) / photos
        self.seconds[name] += [share] * photos

    @contextlib.contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Count the block's time as waiting. For the engine's thread alone."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.waits[name] += time.perf_counter() - begin

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
    """Share of the time `wall` (seconds) for which the `threads` of each stage were at work, waiting for a core
    included; some stages share theirs."""
    return {name: round(sum(clock.seconds[name]) / (wall * threads[name]), 4) for name in STAGES}


def bound_by(clock: Clock, wall: float) -> str:
    """What the run's time depends on: the stage for which the engine mostly waited, or the engine itself."""
    shares = {**clock.waits, "run": wall - sum(clock.waits.values())}
    top = max(shares, key=lambda name: shares[name])
    if top == "finish":
        top = max(("mask", "write"), key=lambda name: sum(clock.seconds[name]))
    return STAGES[top]


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
    waits = ", ".join(f"for {STAGES.get(name, 'masks')} {share:.0%}" for name, share in found["waits"].items())
    speed = f"{found['seconds']:.2f} s, {found['images_per_second']:.2f} a second"
    lines.append(f"the whole run: {found['images']} images in {speed}{memory}")
    lines.append(f"bound by {found['bound_by']} (the engine waited {waits} of the time)")
    return "\n".join(lines)
