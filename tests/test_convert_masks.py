"""COCO, VOC, Cityscapes, colour, black and white and GeoJSON labels."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli import main as cli
from segkit.data.convert import ConvertOptions, convert
from segkit.data.formats import find_format
from segkit.data.formats.color import read_palette
from segkit.errors import InputError
from segkit.io import read_label
from tests.tiny import tiny_config

SQUARE, LARGE = [2, 2, 6, 2, 6, 6, 2, 6], [0, 0, 10, 0, 10, 10, 0, 10]


def run(source: Path, out: Path, **options: Any):
    return convert(str(source), str(out), ConvertOptions(**options))[0]


def photo(path: Path, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(sum(map(ord, path.name))).integers(0, 255, (*size, 3), np.uint8)).save(path)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def got(out: Path, name: str = "a") -> np.ndarray:
    return read_label(out / "labels" / f"{name}.png")


# COCO


def coco(folder: Path, annotations: list[dict], name: str = "ann.json", categories: Any = None, **image: Any) -> Path:
    photo(folder / "a.png")
    categories = categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16, **image}],
        "categories": categories,
        "annotations": [{"id": k, "image_id": 1, "category_id": 7, **item} for k, item in enumerate(annotations)],
    }
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_nuts(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = shared / "data" / "coco_json_nuts"
    (tmp_path / "s").mkdir()
    shutil.copy(source / "raw" / "trainval.json", tmp_path / "s")
    for path in (source / "images").iterdir():  # the JSON calls 00.jpg 0.jpg
        shutil.copy(path, tmp_path / "s" / f"{int(path.stem)}.jpg")
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.class_names == ["background", "date", "fig", "hazelnut"] and report.photos == 18
    same = [got(tmp_path / "o", str(int(p.stem))) == read_label(p) for p in (source / "labels").iterdir()]
    assert np.mean(same) >= 0.994


def test_coco_shapes(tmp_path: Path) -> None:
    """Larger first whatever the order, crowds below everything, run lengths of both kinds; ids mapped by order."""
    tools = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((12, 16), np.uint8, order="F")
    mask[11, 12:] = 1
    code = tools.encode(mask)
    annotations = [
        {"segmentation": [SQUARE], "category_id": 3},
        {"segmentation": [LARGE]},
        {"segmentation": {"size": [12, 16], "counts": code["counts"].decode()}},
        {"segmentation": {"size": [12, 16], "counts": [0, 12 * 3, 12 * 13]}, "iscrowd": 1},
        {"segmentation": {"size": [12, 16], "counts": [12 * 14, 6, 18]}, "iscrowd": 1},
    ]
    report = run(coco(tmp_path / "s", annotations), tmp_path / "o")
    assert report.class_names == ["background", "cat", "dog"]
    label = got(tmp_path / "o")
    assert label[4, 4] == 1 and label[1, 1] == label[11, 13] == 2 and label[11, 0] == label[0, 14] == 255
    assert label[0, 12] == 0


def test_coco_parts_and_panoptic(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    folder = tmp_path / "s"
    ids = np.zeros((12, 16, 3), np.uint8)
    ids[:6] = (1, 1, 0)
    ids[6:10] = (5, 0, 1)
    for part in ("train", "val"):
        photo(folder / f"{part}2017" / f"{part}.png")
        save(folder / f"panoptic_{part}2017" / f"{part}.png", ids)
        segments = [{"id": 257, "category_id": 2}, {"id": 65541, "category_id": 1, "iscrowd": part == "val"}]
        data = {
            "images": [{"id": 1, "file_name": f"{part}.png", "height": 12, "width": 16}],
            "categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "sea"}],
            "annotations": [{"image_id": 1, "file_name": f"{part}.png", "segments_info": segments}],
        }
        (folder / f"panoptic_{part}2017.json").write_text(json.dumps(data), encoding="utf-8")
    report = run(folder, tmp_path / "o")
    assert report.class_names == ["sky", "sea"] and report.parts == {"train": 1, "val": 1}
    assert got(tmp_path / "o", "train")[[0, 7, 11], 0].tolist() == [1, 0, 255]
    assert got(tmp_path / "o", "val")[[0, 7, 11], 0].tolist() == [1, 255, 255]


@pytest.mark.parametrize(
    ("annotation", "image", "message"),
    [
        ({"segmentation": []}, {}, "boxes only, no shapes to make masks of"),
        ({"segmentation": [[1, 2, 3, 4]]}, {}, "annotation 0: a polygon of fewer than 3 points"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, {}, "its run lengths are of another photo"),
        ({"segmentation": {"size": [12, 16]}}, {}, "its segmentation cannot be read"),
        ({"segmentation": [SQUARE], "category_id": 99}, {}, "category 99 is not in the list of categories"),
        ({"segmentation": [SQUARE]}, {"height": 20}, r"its mask does not fit its photo \(got 16x20, expected 16x12"),
        ({"segmentation": [SQUARE]}, {"file_name": "b.png"}, "its photo 'b.png' is not there"),
    ],
)
def test_coco_mistakes(annotation: dict, image: dict, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    with pytest.raises(InputError, match=f"(?s)1 file cannot be used.*{message}"):
        run(coco(tmp_path / "s", [annotation], **image), tmp_path / "o")


def test_coco_files_that_contradict(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    folder = coco(tmp_path / "s", [{"segmentation": [SQUARE]}])
    coco(folder, [{"segmentation": [SQUARE]}], "other.json")
    with pytest.raises(InputError, match=r"1 photos are annotated by several of its JSON files, such as a"):
        run(folder, tmp_path / "o")
    assert run(folder / "ann.json", tmp_path / "o").photos == 1
    with pytest.raises(InputError, match="no COCO file"):
        (tmp_path / "e").mkdir()
        run(tmp_path / "e", tmp_path / "p", format="coco")
    (folder / "names.txt").write_text("background\ndog\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"(?s)1 labels of the source are not among the class names.*'cat'"):
        run(folder / "ann.json", tmp_path / "p", class_names="names.txt")


def test_extras_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"COCO labels need pycocotools .*pip install pycocotools"):
        run(coco(tmp_path / "s", []), tmp_path / "o")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"GeoJSON labels need rasterio .*pip install rasterio"):
        run(tmp_path / "s", tmp_path / "o", format="geojson")


# VOC, Cityscapes, class numbers


def test_voc_of_labelme(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "labelme_voc3" / "raw" / "data_dataset_voc"
    report = run(folder, tmp_path / "o")
    assert report.format.startswith("voc") and len(report.class_names) == 21
    for path in (folder / "SegmentationClassNpy").glob("*.npy"):
        assert (got(tmp_path / "o", path.stem) == (np.load(path) & 255)).all()


def test_voc_colours_and_lists(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for name in "abc":
        photo(root / "JPEGImages" / f"{name}.jpg")
        label = np.zeros((12, 16, 3), np.uint8)
        label[:4], label[4:6] = (0, 128, 0), (128, 0, 0)
        save(root / "SegmentationClass" / f"{name}.png", label)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    report = run(root, tmp_path / "o")
    assert report.parts == {"train": 1, "val": 1} and report.class_names == ["background", "class 1", "class 2"]
    assert got(tmp_path / "o")[[0, 5, 8], 0].tolist() == [2, 1, 0]
    (lists / "train.txt").write_text("x\n")
    (lists / "val.txt").write_text("y\n")
    with pytest.raises(InputError, match="its lists name none of the photos"):
        run(root, tmp_path / "p")


@pytest.mark.parametrize("tree", ["cityscapes_demo", "labelids_tree"])
def test_cityscapes(tree: str, shared: Path, tmp_path: Path) -> None:
    from segkit.datasets.cityscapes import Cityscapes

    folder = shared / "data" / "cityscapes12" / tree
    report = run(folder, tmp_path / "o", link=True)
    assert report.class_names[0] == "road" and len(report.class_names) == 19
    own = Cityscapes([], str(folder), mode="train")  # the set trains with no conversion
    for index, (image, _) in enumerate(own.files):
        name = Path(image).stem.replace("_leftImg8bit", "")
        assert (got(tmp_path / "o", name) == own.read_label(index)).all()


def test_a_ready_data_set_keeps_its_parts_and_values(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "drive"
    report = run(folder, tmp_path / "o", link=True)
    assert report.format.startswith("index") and report.parts == {"train": 6, "val": 4}
    for path in (folder / "labels").iterdir():
        assert (got(tmp_path / "o", path.stem) == read_label(path)).all()


def test_class_numbers_without_a_name(tmp_path: Path) -> None:
    photo(tmp_path / "s" / "images" / "a.png")
    save(tmp_path / "s" / "labels" / "a.png", np.full((12, 16), 5, np.uint8))
    (tmp_path / "s" / "classes.txt").write_text("sky\nsea\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"values that no class has \(got \[5\], expected 0\.\.1 or 255\)"):
        run(tmp_path / "s", tmp_path / "o")


# pairs


def test_ways_to_lay_out_photos_and_masks(tmp_path: Path) -> None:
    layouts = [
        ("images/train/a.jpg", "masks/train/a.png"),
        ("train/images/a.jpg", "train/labels/a.png"),
        ("a.jpg", "a_mask.png"),
        ("img/A.JPG", "gt/a_gt.png"),
        ("x/photos/a.jpg", "x/SegmentationClassPNG/a.png"),
    ]
    for number, (image, mask) in enumerate(layouts):
        source = tmp_path / str(number)
        photo(source / image)
        save(source / mask, np.eye(12, 16, dtype=np.uint8))
        report = run(source, tmp_path / f"o{number}")
        assert report.photos == 1 and report.format.startswith("index"), (image, report)
    photo(tmp_path / "p" / "a.jpg")
    save(tmp_path / "m" / "a.png", np.eye(12, 16, dtype=np.uint8))
    assert run(tmp_path / "m", tmp_path / "o", images=str(tmp_path / "p"), format="index").photos == 1


def test_masks_and_photos_without_each_other(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for name in ("a", "b"):
        photo(source / "images" / f"{name}.png")
    for name in ("a", "c"):
        save(source / "labels" / f"{name}.png", np.eye(12, 16, dtype=np.uint8))
    with pytest.raises(InputError, match=r"labels/c\.png: a mask without a photo of its name"):
        run(source, tmp_path / "o")
    report = run(source, tmp_path / "o", skip_bad=True)
    assert any("photos without a mask, left out: 1: b.png" in note for note in report.notes)
    with pytest.raises(InputError, match="no photo with a mask of the same name was found"):
        run(source / "images", tmp_path / "p", format="index")


# colours


def colour_set(source: Path, smooth: bool = False) -> np.ndarray:
    label = np.zeros((12, 16, 3), np.uint8)
    label[:5, :8], label[7:, 8:] = (255, 0, 0), (0, 0, 255)
    if smooth:
        label[5, :8] = (127, 0, 0)
    photo(source / "images" / "a.png")
    save(source / "masks" / "a.png", label)
    return label


def test_discovered_colours(tmp_path: Path) -> None:
    colour_set(tmp_path / "s")
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.format.startswith("color") and report.class_names == ["background", "#0000ff", "#ff0000"]
    assert got(tmp_path / "o")[[0, 11, 6], [0, 15, 0]].tolist() == [2, 1, 0]
    assert Image.open(tmp_path / "o" / "labels" / "a.png").getpalette()[3:9] == [0, 0, 255, 255, 0, 0]
    (tmp_path / "s" / "labels.txt").write_text("nothing\nsea\nfire\n", encoding="utf-8")
    assert run(tmp_path / "s", tmp_path / "p").class_names == ["nothing", "sea", "fire"]


def test_smoothed_edges_are_reported_not_guessed(tmp_path: Path) -> None:
    colour_set(tmp_path / "s", smooth=True)
    with pytest.raises(
        InputError,
        match=r"(?s)besides 3 colours that fill areas its masks have 1 that occur along edges only \(8 pixels; #7f0000.*#ff0000: 40 pixels",
    ):
        run(tmp_path / "s", tmp_path / "o")
    run(tmp_path / "s", tmp_path / "o", stray="nearest")
    assert got(tmp_path / "o")[5, 0] == 0
    run(tmp_path / "s", tmp_path / "p", stray="ignore")
    assert got(tmp_path / "p")[5, 0] == 255


@pytest.mark.parametrize(
    "text",
    [
        "fire 255 0 0\nsea 0 0 255\n",
        "255,0,0,fire\n0,0,255,sea\n",
        "fire #ff0000\nsea: #0000FF\n",
        '{"fire": [255, 0, 0], "sea": [0, 0, 255]}',
        '{"type": "rgb", "colors": {"fire": [255, 0, 0], "sea": [0, 0, 255]}}',
        "background\t0\t0\t0\nfire\t(255, 0, 0)\nsea - 0 0 255\n",
    ],
)
def test_palette_files(text: str, tmp_path: Path) -> None:
    colour_set(tmp_path / "s")
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    report = run(tmp_path / "s", tmp_path / "o", palette=str(tmp_path / "p.txt"))
    assert report.class_names == ["background", "fire", "sea"]
    assert got(tmp_path / "o")[[0, 11, 6], [0, 15, 0]].tolist() == [1, 2, 0]


def test_palette_mistakes(tmp_path: Path) -> None:
    colour_set(tmp_path / "s", smooth=True)
    palette = tmp_path / "p.txt"
    palette.write_text("background 0 0 0\nfire 255 0 0\nvoid 127 0 0\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"40 pixels of 1 colours that the palette lacks \(#0000ff\)"):
        run(tmp_path / "s", tmp_path / "o", palette=str(palette), format="color")
    run(tmp_path / "s", tmp_path / "o", palette=str(palette), format="color", stray="ignore")
    assert got(tmp_path / "o")[[5, 11, 0], [0, 15, 0]].tolist() == [255, 255, 1]
    palette.write_text("fire\nsun 300 0 0\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"2 lines of the palette have no name and colour \(got \['fire', 'sun 300 0 0'\]"
    ):
        read_palette(palette)
    palette.write_text("{x", encoding="utf-8")
    with pytest.raises(InputError, match="the palette is not JSON"):
        read_palette(palette)


def test_too_many_colours(tmp_path: Path) -> None:
    photo(tmp_path / "s" / "images" / "a.png", (60, 90))
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8).repeat(3, 0).repeat(3, 1)
    save(tmp_path / "s" / "masks" / "a.png", noise)
    with pytest.raises(InputError, match=r"colours that fill areas \(expected at most 255\), which looks like photos"):
        run(tmp_path / "s", tmp_path / "o")


def test_gray_levels_for_the_eye(tmp_path: Path) -> None:
    photo(tmp_path / "s" / "images" / "a.png")
    save(tmp_path / "s" / "masks" / "a.png", np.repeat(np.array([0, 85, 170, 255], np.uint8), 48).reshape(12, 16))
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.format.startswith("color") and np.unique(got(tmp_path / "o")).tolist() == [0, 1, 2, 3]


# black and white


def test_black_and_white(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "s" / "images" / f"{name}.png")
    save(tmp_path / "s" / "masks" / "a.png", np.eye(12, 16, dtype=np.uint8) * 255)
    save(tmp_path / "s" / "masks" / "b.png", np.zeros((12, 16), np.uint8))
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.format.startswith("binary") and report.class_names == ["background", "foreground"]
    assert (got(tmp_path / "o") == np.eye(12, 16)).all()
    smooth = np.eye(12, 16, dtype=np.uint8) * 255
    smooth[0, 1] = 90
    save(tmp_path / "s" / "masks" / "a.png", smooth)
    with pytest.raises(InputError, match=r"not black and white \(got 3 gray levels, 0 to 255; 1 pixels between"):
        run(tmp_path / "s", tmp_path / "p", format="binary")
    run(tmp_path / "s", tmp_path / "p", format="binary", threshold=128)
    assert (got(tmp_path / "p") == np.eye(12, 16)).all()
    (tmp_path / "s" / "names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"black and white masks have 2 classes \(got 3 names\)"):
        run(tmp_path / "s", tmp_path / "q", format="binary", class_names="names.txt")


# GeoJSON


def geo(folder: Path, crs: str = "EPSG:32633") -> Path:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin
    from rasterio.warp import transform_geom

    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
    with rasterio.open(folder / "a.tif", "w", driver="GTiff", width=50, height=40, count=3, dtype="uint8", crs=crs,
                       transform=from_origin(500000, 5000000, 10, 10)) as file:  # fmt: skip
        file.write(pixels)

    def box(left: int, top: int, right: int, bottom: int) -> dict:
        ring = [(500000 + 10 * x, 5000000 - 10 * y) for x, y in
                ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))]  # fmt: skip
        return transform_geom(crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})

    features = [
        {"type": "Feature", "properties": {"Class": "wood", "area": 3}, "geometry": box(0, 0, 20, 20)},
        {"type": "Feature", "properties": {"Class": "lake", "area": 3}, "geometry": box(10, 10, 30, 30)},
    ]
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return folder


def test_geojson(tmp_path: Path) -> None:
    report = run(geo(tmp_path / "s"), tmp_path / "o")
    assert report.format.startswith("geojson") and report.class_names == ["background", "lake", "wood"]
    label = got(tmp_path / "o")
    assert label.shape == (40, 50) and label[5, 5] == 2 and label[15, 15] == label[25, 25] == 1 and label[35, 45] == 0
    assert abs((label == 1).sum() - 400) <= 20


def test_geojson_mistakes(tmp_path: Path) -> None:
    folder = geo(tmp_path / "s")
    data = json.loads((folder / "a.geojson").read_text())
    data["features"][0]["properties"] = {"colour": 1}
    (folder / "a.geojson").write_text(json.dumps(data))
    with pytest.raises(
        InputError, match=r"which property of the features is the class\? \(got Class, area, colour\.\)"
    ):
        run(folder, tmp_path / "o")
    with pytest.raises(InputError, match=r"a feature without polygon or without 'Class' \(got Polygon, None\)"):
        run(folder, tmp_path / "o", class_property="Class")
    (folder / "b.geojson").write_text(json.dumps(data))
    shutil.copy(folder / "a.tif", folder / "c.tif")
    with pytest.raises(InputError, match=r"c\.tif: no GeoJSON of its name"):
        run(folder, tmp_path / "o", class_property="Class")
    for path in folder.glob("*.tif"):
        Image.new("RGB", (50, 40)).save(path)
    with pytest.raises(InputError, match=r"a\.tif: the picture has no coordinates"):
        run(folder, tmp_path / "o", class_property="Class")
    for path in folder.glob("*.tif"):
        path.unlink()
    with pytest.raises(InputError, match=r"2 GeoJSON files and 0 GeoTIFF pictures"):
        run(folder, tmp_path / "o", class_property="Class")


def test_other_tools_beside_masks_are_named(shared: Path) -> None:
    reader, why = find_format(shared / "data" / "labelme_raw" / "paddleseg_jingling_demo")
    assert reader.NAME == "index" and "jingling.json is made by jingling" in why


def test_cityscapes_trains_with_no_conversion(shared: Path, tmp_path: Path) -> None:
    root = str(shared / "data" / "cityscapes12" / "cityscapes_demo")
    small = [{"type": "ResizeByLong", "long_size": 128}, {"type": "Normalize"}]
    common = {"type": "Cityscapes", "dataset_root": root, "transforms": small}
    config = tiny_config(tmp_path, tmp_path / "c.yml", train_dataset=common, val_dataset={**common, "mode": "val"})
    argv = ["train", str(config), "--iters", "2", "--do_eval", "--num_workers", "0", "--device", "cpu", "--quiet"]
    assert cli.main([*argv, "--save_dir", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "best_model" / "model.pdparams").is_file()


# what is wrong with single files


def test_cityscapes_mistakes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "s" / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png")
    save(tmp_path / "s" / "gtFine" / "train" / "a_gtFine_labelIds.png", np.full((12, 16), 99, np.uint8))
    with pytest.raises(
        InputError,
        match=r"(?s)b_leftImg8bit\.png: no b_gtFine_labelIds\.png in the tree.*no Cityscapes ids \(got \[99\], expected 0\.\.33",
    ):
        run(tmp_path / "s", tmp_path / "o")


def test_names_files(tmp_path: Path) -> None:
    photo(tmp_path / "s" / "images" / "a.png")
    save(tmp_path / "s" / "labels" / "a.png", np.eye(12, 16, dtype=np.uint8))
    names = tmp_path / "s" / "classes.txt"
    with pytest.raises(InputError, match=r"--class_names gone\.txt: no such file"):
        run(tmp_path / "s", tmp_path / "o", class_names="gone.txt")
    names.write_text("a\nb\na\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"classes\.txt: class names stand there twice \(a\)"):
        run(tmp_path / "s", tmp_path / "o")
    names.write_text("".join(f"c{number}\n" for number in range(256)), encoding="utf-8")
    with pytest.raises(InputError, match=r"too many classes \(got 256 with the background, expected at most 255"):
        run(tmp_path / "s", tmp_path / "o")


def test_a_photo_that_may_be_several(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    folder = coco(tmp_path / "s", [{"segmentation": [SQUARE]}], file_name="x/c.png")
    for name in "pq":
        photo(folder / name / "c.png")
    with pytest.raises(InputError, match=r"its photo 'x/c\.png' may be any of 2 files"):
        run(folder, tmp_path / "o")
    photo(folder / "x" / "c.png")
    assert run(folder, tmp_path / "o").photos == 1


def test_panoptic_png_of_another_size(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    photo(tmp_path / "s" / "a.jpg")
    save(tmp_path / "s" / "p" / "a.png", np.zeros((5, 5, 3), np.uint8))
    data = {"images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}], "categories": [{"id": 1, "name": "sky"}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 0, "category_id": 1}]}]}  # fmt: skip
    (tmp_path / "s" / "p.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.png: its size differs \(got \(5, 5\), expected \(12, 16\)\)"):
        run(tmp_path / "s", tmp_path / "o")


def test_a_geotiff_that_cannot_be_read(tmp_path: Path) -> None:
    folder = geo(tmp_path / "s")
    (folder / "a.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(InputError, match=r"1 file cannot be used, 0 can"):
        run(folder, tmp_path / "o")


def test_coordinates_that_nobody_knows(tmp_path: Path) -> None:
    folder = geo(tmp_path / "s")
    data = json.loads((folder / "a.geojson").read_text())
    (folder / "a.geojson").write_text(json.dumps({**data, "crs": {"properties": {"name": "EPSG:999999"}}}))
    with pytest.raises(InputError, match=r"a\.tif: cannot be read \(.*Mend the picture or its coordinates"):
        run(folder, tmp_path / "o")


def test_an_empty_folder_of_folders(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for title in ("labelme", "cityscapes"):
        with pytest.raises(InputError, match=r"s: no labelled photos in it\. Give the folder that holds them"):
            run(tmp_path / "s", tmp_path / "o", format=title)


def test_photos_of_data_sets_beside_the_source_are_left_alone(tmp_path: Path) -> None:
    """The photo in the source is meant; one of the same name in another data set beside it never is."""
    coco(tmp_path / "mine", [{"image_id": 1, "segmentation": [[0, 0, 8, 0, 8, 8]]}])
    (tmp_path / "mine" / "a.png").unlink()
    photo(tmp_path / "theirs" / "pictures" / "a.png")
    with pytest.raises(InputError, match=r"its photo 'a\.png' is not there"):
        run(tmp_path / "mine", tmp_path / "o")
    photo(tmp_path / "mine" / "deep" / "er" / "a.png")
    photo(tmp_path / "images" / "x" / "a.png")
    assert run(tmp_path / "mine", tmp_path / "o").photos == 1
    assert run(tmp_path / "mine" / "ann.json", tmp_path / "p").photos == 1


def test_where_nothing_can_be_written_or_found(tmp_path: Path, capsys) -> None:
    colour_set(tmp_path / "s")
    (tmp_path / "file").write_text("x")
    argv = ["data", "convert", str(tmp_path / "s"), "--to"]
    assert cli.main([*argv, str(tmp_path / "file" / "o" / "o")]) == 2
    assert "o: cannot be written (Not a directory). Choose another folder." in capsys.readouterr().err
    assert cli.main([*argv, str(tmp_path / "o"), "--images", "gone"]) == 2
    assert "--images gone: no such folder. Give the folder of the photos." in capsys.readouterr().err
    run(tmp_path / "s", tmp_path / "s" / "o")
    with pytest.raises(InputError, match=r"--link: the photos lie in .*, which --overwrite moves aside, so that"):
        run(tmp_path / "s", tmp_path / "s", overwrite=True, link=True)
    assert cli.main([*argv, str(tmp_path / "p"), "--format", "color"]) == 0
    assert "is read as color, as --format says" in capsys.readouterr().err


def test_masks_below_the_folder_of_photos_are_no_photos(tmp_path: Path) -> None:
    for name in "ab":
        photo(tmp_path / "d" / "images" / f"{name}.png")
        save(tmp_path / "d" / "labels" / f"{name}.png", np.eye(12, 16, dtype=np.uint8))
    for source, images in (("d/labels", "d"), ("d", "d/images")):
        out = tmp_path / f"o_{images.replace('/', '_')}"
        report = run(tmp_path / source, out, images=str(tmp_path / images), format="index")
        assert report.photos == 2 and not list(out.glob("images/**/labels"))


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"images": [1]}, "entry 1 of its images lacks id, file_name, height, width"),
        ({"images": {"a": 1}}, "its images are no list"),
        ({"categories": [{"id": 1}]}, "entry 1 of its categories lacks name"),
        ({"categories": [{"id": "x", "name": "n"}]}, "entry 1 of its categories has no whole number as id"),
        ({"annotations": [{"id": 1}]}, "entry 1 of its annotations lacks image_id"),
        (
            {"images": [{"id": [7], "file_name": "a.png", "height": 12, "width": 16}]},
            r"entry 1 of its images has no number or text as id \(got \[7\]\)",
        ),
        (
            {"images": [{"id": 1, "file_name": {"a": 1}, "height": 12, "width": 16}]},
            r"entry 1 of its images has no number or text as file_name \(got \{'a': 1\}\)",
        ),
        ({"categories": [{"id": 1, "name": ["n"]}]}, r"entry 1 of its categories has no number or text as name .*"),
        ({"categories": [{"id": {}, "name": "n"}]}, r"entry 1 of its categories has no number or text as id .*"),
        ({"annotations": [{"image_id": {"a": 1}}]}, "entry 1 of its annotations has no number or text as image_id .*"),
        (
            {"annotations": [{"image_id": 1}, {"image_id": 1, "category_id": [1]}]},
            "entry 2 of its annotations has no number or text as category_id .*",
        ),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, "entry 1 of its annotations lacks file_name"),
    ],
)
def test_coco_files_of_another_make(entry: dict, message: str, tmp_path: Path) -> None:
    path = coco(tmp_path / "s", [{"image_id": 1, "segmentation": [[0, 0, 8, 0, 8, 8]]}]) / "ann.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))
    with pytest.raises(InputError, match=rf"(?s)no COCO file that can be used.*ann\.json: {message}\. Export it again"):
        run(tmp_path / "s", tmp_path / "o")


@pytest.mark.parametrize(
    "segments",
    [
        3,
        [4],
        [{"id": 1}],
        [{"id": 1, "category_id": 99}],
        [{"id": [1], "category_id": 1}],
        [{"id": 1, "category_id": []}],
    ],
)
def test_panoptic_segments_that_lead_nowhere(segments: Any, tmp_path: Path) -> None:
    save(tmp_path / "s" / "ann" / "a.png", np.zeros((12, 16, 3), np.uint8))
    coco(tmp_path / "s", [{"image_id": 1, "file_name": "a.png", "segments_info": segments}])
    with pytest.raises(InputError, match=r"a\.png: a segment without id, or whose category is not in the list of"):
        run(tmp_path / "s", tmp_path / "o", format="coco")
