"""A tiny labelled set, a config and a folder of weights, for tests of the tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from segkit import io
from segkit.cli.main import main

SIZES = ((60, 80), (97, 131), (48, 48))
RESIZE = [{"type": "Resize", "target_size": [64, 48]}, {"type": "Normalize"}]
PLAIN = [{"type": "Normalize"}]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random RGB picture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


def make_data(root: Path, classes: int = 3) -> None:
    """Three photos of three sizes with labels of `classes` classes, some pixels 255, in list files."""
    lines = []
    for number, (height, width) in enumerate(SIZES):
        io.write_png(root / "images" / f"{number}.png", photo(height, width, number))
        label = np.random.default_rng(number).integers(0, classes, (height, width)).astype(np.uint8)
        label[:4] = 255
        io.write_png(root / "labels" / f"{number}.png", label)
        lines.append(f"images/{number}.png labels/{number}.png\n")
    for name in ("train", "val"):
        (root / f"{name}.txt").write_text("".join(lines))


def make_config(root: Path, transforms: list | None = None, model: dict | None = None, **dataset: object) -> Path:
    """A config of the data in `root / "data"`."""
    node = {"type": "Dataset", "dataset_root": str(root / "data"), "num_classes": 3, "transforms": transforms or RESIZE}
    node.update(dataset)
    five = (model or {}).get("type") == "BiSeNetV2"  # outputs in training
    content = {
        "batch_size": 2,
        "iters": 2,
        "train_dataset": {**node, "mode": "train"},
        "val_dataset": {**node, "mode": "val"},
        "model": model or {"type": "UNet", "base_channels": 4},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1] * (5 if five else 1)},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.001},
    }
    path = root / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def make_weights(config: Path, folder: Path, seed: int = 3) -> Path:
    """A best_model folder with random weights whose predictions vary over the photo."""
    import paddle

    from segkit import build
    from segkit.config import Config
    from segkit.engine.weights import save_state

    cfg = Config(config)
    paddle.seed(seed)
    model = build.build_model(cfg)
    for name, buffer in model.named_buffers():
        if name.endswith("_mean"):
            buffer.set_value(0.1 * paddle.randn(buffer.shape))
    folder.mkdir(parents=True, exist_ok=True)
    save_state(model.state_dict(), folder / "model.pdparams")
    cfg.save(folder / "config.yml")
    return folder


def make_all(root: Path, **config: object) -> Path:
    """Data, config and weights below `root`; the best_model folder is returned."""
    make_data(root / "data")
    return make_weights(make_config(root, **config), root / "best_model")


def run(*argv: object) -> int:
    """`segkit ARGV` in this process; its exit code."""
    return main([str(item) for item in argv])
