"""Seconds of whole `val` and `predict` runs: `python -m benchmarks evaluation --paddleseg PYTHON`.

Same drawn photos, same briefly trained weights, each run a process of its own, taking turns. PaddleSeg runs as it
comes, its threads as Paddle sets them. `--paddleseg` is the Python of an environment with paddleseg 2.8.0; without
it segkit runs alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    Result,
    alternate,
    bars,
    child,
    digits,
    machine,
    markdown,
    medians,
    parser,
    ratio,
    require_python,
    write_json,
)
from segkit import io, palette, registry, runtime

CLASSES = 19
SIZE = (512, 1024)  # height, width of a photo
# name: (model, photos, network size as [width, height] or None for the photo's own)
CASES = {
    "BiSeNetV2": ("BiSeNetV2", 12, None),
    "UNet": ("UNet", 2, [512, 256]),
}
THREADS = {"OMP_NUM_THREADS": None}  # each side sets its own
PEER = Path(__file__).with_name("evaluation_peer.py")


def draw(folder: Path, count: int) -> None:
    """`count` photos of coloured, noisy regions with labels, as JPEG and PNG, and a val.txt."""
    import cv2

    colours, lines = palette.voc_palette(CLASSES), []
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = rng.random((CLASSES, 6, 12), np.float32)
        fields = [cv2.resize(field, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for field in coarse]
        label = np.argmax(fields, axis=0).astype(np.uint8)
        noise = rng.normal(0, 12, (*SIZE, 1)) + cv2.resize(rng.normal(0, 20, (32, 64, 3)), SIZE[::-1])
        image = np.clip(colours[label] * 0.6 + 60 + noise, 0, 255).astype(np.uint8)
        label[:8] = 255
        io.write_bytes_atomic(folder / "images" / f"{number}.jpg", cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes())
        io.write_png(folder / "labels" / f"{number}.png", label)
        lines.append(f"images/{number}.jpg labels/{number}.png\n")
    (folder / "val.txt").write_text("".join(lines))
    (folder / "train.txt").write_text("".join(lines))


def transforms(size: list[int] | None) -> list[dict[str, Any]]:
    """The val transforms, the same for both."""
    return ([{"type": "Resize", "target_size": size}] if size else []) + [{"type": "Normalize"}]


def make(folder: Path, case: str) -> None:
    """Photos, config and weights of a case, where they are not there yet."""
    import yaml

    name, count, size = CASES[case]
    if (folder / "model.pdparams").exists():
        return
    draw(folder, count)
    node = {"type": "Dataset", "dataset_root": str(folder), "num_classes": CLASSES, "transforms": transforms(size)}
    config = {
        "batch_size": 2,
        "iters": 30,
        "train_dataset": {**node, "mode": "train", "train_path": str(folder / "train.txt")},
        "val_dataset": {**node, "mode": "val", "val_path": str(folder / "val.txt")},
        "model": {"type": name},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1] * (5 if name == "BiSeNetV2" else 1)},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.003},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    train_briefly(folder, name)


def train_briefly(folder: Path, name: str) -> None:
    """Weights after 30 steps on small crops: enough for masks of several regions."""
    runtime.require_paddle()
    import paddle
    import paddle.nn.functional as F

    from segkit.engine.onednn import convolutions
    from segkit.engine.weights import save_state

    paddle.seed(1)
    model = registry.MODELS.get(name)(num_classes=CLASSES)
    optimizer = paddle.optimizer.Adam(0.003, parameters=model.parameters())
    rng = np.random.default_rng(0)
    pairs = [[folder / part for part in line.split()] for line in (folder / "val.txt").read_text().splitlines()]
    pairs = [(io.read_image(image), io.read_label(label)) for image, label in pairs]
    with convolutions():
        for _ in range(30):
            crops = []
            for _ in range(2):
                image, label = pairs[rng.integers(len(pairs))]
                top, left = rng.integers(SIZE[0] - 192), rng.integers(SIZE[1] - 192)
                area = np.s_[top : top + 192, left : left + 192]
                crops.append((image[area].transpose(2, 0, 1).astype(np.float32) / 127.5 - 1, label[area]))
            images, labels = (np.stack(part) for part in zip(*crops))
            target = paddle.to_tensor(labels.astype(np.int64))
            outputs = model(paddle.to_tensor(images))
            sum(F.cross_entropy(y, target, axis=1, ignore_index=255) for y in outputs).backward()
            optimizer.step()
            optimizer.clear_grad()
    save_state(model.state_dict(), folder / "model.pdparams")


def run_segkit(tool: str, folder: Path, out: Path, flags: list[str]) -> Result:
    """One run in a new process: its own report, with the seconds of the whole process."""
    argv = [tool, "--config", str(folder / "config.yml"), "--model_path", str(folder / "model.pdparams")]
    argv += ["--save_dir", str(out), *flags]
    if tool == "predict":
        argv += ["--image_path", str(folder / "images")]
    return child([sys.executable, "-m", "benchmarks.evaluation", "--one", json.dumps(argv)], THREADS)


def run_peer(python: str, tool: str, case: str, folder: Path, out: Path) -> Result:
    """The same run of PaddleSeg."""
    name, count, size = CASES[case]
    job = {
        "tool": tool,
        "model": name,
        "num_classes": CLASSES,
        "transforms": transforms(size),
        "weights": str(folder / "model.pdparams"),
        "data": str(folder),
        "images": [str(folder / "images" / f"{number}.jpg") for number in range(count)],
        "out": str(out),
    }
    return child([python, str(PEER), json.dumps(job)], THREADS)


def one(argv: list[str]) -> dict[str, Any]:
    """segkit's command in this process: seconds of the imports, and of what follows."""
    start = time.perf_counter()
    runtime.require_paddle()
    from segkit.cli import main as cli
    from segkit.engine import evaluate, predict, segmenter  # noqa: F401

    imported = time.perf_counter()
    kept: dict[str, Any] = {}
    module = __import__(f"segkit.cli.{argv[0]}", fromlist=["run"])
    run = module.run
    module.run = lambda args: kept.update(run(args))
    code = cli.main(argv)
    if code:
        raise SystemExit(code)
    found = {"import": imported - start, "seconds": time.perf_counter() - imported}
    return {**found, **({"mIoU": kept["mIoU"]} if "mIoU" in kept else {})}


