"""Every shipped config is built as it is; a sample is stepped once on tiny data of its layout."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit import build
from segkit.config import Config
from segkit.engine.paddleseg import Last, build_all
from segkit.engine.train import train
from segkit.options import TrainOptions
from tests.model_cases import backbones_once

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yml") if "_base_" not in path.parts)
STEPPED = [
    *sorted((ROOT / "configs").glob("*.yml")),
    *sorted((ROOT / "configs" / "quick_start").glob("*1k.yml")),
    ROOT / "configs" / "quick_start" / "deeplabv3p_resnet18_os8_optic_disc_512x512_1k_student.yml",
    ROOT / "configs" / "pidnet" / "pidnet_small_cityscapes_1024x1024_120k.yml",  # four losses for three outputs
]
SIZES = {"target_size": [32, 32], "crop_size": [32, 32], "long_size": 32}
CUTS = ("crop_size", "target_size", "size")  # what a training photo is cut or brought to
UNSAID = {"fcn_hrnetw18_pphumanseg14k", "pp_humanseg_lite_mini_supervisely", "stfpm_resnet18_mvtec"}
"""PaddleSeg's names that tell neither size nor iterations."""
RNG = np.random.default_rng(0)


@functools.cache
def read(path: Path) -> Config:
    """The config, resolved once for all tests of this file: none of them changes it."""
    return Config(path)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (36, 48, 3), dtype=np.uint8)).save(path)


def label(path: Path, top: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, top, (36, 48), dtype=np.uint8)).save(path)


def doves(root: Path) -> None:
    for index in range(8):
        photo(root / f"{index:03d}" / "img.png")
        label(root / f"{index:03d}" / "label.png")
        (root / f"{index:03d}" / "label_names.txt").write_text("_background_\ndove\n", encoding="utf-8")


def optic_disc(root: Path) -> None:
    for part in ("train", "val"):
        for index in range(2):
            photo(root / f"{part}{index}.png")
            label(root / f"{part}{index}_label.png")
        lines = [f"{part}{index}.png {part}{index}_label.png" for index in range(2)]
        (root / f"{part}_list.txt").write_text("\n".join(lines), encoding="utf-8")


def cityscapes(root: Path) -> None:
    for part in ("train", "val"):
        for index in range(2):
            name = f"town/town_00000{index}_000019"
            photo(root / "leftImg8bit" / part / f"{name}_leftImg8bit.png")
            label(root / "gtFine" / part / f"{name}_gtFine_labelIds.png", 34)


def voc(root: Path) -> None:
    for index in range(6):
        photo(root / "JPEGImages" / f"{index}.jpg")
        label(root / "SegmentationClassPNG" / f"{index}.png")


LAYOUTS = {"DoveDataset": doves, "OpticDiscSeg": optic_disc, "Cityscapes": cityscapes, "VOC": voc}


@pytest.mark.parametrize("path", STEPPED, ids=lambda path: path.name)
def test_built_and_stepped_once(path: Path, tmp_path: Path) -> None:
    cfg = read(path)
    LAYOUTS[cfg.data["train_dataset"]["type"]](tmp_path / "data")
    changes: dict[str, object] = {"iters": 1, "batch_size": 2}
    for part in ("train_dataset", "val_dataset"):
        changes[f"{part}.dataset_root"] = str(tmp_path / "data")
        for index, node in enumerate(cfg.data[part]["transforms"]):
            changes.update({f"{part}.transforms.{index}.{key}": size for key, size in SIZES.items() if key in node})
    if cfg.data["model"]["type"] == "UNet":
        changes["model.base_channels"] = 4
    for key in ("model.pretrained", "model.backbone.pretrained"):
        node = cfg.data["model"] if key.count(".") == 1 else cfg.data["model"].get("backbone", {})
        if "pretrained" in node:
            changes[key] = None
    small = cfg.update(changes)
    model = train(small, TrainOptions(save_dir=str(tmp_path / "out"), do_eval=True, num_workers=0, device="cpu"))
    assert (tmp_path / "out" / "best_model" / "model.pdparams").exists()
    assert not model.training


@pytest.fixture(scope="module")
def made() -> tuple[Last, dict[str, Any]]:
    """The model before, which the next config often has, too, and the backbones so far."""
    return Last(), {}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_full_size_is_built(path: Path, made: tuple[Last, dict[str, Any]]) -> None:
    cfg = read(path)
    with backbones_once(made[1]):
        model = build_all(cfg, made[0])
    if getattr(model, "train_outputs", None) is not None:
        assert len(cfg.data["loss"]["coef"]) in getattr(model, "train_losses", (model.train_outputs,))
    info = build.data_info(cfg)
    assert info.num_classes == len(info.class_names) == len(info.palette)
    assert cfg.data["model"].get("num_classes", info.num_classes) in (1, info.num_classes)
    assert sum(math.prod(p.shape) for p in model.parameters()) > 100_000


def test_names_say_what_is_inside() -> None:
    """`<model>_<backbone>_<data>_<WxH>_<iters>`: size and iterations are those of the name."""
    named = [path for path in SHIPPED if path.parent.parent == ROOT / "configs" and path.parent.name != "quick_start"]
    assert len(named) > 60
    for path in named:
        cfg = read(path)
        size, rounds = re.search(r"_(\d+)x(\d+)_", path.name), re.search(r"_(\d+)k", path.name)
        assert (size is None) == (path.stem in UNSAID), path
        assert (rounds is None) == (path.stem in UNSAID | {"pp_mobileseg_tiny_uwmgi_512x512_withaux"}), path
        if size is not None:
            width, height = map(int, size.groups())
            sizes = [node[key] for node in cfg.data["train_dataset"]["transforms"] for key in CUTS if key in node]
            assert sizes in ([[width, height]], [[height, width]]), path
        if rounds is not None:
            assert cfg.iters == 1000 * int(rounds[1]), path
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "transforms" not in line, f"{path}: data belong to _base_"


def test_quick_start_config_stands_as_it_was_taught() -> None:
    text = (ROOT / "configs" / "quick_start" / "bisenet_optic_disc_512x512_1k.yml").read_text(encoding="utf-8")
    for part in ("type: sgd", "value: 0.01", "type: poly", "coef: [1, 1, 1, 1, 1]", "pretrained: Null"):
        assert part in text


IMAGENET = (
    "cae",
    "lpsnet",
    "maskformer",
    "mscale_ocrnet",
    "pidnet",
    "rtformer",
    "segnext",
    "stfpm",
    "topformer",
    "vit_adapter",
)
"""Families whose published weights saw photos that were normalised as ImageNet's are."""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_photos_are_normalised_as_the_published_weights_saw_them(path: Path) -> None:
    family, cfg = path.parent.name, read(path)
    found = [
        (node.get("mean"), node.get("std"))
        for part in ("train_dataset", "val_dataset")
        for node in cfg.data[part]["transforms"]
        if node["type"] == "Normalize"
    ]
    expected: tuple[Any, Any] = (None, None)  # 0.5 and 0.5
    if family in IMAGENET or (family == "pp_mobileseg" and "ade20k" in path.name):
        expected = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    elif family == "portraitnet":
        expected = ([0.485, 0.458, 0.408], [0.23, 0.23, 0.23])
    elif family == "multilabelseg":
        expected = ([0, 0, 0], [1, 1, 1])
    assert found == [expected] * 2
