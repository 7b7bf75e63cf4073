"""labelme files, those of every version, and what other tools write."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segkit.data.convert import ConvertOptions, convert
from segkit.data.shapes import draw_shapes
from segkit.errors import InputError
from segkit.io import read_label

SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8]]


def shape(label: str = "cat", points: Any = SQUARE, kind: str | None = "polygon", **more: Any) -> dict:
    return {"label": label, "points": points, **({"shape_type": kind} if kind else {}), **more}


def write(
    folder: Path, stem: str, shapes: list, size: tuple[int, int] = (20, 30), photo: str | None = "", **more: Any
) -> Path:
    """A labelme file and its photo of `size` (height, width); `photo` None writes none, a text is its name."""
    folder.mkdir(parents=True, exist_ok=True)
    if photo is not None:
        path = folder / (photo or f"{stem}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(stem) + ord(stem[-1])).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    data = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.png", "imageData": None, **more}
    (folder / f"{stem}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder / f"{stem}.json"


def mask(out: Path, name: str = "a") -> np.ndarray:
    return read_label(out / "labels" / f"{name}.png")


def run(source: Path, out: Path, **options: Any):
    return convert(str(source), str(out), ConvertOptions(**options))[0]


def test_masks_of_labelme_itself(shared: Path, tmp_path: Path) -> None:
    raw = shared / "data" / "labelme_voc3" / "raw"
    report = run(raw / "data_annotated", tmp_path / "o", class_names=str(raw / "labels.txt"))
    differing = {}
    for golden in sorted((raw / "data_dataset_voc" / "SegmentationClassNpy").glob("*.npy")):
        theirs = np.load(golden).astype(np.int64) & 255  # -1 is __ignore__
        differing[golden.stem] = int((mask(tmp_path / "o", golden.stem) != theirs).sum())
    assert [differing[key] for key in sorted(differing)][0::2] == [0, 0] and max(differing.values()) <= 1, differing
    assert report.class_names[1] == "aeroplane" and len(report.class_names) == 21
    image = Image.open(tmp_path / "o" / "labels" / "2011_000003.png")
    assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]


@pytest.mark.parametrize(
    "name", ["bubbliiiing_v3_embedded", "x-anylabeling_segmentation/multiclass_semantic_segmentation"]
)
def test_masks_that_other_tools_made(name: str, shared: Path, tmp_path: Path) -> None:
    """Another rasteriser each: but for pixels along the edges they agree."""
    folder = shared / "data" / "labelme_raw" / name
    run(folder, tmp_path / "o", format="labelme")
    ours = next((tmp_path / "o" / "labels").rglob("*.png"))
    other = Image.open(next(path for path in folder.rglob("*.png")))
    theirs = np.array(other) if other.mode == "P" else np.array(other.convert("RGB")).any(axis=2)
    assert ((read_label(ours) > 0) != (theirs > 0)).mean() < 0.004


def test_every_json_of_the_collection_converts_or_is_refused(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "labelme_raw"
    converted, refused = [], {}
    for number, path in enumerate(sorted(root.rglob("*.json"))):
        name = path.relative_to(root).as_posix()
        images = root / "paddlelabel_sample" / name.split("/")[1] / "img" if name.startswith("paddlelabel") else None
        try:
            run(path, tmp_path / str(number), images=images and str(images))
            converted.append(name)
        except InputError as error:
            refused[name] = str(error)
    for name, text in refused.items():
        reasons = ("is not there", "none of its 1 labelme files has a shape", "made by EISeg", "made by jingling", "boxes only",
                   "a table of mask colours", "its shapes are of another photo", "does not fit its photo")  # fmt: skip
        assert any(reason in text for reason in reasons), (name, text)
    wanted = ["wkentaro_primitives/primitives.json", "wkentaro_tutorial/apc2016_obj3.json", "labelme-rs_mandrill/Mandrill.json",
              "bubbliiiing_v3_embedded/before/1.json", "paddlelabel_sample/bear/point/labelme/Annotations/2.json",
              "paddlelabel_sample/bear/instanceSegmentation/coco/train.json"]  # fmt: skip
    assert not set(wanted) - set(converted), {name: refused.get(name) for name in wanted}
    assert "jingling" in refused["paddleseg_jingling_demo/outputs/jingling.json"]
    assert "does not fit its photo" in refused["paddlelabel_sample/fruit/semanticSegmentation/coco/train.json"]
    assert "no shapes" in refused["paddlelabel_sample/fruit/detection/coco/train.json"]


def test_all_kinds_of_shapes(tmp_path: Path) -> None:
    stamp = io.BytesIO()
    Image.fromarray(np.eye(5, dtype=np.uint8)).save(stamp, "PNG")
    shapes = [
        shape("rectangle", [[30, 40], [10, 60]], "rectangle"),
        shape("circle", [[60, 20], [60, 30]], "circle"),
        shape("line", [[10, 90], [40, 90]], "line"),
        shape("strip", [[60, 60], [80, 60], [80, 90]], "linestrip"),
        shape("point", [[100, 20]], "point"),
        shape("old", [[100, 50], [110, 50], [110, 60]], None),
        shape("stamp", [[100.4, 80.0], [104.4, 84.0]], "mask", mask=base64.b64encode(stamp.getvalue()).decode()),
        shape("box4", [[10, 5], [20, 5], [20, 15], [10, 15]], "rectangle"),
        shape("turned", [[40, 5], [45, 10], [40, 15], [35, 10]], "rotation"),
    ]
    write(tmp_path / "s", "a", shapes, (100, 120))
    report = run(tmp_path / "s", tmp_path / "o")
    got = mask(tmp_path / "o")
    number = {name: index for index, name in enumerate(report.class_names)}
    rows, columns = np.nonzero(got == number["rectangle"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 60, 10, 30) and len(rows) == 21 * 21
    assert abs((got == number["circle"]).sum() - np.pi * 100) < 40
    assert np.unique(np.nonzero(got == number["line"])[0]).size in (10, 11)
    assert got[60, 70] == got[80, 80] == number["strip"] and got[20, 100] == number["point"]
    assert (got[80:85, 100:105] == np.eye(5) * number["stamp"]).all()
    assert (
        (got == number["old"]).sum() == 66 and (got == number["box4"]).sum() == 121 and got[10, 40] == number["turned"]
    )
    assert any("drawn 10 pixels wide" in note for note in report.notes)


def test_overlaps_in_list_order_and_special_labels(tmp_path: Path) -> None:
    shapes = [shape("b"), shape("a", [[4, 4], [12, 4], [12, 12], [4, 12]], group_id=1), shape("__ignore__", [[0, 0], [3, 0], [3, 3]]),
              shape("_background_", [[10, 10], [12, 10], [12, 12], [10, 12]])]  # fmt: skip
    write(tmp_path / "s", "a", shapes)
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.class_names == ["background", "a", "b"]
    canvas = Image.new("L", (30, 20))
    pencil = ImageDraw.Draw(canvas)
    for item, number in zip(shapes, (2, 1, 255, 0)):
        pencil.polygon([tuple(point) for point in item["points"]], outline=number, fill=number)
    assert (mask(tmp_path / "o") == np.array(canvas)).all()


def test_classes_are_those_of_all_files(tmp_path: Path) -> None:
    for stem, label in (("1", "zebra"), ("2", "ant"), ("10", "_background_")):
        write(tmp_path / "s", stem, [shape(label)])
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.class_names == ["background", "ant", "zebra"]
    assert [mask(tmp_path / "o", stem).max() for stem in ("1", "2", "10")] == [2, 1, 0]


def test_labels_txt_gives_the_order_and_strange_labels_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "s", "a", [shape("dog"), shape("dgo"), shape("Cat")])
    (tmp_path / "s" / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"(?s)labels\.txt: 2 labels of the source are not among.*'Cat' in 1 file, such as a\.json.*'dgo'",
    ):
        run(tmp_path / "s", tmp_path / "o")
    report = run(tmp_path / "s", tmp_path / "o", unknown="ignore")
    assert report.class_names == ["background", "dog", "cat"] and set(np.unique(mask(tmp_path / "o"))) == {0, 255}


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("..\\photos\\a.png", "a.png"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("/home/somebody/a.png", "a.png"),
        ("../JPEGImages/A.PNG", "sub/a.png"),
        ("gone.jpg", "a.png"),
        ("folder/a.png", "folder/a.png"),
    ],
)
def test_photos_are_found_whatever_the_path_says(given: str, there: str, tmp_path: Path) -> None:
    write(tmp_path / "s", "a", [shape()], photo=there, imagePath=given)
    assert run(tmp_path / "s", tmp_path / "o").photos == 1


def test_embedded_photos(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (9, 9, 9)).save(buffer, "JPEG")
    data = base64.b64encode(buffer.getvalue()).decode()
    write(tmp_path / "s", "a", [shape(kind=None)], photo=None, imageData=data, imagePath="a.json")
    run(tmp_path / "s", tmp_path / "o")
    assert (tmp_path / "o" / "images" / "a.jpg").read_bytes() == buffer.getvalue()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"shapes": [shape(points=SQUARE[:2])]}, "shape 1 \\('cat'\\): a polygon of 2 points \\(expected 3 or more\\)"),
        ({"shapes": [shape(kind="spiral")]}, "shapes of this kind are not known \\(got spiral"),
        ({"shapes": [shape(points=[[1, "x"], [2, 2], [3, 3]])]}, "its points are not pairs of numbers"),
        ({"shapes": [shape(points=[[1, float("inf")], [2, 2], [3, 3]])]}, "a point is not finite"),
        ({"shapes": [shape("")]}, "shape 1 has no label"),
        ({"shapes": [shape(kind="mask", points=SQUARE[:2], mask="????")]}, "its mask is not a readable PNG"),
        (
            {"imageHeight": 30, "imageWidth": 20},
            "of another photo \\(got 20x30, expected 30x20.*EXIF orientation changed",
        ),
        ({"imageData": "AAAA"}, "a.json \\(its imageData\\): not a readable image"),
        ({"imageData": "AAAA", "imagePath": "a.json"}, "not a readable image"),
        ({"imageData": "A"}, "its embedded imageData is damaged"),
    ],
)
def test_bad_files_are_refused_with_a_reason(bad: dict, message: str, tmp_path: Path) -> None:
    write(tmp_path / "s", "a", **{"shapes": [shape()], **bad})
    write(tmp_path / "s", "b", [shape()])
    with pytest.raises(InputError, match=f"(?s)1 file cannot be used, 1 can.*a.json: .*{message}"):
        run(tmp_path / "s", tmp_path / "o")
    assert not (tmp_path / "o").exists() and not list(tmp_path.glob(".o-*"))
    report = run(tmp_path / "s", tmp_path / "o", skip_bad=True)
    assert report.photos == 1 and len(report.problems) == 1


def test_all_bad_files_are_listed_and_other_tools_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write(folder, "a", [shape()])
    others = {
        "jingling": {"path": "x.jpg", "outputs": {}, "labeled": True},
        "EISeg": [{"labelIdx": 1, "points": []}],
        "VIA": {"a.jpg1": {"regions": []}},
        "Supervisely": {"objects": [], "size": {}},
        "Label Studio": [{"annotations": [], "data": {}}],
        "Labelbox": [{"Labeled Data": "x"}],
        "PaddleOCR": [{"transcription": "x", "points": []}],
        "COCO": {"images": [], "annotations": [], "categories": []},
        "GeoJSON": {"type": "FeatureCollection", "features": []},
        "Cityscapes": {"imgHeight": 1, "objects": []},
        "a single value": 3,
        "an empty list": [],
        "no list `shapes`": {"x": 1},
    }
    for number, data in enumerate(others.values()):
        (folder / f"z{number}.json").write_text(json.dumps(data), encoding="utf-8")
    (folder / "zz.json").write_bytes(b"\xff\xfe{")
    (folder / "zzz.json").symlink_to(folder / "nowhere.json")
    for number in range(30):
        write(folder, f"gone{number}", [shape()], photo=None)
    with pytest.raises(InputError) as caught:
        run(folder, tmp_path / "o", format="labelme")
    text = str(caught.value)
    assert "45 files cannot be used, 1 can" in text and "more" not in text.rsplit("\n", 1)[-1]
    for number, name in enumerate(others):
        assert any(name in line for line in text.splitlines() if f"z{number}.json" in line), name
    assert "zzz.json: cannot be read (No such file" in text
    assert "zz.json: not JSON" in text and text.count("is not there") == 30


def test_files_without_shapes(tmp_path: Path) -> None:
    write(tmp_path / "s", "a", [])
    with pytest.raises(InputError, match="none of its 1 labelme files has a shape"):
        run(tmp_path / "s", tmp_path / "o")
    write(tmp_path / "s", "b", [shape()])
    report = run(tmp_path / "s", tmp_path / "o")
    assert any("files without a shape, which become background: 1: a.json" in note for note in report.notes)
    assert mask(tmp_path / "o").max() == 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "s", "a", [shape()])
    run(tmp_path / "s", tmp_path / "o")
    with pytest.raises(InputError, match="o: it exists already, and is not overwritten"):
        run(tmp_path / "s", tmp_path / "o")
    (tmp_path / "o" / "mine.txt").write_text("x", encoding="utf-8")
    run(tmp_path / "s", tmp_path / "o", overwrite=True, link=True)
    assert (tmp_path / "o.previous_1" / "mine.txt").is_file() and not (tmp_path / "o" / "mine.txt").exists()
    assert (tmp_path / "o" / "images" / "a.png").is_symlink()


def test_same_names_do_not_collide(tmp_path: Path) -> None:
    for folder in ("s/x", "s/y"):
        write(tmp_path / folder, "a b", [shape()])
    write(tmp_path / "s", "A", [shape()])
    write(tmp_path / "s", "a", [shape()], photo="a.jpg", imagePath="a.jpg")
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.photos == 4 and len(list((tmp_path / "o" / "labels").rglob("*.png"))) == 4
    lines = (tmp_path / "o" / "train.txt").read_text(encoding="utf-8") + (tmp_path / "o" / "val.txt").read_text(
        encoding="utf-8"
    )
    assert "images/x/a b.png\tlabels/x/a b.png\n" in lines


def test_folders_of_json_to_dataset(tmp_path: Path) -> None:
    """The dove layout: the same number means another class in each folder."""
    for number, names in enumerate((["_background_", "dove", "cat"], ["_background_", "cat", "__ignore__"])):
        folder = tmp_path / "s" / f"{number}_json"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 6), (number * 99, 5, 5)).save(folder / "img.png")
        label = np.zeros((6, 8), np.uint8)
        label[:2], label[2:4] = 1, 2
        Image.fromarray(label).save(folder / "label.png")
        (folder / "label_names.txt").write_text("\n".join(names), encoding="utf-8")
    report = run(tmp_path / "s", tmp_path / "o")
    assert report.class_names == ["background", "cat", "dove"]
    assert mask(tmp_path / "o", "0_json")[::2, 0].tolist() == [2, 1, 0]
    assert mask(tmp_path / "o", "1_json")[::2, 0].tolist() == [1, 255, 0]
    (tmp_path / "s" / "0_json" / "label_names.txt").write_text("_background_\ndove\n", encoding="utf-8")
    (tmp_path / "s" / "1_json" / "label_names.txt").unlink()
    with pytest.raises(
        InputError, match=r"(?s)1_json: no label_names\.txt.*label values \[2\] have no name in label_names"
    ):
        run(tmp_path / "s", tmp_path / "p")


def test_exported_folders_beside_more_annotations(tmp_path: Path) -> None:
    """Where only some files were exported to folders, the files are read, not the folders."""
    for stem in ("a", "b"):
        write(tmp_path / "s", stem, [shape()])
    folder = tmp_path / "s" / "a_json"
    folder.mkdir()
    Image.new("RGB", (30, 20)).save(folder / "img.png")
    Image.new("L", (30, 20)).save(folder / "label.png")
    (folder / "label_names.txt").write_text("_background_\n", encoding="utf-8")
    assert sorted(
        path.name for path in (run(tmp_path / "s", tmp_path / "o") and tmp_path / "o" / "labels").iterdir()
    ) == ["a.png", "b.png"]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such file or folder\. Mend the path"):
        run(tmp_path / "gone", tmp_path / "o")
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match=r"no labels that can be read were found \(looked for labelme, coco"):
        run(tmp_path / "s", tmp_path / "o")
    (tmp_path / "s" / "a.xml").write_text("<x/>", encoding="utf-8")
    with pytest.raises(InputError, match=r"XML files \(Pascal VOC boxes, CVAT\) hold no masks"):
        run(tmp_path / "s", tmp_path / "o")


def test_a_mask_that_is_no_text_is_refused() -> None:
    shape = {"label": "a", "shape_type": "mask", "points": [[0, 0], [2, 2]], "mask": [1]}
    with pytest.raises(InputError, match=r"shape 1 \('a'\): its mask is not a readable PNG"):
        draw_shapes([shape], {"_background_": 0, "a": 1}, (4, 4))
