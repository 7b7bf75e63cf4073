"""Networks full of products of matrices, with MKL's kernels as it chooses them itself and as segkit does on AMD's CPUs.

A forward pass and a training step, each in a process of its own, by turns. Where segkit leaves the choice to MKL
(Intel's CPUs), both sides are the same.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial
from typing import Any

from benchmarks import harness
from segkit import registry
from segkit.runtime import MKL_KERNELS

CHOICES = {"MKL": "0", "segkit": None}
"""Who chooses -> the value of MKL's variable; 0 asks it to look at the CPU, None leaves it to segkit."""
STEPS = 3


def measure(name: str, side: int, trains: bool) -> dict[str, Any]:
    """Seconds of each of three passes or steps with two photos, after one that does not count, in this process."""
    from segkit import runtime

    runtime.require_paddle()
    import paddle

    from segkit.engine.onednn import convolutions

    model = registry.MODELS.get(name)(num_classes=19)
    optimizer = paddle.optimizer.SGD(1e-3, parameters=model.parameters())
    photos, label = paddle.randn([2, 3, side, side]), paddle.zeros([2, side, side], "int64")
    loss = paddle.nn.CrossEntropyLoss(axis=1)
    seconds = []
    with convolutions():
        for _ in range(STEPS + 1):
            begin = time.perf_counter()
            if trains:
                loss(model(photos)[0], label).backward()
                optimizer.step()
                optimizer.clear_grad()
            else:
                model.eval()
                with paddle.no_grad():
                    model(photos)[0].numpy()
            seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds[1:]}


def main() -> None:
    """Print the table."""
    parser = harness.parser(__doc__, rounds=3)
    parser.add_argument("--models", nargs="+", choices=registry.MODELS.names(),
                        default=["SegFormer", "SegNeXt", "LinearSegmenter", "OCRNet"])  # fmt: skip
    parser.add_argument("--side", type=int, default=256, help="height and width of the photos (default %(default)s)")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WHAT"), help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.side, args.one[1] == "step")))
        return
    about = harness.machine("paddlepaddle")
    print(f"{about}; 2 photos of {args.side}x{args.side}, {args.rounds} rounds\n", flush=True)
    results, rows = {}, []
    for name in args.models:
        for what in ("forward", "step"):
            command = [sys.executable, "-m", "benchmarks.mkl_kernels", "--side", str(args.side), "--one", name, what]
            sides = {
                f"{name}, {what}, {who}": partial(harness.child, command, {MKL_KERNELS: value})
                for who, value in CHOICES.items()
            }
            found = harness.alternate(sides, args.rounds)
            results.update(found)
            own, ours = found.values()
            times = [f"{harness.digits(statistics.median(harness.medians(runs)))} "
                     f"({harness.digits(min(harness.medians(runs)))}-{harness.digits(max(harness.medians(runs)))})"
                     for runs in (own, ours)]  # fmt: skip
            rows.append([name, what, *times, f"{harness.ratio(own, ours):.2f}"])
    print(harness.markdown(["model", "what", "MKL's choice, s", "segkit's, s", "times as fast"], rows))
    print("\nThe last column is the median of the rounds' own ratios.")
    harness.write_json(args.json, results, about)
    harness.bars(args.plot, results, "MKL's kernels")


if __name__ == "__main__":
    main()
