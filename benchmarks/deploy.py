"""Inference engines side by side: `python -m benchmarks deploy --work DIR [--models NAME ...] [--photos FOLDER]`.

Every model, with random weights, is exported to DIR in all formats (once; then DIR is used again) and run on photos of
512x512, one at a time, by every engine and precision that this machine has, in alternation. "plain Paddle" is what
PaddleSeg's infer.py runs. Milliseconds are those of the engine alone, from the network's input to its scores;
agreement is the share of pixels with predict's class. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import sys
import time
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

    folder.mkdir(parents=True)
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


def engines(folder: Path, quantized: Optional[Path]) -> dict[str, Any]:
    """Name of the row -> opened backend, of all that can be opened here; the others are named on stderr."""
    from segkit.deploy.backends import ENGINES, choice, open_backend
    from segkit.deploy.spec import DeploySpec
    from segkit.errors import InputError
    from segkit.options import InferOptions

    spec = DeploySpec.load(folder)
    found = {PLAIN: open_backend(spec, InferOptions(backend="paddle", enable_mkldnn=False))}
    for precision in ("fp32", "bf16", "int8"):
        there = DeploySpec.load(quantized) if precision == "int8" and quantized else spec
        for name in ENGINES:
            try:
                found[f"{name} {precision}"] = open_backend(there, InferOptions(backend=name, precision=precision))
            except InputError as error:
                print(f"{name} {precision}: {error}", file=sys.stderr)
    (folder / choice.FILE).unlink(missing_ok=True)
    batch = np.load(folder.parent / "photos.npz")["inputs"][:1]
    found[AUTO] = open_backend(spec, InferOptions(), [batch])
    return found


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


def table(results: dict[str, list[harness.Result]], agreement: dict[str, float], chosen: str) -> str:
    """Milliseconds, how many times faster than plain Paddle, and agreement of every row."""
    rows = []
    for name, runs in results.items():
        milliseconds = 1000 * float(np.median(harness.medians(runs)))
        faster = f"{harness.ratio(results[PLAIN], runs):.2f}"
        label = f"{AUTO} (took {chosen})" if name == AUTO else name
        rows.append([label, milliseconds, faster, f"{100 * agreement[name]:.4f}"])
    return harness.markdown(["engine", "ms", "plain Paddle / this", "% of pixels as predict's"], rows)


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
    print(table(results, agreement, chosen))
    return {"results": results, "agreement": agreement, "auto": chosen, "others": watched["others"]}


def main() -> None:
    """Print a table a model."""
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["BiSeNetV2", "UNet16"])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the exported models are kept")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photos to compare masks on (first four)")
    parser.add_argument("--quantized", type=Path, metavar="FOLDER", help="the same model by segkit quantize, for int8")
    parser.add_argument("--export_only", action="store_true", help="export, and measure another time")
    args = parser.parse_args()
    numbers = {}
    for name in args.models:
        folder = args.work / name
        if not folder.is_dir():
            export(name, folder, args.photos)
        if not args.export_only:
            numbers[name] = measure(name, folder, args.rounds, args.quantized)
    about = harness.machine("paddlepaddle", "onnxruntime", "openvino")
    print(about)
    harness.write_json(args.json, numbers, about)


if __name__ == "__main__":
    main()
