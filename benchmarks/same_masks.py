"""Every engine's masks beside predict's, and its mIoU, of a trained model (`--model_path RUN/best_model --work DIR`).

The model is exported in all formats and, with OpenVINO, made int8; then `predict` and each engine's `infer` segment the
photos of the config's val list (or `--photos`), and `val` judges each engine where the photos have labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks import harness
from segkit.io import read_label

ENGINES = (
    ("paddle", "fp32"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


def segkit(*argv: str) -> None:
    """Run one command of this checkout."""
    done = subprocess.run([sys.executable, "-m", "segkit", *argv], cwd=harness.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"segkit {' '.join(argv)}\n{done.stderr}")


def once(made: Path, *argv: str) -> Path:
    """The command, unless the folder that it makes is there."""
    if not made.exists():
        segkit(*argv, "--save_dir", str(made))
    return made


def photos_of(best: Path, work: Path) -> Path:
    """A list of the photos that the config is validated on."""
    from segkit.build import build_dataset
    from segkit.config import Config

    made = work / "photos.txt"
    files = build_dataset(Config(best / "config.yml"), "val").files
    made.write_text("".join(f"{Path(photo).resolve()}\n" for photo, _ in files), encoding="utf-8")
    return made


def equal(predicted: Path, inferred: Path) -> tuple[int, int]:
    """Equal pixels, and all, of the masks of predict and infer."""
    found = np.zeros(2, np.int64)
    for path in sorted(predicted.rglob("*.png")):
        a, b = read_label(path), read_label(inferred / path.relative_to(predicted))
        found += (np.count_nonzero(a == b), a.size)
    return int(found[0]), int(found[1])


def miou(model: Path, out: Path, *more: str) -> float:
    """Of `val`."""
    segkit("val", "--model_path", str(model), "--save_dir", str(out), "--device", "cpu", *more)
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))["mIoU"]


def main() -> None:
    """Print a row an engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, required=True, help="a trained run's best_model")
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="for exports and masks; goes on from what is there"
    )
    parser.add_argument(
        "--photos", type=Path, help="a folder or list of photos without labels, in place of the val list"
    )
    parser.add_argument(
        "--max_drop", default="1", help="mIoU that int8 may lose (default: any, for it is measured here)"
    )
    args = parser.parse_args()
    best, work = args.model_path.resolve(), args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    photos = args.photos.resolve() if args.photos else photos_of(best, work)
    exported = once(work / "exported", "export", "--model_path", str(best), "--format", "all")
    int8 = once(work / "int8", "quantize", "--config", str(best / "config.yml"), "--model_path", str(exported),
                "--max_drop", args.max_drop, "--max_class_drop", "1", "--min_agreement", "0")  # fmt: skip
    masks = once(work / "predict", "predict", "--model_path", str(best), "--image_path", str(photos), "--device", "cpu")
    whole: Optional[float] = None if args.photos else miou(best, work / "val")
    rows: list[list[Any]] = [["predict", "", "", harness.digits(whole) if whole is not None else "-"]]
    for backend, precision in ENGINES:
        folder = int8 if precision == "int8" else exported
        flags = ["--backend", backend, "--device", "cpu", "--precision", precision]
        name = f"{backend} {precision}"
        try:
            made = once(work / name, "infer", "--config", str(folder), "--image_path", str(photos), *flags)
        except SystemExit as refused:
            print(f"{name}: {str(refused).strip().splitlines()[-1]}", file=sys.stderr)
            continue
        same, pixels = equal(masks / "mask", made)
        found = "-"
        if whole is not None:
            how = ["--precision", "bf16"] if precision == "bf16" else []  # an int8 folder runs as int8 by itself
            found = f"{miou(folder, work / f'val {name}', '--backend', backend, *how):.4f}"
        rows.append([name, f"{pixels - same} of {pixels}", f"{100 * same / pixels:.4f}", found])
    print(f"{harness.machine('paddlepaddle', 'onnxruntime', 'openvino')}\n")
    print(harness.markdown(["engine", "pixels that differ", "% as predict's", "mIoU"], rows))


if __name__ == "__main__":
    main()
