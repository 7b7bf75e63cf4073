"""Every model at work on real photos: does its loss fall, does its export agree, does any size go through?

A few iterations on small crops of neu_seg (`--data`), then export, and infer beside predict on photos of the validation
part; last, pictures of 97x131 and 900x900 go through the model. Each model runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml

from benchmarks import harness
from benchmarks.models import SINGLE
from segkit import io, registry

PHOTOS = 4
SIZES = ((97, 131), (900, 900))
# Losses of the outputs that are no class scores; all others get CrossEntropyLoss.
LOSSES: dict[str, list[str]] = {
    "DecoupledSegNet": ["OhemCrossEntropyLoss", "RelaxBoundaryLoss", "BCELoss", "OhemEdgeAttentionLoss"],
    "ENCNet": ["CrossEntropyLoss", "CrossEntropyLoss", "SECrossEntropyLoss"],
    "FastFCN": ["CrossEntropyLoss", "CrossEntropyLoss", "SECrossEntropyLoss"],
    "GSCNN": ["CrossEntropyLoss", "EdgeAttentionLoss", "BCELoss", "DualTaskLoss"],
    "HRNetW48Contrast": ["CrossEntropyLoss", "PixelContrastCrossEntropyLoss"],
    "MaskFormer": ["MaskFormerLoss"],
    "PIDNet": ["CrossEntropyLoss", "CrossEntropyLoss", "BCELoss", "CrossEntropyLoss"],
    "PointRend": ["CrossEntropyLoss", "PointCrossEntropyLoss"],
    "STFPM": ["DistillationLoss"],
    "STDCSeg": ["CrossEntropyLoss"] * 3 + ["DetailAggregateLoss"],
}


def variants() -> dict[str, dict[str, Any]]:
    """Name in the table -> model node: each model with its usual backbone."""
    return {name: {"type": name} for name in registry.MODELS.names()}


def config(node: dict[str, Any], outputs: int, data: Path, iters: int, crop: int) -> dict[str, Any]:
    """Adam on crops of neu_seg."""
    name = node["type"]
    losses = LOSSES.get(name, ["CrossEntropyLoss"] * outputs)
    common = {"type": "Dataset", "dataset_root": str(data), "num_classes": _classes(name)}
    if name in SINGLE:  # the first class alone
        common["label_map"] = {1: 0, 2: 0, 3: 0}
    types = [{"type": loss, "edge_label": True} if loss == "BCELoss" else {"type": loss} for loss in losses]
    edge = {"edge": True} if any("edge_label" in loss for loss in types) else {}
    return {
        "batch_size": 4,
        "iters": iters,
        "train_dataset": {
            **common,
            **edge,
            "transforms": [{"type": "RandomPaddingCrop", "crop_size": [crop, crop]}, {"type": "Normalize"}],
        },
        "val_dataset": {**common, "transforms": [{"type": "Normalize"}]},
        "model": node,
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.001, "power": 0.9},
        "loss": {"types": types, "coef": [1.0] * len(types)},
    }


def _classes(name: str) -> int:
    """neu_seg's, or one."""
    return 1 if name in SINGLE else 4


