"""`python -m tests.chaos --kills 100`: kill so many small runs, resume them, and say how many end as if never stopped."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segkit import runtime
from tests.chaos.runs import VARIANTS, Bench, Trial, draw, trial


def main() -> int:
    """0 when every run that was killed ended like the one that was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    args = parser.parse_args()
    runtime.require_paddle()

    rng, begin = np.random.default_rng(args.seed), time.monotonic()
    made: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="segkit-chaos-") as folder:
        bench = Bench(Path(folder))
        while sum(one.killed > 0 for one in made) < args.kills and time.monotonic() - begin < args.seconds:
            number = len(made)
            variant = list(VARIANTS)[number % len(VARIANTS)]
            made.append(trial(bench, variant, draw(rng, variant), number))
            print(f"{number:4} {made[-1]}", flush=True)
            for line in (bench.folder / f"run-{number}.txt").read_text().splitlines() if made[-1].problems else ():
                print(f"     | {line}")
    print(f"{summary(made)}, in {time.monotonic() - begin:.0f} s (seed {args.seed})")
    return 1 if any(one.problems for one in made) else 0


def summary(made: list[Trial]) -> str:
    """The runs that were killed, and what became of them."""
    killed = [one for one in made if one.killed]
    twice, workers = sum(one.killed > 1 for one in killed), sum(one.by_worker for one in killed)
    return (
        f"{len(killed)} killed ({twice} of them twice, {workers} by a worker's death), "
        f"{sum(one.resumed for one in killed)} resumed, {sum(bool(one.stood) for one in killed)} of them from a "
        f"checkpoint, {sum(one.identical for one in killed)} identical"
    )


if __name__ == "__main__":
    sys.exit(main())
