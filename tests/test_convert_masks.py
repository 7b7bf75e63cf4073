"""COCO, VOC, Cityscapes, colour, black and white and GeoJSON labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli import main as cli
from segkit.data.formats import find_format
from segkit.data.formats.color import read_palette
from segkit.errors import InputError
from segkit.io import read_label
from tests.convert_cases import got, photo, run, save
from tests.tiny import tiny_config

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