def table(runs: dict[str, list[Result]]) -> str:
    """Medians of each side, and how many times longer the first side takes: whole processes, and after the imports."""
    baseline = next(iter(runs))
    header = ["side", "whole s", "spread", f"{baseline} / this", "after imports s", "spread", f"{baseline} / this"]
    rows = []
    for side, results in runs.items():
        row: list[Any] = [side]
        for key in ("wall", "seconds"):
            values = medians(results, key)
            row += [statistics.median(values), f"{digits(min(values))}-{digits(max(values))}"]
            row.append(f"{ratio(runs[baseline], results, key):.2f}")
        others = [result["others"] for result in results if result["others"] is not None]
        row += [max(result["memory"] for result in results), statistics.median(others) if others else None]
        rows.append([*row, f"{results[0]['mIoU']:.4f}" if "mIoU" in results[0] else ""])
    return markdown([*header, "peak GiB", "others' cores", "mIoU"], rows)


def matrix_table(python: str | None) -> None:
    """Milliseconds of the pixel counts of one 2048x1024 photo with 19 classes."""
    from segkit.metrics import ConfusionMatrix

    rng = np.random.default_rng(0)
    pred, label = (rng.integers(0, CLASSES, (1024, 2048)).astype(np.uint8) for _ in range(2))
    label[:64] = 255
    counts, seconds = ConfusionMatrix(CLASSES), []
    for _ in range(21):
        start = time.perf_counter()
        counts.update(pred, label)
        seconds.append(time.perf_counter() - start)
    text = f"segkit {1000 * statistics.median(seconds):.1f} ms"
    if python:
        job = {"tool": "matrix", "num_classes": CLASSES, "shape": [1024, 2048], "repeats": 5}
        peer = child([python, str(PEER), json.dumps(job)], THREADS)["seconds"]
        text += f", PaddleSeg {1000 * peer:.0f} ms ({peer / statistics.median(seconds):.0f}x)"
    print(f"\npixel counts of a 2048x1024 photo, {CLASSES} classes: {text}")


def compare(args: argparse.Namespace, case: str, tool: str, folder: Path, out: Path) -> dict[str, list[Result]]:
    """One case and tool, the sides taking turns."""
    sides: dict[str, Any] = {}
    if args.paddleseg:
        sides["PaddleSeg"] = lambda: run_peer(args.paddleseg, tool, case, folder, out)
    sides["segkit"] = lambda: run_segkit(tool, folder, out, [])
    for flag in args.also:
        sides[f"segkit --{flag}"] = lambda flag=flag: run_segkit(tool, folder, out, [f"--{flag}"])
    return alternate(sides, args.rounds)


def main() -> None:
    made = parser(__doc__, 3, ["paddleseg"])
    made.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    made.add_argument("--tools", nargs="+", default=["val", "predict"], choices=["val", "predict"])
    made.add_argument("--work", type=Path, help="folder to keep photos and weights in; default: a temporary one")
    made.add_argument("--also", nargs="*", default=[], metavar="FLAG", help="more sides: segkit with --FLAG")
    made.add_argument("--one", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.one:
        print(json.dumps(one(json.loads(args.one))))
        return
    if args.paddleseg:
        require_python(args.paddleseg, "paddleseg", "--paddleseg")
    results: dict[str, dict[str, list[Result]]] = {}
    about = machine("paddlepaddle", "opencv-python-headless", "numpy")
    print(about)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        for case in args.cases:
            make(work / case, case)
            for tool in args.tools:
                title = f"{tool}, {case}, {CASES[case][1]} photos"
                results[title] = compare(args, case, tool, work / case, Path(temporary) / "out")
                print(f"\n{title}\n\n{table(results[title])}", flush=True)
    matrix_table(args.paddleseg)
    write_json(args.json, results, about)
    bars(
        args.plot, {f"{title}, {side}": runs for title, sides in results.items() for side, runs in sides.items()}, about
    )


if __name__ == "__main__":
    main()
