"""Data sets: reading and checking of samples and labels, and what each one tells of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.datasets import Dataset
from segkit.datasets.labels import check_range, edge_map
from segkit.errors import InputError
from segkit.log import logger
from segkit.palette import voc_palette
from segkit.registry import DATASETS, TRANSFORMS
from tests import dataset_files
from tests.dataset_files import RNG, mask, photo, put

root = dataset_files.root


def one(root: Path, values: Any, dtype: type = np.uint8, **arguments: Any) -> Dataset:
    """A data set of one sample whose label holds `values`."""
    photo(root / "a.png")
    mask(root / "b.png", values, dtype=dtype)
    (root / "train.txt").write_text("a.png b.png\n")
    return Dataset(None, str(root), **{"num_classes": 2, **arguments})


class Half:
    """A transform that shows whether the label passes through it."""

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        for key in ("image", "label"):
            if key in sample:
                sample[key] = sample[key][::2, ::2]
        sample["geometry"].append({"op": "half", "draw": float(rng.random())})
        return sample


# --- Dataset


def test_reads_lists_of_each_mode(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(None, str(root), num_classes=2)
    assert len(data) == 2 and data.files[0][0].endswith("images/train0.png")
    sample = data.read(0)
    assert sample["image"].shape == (6, 8, 3) and sample["label"].dtype == np.uint8
    assert sample["path"] == data.files[0][0] and sample["geometry"] == []
    assert len(Dataset(None, str(root), 2, "val", val_path="val.txt")) == 2
    monkeypatch.chdir(root / "images")
    (root / "images/val.txt").write_text("images/val0.png labels/val0.png\n")
    assert len(Dataset(None, str(root), 2, "val", val_path="val.txt")) == 1  # the working directory comes first


def test_training_transforms_the_label_and_validation_does_not(root: Path) -> None:
    rng = np.random.default_rng
    train = Dataset([Half()], str(root), 2).get(0, rng(3))
    assert train["image"].shape == (3, 4, 3) and train["label"].shape == (3, 4)
    assert train["geometry"] == [{"op": "half", "draw": rng(3).random()}]
    val = Dataset([Half()], str(root), 2, "val").get(0, rng(3))
    assert val["image"].shape == (3, 4, 3) and val["label"].shape == (6, 8)


def test_test_mode_takes_images_alone(root: Path) -> None:
    (root / "test.txt").write_text("images/val0.png\nimages/val1.png labels/val1.png\n")
    data = Dataset(None, str(root), 2, "test")
    assert "label" not in data.read(0) and data.get(0, RNG)["image"].shape == (6, 8, 3)
    assert data.read(1)["label"].shape == (6, 8)


def test_img_channels(root: Path) -> None:
    assert Dataset(None, str(root), 2, img_channels=1).read(0)["image"].shape == (6, 8, 1)


def test_missing_list_root_and_mode(root: Path) -> None:
    with pytest.raises(InputError, match=r"no\.txt: the list of val samples is not there .*Set val_path"):
        Dataset(None, str(root), 2, "val", val_path="no.txt")
    with pytest.raises(InputError, match=r"test\.txt: the list of test samples is not there"):
        Dataset(None, str(root), 2, "test")
    with pytest.raises(InputError, match=r"nowhere: the data set's folder is not there .*Set dataset_root"):
        Dataset(None, str(root / "nowhere"), 2)
    with pytest.raises(InputError, match=r"mode: unknown \(got 'eval', expected train, val, test\)"):
        Dataset(None, str(root), 2, "eval")


def test_all_missing_files_are_listed(root: Path) -> None:
    lines = [f"images/{i}.jpg labels/{i}.png" for i in range(15)]
    (root / "train.txt").write_text("\n".join([*lines, "images/train0.png labels/no.png"]))
    with pytest.raises(InputError, match="of the train samples, files that are not there: 31") as caught:
        Dataset(None, str(root), 2)
    text = str(caught.value)
    assert "images/0.jpg: image" in text and "labels/9.png: label" in text and "... and 11 more" in text


def test_corrupt_and_zero_byte_files(root: Path) -> None:
    data = Dataset(None, str(root), 2)
    Path(data.files[0][0]).write_bytes(b"")
    with pytest.raises(InputError, match=r"train0\.png: .*empty"):
        data.read(0)
    Path(data.files[1][0]).write_bytes(b"no picture at all")
    with pytest.raises(InputError, match=r"train1\.png: .*not a readable image"):
        data.read(1)


# --- labels


@pytest.mark.parametrize(
    "values, arguments, message",
    [
        ((0, 2), {}, r"b\.png: label values out of range \(got 2 \(24 px\), expected 0\.\.1 or 255.*shifted by one"),
        ((1, 2, 3), {"num_classes": 3}, r"got 3 \(16 px\).*shifted by one \(1\.\.3\): set `reduce_zero_label: True`"),
        ((0, 255), {"ignore_index": 254}, "0/255, black and white: set `label_map: {255: 1}`"),
        ((0, 127, 254), {"num_classes": 3}, "stretched to gray levels 127 apart"),
        ((0, 1, 7), {}, "num_classes` is: 8 would admit"),
        (tuple(range(48)), {}, r"and 36 more values.*saved as JPEG, resized with interpolation, or a photo"),
    ],
)
def test_values_out_of_range(tmp_path: Path, values: tuple, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        one(tmp_path, values, **arguments).read(0)


def test_negative_values() -> None:
    label = np.array([[-1, 0, 1]], np.int32)
    check_range(label, 2, -1, "x")
    with pytest.raises(InputError, match=r"got -1 \(1 px\).*ignore_index: -1"):
        check_range(label, 2, 255, "x")


def test_white_masks_are_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger, "warning", said.append)
    data = one(tmp_path, (0, 255))
    data.read(0)
    data.read(0)
    assert len(said) == 1 and "255 counts as ignored" in said[0]
    one(tmp_path, (0, 1, 255)).read(0)
    assert len(said) == 1


def test_sizes_that_differ(tmp_path: Path) -> None:
    data = one(tmp_path, (0, 1))
    mask(tmp_path / "b.png", height=8, width=6)
    with pytest.raises(InputError, match=r"b\.png: the label's size differs .*got 6x8, expected 8x6.*EXIF orientation"):
        data.read(0)
    mask(tmp_path / "b.png", height=3, width=4)
    with pytest.raises(InputError, match=r"got 4x3, expected 8x6, .*Check that they belong together"):
        data.read(0)


def test_exif_turned_photo_with_a_mask_that_is_not(tmp_path: Path) -> None:
    data = one(tmp_path, (0, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "train.txt").write_text("a.jpg b.png\n")
    with pytest.raises(InputError, match=r"transposed: .*EXIF"):
        Dataset(None, str(tmp_path), 2).read(0)
    assert data.read(0)["image"].shape == (6, 8, 3)


def test_other_ignore_index_replaces_the_padding_of_transforms(tmp_path: Path) -> None:
    class Pad:
        def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
            sample["label"] = np.pad(sample["label"], 1, constant_values=255)
            return sample

    data = one(tmp_path, (0, 1, 9), ignore_index=9)
    assert set(np.unique(data.read(0)["label"])) == {0, 1, 9}
    data = one(tmp_path, (0, 1), ignore_index=9)
    data.transforms.transforms.append(Pad())
    label = data.get(0, RNG)["label"]
    assert set(np.unique(label)) == {0, 1, 9} and label.dtype == np.uint8


def test_more_than_255_classes(tmp_path: Path) -> None:
    data = one(tmp_path, (0, 255, 299, 65535), np.uint16, num_classes=300)
    label = data.read(0)["label"]
    assert label.dtype == np.int32 and set(np.unique(label)) == {0, 255, 299, 65535} and data.ignore_index == 65535
    with pytest.raises(InputError, match=r"got 300 .*expected 0\.\.299 or 65535"):
        one(tmp_path, (0, 300), np.uint16, num_classes=300).read(0)


def test_padding_is_ignored_where_255_is_a_class(tmp_path):
    one(tmp_path, (0, 299), np.uint16, num_classes=300)
    crop, seven = (TRANSFORMS.get("RandomPaddingCrop")([20, 20], label_padding_value=value) for value in (255, 7))
    edge = TRANSFORMS.get("AddEdgeLabel")()
    for chosen, values in ((crop, {0, 299, 65535}), (seven, {0, 299, 7})):
        sample = Dataset([edge, chosen], str(tmp_path), num_classes=300).get(0, np.random.default_rng(0))
        assert set(np.unique(sample["label"])) == values and set(np.unique(sample["edge"])) <= {0, 1, 255, 7}
    assert crop.label_value == 255, "the caller's transform is left alone"


def test_colour_masks_need_a_palette(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[:2] = (0, 200, 10)
    put(tmp_path / "b.png", colours)
    (tmp_path / "train.txt").write_text("a.png b.png\n")
    with pytest.raises(InputError, match="palette"):
        Dataset(None, str(tmp_path), 2).read(0)
    label = Dataset(None, str(tmp_path), 2, palette=[[0, 0, 0], [0, 200, 10]]).read(0)["label"]
    assert label.sum() == 16 and set(np.unique(label)) == {0, 1}


def test_edge_against_plain_distances(tmp_path: Path) -> None:
    label = RNG.integers(0, 2, (3, 4), dtype=np.uint8).repeat(5, 0).repeat(4, 1)
    expected = np.zeros_like(label)
    padded = np.pad(label.astype(int), 2, constant_values=-1)
    for y, x in np.ndindex(label.shape):
        near = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy * dy + dx * dx <= 4]
        expected[y, x] = any(padded[y + 2 + dy, x + 2 + dx] != label[y, x] for dy, dx in near)
    assert np.array_equal(edge_map(label), expected)
    assert np.array_equal(edge_map(label.astype(np.int32)), expected)
    sample = one(tmp_path, (0, 1), edge=True).get(0, RNG)
    assert sample["edge"].shape == (6, 8)


def test_multilabel_planes(tmp_path: Path) -> None:
    planes = RNG.integers(0, 2, (6, 8, 3), dtype=np.uint8)
    photo(tmp_path / "a.png")
    put(tmp_path / "b.png", np.concatenate([planes[..., i] for i in range(3)], axis=1))
    (tmp_path / "train.txt").write_text("a.png b.png\n")
    (tmp_path / "val.txt").write_text("a.png b.png\n")
    assert np.array_equal(Dataset(None, str(tmp_path), 3, use_multilabel=True).read(0)["label"], planes)
    with pytest.raises(InputError, match=r"got 24x6, expected 4 planes side by side, 32x6"):
        Dataset(None, str(tmp_path), 4, use_multilabel=True).read(0)
    from segkit.transforms.targets import AddMultiLabelAuxiliaryCategory

    for mode in ("train", "val"):
        data = Dataset([AddMultiLabelAuxiliaryCategory()], str(tmp_path), 4, mode, use_multilabel=True)
        label = data.get(0, RNG)["label"]
        assert np.array_equal(label[..., 0], planes.sum(axis=2) == 0) and np.array_equal(label[..., 1:], planes)


# --- info


def test_info_needs_no_data() -> None:
    info = Dataset.info(dataset_root="nowhere", num_classes=3, mode="train", transforms=[])
    assert info["num_classes"] == 3 and info["ignore_index"] == 255 and info["img_channels"] == 3
    assert info["class_names"] == ["class 0", "class 1", "class 2"]
    assert np.array_equal(info["palette"], voc_palette(3))
    assert Dataset.info(class_names=["a", "b"], ignore_index=0)["num_classes"] == 2
    assert Dataset.info(num_classes=300)["ignore_index"] == 65535
    with pytest.raises(InputError, match="Dataset: num_classes is missing"):
        Dataset.info(dataset_root="nowhere")


def test_class_names(root: Path) -> None:
    (root / "classes.txt").write_text("\ufeffearth\n\nsea\n")
    assert Dataset(None, str(root), 2).class_names == ["earth", "sea"]
    assert Dataset.info(dataset_root=str(root), num_classes=2)["class_names"] == ["earth", "sea"]
    assert Dataset.info(dataset_root=str(root), num_classes=3)["class_names"][2] == "class 2"
    (root / "names.txt").write_text("x\ny\n")
    assert Dataset(None, str(root), class_names="names.txt").class_names == ["x", "y"]
    assert Dataset.info(num_classes=2, class_names="no.txt")["class_names"] == ["class 0", "class 1"]
    with pytest.raises(InputError, match=r"no\.txt: the file of class names is not there"):
        Dataset(None, str(root), 2, class_names="no.txt")
    with pytest.raises(InputError, match="class_names: 3 names for 2 classes"):
        Dataset(None, str(root), 2, class_names=["a", "b", "c"])


def test_palette(root: Path) -> None:
    assert Dataset.info(num_classes=1, palette=[[1, 2, 3]])["palette"].tolist() == [[1, 2, 3]]
    with pytest.raises(InputError, match="palette: 1 colours for 2 classes"):
        Dataset.info(num_classes=2, palette=[[1, 2, 3]])


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_data_set_tells_about_itself(name: str) -> None:
    cls = DATASETS.get(name)
    given = {} if cls.NUM_CLASSES else {"num_classes": 4}
    info = cls.info(dataset_root="nowhere", **given)
    assert len(info["class_names"]) == len(info["palette"]) == info["num_classes"]
    assert info["palette"].dtype == np.uint8
