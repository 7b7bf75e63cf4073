"""PaddleSeg's configs: the walk through a checkout, and every row of the census rebuilt as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit.cli.main import main
from segkit.config import Config
from segkit.engine.paddleseg import survey
from segkit.engine.train import train
from segkit.options import TrainOptions
from segkit.registry import BACKBONES, DATASETS, LOSSES, MODELS
from tests.conftest import SHARED
from tests.model_cases import backbones_once

ROOT = Path(__file__).resolve().parents[1]
CENSUS = SHARED / "parity" / "configs.json"
# The census holds the names of transforms and losses alone: arguments that these need.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Resize": {"target_size": [512, 512]},
    "ResizeByLong": {"long_size": 512},
    "ResizeByShort": {"short_size": 512},
    "LimitLong": {"max_long": 1024},
    "RandomPaddingCrop": {"crop_size": [512, 512]},
    "Padding": {"target_size": [512, 512]},
    "PaddingByAspectRatio": {"aspect_ratio": 1.78},
    "GenerateInstanceTargets": {"num_classes": 150},
}


def nodes(names: list[str]) -> list[dict[str, Any]]:
    """`[MixedLoss, MixedLoss/A, MixedLoss/B]` -> one node with two inside; transforms with what they need."""
    found: list[dict[str, Any]] = []
    for name in names:
        outer, _, inner = name.partition("/")
        if inner:
            found[-1].setdefault("losses", []).append({"type": inner})
            found[-1]["coef"] = [1] * len(found[-1]["losses"])
        else:
            found.append({"type": outer, **ARGUMENTS.get(outer, {})})
    return found


def rebuild(row: dict[str, Any]) -> dict[str, Any]:
    """A config as the row of the census tells it."""
    config: dict[str, Any] = {"iters": row["iters"] or 10, "batch_size": row["batch_size"] or 2}
    for part, kind in row["datasets"].items():
        transforms = nodes(row["transforms"].get(part) or [])
        config[part] = {"type": kind, **(row["dataset_kwargs"].get(part) or {}), "transforms": transforms}
    for key in ("model_cfg", "optimizer_cfg", "lr_cfg"):
        if row[key]:
            config[{"model_cfg": "model", "optimizer_cfg": "optimizer", "lr_cfg": "lr_scheduler"}[key]] = row[key]
    if row["losses"]:
        config["loss"] = {"types": nodes(row["losses"]), "coef": row["loss_coef"]}
    return config


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """Path -> (row, what became of it), for the 205 files that are not bases."""
    if not CENSUS.exists():
        pytest.skip(f"{CENSUS} is absent")
    folder = tmp_path_factory.mktemp("checkout")
    rows = {row["path"]: row for row in json.loads(CENSUS.read_text()) if not row["is_base_file"]}
    for path, row in rows.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(rebuild(row), sort_keys=False))
    with backbones_once({}):
        return {found.path: (rows[found.path], found) for found in survey(folder)}


def lacking(row: dict[str, Any]) -> set[str]:
    """The components of a row that the registries do not have."""
    model = row["model_cfg"] or {}
    wanted = {("model", MODELS, model.get("type")), ("backbone", BACKBONES, (model.get("backbone") or {}).get("type"))}
    wanted |= {("data set", DATASETS, kind) for kind in row["datasets"].values()}
    wanted |= {("loss", LOSSES, name.rpartition("/")[2]) for name in row["losses"]}
    return {f"{kind} {name}" for kind, registry, name in wanted if name and name not in registry}


def test_every_config_builds_unless_a_component_is_absent(findings, capsys):
    assert len(findings) == 205
    wrong = {}
    for path, (row, found) in findings.items():
        absent = lacking(row)
        # Below an unknown model nothing is looked at.
        explained = bool(absent) == bool(found.missing) and set(found.missing) <= absent
        if not explained or (found.problems and not absent and path not in INCOMPLETE):
            wrong[path] = (found.missing, found.problems, absent)
    assert not wrong, "\n".join(f"{path}: {value}" for path, value in wrong.items())
    with capsys.disabled():
        print(f"\nPaddleSeg's configs: {sum(found.builds for _, found in findings.values())} of {len(findings)} build")


def test_the_zoo_has_them_by_name():
    if not CENSUS.exists():
        pytest.skip(f"{CENSUS} is absent")
    names = [row["path"] for row in json.loads(CENSUS.read_text()) if not row["is_base_file"]]
    missing = [name for name in names if not (ROOT / name).exists()]
    left_out = ("configs/pssl/", "configs/smrt/", *INCOMPLETE)
    assert all(name.startswith(left_out) or name.endswith("_for_test.yml") for name in missing), missing
    page = (ROOT / "docs" / "paddleseg.md").read_text(encoding="utf-8")
    assert f"{len(names) - len(missing)} of the {len(names)} are here by name" in page


# Made for export alone: PaddleSeg, too, cannot train it.
INCOMPLETE = {"configs/pp_humanseg_lite/pp_humanseg_lite_export_398x224.yml"}


def test_two_chains_become_one(tmp_path: Path):
    """EG1800 in PaddleSeg: a common part, then a plain and a distorted view."""
    affine, plain = {"type": "RandomHorizontalFlip"}, {"type": "Normalize", "mean": [0.4] * 3, "std": [0.2] * 3}
    path = tmp_path / "c.yml"
    row = {
        "iters": 1,
        "batch_size": 1,
        "train_dataset": {"type": "EG1800", "dataset_root": "x", "common_transforms": [affine],
                          "transforms1": [plain], "transforms2": [{"type": "RandomNoise"}, plain]},
        "val_dataset": {"type": "EG1800", "dataset_root": "x", "common_transforms": [plain],
                        "transforms1": None, "transforms2": None},
        "model": {"type": "UNet"},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "StepDecay", "learning_rate": 0.001, "step_size": 460, "gamma": 0.95},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(row))
    data = Config(path).data
    assert [node["type"] for node in data["train_dataset"]["transforms"]] == [
        "RandomHorizontalFlip",
        "RandomNoise",
        "Normalize",
    ]
    assert data["val_dataset"]["transforms"] == [plain] and "transforms1" not in data["val_dataset"]


def multilabel_rows() -> list[dict[str, Any]]:
    rows = json.loads(CENSUS.read_text()) if CENSUS.exists() else []
    return [row for row in rows if row["path"].startswith("configs/multilabelseg/")]


@pytest.mark.parametrize(
    "row", multilabel_rows() or [None], ids=lambda row: Path(row["path"]).stem if row else "absent"
)
def test_multilabel_configs_take_a_step(row: Optional[dict[str, Any]], tmp_path: Path):
    if row is None:
        pytest.skip(f"{CENSUS} is absent")
    auxiliary = row["path"].endswith("withaux.yml")
    planes, rng = 3, np.random.default_rng(0)
    for part in ("train", "val"):
        names = [f"{part}{index}" for index in range(2)]
        for name in names:
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
            label = rng.integers(0, 2, (40, 48 * planes), dtype=np.uint8)
            Image.fromarray(label).save(tmp_path / f"{name}_label.png")
        lines = [f"{name}.png {name}_label.png" for name in names]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines))
    config = rebuild({**row, "iters": 1, "batch_size": 2})
    for part in ("train", "val"):
        config[f"{part}_dataset"]["dataset_root"] = str(tmp_path)
        config[f"{part}_dataset"][f"{part}_path"] = str(tmp_path / f"{part}.txt")
        for node in config[f"{part}_dataset"]["transforms"]:
            if "target_size" in node:
                node["target_size"] = [64, 64]
    assert config["train_dataset"]["num_classes"] == planes + auxiliary
    config["model"]["backbone"]["pretrained"] = None
    if config["model"]["type"] == "DeepLabV3":
        config["model"]["backbone"]["type"] = "ResNet18_vd"
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    options = TrainOptions(
        save_dir=str(tmp_path / "out"), use_multilabel=True, do_eval=True, num_workers=0, device="cpu", log_iters=1
    )
    train(Config(tmp_path / "config.yml"), options)
    first, last = (json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert np.isfinite(first["loss"]) and 0 <= last["mIoU"] <= 1


def test_the_walk_prints_a_table_and_counts(tmp_path: Path, capsys):
    configs = tmp_path / "configs"
    configs.mkdir()
    good = {
        "batch_size": 2,
        "iters": 10,
        "train_dataset": {"type": "OpticDiscSeg", "dataset_root": "data/x", "transforms": [{"type": "Normalize"}]},
        "model": {"type": "UNet"},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "optimizer": {"type": "sgd", "momentum": 0.9},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01, "end_lr": 0, "power": 0.9},
    }
    (configs / "good.yml").write_text(yaml.safe_dump(good))
    (configs / "lacking.yml").write_text(yaml.safe_dump({**good, "model": {"type": "NoSuchNet"}}))
    (configs / "wrong.yml").write_text(yaml.safe_dump({**good, "iters": 0}))
    idle = {**good["optimizer"], "custom_cfg": [{"name": "conv", "lr_multi": 10}]}  # said once by a training
    (configs / "noted.yml").write_text(yaml.safe_dump({**good, "optimizer": idle}))
    (configs / "noted_too.yml").write_text(yaml.safe_dump({**good, "optimizer": idle}))
    (configs / "_base_").mkdir()
    (configs / "_base_" / "part.yml").write_text("iters: 3\n")
    assert main(["config", "--check", "--paddleseg", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for name in ("noted.yml", "noted_too.yml"):
        note = lines.pop(next(number for number, line in enumerate(lines) if name in line) + 1)
        assert note.startswith("    note: optimizer.custom_cfg.0.lr_multi: without effect")
    assert "lr_multi" not in err
    assert [line.split()[0] for line in lines if line.startswith("configs/")] == [
        f"configs/{name}.yml" for name in ("good", "lacking", "noted", "noted_too", "wrong")
    ]
    assert lines[0].endswith("builds") and "missing: model NoSuchNet" in lines[1] and "expected at least 1" in lines[5]
    assert lines[-1] == "3 of 5"
    assert main(["config", "--check", "--json", "--paddleseg", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["builds"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check", "--paddleseg", "EMPTY"], "no configs there"),
        (["--paddleseg", "EMPTY"], "--paddleseg goes with --check and no file"),
        ([], "no file is given. Give the YAML config"),
    ],
)
def test_refusals(tmp_path, arguments, words, capsys):
    assert main(["config", *(str(tmp_path) if word == "EMPTY" else word for word in arguments)]) == 2
    assert words in capsys.readouterr().err
