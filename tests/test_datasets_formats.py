"""Cityscapes and VOC folders, drawn and real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.datasets import Dataset
from segkit.datasets.cityscapes import LABELS
from segkit.errors import InputError
from segkit.registry import DATASETS
from tests import dataset_files
from tests.dataset_files import mask, photo, put

root = dataset_files.root


def test_optic_disc_seg(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    mask(tmp_path / "b.png")
    (tmp_path / "train_list.txt").write_text("a.png b.png\n")
    data = DATASETS.get("OpticDiscSeg")(None, str(tmp_path))
    assert data.num_classes == 2 and len(data) == 1 and data.class_names == ["background", "optic_disc"]
    with pytest.raises(InputError, match=r"OpticDiscSeg: it has 2 classes \(got num_classes: 3\)"):
        DATASETS.get("OpticDiscSeg")(None, str(tmp_path), num_classes=3)


def street(root: Path, end: str, city: str = "aachen/", values: Any = range(34)) -> None:
    photo(root / f"leftImg8bit/train/{city}aachen_000000_000019_leftImg8bit.png")
    mask(root / f"gtFine/train/{city}aachen_000000_000019_gtFine_{end}.png", values)


@pytest.mark.parametrize("city", ["aachen/", ""])
def test_cityscapes_train_ids_are_made_of_label_ids(tmp_path: Path, city: str) -> None:
    street(tmp_path, "labelIds", city)
    street(tmp_path, "labelTrainIds", city, (0,))  # label ids win where both are there
    data = DATASETS.get("Cityscapes")(None, str(tmp_path))
    label = data.read(0)["label"].ravel()
    known = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    known.update({27: 14, 28: 15, 31: 16, 32: 17, 33: 18})
    assert [int(v) for v in label[:34]] == [known.get(i, 255) for i in range(34)]
    assert data.num_classes == 19 and data.class_names[0] == "road" and data.palette[0].tolist() == [128, 64, 128]


def test_cityscapes_raw_ids_and_ignore(tmp_path: Path) -> None:
    street(tmp_path, "labelIds")
    raw = DATASETS.get("Cityscapes")(None, str(tmp_path), num_classes=34)
    assert raw.read(0)["label"].ravel()[:34].tolist() == list(range(34))
    assert raw.class_names[7] == "road" and len(raw.palette) == 34
    assert DATASETS.get("Cityscapes").info(num_classes=34)["class_names"] == [row[0] for row in LABELS]
    other = DATASETS.get("Cityscapes")(None, str(tmp_path), ignore_index=200)
    assert other.read(0)["label"][0, 0] == 200


def test_cityscapes_train_id_files(tmp_path: Path) -> None:
    street(tmp_path, "labelTrainIds", values=(0, 18, 255))
    data = DATASETS.get("Cityscapes")(None, str(tmp_path))
    assert set(np.unique(data.read(0)["label"])) == {0, 18, 255}
    with pytest.raises(
        InputError, match=r"(?s)of the train samples, files that are not there: 1.*labelIds\.png: label"
    ):
        DATASETS.get("Cityscapes")(None, str(tmp_path), num_classes=34)
    (tmp_path / "l.txt").write_text(
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png "
        "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png\n"
    )
    assert DATASETS.get("Cityscapes")(None, str(tmp_path), train_path="l.txt").read(0)["label"].max() == 255
    with pytest.raises(InputError, match="holds the 19 train ids"):
        DATASETS.get("Cityscapes")(None, str(tmp_path), num_classes=34, train_path="l.txt").read(0)


def test_cityscapes_mistakes(tmp_path: Path) -> None:
    street(tmp_path, "labelIds", values=(0, 40))
    with pytest.raises(InputError, match=r"labelIds\.png: label values out of range \(got 40 .*expected 0\.\.33"):
        DATASETS.get("Cityscapes")(None, str(tmp_path)).read(0)
    with pytest.raises(InputError, match=r"Cityscapes: num_classes is wrong \(got 20, expected 19"):
        DATASETS.get("Cityscapes").info(num_classes=20)
    with pytest.raises(InputError, match=r"leftImg8bit.val: no photos named \*_leftImg8bit\.png"):
        DATASETS.get("Cityscapes")(None, str(tmp_path), mode="val")


def test_real_cityscapes_trees(shared: Path) -> None:
    cls = DATASETS.get("Cityscapes")
    base = shared / "data/cityscapes12"
    ids = cls(None, str(base / "labelids_tree"))
    assert len(ids) == 3 and ids.read(0)["label"].shape == (1024, 2048)
    demo = cls(None, str(base / "cityscapes_demo"), mode="val")
    assert len(demo) == 2 and set(np.unique(demo.read(0)["label"])) <= {*range(19), 255}
    assert len(cls(None, str(base / "cityscapes_demo"), train_path="train_list.txt")) == 2


def voc(root: Path, count: int = 20, folder: str = "SegmentationClassPNG") -> Path:
    for i in range(count):
        photo(root / f"JPEGImages/{i:02d}.a.jpg")
        put(root / f"{folder}/{i:02d}.a.png", np.resize(np.array([0, 1, 255], np.uint8), (6, 8)), palette=True)
    return root


def test_voc_split_by_fraction(tmp_path: Path) -> None:
    voc(tmp_path)
    photo(tmp_path / "JPEGImages/unlabelled.jpg")
    cls = DATASETS.get("VOC")
    train, val = cls(None, str(tmp_path), 2), cls(None, str(tmp_path), 2, "val")
    assert len(train) == 17 and len(val) == 3 and not {*train.files} & {*val.files}
    assert val.files == cls(None, str(tmp_path), 2, "val").files != sorted(train.files + val.files)[-3:]
    assert set(np.unique(train.read(0)["label"])) == {0, 1, 255}
    assert len(cls(None, str(tmp_path), 2, "val", val_fraction=0.5)) == 10
    with pytest.raises(InputError, match=r"val_fraction: got 1\.5, expected"):
        cls(None, str(tmp_path), 2, val_fraction=1.5)


def test_voc_split_by_lists(tmp_path: Path) -> None:
    voc(tmp_path, 4, "SegmentationClass")
    cls = DATASETS.get("VOC")
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("00.a\n02.a\n")
    (tmp_path / "mine.txt").write_text("# these\n03.a\r\n")
    (tmp_path / "pairs.txt").write_text("JPEGImages/01.a.jpg SegmentationClass/01.a.png\n")
    names = lambda data: [Path(image).name for image, _ in data.files]  # noqa: E731
    assert names(cls(None, str(tmp_path), 2)) == ["00.a.jpg", "02.a.jpg"]
    assert names(cls(None, str(tmp_path), 2, "val", val_path="mine.txt")) == ["03.a.jpg"]
    assert names(cls(None, str(tmp_path), 2, "val", val_path="pairs.txt")) == ["01.a.jpg"]
    (lists / "train.txt").write_text("00.a\n99\n")
    with pytest.raises(InputError, match="of the train samples, files that are not there: 2"):
        cls(None, str(tmp_path), 2)


def test_voc_classes_from_a_file(tmp_path: Path) -> None:
    voc(tmp_path, 2)
    cls = DATASETS.get("VOC")
    with pytest.raises(InputError, match="VOC: num_classes is missing"):
        cls(None, str(tmp_path))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    data = cls(None, str(tmp_path))
    assert data.num_classes == 3 and data.class_names == ["_background_", "cat", "dog"]


def test_voc_mistakes(tmp_path: Path) -> None:
    cls = DATASETS.get("VOC")
    voc(tmp_path, 1)
    with pytest.raises(InputError, match=r"1 PNG masks .expected 2 or more"):
        cls(None, str(tmp_path), 2)
    with pytest.raises(InputError, match="no folder SegmentationClassPNG or SegmentationClass in it"):
        photo(tmp_path / "x/JPEGImages/a.jpg")
        cls(None, str(tmp_path / "x"), 2)
    with pytest.raises(InputError, match="folder is not there"):
        cls(None, str(tmp_path / "nowhere"), 2)


def test_pascal_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOC2012", 3, "SegmentationClass")
    for name in ("00.a", "02.a"):
        mask(root / f"SegmentationClassAug/{name}.png", (0, 20))
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("01.a\n")
    (lists / "aug.txt").write_text("00.a\n02.a\n")
    cls = DATASETS.get("PascalVOC")
    assert len(cls(None, str(tmp_path))) == 1
    aug = cls(None, str(tmp_path), mode="trainaug")
    assert aug.training and len(aug) == 3 and aug.read(2)["label"].max() == 20 and aug.num_classes == 21
    with pytest.raises(InputError, match=r"no ImageSets/Segmentation/val\.txt"):
        cls(None, str(tmp_path), mode="val")


def test_real_voc_folders(shared: Path) -> None:
    cls = DATASETS.get("VOC")
    cats = shared / "data/cats8/raw/data"
    parts = [cls(None, str(cats), 2, mode) for mode in ("train", "val")]
    assert [len(part) for part in parts] == [7, 1]
    assert all(set(np.unique(part.read(i)["label"])) == {0, 1} for part in parts for i in range(len(part)))
    labelme = cls(None, str(shared / "data/labelme_voc3/raw/data_dataset_voc"))
    assert labelme.num_classes == 21 and labelme.class_names[15] == "person" and len(labelme) == 2
    for image, _ in labelme.files:
        expected = np.load(image.replace("JPEGImages", "SegmentationClassNpy").replace(".jpg", ".npy"))
        got = labelme.read([pair[0] for pair in labelme.files].index(image))["label"]
        assert np.array_equal(got, np.where(expected < 0, 255, expected))


def test_real_list_data_sets(shared: Path) -> None:
    for name, classes in (("neu_seg", 4), ("drive", 2), ("em_membrane", 2), ("carrot_weed_8mp", 3)):
        for mode in ("train", "val"):
            data = Dataset(None, str(shared / "data" / name), classes, mode)
            assert data.read(len(data) - 1)["label"].max() < 256
