"""data convert of COCO: shapes, run lengths, panoptic PNGs, and files that contradict themselves."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.errors import InputError
from segkit.io import read_label
from tests.convert_cases import got, photo, run, save

SQUARE, LARGE = [2, 2, 6, 2, 6, 6, 2, 6], [0, 0, 10, 0, 10, 10, 0, 10]


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
