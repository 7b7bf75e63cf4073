"""How seconds and memory grow: with image size, classes, photos of an epoch, reading processes, ranks.

size and classes: a training step of BiSeNetV2 (batch 2), beside PaddleSeg's with `--paddleseg PYTHON`. photos: whole
`train` runs of one epoch of a small U-Net. workers: batches of 512x512 crops of 480x360 JPEGs, read and thrown away.
ranks: `train` under paddle.distributed.launch. Memory is that of all processes together, where there are several.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import yaml

from benchmarks import harness, train_step
from segkit import io

WAY = "oneDNN + malloc"  # what `train` does on the CPU
SIZES, CLASSES = (128, 256, 384, 512), (2, 19, 64, 150)
PHOTOS, WORKERS, RANKS = (16, 64, 256), (0, 1, 2), (1, 2)
LABELS = {
    "size": "image side, pixels",
    "classes": "classes",
    "photos": "photos",
    "workers": "workers",
    "ranks": "ranks",
}
UNITS = {"size": "s/step", "classes": "s/step", "photos": "s/epoch", "workers": "s/batch of 8", "ranks": "s/iteration"}
Points = dict[str, Callable[[], dict[str, Any]]]


def step_points(args: Any, table: str) -> Points:
    """`side: x` -> a measurement of a training step, for the tables size and classes."""
    points: Points = {}
    for x in SIZES if table == "size" else CLASSES:
        classes, side = (2, x) if table == "size" else (x, 256)
        model = json.dumps(["BiSeNetV2", {"num_classes": classes}, [2, 3, side, side]])
        points[f"segkit: {x}"] = partial(train_step.in_process, model, WAY, args.steps)
        if args.paddleseg:
            peer = partial(train_step.of_peer, args.paddleseg, "train_step_peer.py", model, "PaddleSeg", args.steps)
            points[f"PaddleSeg: {x}"] = peer
    return points


def write_photos(folder: Path, count: int, size: tuple[int, int], suffix: str) -> dict[str, Any]:
    """`count` photos of smooth noise of that size (width, height) with labels; the node of their data set."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    rng, names = np.random.default_rng(0), []
    for number in range(count):
        coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3)).astype(np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        io.write_bytes_atomic(folder / f"{number}{suffix}", cv2.imencode(suffix, image)[1].tobytes())
        io.write_png(folder / f"{number}_label.png", (image[:, :, 0] > 128).astype(np.uint8))
        names.append(f"{number}{suffix} {number}_label.png\n")
    (folder / "train.txt").write_text("".join(names), encoding="utf-8")
    return {"type": "Dataset", "dataset_root": str(folder), "num_classes": 2}


def write_config(folder: Path, dataset: dict[str, Any], iters: int, batch: int) -> Path:
    """A config of a U-Net of eight channels on 128x128 photos."""
    node = {
        "batch_size": batch,
        "iters": iters,
        "train_dataset": {**dataset, "transforms": [{"type": "RandomHorizontalFlip"}, {"type": "Normalize"}]},
        "model": {"type": "UNet", "base_channels": 8},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "optimizer": {"type": "Momentum"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
    }
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(node), encoding="utf-8")
    return path


def train(config: Path, ranks: int = 1, threads: int | None = None) -> dict[str, Any]:
    """A whole `train` run; "seconds" is that of the process, "iteration" the median the log gives after the first."""
    out = config.parent / "out"
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(out / "ranks")]
    command = [sys.executable, *(launch if ranks > 1 else []), str(harness.ROOT / "tools" / "train.py"), "--quiet"]
    command += ["--config", str(config), "--save_dir", str(out), "--device", "cpu", "--log_iters", "5"]
    environment = {"OMP_NUM_THREADS": None if threads is None else str(threads)}
    result = harness.child(command, environment, whole_tree=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    costs = [line["batch_cost"] for line in lines if line["kind"] == "train"]
    return {**result, "iteration": statistics.median(costs[1:] or costs)}


def photo_points(folder: Path) -> Points:
    """Epochs of growing data sets."""
    points: Points = {}
    for count in PHOTOS:
        place = folder / f"photos{count}"
        dataset = write_photos(place, count, (128, 128), ".png")
        points[f"segkit: {count}"] = partial(train, write_config(place, dataset, count // 4, 4))
    return points


def rank_points(folder: Path) -> Points:
    """The same eight photos a step on one rank and shared by two, one thread a rank."""

    def one(config: Path, ranks: int) -> dict[str, Any]:
        result = train(config, ranks, threads=1)
        return {**result, "seconds": result["iteration"]}

    points: Points = {}
    for ranks in RANKS:
        place = folder / f"ranks{ranks}"
        dataset = write_photos(place, 64, (128, 128), ".png")
        points[f"segkit: {ranks}"] = partial(one, write_config(place, dataset, 30, 8 // ranks), ranks)
    return points


def read(root: str, workers: int, batches: int) -> dict[str, Any]:
    """Seconds a batch of 8 in this process, after the first few."""
    from segkit import runtime

    runtime.require_paddle()
    from segkit.build import build_dataset
    from segkit.config import Config
    from segkit.engine.loader import train_loader

    dataset = build_dataset(Config(str(Path(root) / "config.yml")), "train")
    with train_loader(dataset, 8, workers) as loader:
        for _ in range(4):
            next(loader)
        begin = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return {"seconds": (time.perf_counter() - begin) / batches}


def worker_points(folder: Path) -> Points:
    """Reading alone, by 0, 1 and 2 processes."""
    place = folder / "workers"
    dataset = write_photos(place, 64, (480, 360), ".jpg")
    write_config(place, dataset, 1, 8)
    path = place / "config.yml"
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    node["train_dataset"]["transforms"] = [
        {"type": "ResizeStepScaling"},
        {"type": "RandomPaddingCrop", "crop_size": [512, 512]},
        {"type": "RandomHorizontalFlip"},
        {"type": "RandomDistort"},
        {"type": "Normalize"},
    ]
    path.write_text(yaml.safe_dump(node), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.scaling", "--read", str(place)]
    return {
        f"segkit: {workers}": partial(harness.child, [*command, str(workers), "24"], whole_tree=True)
        for workers in WORKERS
    }


def series(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[tuple[int, float, float, float, float]]]:
    """Side -> (x, median, lowest, highest seconds, peak GiB), in the order of x."""
    found: dict[str, list[tuple[int, float, float, float, float]]] = {}
    for name, runs in results.items():
        side, _, x = name.partition(": ")
        values = harness.medians(runs)
        memory = max(run["memory"] for run in runs)
        found.setdefault(side, []).append((int(x), statistics.median(values), min(values), max(values), memory))
    return {side: sorted(points) for side, points in found.items()}


def rows(found: dict[str, list[tuple[int, float, float, float, float]]]) -> list[list[Any]]:
    """One row an x: seconds, spread and memory of each side, and the first over the last where there are two."""
    sides = list(found)
    lines = []
    for number, (x, *_) in enumerate(found[sides[0]]):
        line: list[Any] = [x]
        for side in sides:
            _, middle, low, high, memory = found[side][number]
            line += [middle, f"{harness.digits(low)}-{harness.digits(high)}", memory]
        if len(sides) > 1:
            line.append(f"{found[sides[1]][number][1] / found[sides[0]][number][1]:.1f}")
        lines.append(line)
    return lines


def header(table: str, sides: list[str]) -> list[str]:
    """The columns of `rows`."""
    columns = [table]
    for side in sides:
        columns += [f"{side} {UNITS[table]}", "spread", "peak GiB"]
    return [*columns, f"{sides[1]} / {sides[0]}"] if len(sides) > 1 else columns


def plot(path: Path, table: str, found: dict[str, list[tuple[int, float, float, float, float]]]) -> None:
    """Seconds and memory side by side."""
    pyplot = harness.pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3))
    for side, points in found.items():
        x, middle, low, high, memory = zip(*points)
        left.errorbar(
            x, middle, [np.subtract(middle, low), np.subtract(high, middle)], marker="o", capsize=3, label=side
        )
        right.plot(x, memory, marker="o", label=side)
    for axes, label in ((left, UNITS[table]), (right, "peak GiB")):
        axes.set(xlabel=LABELS[table], ylabel=label, ylim=(0, 1.08 * axes.get_ylim()[1]))
        axes.set_xticks([point[0] for point in next(iter(found.values()))])
        axes.spines[["top", "right"]].set_visible(False)
    if len(found) > 1:
        left.legend(frameon=False)
    figure.tight_layout()
    harness.save(figure, left, path)


def main() -> None:
    """Print one table a question."""
    parser = harness.parser(__doc__, rounds=3, peers=("paddleseg",))
    parser.add_argument("--tables", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--steps", type=int, default=3, help="steps timed in each process, after one untimed")
    parser.add_argument("--read", nargs=3, metavar=("FOLDER", "WORKERS", "BATCHES"), help="read in this process")
    args = parser.parse_args()
    if args.read:
        print("\n" + json.dumps(read(args.read[0], int(args.read[1]), int(args.read[2]))))
        return
    if args.paddleseg:
        harness.require_python(args.paddleseg, "paddleseg", "--paddleseg")
    about = f"{harness.machine('paddlepaddle')}; {args.rounds} rounds"
    print(about, flush=True)
    everything = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = {"photos": photo_points, "workers": worker_points, "ranks": rank_points}
        for table in args.tables:
            points = made[table](folder) if table in made else step_points(args, table)
            results = everything[table] = harness.alternate(points, args.rounds)
            found = series(results)
            print(f"\n{LABELS[table]}\n\n{harness.markdown(header(table, list(found)), rows(found))}", flush=True)
            others = [run["others"] for runs in results.values() for run in runs if run["others"] is not None]
            print(f"\nothers took {statistics.median(others):.2f} cores" if others else "", flush=True)
            if args.plot is not None:
                plot(args.plot.with_name(f"{args.plot.stem}_{table}{args.plot.suffix}"), table, found)
    harness.write_json(args.json, everything, about)


if __name__ == "__main__":
    main()
