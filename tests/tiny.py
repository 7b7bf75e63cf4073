"""A tiny data set and config for tests that train: bright squares on a dark ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image


def make_data(folder: Path, train: int = 12, val: int = 4, size: tuple[int, int] = (24, 32), classes: int = 2) -> Path:
    """`images/`, `labels/` and lists below `folder`; a square of class 1..classes-1 in each photo [size = h, w]."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(train + val):
        image = rng.integers(0, 80, (*size, 3), dtype=np.uint8)
        label = np.zeros(size, np.uint8)
        top, left = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        number = 1 + index % (classes - 1)
        box = (slice(top, top + size[0] // 2), slice(left, left + size[1] // 2))
        image[box] = image[box] // 3 + np.array([170, 150 - 40 * number, 40 * number], np.uint8)
        label[box] = number
        Image.fromarray(image).save(folder / "images" / f"{index:03d}.png")
        Image.fromarray(label).save(folder / "labels" / f"{index:03d}.png")
        lines.append(f"images/{index:03d}.png labels/{index:03d}.png\n")
    (folder / "train.txt").write_text("".join(lines[:train]), encoding="utf-8")
    (folder / "val.txt").write_text("".join(lines[train:]), encoding="utf-8")
    return folder


def tiny_config(data: Path, path: Path, **changes: object) -> Path:
    """Write a config of a four-channel U-Net on `data`; `changes` replace top-level keys."""
    dataset = {"type": "Dataset", "dataset_root": str(data), "num_classes": 2, "class_names": ["ground", "square"]}
    config = {
        "batch_size": 2,
        "iters": 6,
        "train_dataset": {
            **dataset,
            "transforms": [
                {"type": "RandomPaddingCrop", "crop_size": [16, 16]},
                {"type": "RandomHorizontalFlip"},
                {"type": "RandomDistort"},
                {"type": "Normalize"},
            ],
        },
        "val_dataset": {**dataset, "transforms": [{"type": "Normalize"}]},
        "model": {"type": "UNet", "base_channels": 4},
        "optimizer": {"type": "SGD", "momentum": 0.9, "weight_decay": 4.0e-5},
        "lr_scheduler": {
            "type": "PolynomialDecay",
            "learning_rate": 0.05,
            "power": 0.9,
            "end_lr": 0,
            "warmup_iters": 2,
        },
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        **changes,
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
