"""Seconds until each command is at work: to the end of --help and of a check, to the first pass through the model.

Every start is a process of its own, beside `python -c pass` and `python -c "import paddle"`. The model is a U-Net of
the usual width, the data eight photos of 256x256 that are written first; files are in the system's cache.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import harness
from segkit import io

# name: the target, in seconds beyond Paddle's import, or beyond Python's own start where Paddle is not loaded
TARGETS = {"--help": 0.2, "train --help": None, "config --check": 0.5, "train": 4.0, "val": 4.0, "predict": 4.0}


def write_data(folder: Path) -> None:
    """Eight photos of noise with labels, a config, and weights of its untrained model."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(8):
        names.append(f"{number}.png {number}_label.png\n")
        io.write_png(folder / f"{number}.png", rng.integers(0, 256, (256, 256, 3)).astype(np.uint8))
        io.write_png(folder / f"{number}_label.png", rng.integers(0, 2, (256, 256)).astype(np.uint8))
    for part in ("train", "val"):
        (folder / f"{part}.txt").write_text("".join(names), encoding="utf-8")
    transforms = [{"type": "RandomHorizontalFlip"}, {"type": "RandomDistort"}, {"type": "Normalize"}]
    dataset = {"type": "Dataset", "dataset_root": str(folder), "num_classes": 2}
    node = {
        "batch_size": 2,
        "iters": 1,
        "train_dataset": {**dataset, "transforms": transforms},
        "val_dataset": {**dataset, "transforms": transforms[2:]},
        "model": {"type": "UNet"},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.001},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(node), encoding="utf-8")


def write_weights(folder: Path) -> None:
    """Trained for no iteration at all: what val and predict load."""
    from segkit import build, runtime
    from segkit.config import Config

    runtime.require_paddle()
    from segkit.engine.weights import save_state

    save_state(build.build_model(Config(str(folder / "config.yml"))).state_dict(), folder / "model.pdparams")


def commands(folder: Path) -> dict[str, list[str]]:
    """Name -> arguments of segkit."""
    config = str(folder / "config.yml")
    weights = ["--config", config, "--model_path", str(folder / "model.pdparams")]
    return {
        "--help": ["--help"],
        "train --help": ["train", "--help"],
        "config --check": ["config", config, "--check"],
        "train": ["train", "--config", config, "--device", "cpu", "--save_dir", str(folder / "train")],
        "val": ["val", *weights, "--device", "cpu", "--save_dir", str(folder / "val")],
        "predict": ["predict", *weights, "--device", "cpu", "--image_path", str(folder / "0.png"),
                    "--save_dir", str(folder / "predict")],
    }  # fmt: skip


def to_first_pass(argv: list[str], started: float) -> None:
    """Run segkit in this process until a model is first called; print the seconds since `started` and stop there."""
    from segkit.cli.main import main as segkit
    from segkit.runtime import require_paddle

    begin = time.perf_counter()
    require_paddle()
    imported = time.perf_counter() - begin
    import paddle

    def arrived(*_: Any, **__: Any) -> None:
        print("\n" + json.dumps({"seconds": time.time() - started, "paddle": imported}), flush=True)
        os._exit(0)

    paddle.nn.Layer.__call__ = arrived
    raise SystemExit(f"segkit {' '.join(argv)} ended with {segkit(argv)} before it called a model")


def start(argv: list[str], passes: bool) -> dict[str, Any]:
    """One start of segkit: to its end, or to the first pass through a model."""
    if not passes:
        return harness.child([sys.executable, "-m", "segkit", *argv])
    # The clock starts here, before the interpreter.
    return harness.child([sys.executable, "-m", "benchmarks.startup", "--one", str(time.time()), json.dumps(argv)])


def main() -> None:
    """Print the table."""
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--one", nargs=2, metavar=("STARTED", "ARGV"), help="time to the first pass, in this process")
    args = parser.parse_args()
    if args.one:
        to_first_pass(json.loads(args.one[1]), float(args.one[0]))
    about = harness.machine("paddlepaddle")
    print(f"{about}; {args.rounds} rounds\n", flush=True)
    python, paddle = "python -c pass", 'python -c "import paddle"'
    sides = {python: partial(harness.child, [sys.executable, "-c", "pass"])}
    sides[paddle] = partial(harness.child, [sys.executable, "-c", "import paddle"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder)
        write_weights(folder)
        for name in args.only:
            sides[f"segkit {name}"] = partial(start, commands(folder)[name], name in ("train", "val", "predict"))
        results = harness.alternate(sides, args.rounds)
    rows = []
    for name, runs in results.items():
        seconds = harness.medians(runs)
        base = python if "help" in name or name in (python, paddle) else paddle
        beyond = statistics.median(a - b for a, b in zip(seconds, harness.medians(results[base])))
        target = TARGETS.get(name.replace("segkit ", ""))
        spread = f"{harness.digits(min(seconds))}-{harness.digits(max(seconds))}"
        rows.append(
            [name, statistics.median(seconds), spread, "-" if name == python else f"{beyond:.2f} ({base})", target]
        )
    print(harness.markdown(["command", "s", "spread", "s beyond", "target beyond"], rows))
    others = [run["others"] for runs in results.values() for run in runs if run["others"] is not None]
    print(f"\nothers took {statistics.median(others):.2f} cores" if others else "")
    harness.write_json(args.json, results, about)
    harness.bars(args.plot, results, "Start-up")


if __name__ == "__main__":
    main()
