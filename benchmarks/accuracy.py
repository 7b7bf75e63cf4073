"""Does the accuracy pay for the speed? mIoU on neu_seg with and without each acceleration, at several seeds.

The small U-Net of benchmarks/real_data.py, trained for a few hundred iterations on `--data`/neu_seg and judged by one
and the same `segkit val` in float32. A cell (side, seed) that `--out` already holds is not trained again.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Sequence

from benchmarks import harness, real_data

SIDES = {
    "Paddle's kernels": ["--no_onednn"],
    "oneDNN float32": [],
    "oneDNN bf16": ["--precision", "bf16"],
}


def cell(flags: Sequence[str], seed: int, data: Path, folder: Path, iters: int) -> dict[str, Any]:
    """Train and judge one side at one seed, unless it is done; its metrics and the seconds of its training."""
    kept = folder / "cell.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    config = str(real_data.config("neu_seg", data, folder))
    segkit = [sys.executable, "-m", "segkit"]
    train = [*segkit, "train", "--config", config, "--save_dir", str(folder / "train"), "--device", "cpu", "--quiet"]
    # smaller than in real_data: Paddle's own convolutions take their time
    changes = [f"iters={iters}", f"seed={seed}", "batch_size=4", "train_dataset.transforms.1.crop_size=[96,96]"]
    seconds = harness.child([*train, "--save_interval", str(iters), *flags, "--opts", *changes])["wall"]
    weights = str(folder / "train" / f"iter_{iters}")
    judged = harness.child(
        [
            *segkit,
            "val",
            "--model_path",
            weights,
            "--save_dir",
            str(folder / "val"),
            "--device",
            "cpu",
            "--quiet",
            "--json",
        ]
    )
    kept.write_text(json.dumps({"mIoU": judged["mIoU"], "train_seconds": seconds}), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def rows(results: dict[str, list[dict[str, Any]]], seeds: int) -> list[list[Any]]:
    """One row a side: mIoU at each seed, mean, the spread of the seeds, and the mean's distance to the first side's."""
    found = []
    first = statistics.mean(cell["mIoU"] for cell in next(iter(results.values())))
    for name, cells in results.items():
        scores = [cell["mIoU"] for cell in cells]
        scores_text = [f"{score:.4f}" for score in scores] + ["-"] * (seeds - len(scores))
        mean = statistics.mean(scores)
        spread = f"{max(scores) - min(scores):.4f}"
        seconds = statistics.median(cell["train_seconds"] for cell in cells)
        found.append([name, *scores_text, f"{mean:.4f}", spread, f"{mean - first:+.4f}", seconds])
    return found


def main() -> None:
    """Train what is missing and print the table."""
    parser = harness.parser(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells")
    parser.add_argument("--iters", type=int, default=300)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in args.sides}
    about = f"{harness.machine('paddlepaddle')}; neu_seg, {args.iters} iterations, {args.rounds} seeds"
    print(about, flush=True)
    for seed in range(1, args.rounds + 1):
        for name in args.sides:
            folder = args.out.absolute() / name.replace(" ", "_").replace("'", "") / str(seed)
            results[name].append(cell(SIDES[name], seed, args.data.absolute(), folder, args.iters))
            print(f"{name}, seed {seed}: {results[name][-1]}", file=sys.stderr, flush=True)
    seeds = [f"seed {seed}" for seed in range(1, args.rounds + 1)]
    header = ["side", *seeds, "mean", "highest - lowest", "mean - first side's", "training s"]
    print(f"\n{harness.markdown(header, rows(results, args.rounds))}")
    harness.write_json(args.json, results, about)
    if args.plot is not None:
        plot(args.plot, results)


def plot(path: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    """A point for each seed, a line for the mean."""
    pyplot = harness.pyplot()
    figure, axes = pyplot.subplots(figsize=(5, 3))
    for number, cells in enumerate(results.values()):
        scores = [cell["mIoU"] for cell in cells]
        axes.plot([number] * len(scores), scores, "o", color="#4c78a8", alpha=0.7)
        axes.hlines(statistics.mean(scores), number - 0.2, number + 0.2, color="#333333")
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("mIoU, neu_seg")
    harness.save(figure, axes, path)


if __name__ == "__main__":
    main()
