"""The same seed gives the same weights, whoever reads the photos and whether they are kept. docs/determinism.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segkit.config import Config
from segkit.engine.train import train
from segkit.options import TrainOptions
from tests.chaos import model  # noqa: F401  (registers a network with dropout)
from tests.tiny import make_data, tiny_config

ITERS = 8  # more than an epoch of 6, so that a cache is also read


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    loss = {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]}
    data = make_data(folder)
    return tiny_config(data, folder / "c.yml", iters=ITERS, model={"type": "ChaosNet"}, loss=loss)


def trained(config: Path, out: Path, workers: int, cache: str, seed: int = 5) -> tuple[dict[str, np.ndarray], list]:
    """Every array of the state at the end, and the numbers said on the way."""
    cfg = Config(config).update({"train_dataset.cache": cache, "val_dataset.cache": cache})
    options = TrainOptions(save_dir=str(out), device="cpu", num_workers=workers, seed=seed, do_eval=True, log_iters=2,
                           save_interval=4)  # fmt: skip
    state = {key: value.numpy() for key, value in train(cfg, options).state_dict().items()}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return state, [[row.get(name) for name in ("iter", "loss", "lr", "mIoU", "class_iou")] for row in rows]


@pytest.fixture(scope="module")
def expected(config: Path, tmp_path_factory) -> tuple[dict[str, np.ndarray], list]:
    return trained(config, tmp_path_factory.mktemp("plain"), 0, "none")


@pytest.mark.parametrize("workers, cache", [(0, "none"), (1, "none"), (4, "none"), (0, "ram"), (0, "disk"), (4, "ram"), (1, "disk")])  # fmt: skip
def test_the_same_weights_whoever_reads(config: Path, tmp_path: Path, expected, workers: int, cache: str) -> None:
    state, rows = trained(config, tmp_path, workers, cache)
    assert rows == expected[1]
    for key, value in expected[0].items():
        np.testing.assert_array_equal(state[key], value, err_msg=key)


def test_another_seed_gives_others(config: Path, tmp_path: Path, expected) -> None:
    state, _ = trained(config, tmp_path, 0, "none", seed=6)
    assert not np.array_equal(state["body.0.weight"], expected[0]["body.0.weight"])
