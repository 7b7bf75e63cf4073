"""`weight: auto`: class weights from the training labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from segkit.config import Config
from segkit.engine.train import train
from segkit.errors import InputError
from segkit.losses.dice import DiceLoss
from segkit.options import TrainOptions
from tests.tiny import make_data, tiny_config

AUTO = {"type": "CrossEntropyLoss", "weight": "auto"}
MIXED = {"type": "MixedLoss", "losses": [AUTO, {"type": "DiceLoss", "weight": "auto"}], "coef": [1, 1]}


def options(save_dir: Path, **changes: object) -> TrainOptions:
    return TrainOptions(**{"save_dir": str(save_dir), "num_workers": 0, "device": "cpu", "log_iters": 1, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), classes=3)


def config(data: Path, path: Path, *losses: dict, **changes: object) -> Config:
    made = tiny_config(data, path, loss={"types": list(losses), "coef": [1] * len(losses)}, iters=2, **changes)
    return Config(made, ["train_dataset.num_classes=3", "train_dataset.class_names=[ground,a,b]",
                         "val_dataset.num_classes=3", "val_dataset.class_names=[ground,a,b]"])  # fmt: skip


def expected(data: Path) -> np.ndarray:
    """Median frequency, counted anew: a class's pixels over those of the photos that show it."""
    own, around = np.zeros(3), np.zeros(3)
    for line in (data / "train.txt").read_text().splitlines():
        label = np.asarray(Image.open(data / line.split()[1]))
        for value in np.unique(label):
            own[value] += (label == value).sum()
            around[value] += label.size
    frequency = own / around
    return np.median(frequency) / frequency


def test_numbers_stand_in_the_saved_config_and_resume_takes_them(data: Path, tmp_path: Path) -> None:
    cfg = config(data, tmp_path / "c.yml", MIXED)
    train(cfg, options(tmp_path / "out", save_interval=1, iters=1))
    saved = Config(tmp_path / "out" / "iter_1" / "config.yml").data["loss"]["types"][0]["losses"]
    for node in saved:
        np.testing.assert_allclose(node["weight"], expected(data), atol=1e-4)
    log = (tmp_path / "out" / "train.log").read_text(encoding="utf-8")
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert np.isfinite(row["loss"]) and "MixedLoss" in log
    text = (tmp_path / "out" / "iter_1" / "config.yml").read_text(encoding="utf-8")
    kept = Config(tmp_path / "out" / "iter_1" / "config.yml")
    kept.data["loss"]["types"][0]["losses"][0]["weight"] = [7.0, 8.0, 9.0]
    kept.save(tmp_path / "out" / "iter_1" / "config.yml")
    assert text != (tmp_path / "out" / "iter_1" / "config.yml").read_text(encoding="utf-8")
    train(cfg, options(tmp_path / "out", save_interval=1, resume_model="auto"))
    again = Config(tmp_path / "out" / "iter_2" / "config.yml").data["loss"]["types"][0]["losses"]
    assert again[0]["weight"] == [7.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        ({"type": "DiceLoss", "weight": "auto"}, {"model": {"type": "UNet", "base_channels": 4, "num_classes": 1}},
         r"loss\.types\.0\.weight: auto is a weight a class, but DiceLoss has one output channel"),
        ({"type": "BCELoss", "weight": "auto", "edge_label": True}, {}, r"but BCELoss has edges here"),
    ],
)  # fmt: skip
def test_where_there_is_no_class_to_weigh(tmp_path: Path, loss: dict, changes: dict, message: str) -> None:
    cfg = Config(tiny_config(make_data(tmp_path / "d"), tmp_path / "c.yml", loss={"types": [loss], "coef": [1]},
                             iters=1, **changes))  # fmt: skip
    with pytest.raises(InputError, match=message):
        train(cfg, options(tmp_path / "out"))


def test_planes_and_a_loss_by_itself_are_refused(tmp_path: Path) -> None:
    root = make_data(tmp_path / "d")
    for path in (root / "labels").glob("*.png"):
        label = np.asarray(Image.open(path))
        Image.fromarray(np.concatenate([1 - label, label], axis=1)).save(path)
    loss = {"types": [{"type": "BCELoss", "weight": "auto"}], "coef": [1]}
    cfg = Config(tiny_config(root, tmp_path / "c.yml", loss=loss, iters=1))
    with pytest.raises(InputError, match=r"weight: auto needs one class a pixel, but of .* its labels are planes"):
        train(cfg, options(tmp_path / "out", use_multilabel=True))
    with pytest.raises(InputError, match=r"DiceLoss: weight: auto is not a number a class yet"):
        DiceLoss(weight="auto")(paddle.zeros([1, 2, 3, 3]), paddle.zeros([1, 3, 3], "int64"))
    with pytest.raises(InputError, match=r"weight: got 'often' \(str\), expected .*auto.*list of float"):
        Config(tiny_config(root, tmp_path / "c.yml", loss={"types": [{**AUTO, "weight": "often"}], "coef": [1]}))
