"""Inference engines side by side: `python -m benchmarks deploy --work DIR [--models NAME ...] [--photos FOLDER]`.

Every model, with random weights, is exported to DIR in all formats (once; then DIR is used again) and run on photos of
512x512, one at a time, by every engine and precision that this machine has, in alternation. "plain Paddle" is what
PaddleSeg's infer.py runs. Milliseconds are those of the engine alone, from the network's input to its scores; memory is
that of a process which opens this engine alone; agreement is the share of pixels with predict's class. Run it on a
machine that does nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from benchmarks import harness

SIDE = 512
MODELS = {
    "BiSeNetV2": {"type": "BiSeNetV2"},
    "UNet16": {"type": "UNet", "base_channels": 16},
    "UNet": {"type": "UNet"},
}
CLASSES = 3
PLAIN, AUTO = "plain Paddle", "auto"
_ENOUGH_SECONDS, _MOST_RUNS = 1.0, 20
_REST = 0.25  # seconds: Paddle's threads keep the cores busy for a while after their last run


def export(name: str, folder: Path, photos: Optional[Path]) -> None:
    """The model in all formats, and what predict says of the photos, into `folder`."""
    from segkit import runtime

    runtime.require_paddle()
    from benchmarks.export_formats import random_model, write_config
    from segkit.config import Config
    from segkit.engine import apply, segmenter
    from segkit.engine.export import export
    from segkit.io import IMAGE_SUFFIXES
    from segkit.options import ExportOptions

    folder.mkdir(parents=True, exist_ok=True)
    transforms = [{"type": "Resize", "target_size": [SIDE, SIDE]}, {"type": "Normalize"}]
    cfg = Config(write_config(folder, MODELS[name], CLASSES, transforms), check=False)
    model = random_model(cfg)
    export(cfg, model, ExportOptions(save_dir=str(folder / "exported"), format="all"))
    whole = segmenter.from_model(cfg, model)
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES) if photos else []
    inputs = np.stack([whole.prepare(str(path)).x for path in files[:4]] or [_drawn()])
    with apply.evaluation_mode(model):
        scores = [apply.scores(model, x[None])[0] for x in inputs]
    np.savez(folder / "photos.npz", inputs=inputs, classes=np.stack(scores).argmax(axis=1))


def _drawn() -> np.ndarray:
    coarse = np.random.default_rng(0).random((3, SIDE // 16, SIDE // 16), np.float32)
    return coarse.repeat(16, axis=1).repeat(16, axis=2) * 2 - 1


def openers(folder: Path, quantized: Optional[Path]) -> dict[str, Callable[[], Any]]:
    """Name of the row -> a function that opens its backend."""
    from segkit.deploy.backends import ENGINES, open_backend
    from segkit.deploy.spec import DeploySpec
    from segkit.options import InferOptions

    spec = DeploySpec.load(folder)
    found = {PLAIN: lambda: open_backend(spec, InferOptions(backend="paddle", enable_mkldnn=False))}
    for precision in ("fp32", "bf16", "int8"):
        there = DeploySpec.load(quantized) if precision == "int8" and quantized else spec
        for name in ENGINES:
            options = InferOptions(backend=name, precision=precision)
            found[f"{name} {precision}"] = partial(open_backend, there, options)
    batch = np.load(folder.parent / "photos.npz")["inputs"][:1]
    found[AUTO] = lambda: open_backend(spec, InferOptions(), [batch])
    return found


def engines(folder: Path, quantized: Optional[Path]) -> dict[str, Any]:
    """Name of the row -> opened backend, of all that can be opened here; the others are named on stderr."""
    from segkit.deploy.backends import choice
    from segkit.errors import InputError

    (folder / choice.FILE).unlink(missing_ok=True)  # what auto took when it was last asked
    found = {}
    for name, open_it in openers(folder, quantized).items():
        try:
            found[name] = open_it()
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found


def memory(folder: Path, row: str, quantized: Optional[Path]) -> float:
    """Peak GiB of a process that opens this engine alone and runs one photo (auto: what it has chosen before)."""
    command = [sys.executable, "-m", "benchmarks.deploy", "--work", str(folder), "--one", row]
    return harness.child([*command, *(["--quantized", str(quantized)] if quantized else [])])["memory"]


def timed(backend: Any, batch: np.ndarray) -> Callable[[], harness.Result]:
    """A measurement of one turn: runs for about a second after one that does not count."""

    def turn() -> harness.Result:
        time.sleep(_REST)
        begin, seconds = time.perf_counter(), []
        backend.run(batch)
        while not seconds or (time.perf_counter() - begin < _ENOUGH_SECONDS and len(seconds) < _MOST_RUNS):
            start = time.perf_counter()
            backend.run(batch)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    return turn


def table(
    results: dict[str, list[harness.Result]], peaks: dict[str, float], agreement: dict[str, float], chosen: str
) -> str:
    """Milliseconds, their spread over the rounds, memory, how many times faster than plain Paddle, and agreement of
    every row."""
    rows = []
    for name, runs in results.items():
        values = [1000 * seconds for seconds in harness.medians(runs)]
        spread = f"{harness.digits(min(values))}-{harness.digits(max(values))}"
        faster = f"{harness.ratio(results[PLAIN], runs):.2f}"
        label = f"{AUTO} (took {chosen})" if name == AUTO else name
        shown = [peaks[name], faster, f"{100 * agreement[name]:.4f}"]
        rows.append([label, float(np.median(values)), spread, *shown])
    columns = ["engine", "ms", "spread", "peak GiB", "plain Paddle / this", "% of pixels as predict's"]
    return harness.markdown(columns, rows)


def measure(name: str, folder: Path, rounds: int, quantized: Optional[Path]) -> dict[str, Any]:
    """All rows of one model; prints them."""
    data = np.load(folder / "photos.npz")
    found = engines(folder / "exported", quantized)
    agreement = {
        row: float(
            np.mean(
                [(backend.run(x[None]).argmax(axis=1)[0] == y).mean() for x, y in zip(data["inputs"], data["classes"])]
            )
        )
        for row, backend in found.items()
    }
    watched: harness.Result = {}
    with harness.watched(watched):
        results = harness.alternate({row: timed(backend, data["inputs"][:1]) for row, backend in found.items()}, rounds)
    chosen = f"{found[AUTO].name} {found[AUTO].precision}"
    print(f"\n{name}, {SIDE}x{SIDE}; others took {harness.digits(watched['others'])} cores\n")
    peaks = {row: memory(folder, row, quantized) for row in found}
    print(table(results, peaks, agreement, chosen))
    return {"results": results, "memory": peaks, "agreement": agreement, "auto": chosen, "others": watched["others"]}


def main() -> None:
    """Print a table a model."""
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["BiSeNetV2", "UNet16"])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the exported models are kept")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photos to compare masks on (first four)")
    parser.add_argument("--quantized", type=Path, metavar="FOLDER", help="the same model by segkit quantize, for int8")
    parser.add_argument("--export_only", action="store_true", help="export, and measure another time")
    parser.add_argument("--one", metavar="ENGINE", help="the memory of this row, of the model in DIR itself")
    args = parser.parse_args()
    if args.one:
        backend = openers(args.work / "exported", args.quantized)[args.one]()
        backend.run(np.load(args.work / "photos.npz")["inputs"][:1])
        print("\n" + json.dumps({"memory": harness.this_process()}))
        return
    numbers = {}
    for name in args.models:
        folder = args.work / name
        if not (folder / "photos.npz").is_file():  # written last
            export(name, folder, args.photos)
        if not args.export_only:
            numbers[name] = measure(name, folder, args.rounds, args.quantized)
    about = harness.machine("paddlepaddle", "onnxruntime", "openvino")
    print(about)
    harness.write_json(args.json, numbers, about)


if __name__ == "__main__":
    main()
