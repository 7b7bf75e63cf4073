"""`python -m tests.chaos --kills 100`: kill so many small runs, resume them, and say how many end as if never stopped."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segkit import runtime


def main() -> int:
    """0 when every run that was killed ended like the one that was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    args = parser.parse_args()
    runtime.require_paddle()
    from tests.chaos.runs import Bench, trial

    rng, begin = np.random.default_rng(args.seed), time.monotonic()
    killed = resumed = identical = faults = number = 0
    with tempfile.TemporaryDirectory(prefix="segkit-chaos-") as folder:
        bench = Bench(Path(folder))
        while killed < args.kills and time.monotonic() - begin < args.seconds:
            made = trial(bench, rng, number)
            number += 1
            print(f"{number:4} {made}", flush=True)
            for line in (bench.folder / f"run-{number - 1}.txt").read_text().splitlines() if made.problems else ():
                print(f"     | {line}")
            killed += made.killed
            resumed += made.killed and not any("ended with" in problem for problem in made.problems)
            identical += made.killed and made.identical
            faults += bool(made.problems)
    print(
        f"{killed} killed, {resumed} resumed, {identical} identical, in {time.monotonic() - begin:.0f} s (seed {args.seed})"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
