"""Train, evaluate, predict, export and infer on small real data sets, and print the table of docs/measurements.md.

`python -m benchmarks.real_data --data ../shared/data --out /tmp/real [--only neu_seg]`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from segkit.io import read_label

ROOT = Path(__file__).resolve().parents[1]
NORMALIZE = {"type": "Normalize"}
FLIP = {"type": "RandomHorizontalFlip"}
COLOUR = {"type": "RandomDistort", "brightness_range": 0.3, "contrast_range": 0.3, "saturation_range": 0.3}


def crop(width: int, height: int, low: float = 0.75, high: float = 1.25) -> list[dict[str, Any]]:
    """Random scaling and a crop of that size."""
    scale = {"type": "ResizeStepScaling", "min_scale_factor": low, "max_scale_factor": high, "scale_step_size": 0}
    return [scale, {"type": "RandomPaddingCrop", "crop_size": [width, height]}, FLIP]


# name: (classes, iterations, batch, train transforms, val transforms, further keys)
SETS: dict[str, tuple[int, int, int, list[Any], list[Any], dict[str, Any]]] = {
    "cats8": (2, 300, 4, [{"type": "Resize", "target_size": [256, 256]}, FLIP, COLOUR],
              [{"type": "Resize", "target_size": [256, 256]}], {}),
    "em_membrane": (2, 300, 4, [*crop(192, 192), {"type": "RandomVerticalFlip"}], [], {"img_channels": 1}),
    "neu_seg": (4, 800, 8, [*crop(160, 160, 0.8, 1.2), {"type": "RandomVerticalFlip"}], [], {}),
    "drive": (2, 300, 4, [*crop(192, 192), {"type": "RandomVerticalFlip"}], [], {}),
    "carrot_weed_8mp": (3, 300, 4, [{"type": "ResizeByLong", "long_size": 1632}, *crop(224, 224)],
                        [{"type": "ResizeByLong", "long_size": 1632}],
                        {"test_config": {"is_slide": True, "crop_size": [544, 544], "stride": [480, 480]}}),
}  # fmt: skip


def config(name: str, data: Path, out: Path) -> Path:
    """Write the config of one set: a U-Net of 16 base channels, Adam, polynomial decay."""
    classes, iters, batch, train, val, more = SETS[name]
    common = {"type": "Dataset", "dataset_root": str(data / name), "num_classes": classes}
    if "img_channels" in more:
        common["img_channels"] = more["img_channels"]
    normalize = {
        "type": "Normalize",
        "mean": [0.5] * common.get("img_channels", 3),
        "std": [0.5] * common.get("img_channels", 3),
    }
    node = {
        "batch_size": batch,
        "iters": iters,
        "train_dataset": {**common, "transforms": [*train, normalize]},
        "val_dataset": {**common, "transforms": [*val, normalize]},
        "model": {"type": "UNet", "base_channels": 16},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {
            "type": "PolynomialDecay",
            "learning_rate": 0.003,
            "power": 0.9,
            "end_lr": 0,
            "warmup_iters": 20,
        },
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        **{key: value for key, value in more.items() if key == "test_config"},
    }
    path = out / "config.yml"
    path.write_text(yaml.safe_dump(node, sort_keys=False), encoding="utf-8")
    return path


def segkit(*argv: str) -> float:
    """Run one command of this checkout and return its seconds."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "segkit", *argv, "--device", "cpu"], check=True, cwd=ROOT)
    return time.perf_counter() - begin


def run(name: str, data: Path, out: Path, more: list[str]) -> dict[str, Any]:
    """All five tools on one set; the numbers of its row."""
    out.mkdir(parents=True, exist_ok=True)
    path = config(name, data, out)
    folder = str(out / "train")
    seconds = {"train": segkit("train", "--config", str(path), "--do_eval", "--save_dir", folder, *more)}
    best = f"{folder}/best_model"
    seconds["val"] = segkit("val", "--model_path", best, "--save_dir", str(out / "val"))
    photos = out / "photos.txt"
    cfg = yaml.safe_load(path.read_text(encoding="utf-8"))
    root = Path(cfg["val_dataset"]["dataset_root"])
    names = [line.split()[0] for line in (root / "val.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    photos.write_text("\n".join(str(root / x) for x in names[:12]) + "\n", encoding="utf-8")
    seconds["predict"] = segkit(
        "predict", "--model_path", best, "--image_path", str(photos), "--save_dir", str(out / "predict")
    )
    row = {"set": name, **json.loads((out / "val" / "metrics.json").read_text(encoding="utf-8")), "seconds": seconds}
    if "test_config" not in cfg:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "segkit", "export", "--model_path", best, "--save_dir", str(out / "export")]
        subprocess.run(command, check=True, cwd=ROOT)
        seconds["export"] = time.perf_counter() - begin
        seconds["infer"] = segkit("infer", "--config", str(out / "export" / "deploy.yaml"), "--image_path", str(photos),
                                  "--save_dir", str(out / "infer"))  # fmt: skip
        row["same"] = same(out / "predict" / "mask", out / "infer")
    return row


def same(predicted: Path, inferred: Path) -> str:
    """The share of pixels that are equal in the masks of predict and infer."""
    pairs = [
        (read_label(mask), read_label(inferred / mask.relative_to(predicted)))
        for mask in sorted(predicted.rglob("*.png"))
    ]
    equal, pixels = sum(int((a == b).sum()) for a, b in pairs), sum(a.size for a, _ in pairs)
    return f"{100 * equal / pixels:.4f} %"


def main() -> None:
    """Print one row a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for configs, weights and pictures")
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--train_flags", nargs=argparse.REMAINDER, default=[], help="further flags of train")
    args = parser.parse_args()
    rows = [run(name, args.data.resolve(), (args.out / name).resolve(), args.train_flags) for name in args.only]
    print("| set | mIoU | class IoU | train s | val s | predict s | infer = predict |\n|---|---|---|---|---|---|---|")
    for row in rows:
        ious = " ".join("-" if value is None else f"{value:.3f}" for value in row["class_iou"])
        cost = row["seconds"]
        print(
            f"| {row['set']} | {row['mIoU']:.4f} | {ious} | {cost['train']:.0f} | {cost['val']:.0f} | "
            f"{cost['predict']:.0f} | {row.get('same', '-')} |"
        )


if __name__ == "__main__":
    main()