def measure(name: str, data: Path, iters: int, crop: int) -> dict[str, Any]:
    """One row, in this process."""
    from segkit import runtime

    runtime.require_paddle()
    import paddle

    import segkit
    from segkit.engine.onednn import convolutions

    node = variants()[name]
    model = registry.MODELS.get(name)(num_classes=_classes(name))
    with convolutions(), paddle.no_grad():
        model.train()
        outputs = len(model(paddle.zeros([2, 3, crop, crop])))
    row: dict[str, Any] = {"outputs": outputs, "parameters": sum(p.size for p in model.parameters())}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.yml").write_text(yaml.safe_dump(config(node, outputs, data, iters, crop)), encoding="utf-8")
        cfg = segkit.Config(folder / "config.yml")
        begin = time.perf_counter()
        model = segkit.train(cfg, save_dir=str(folder / "train"), device="cpu", log_iters=1, num_workers=0)
        row["train"] = time.perf_counter() - begin
        lines = (folder / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
        row["first"], row["last"] = statistics.fmean(losses[:5]), statistics.fmean(losses[-5:])
        try:
            row["same"] = exported(cfg, model, folder, data)
        except Exception as error:  # the table shall say so
            row["same"], row["why"] = None, f"{type(error).__name__}: {error}"
    model.eval()
    row["sizes"] = []
    for height, width in SIZES:
        with convolutions(), paddle.no_grad():
            found = model(paddle.zeros([1, 3, height, width]))[0]
        row["sizes"].append(found.shape == [1, _classes(name), height, width] and bool(paddle.isfinite(found).all()))
    return row


def exported(cfg: Any, model: Any, folder: Path, data: Path) -> float:
    """Share of pixels in which infer's masks equal predict's."""
    import segkit
    from segkit.deploy.infer import infer
    from segkit.options import InferOptions

    names = [line.split()[0] for line in (data / "val.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    photos = folder / "photos.txt"
    photos.write_text("\n".join(str(data / name) for name in names[:PHOTOS]) + "\n", encoding="utf-8")
    segkit.export(cfg, model, save_dir=str(folder / "export"))
    segkit.predict(cfg, model, image_path=str(photos), save_dir=str(folder / "predict"), device="cpu")
    options = InferOptions(config=str(folder / "export"), image_path=str(photos), save_dir=str(folder / "infer"))
    infer(options)
    masks = sorted((folder / "predict" / "mask").rglob("*.png"))
    pairs = [(mask, folder / "infer" / mask.relative_to(folder / "predict" / "mask")) for mask in masks]
    equal = [np.mean(io.read_label(mask) == io.read_label(other)) for mask, other in pairs]
    return float(np.mean(equal))


def line(name: str, row: dict[str, Any]) -> list[Any]:
    """The cells of a model."""
    if "error" in row:
        return [name, "-", "-", "-", "-", row["error"]]
    learns = f"{harness.digits(row['first'])} -> {harness.digits(row['last'])}"
    learns += "" if row["last"] < row["first"] else " (does not fall)"
    same = "-" if row["same"] is None else f"{100 * row['same']:.3f} %"
    sizes = "yes" if all(row["sizes"]) else "no"
    return [name, f"{row['parameters'] / 1e6:.2f}", learns, same, sizes, row.get("why", "")[:150]]


def main() -> None:
    """Print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of neu_seg (train.txt, val.txt)")
    parser.add_argument("--only", nargs="+", choices=list(variants()), default=list(variants()))
    parser.add_argument("--iters", type=int, default=20)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows there, and go on from them")
    parser.add_argument("--one", metavar="MODEL", help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data is missing: the folder of neu_seg")
    data = args.data.resolve()
    if args.one:
        print(json.dumps(measure(args.one, data, args.iters, args.crop)))
        return
    rows: dict[str, dict[str, Any]] = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.only:
        if name in rows:
            continue
        rows[name] = in_process(name, args)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    header = ["model", "million parameters", "loss, first five -> last five", "infer = predict", "97x131, 900x900", ""]
    print(f"{harness.machine('paddlepaddle')}; {args.iters} iterations of 4 crops of {args.crop}x{args.crop}\n")
    print(harness.markdown(header, [line(name, rows[name]) for name in sorted(rows)]))


def in_process(name: str, args: argparse.Namespace, seconds: Optional[float] = 3600) -> dict[str, Any]:
    """`measure` in a new process; a failure is a row too."""
    command = [sys.executable, "-m", "benchmarks.model_trials", "--one", name, "--data", str(args.data.resolve())]
    command += ["--iters", str(args.iters), "--crop", str(args.crop)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=harness.ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"took over {seconds:.0f} s"}
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}"}
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
