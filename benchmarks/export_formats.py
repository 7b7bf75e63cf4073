"""Which models go to which format: `python -m benchmarks export_formats [--only MODEL ...] [--json FILE]`.

Every model with its usual backbone, 3 classes and random weights is written for any size of photo, opened in the
format's engine and compared with the model on photos of three sizes. A cell holds the largest difference, relative
to the largest score; "fixed" before it: only for a fixed size, 256x256; else what went wrong.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import numpy as np

from benchmarks import harness
from benchmarks.models import census

FORMATS = ("paddle", "oneDNN", "paddle2", "onnx", "openvino")
CLASSES = 3
SIZES = ((128, 160), (192, 96), (256, 256))
_FILES = {"onnx": {"onnx": "model.onnx"}, "openvino": {"openvino": "model.xml"}}
_ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}


def measure(node: dict[str, Any]) -> dict[str, str]:
    """One row, in this process."""
    from segkit import runtime

    runtime.require_paddle()
    import paddle

    from segkit.config import Config
    from segkit.engine.convert import to_onnx, to_openvino
    from segkit.engine.graph import Exported, save_graph
    from segkit.engine.paddle2 import save_paddle2

    with tempfile.TemporaryDirectory() as work:
        cfg = Config(write_config(Path(work), node, CLASSES, [{"type": "Normalize"}]), check=False)
        model = random_model(cfg)
        photos = [paddle.rand([1, 3, *size]).numpy() * 2 - 1 for size in SIZES]
        with paddle.no_grad():
            expected = [model(paddle.to_tensor(photo))[0].numpy() for photo in photos]

        @functools.cache
        def write(fixed: bool, kind: str) -> Path:
            """A folder with the model of one kind; the formats that come of one another share it."""
            shape = [1, 3, *SIZES[-1]] if fixed else [-1, 3, -1, -1]
            if kind in ("onnx", "openvino"):
                folder = write(fixed, "paddle" if kind == "onnx" else "onnx")
                (to_onnx if kind == "onnx" else to_openvino)(folder)
                return folder
            folder = Path(tempfile.mkdtemp(dir=work))
            if kind == "paddle2":
                save_paddle2(cfg, model, folder, shape, "none")
            else:
                save_graph(Exported(model, "none"), folder, shape)
            return folder

        return {name: _cell(write, name, photos, expected) for name in FORMATS}


def _cell(write: Callable[[bool, str], Path], name: str, photos: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """The text of one cell: for any size, else for a fixed one, else why not."""
    failed = ""
    for fixed in (False, True):
        try:
            folder = write(fixed, "paddle" if name == "oneDNN" else name)
            found = _run(folder, name, photos[-1:] if fixed else photos)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            failed = failed or (lines[-1] if lines else type(error).__name__)[:160]
            continue
        difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected[-len(found) :]))
        return f"fixed {difference:.0e}" if fixed else f"{difference:.0e}"
    return failed


def _run(folder: Path, name: str, photos: list[np.ndarray]) -> list[np.ndarray]:
    from segkit.deploy.backends import open_backend
    from segkit.deploy.spec import DeploySpec
    from segkit.options import InferOptions

    graph = "model.pdmodel" if name == "paddle2" else "model.json"
    files = _FILES.get(name, {"model": graph, "params": "model.pdiparams"})
    spec = DeploySpec(folder=folder, transforms=[], **files)
    options = InferOptions(backend=_ENGINES.get(name, "paddle"), enable_mkldnn=name == "oneDNN")
    backend = open_backend(spec, options)
    return [backend.run(photo) for photo in photos]


def write_config(folder: Path, node: dict[str, Any], classes: int, transforms: list[dict[str, Any]]) -> Path:
    """A config of the model `node` without data, in `folder`."""
    data = {"type": "Dataset", "dataset_root": str(folder), "num_classes": classes, "transforms": transforms}
    parts = {f"{part}_dataset": {**data, "mode": part} for part in ("train", "val")}
    path = folder / "config.yml"
    path.write_text(json.dumps({"model": {**node, "num_classes": classes}, **parts}), encoding="utf-8")
    return path


def random_model(cfg: Any) -> Any:
    """The model with random weights whose scores vary over the photo."""
    import paddle

    from segkit.build import build_model

    paddle.seed(3)
    model = build_model(cfg)
    for name, buffer in model.named_buffers():
        if name.endswith("_mean"):
            buffer.set_value(0.1 * paddle.randn(buffer.shape))
    model.eval()
    return model


def in_process(name: str, limit: float) -> dict[str, str]:
    """`measure` in a new process, which an engine may end."""
    command = [sys.executable, "-m", "benchmarks.export_formats", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=harness.ROOT, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"took over {limit:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:160]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="names as in the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows there, and go on from them")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a model (default %(default)s)")
    parser.add_argument("--one", metavar="MODEL", help="measure in this process, print JSON")
    args = parser.parse_args()
    known = census()
    if args.one:
        print(json.dumps(measure(known[args.one])))
        return
    rows: dict[str, dict[str, str]] = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.only or known:
        if name not in known:
            parser.error(f"there is no model {name!r}; known: {', '.join(known)}")
        if name in rows:
            continue
        rows[name] = in_process(name, args.limit)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    cells = [[name, *(row.get(kind, row.get("error", "-")) for kind in FORMATS)] for name, row in sorted(rows.items())]
    print(harness.machine("paddlepaddle", "paddle2onnx", "onnxruntime", "openvino"))
    print(harness.markdown(["model", *FORMATS], cells))


if __name__ == "__main__":
    main()
