"""Published data sets: each reads its own folder layout, and its error tells that layout and where the data are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from segkit import io as sio
from segkit.cli.main import main
from segkit.config.signature import fields_of
from segkit.errors import InputError
from segkit.registry import DATASETS

LABEL = np.array([[0, 1, 2], [1, 0, 0]], np.uint8)


def put(root: Path, image: str, label: str = "", values: np.ndarray = LABEL) -> None:
    if image.endswith(".jpg"):
        path = root / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sio.cv2.imencode(".jpg", np.full((*values.shape, 3), 90, np.uint8))[1].tobytes())
    else:
        sio.write_png(root / image, np.full((*values.shape, 3), 90, np.uint8))
    if label:
        sio.write_png(root / label, values)


def text(root: Path, name: str, *lines: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")


def ade(root: Path) -> None:
    for part in ("training", "validation"):
        put(root, f"images/{part}/ADE_1.jpg", f"annotations/{part}/ADE_1.png")
    names = [f"{n}\t0.1\t1\t1\tname {n}, other" for n in range(1, 151)]
    text(root, "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName", *names)


def context(root: Path) -> None:
    put(root, "JPEGImages/2008_1.jpg", "Context/2008_1.png")
    for part in ("train", "val"):
        text(root, f"ImageSets/SegmentationContext/{part}_context.txt", "2008_1")


def test_pascal_context_trainval_is_a_mode_that_configs_may_name(tmp_path: Path) -> None:
    context(tmp_path)
    text(tmp_path, "ImageSets/SegmentationContext/trainval_context.txt", "2008_1", "2008_1")
    assert fields_of(DATASETS.get("PascalContext"))["mode"].mismatch("trainval") is None
    assert len(DATASETS.get("PascalContext")([], str(tmp_path), mode="trainval")) == 2


def coco(root: Path) -> None:
    for part in ("train2017", "val2017"):
        put(root, f"images/{part}/0001.jpg", f"annotations/{part}/0001.png")


def supervisely(root: Path) -> None:
    put(root, "ds1/img/a.png", "ds1/ann/a.png")
    for part in ("train", "test"):
        text(root, f"supervisely_face_{part}_easy.txt", "Supervisely_face/ds1/img/a.png")


def eg1800(root: Path) -> None:
    put(root, "Images/1.png", "Labels/1.png")
    for part in ("train", "test"):
        text(root, f"eg1800_{part}.txt", "1.png")


def listed(train: str, val: str, separator: str = " ") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        put(root, "images/1.jpg", "labels/1.png", LABEL % 2)
        for name in (train, val):
            text(root, name, f"images/1.jpg{separator}labels/1.png")

    return make


def autonue(root: Path) -> None:
    for part, end in (("train", "png"), ("val", "jpg")):
        put(root, f"leftImg8bit/{part}/7/3_leftImg8bit.{end}", f"gtFine/{part}/7/3_gtFine_labellevel3Ids.png")


def mvtec(root: Path) -> None:
    for number in range(4):
        put(root, f"test/crack/{number:03d}.png", f"ground_truth/crack/{number:03d}_mask.png", LABEL * 127)
        put(root, f"test/good/{number:03d}.png")


vessels = listed("train_list.txt", "val_list.txt")
binary = (LABEL > 0).astype(int)
# type: (its files, classes, what the first label becomes)
SETS = {
    "ADE20K": (ade, 150, [[255, 0, 1], [0, 255, 255]]),
    "PascalContext": (context, 60, LABEL),
    "CocoStuff": (coco, 171, LABEL),
    "SUPERVISELY": (supervisely, 2, binary),
    "DRIVE": (vessels, 2, LABEL % 2),
    "STARE": (vessels, 2, LABEL % 2),
    "CHASEDB1": (vessels, 2, LABEL % 2),
    "HRF": (vessels, 2, LABEL % 2),
    "EG1800": (eg1800, 2, LABEL % 2),
    "PPHumanSeg14K": (listed("train.txt", "val.txt"), 2, LABEL % 2),
    "MiniDeepGlobeRoadExtraction": (listed("train.txt", "val.txt", "|"), 2, LABEL % 2),
    "AutoNUE": (autonue, 26, LABEL),
    "MVTec_AD": (mvtec, 2, binary),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("mode", ["train", "val"])
def test_layouts(name: str, mode: str, tmp_path: Path) -> None:
    make, classes, want = SETS[name]
    make(tmp_path)
    dataset = DATASETS.get(name)(None, str(tmp_path), mode=mode)
    assert dataset.num_classes == classes == len(dataset.class_names)
    sample = dataset.get(0, np.random.default_rng(0))
    assert sample["image"].shape == (2, 3, 3) and sample["label"].tolist() == np.array(want).tolist()


@pytest.mark.parametrize("name", SETS)
def test_what_is_missing_is_told_with_layout_and_home(name: str, tmp_path: Path) -> None:
    cls = DATASETS.get(name)
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError) as told:
            cls(None, str(root))
        message = str(told.value)
        assert message.startswith(f"{name}: {root}") and cls.LAYOUT in message and cls.HOME in message


def test_names_of_ade_come_from_its_own_table(tmp_path: Path) -> None:
    ade(tmp_path)
    dataset = DATASETS.get("ADE20K")(None, str(tmp_path))
    assert dataset.class_names[:2] == ["name 1", "name 2"]
    (tmp_path / "objectInfo150.txt").unlink()
    assert DATASETS.get("ADE20K")(None, str(tmp_path)).class_names[0] == "class 0"


def test_mvtec_is_divided_without_overlap(tmp_path: Path) -> None:
    mvtec(tmp_path)
    cls = DATASETS.get("MVTec_AD")
    train, val = (cls(None, str(tmp_path), mode=mode) for mode in ("train", "val"))
    assert len(train) == 6 and len(val) == 2 and not set(train.files) & set(val.files)
    assert not train.read_label(5).any()  # good photos


def test_cityscapes_as_it_is_trains(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "cityscapes12"
    crop = [{"type": "RandomPaddingCrop", "crop_size": [64, 64]}, {"type": "Normalize"}]
    node = {"type": "Cityscapes", "dataset_root": str(root / "labelids_tree"), "transforms": crop}
    small = {"type": "Resize", "target_size": [64, 32]}
    val = {**node, "mode": "train", "transforms": [small, {"type": "Normalize"}]}
    config = {
        "batch_size": 1,
        "iters": 1,
        "train_dataset": node,
        "val_dataset": val,
        "model": {"type": "UNet", "base_channels": 4},
        "optimizer": {"type": "SGD"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01, "power": 0.9, "end_lr": 0},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
    }
    (tmp_path / "c.yml").write_text(yaml.safe_dump(config))
    argv = ["train", "--config", str(tmp_path / "c.yml"), "--save_dir", str(tmp_path / "out"), "--do_eval"]
    assert main(argv) == 0
    assert (tmp_path / "out" / "best_model" / "model.pdparams").is_file()


@pytest.mark.parametrize("name", sorted(DATASETS.names()))
def test_every_data_set_takes_what_is_done_at_reading(name: str) -> None:
    fields = fields_of(DATASETS.get(name))
    assert {"label_map", "reduce_zero_label", "nodata", "cache"} <= set(fields)


def test_pssl_reads_archives_beside_imagenet(tmp_path: Path) -> None:
    name = "train/n02/n02_7.JPEG"
    put(tmp_path / "imagenet", "train/n02/n02_7.jpg")
    (tmp_path / "imagenet/train/n02/n02_7.jpg").rename(tmp_path / "imagenet" / name)
    (tmp_path / "pssl/train/n02").mkdir(parents=True)
    archive = tmp_path / "pssl" / f"{name}_eiseg.npz"
    np.savez(archive, np.array([[0, 1, 1], [-1, 0, 1]]))
    text(tmp_path / "pssl", "imagenet_lsvrc_2015_synsets.txt", "n01", "n02")
    text(tmp_path / "pssl", "train.txt", f"{name}_eiseg.npz")
    cls = DATASETS.get("PSSLDataset")
    dataset = cls([], str(tmp_path / "imagenet"), str(tmp_path / "pssl"))
    assert dataset.read(0)["label"].tolist() == [[1000, 1, 1], [1001, 1000, 1]]
    assert (dataset.num_classes, dataset.ignore_index) == (1001, 1001)
    archive.write_bytes(b"no archive")
    with pytest.raises(InputError, match="not a label archive of PSSL"):
        dataset.read(0)
    text(tmp_path / "pssl", "imagenet_lsvrc_2015_synsets.txt", "n01")
    with pytest.raises(InputError, match=r"classes that imagenet_lsvrc_2015_synsets.txt lacks \(got n02\)"):
        cls([], str(tmp_path / "imagenet"), str(tmp_path / "pssl"))
    with pytest.raises(InputError, match=r"imagenet_lsvrc_2015_synsets\.txt"):
        cls([], str(tmp_path / "imagenet"), str(tmp_path / "none"))
