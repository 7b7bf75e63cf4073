"""Lists, reading and checking of samples, and the folder layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.datasets import Dataset
from segkit.datasets.cityscapes import LABELS
from segkit.datasets.labels import check_range, edge_map
from segkit.datasets.lists import read_list, split_line
from segkit.errors import InputError
from segkit.log import logger
from segkit.palette import voc_palette
from segkit.registry import DATASETS, TRANSFORMS

RNG = np.random.default_rng(0)


def put(path: Path, array: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(voc_palette(256).tobytes())
    picture.save(path)
    return path


def photo(path: Path, height: int = 6, width: int = 8) -> Path:
    return put(path, RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def mask(path: Path, values: Any = (0, 1), height: int = 6, width: int = 8, dtype: type = np.uint8) -> Path:
    label = np.resize(np.array(values, dtype), (height, width))
    return put(path, label)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two samples a part, listed."""
    for part in ("train", "val"):
        lines = []
        for i in range(2):
            photo(tmp_path / f"images/{part}{i}.png")
            mask(tmp_path / f"labels/{part}{i}.png")
            lines.append(f"images/{part}{i}.png labels/{part}{i}.png\n")
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    return tmp_path


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


# --- lists


@pytest.mark.parametrize("separator", [" ", "   ", "\t", ",", ", ", "|", " | "])
def test_separators(tmp_path: Path, separator: str) -> None:
    text = f"\ufeff# a comment\r\n\r\nimages/1.jpg{separator}labels/1.png\r\nimages/2.jpg{separator}labels/2.png"
    (tmp_path / "l.txt").write_bytes(text.encode())
    pairs = read_list(str(tmp_path / "l.txt"), "R")
    assert pairs == [("R/images/1.jpg", "R/labels/1.png"), ("R/images/2.jpg", "R/labels/2.png")]


@pytest.mark.parametrize("separator", ["\t", ",", "|"])
def test_names_with_spaces_and_a_clear_separator(separator: str) -> None:
    assert split_line(f"my cat.jpg{separator}my cat mask.png", "", None, False) == ("my cat.jpg", "my cat mask.png")


def test_names_with_spaces_split_by_existing_files(tmp_path: Path) -> None:
    (tmp_path / "my cat.jpg").touch()
    (tmp_path / "my cat mask.png").touch()
    line = "my cat.jpg my cat mask.png"
    assert split_line(line, str(tmp_path), None, False) == ("my cat.jpg", "my cat mask.png")
    assert split_line(line, str(tmp_path), " ", False) == ("my cat.jpg", "my cat mask.png")


def test_comma_in_a_name_is_no_separator_where_files_say_so(tmp_path: Path) -> None:
    for name in ("a,b.jpg", "c.png"):
        (tmp_path / name).touch()
    assert split_line("a,b.jpg c.png", str(tmp_path), None, False) == ("a,b.jpg", "c.png")


def test_two_splits_that_exist_are_ambiguous(tmp_path: Path) -> None:
    for name in ("a", "a b", "b c", "c"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="2 ways of splitting it give files that exist: 'a b c'"):
        split_line("a b c", str(tmp_path), None, False)


def test_explicit_separator() -> None:
    assert split_line("a b;c d", "", ";", False) == ("a b", "c d")
    assert split_line("a,b|c", "", "|", False) == ("a,b", "c")
    assert split_line("a b", "", "|", True) == ("a b", None)
    with pytest.raises(InputError, match=r"1 field between '\|' \(expected 2\): 'a b'"):
        split_line("a b", "", "|", False)
    with pytest.raises(InputError, match=r"3 fields between ',' \(expected 2\)"):
        split_line("a,b,c", "", ",", False)


def test_one_and_three_fields_are_told_with_line_and_text(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("a.jpg a.png\nb.jpg\n")
    with pytest.raises(InputError, match=r"l\.txt:2: only 1 field .*expected 2 fields\): 'b.jpg'.*<TAB>"):
        read_list(str(path), str(tmp_path))
    path.write_text("# x\na.jpg a.png b.png\n")
    with pytest.raises(InputError, match=r"l\.txt:2: 3 fields \(expected 2\), and no way .*: 'a.jpg a.png b.png'"):
        read_list(str(path), str(tmp_path))
    path.write_text("a.jpg\nb.jpg\n")
    with pytest.raises(InputError, match=r"2 lines cannot be used:\n.*l\.txt:1:.*\n.*l\.txt:2:"):
        read_list(str(path), str(tmp_path))


def test_empty_and_undecodable_lists(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(InputError, match=r"l\.txt: the list has no samples \(expected lines"):
        read_list(str(path), "")
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_list(str(path), "")
    with pytest.raises(InputError, match=r"nowhere\.txt: the list of samples cannot be read \(No such file"):
        read_list(str(tmp_path / "nowhere.txt"), "")


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


def test_optic_disc_seg(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    mask(tmp_path / "b.png")
    (tmp_path / "train_list.txt").write_text("a.png b.png\n")
    data = DATASETS.get("OpticDiscSeg")(None, str(tmp_path))
    assert data.num_classes == 2 and len(data) == 1 and data.class_names == ["background", "optic_disc"]
    with pytest.raises(InputError, match=r"OpticDiscSeg: it has 2 classes \(got num_classes: 3\)"):
        DATASETS.get("OpticDiscSeg")(None, str(tmp_path), num_classes=3)


# --- Cityscapes


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


# --- VOC


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
