"""What predict and infer draw and outline beside the masks, and polygons as `segkit data convert` reads them back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from segkit import io
from segkit.data.convert import ConvertOptions, convert
from segkit.deploy import figures, fonts
from segkit.deploy.outputs import draw_overlay
from segkit.deploy.pictures import Pictures, check
from segkit.deploy.pipeline import Photo
from segkit.options import PictureOptions
from segkit.palette import voc_palette
from tests.tiny_model import make_all, photo, run

CLASSES = ["background", "dove", "sky 天"]
GREY = np.full((40, 60, 3), 200, np.uint8)


def square() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    return mask


def drawn(folder: Path, masks: dict[str, np.ndarray], **flags: object) -> Pictures:
    """Each mask written as that of a photo folder/photos/<name>.png."""
    pictures = Pictures(folder / "out", PictureOptions(**flags), CLASSES, voc_palette(len(CLASSES)))
    for name, mask in masks.items():
        path = folder / "photos" / f"{name}.png"
        image = photo(*mask.shape)
        io.write_png(path, image)
        pictures.write(name, Photo(str(path), image, image, []), mask, False)
    pictures.finish()
    return pictures


def masks_of(count: int) -> dict[str, np.ndarray]:
    """Blobs with holes, islands in holes and noise, some pixels of no class."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(count):
        mask = rng.choice([0, 1, 2, 255], (37 + number, 52), p=[0.6, 0.2, 0.19, 0.01]).astype(np.uint8)
        mask[5:30, 5:40], mask[9:25, 9:35], mask[12:20, 12:30], mask[14:16, 15:17] = 1, 0, 2, 255
        found[f"sub/{number} 鸽"] = mask
    return found


@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_polygons_are_read_back_pixel_for_pixel(tmp_path: Path, kind: str) -> None:
    masks = masks_of(3)
    drawn(tmp_path, masks, polygons=kind)
    report, _ = convert(str(tmp_path / "out" / "polygons"), str(tmp_path / "set"), ConvertOptions())
    assert report.problems == [] and report.photos == 3
    assert report.class_names == CLASSES
    found = {path.stem: io.read_label(path) for path in (tmp_path / "set" / "labels").rglob("*.png")}
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[Path(name).name], mask)


def test_a_correction_in_labelme_is_trained_on(tmp_path: Path) -> None:
    drawn(tmp_path, {"a": square(), "b": square()}, polygons="labelme")
    path = tmp_path / "out" / "polygons" / "a.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["shapes"][0]["label"] = "sky 天"
    path.write_text(json.dumps(content), encoding="utf-8")
    convert(str(path.parent), str(tmp_path / "set"), ConvertOptions())
    np.testing.assert_array_equal(io.read_label(tmp_path / "set" / "labels" / "a.png"), square() * 2)


def test_coco_is_what_its_tools_expect(tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    mask = square()
    mask[15:20, 25:30] = 0
    mask[0, 0] = 255
    drawn(tmp_path, {"a": mask}, polygons="coco")
    coco = pycocotools.COCO(str(tmp_path / "out" / "polygons" / "coco.json"))
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == CLASSES[1:]
    dove, nothing = coco.loadAnns(coco.getAnnIds())
    np.testing.assert_array_equal(coco.annToMask(dove), mask == 1)
    assert (dove["bbox"], dove["area"], dove["iscrowd"]) == ([20, 10, 20, 20], 375, 0)
    np.testing.assert_array_equal(coco.annToMask(nothing), mask == 255)
    assert nothing["iscrowd"] == 1 and sum(nothing["segmentation"]["counts"]) == mask.size


def test_styles() -> None:
    palette, mask = voc_palette(3), square()
    filled = draw_overlay(GREY, mask, palette)
    np.testing.assert_array_equal(filled, io.overlay(GREY, mask, palette))
    assert filled[20, 30].tolist() == [171, 120, 120]  # 0.6 of the photo, PaddleSeg's
    assert draw_overlay(GREY, mask, palette, "filled", 1.0)[20, 30].tolist() == [128, 0, 0]
    contour = draw_overlay(GREY, mask, palette, "contour")
    assert contour[20, 30].tolist() == contour[0, 0].tolist() == [200, 200, 200]
    assert contour[10, 30].tolist() == [128, 0, 0] and contour[9, 30].tolist() == [0, 0, 0]
    both = draw_overlay(GREY, mask, palette, "both")
    assert both[20, 30].tolist() == filled[20, 30].tolist() and both[10, 30].tolist() == [128, 0, 0]
    ignored = np.where(mask > 0, 255, 0).astype(np.uint8)
    assert draw_overlay(GREY, ignored, palette, "both")[10:30, 20:40].min() == 200
    planes = np.stack([np.zeros_like(mask), mask])
    assert draw_overlay(GREY, planes, palette, "contour")[10, 30].tolist() == [128, 0, 0]
    assert draw_overlay(GREY, planes, palette, "contour")[9, 30].tolist() == [200, 200, 200]


def test_a_legend_shows_what_occurs_in_its_colours() -> None:
    items = figures.entries([square()], CLASSES, voc_palette(3))
    assert [item.name for item in items] == ["background", "dove"]
    strip = figures.legend(items, 400)
    colours = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (128, 0, 0)} <= colours and (0, 128, 0) not in colours
    many = [figures.Entry(number, f"class {number}", (9, 9, 9)) for number in range(100)]
    assert figures.legend(many, 400).shape[0] > 10 * strip.shape[0] / 2
    assert figures.legend([figures.Entry(0, "very " * 99, (9, 9, 9))], 200).shape[1] == 200
    assert figures.with_legend(GREY, items).shape[1] >= GREY.shape[1]


def test_a_name_that_no_font_shows_becomes_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_FONTS", ())
    monkeypatch.delenv("SEGKIT_FONT", raising=False)
    said: list[str] = []
    monkeypatch.setattr(fonts, "warn_once", said.append)
    fonts.font_for.cache_clear()
    font = fonts.font_for("dove 天空", 14)
    assert fonts.readable(["dove", "天空"], [1, 2], font) == ["dove", "class 2"]
    assert "has all characters of the class name '天空'" in said[0] and "apt install fonts-noto-cjk" in said[0]


def test_a_font_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKIT_FONT", "nowhere.ttf")
    fonts.font_for.cache_clear()
    with pytest.raises(ValueError, match=r"SEGKIT_FONT: the font file nowhere.ttf cannot be read"):
        fonts.font_for("x", 14)


def test_figures_and_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number}" for number in range(4)]
    for name in names[:2]:
        io.write_png(tmp_path / "labels" / f"{name}.png", square())
    drawn(tmp_path, {name: square() for name in names}, figures="grid", labels=str(tmp_path / "labels"))
    sizes = [io.image_size(tmp_path / "out" / "figures" / f"{name}.png") for name in names]
    assert sizes[0] == sizes[1] and sizes[3][1] < sizes[0][1]  # the last has no label
    assert caplog.text.count("there is no such label: the figures of such photos show none. Give --labels") == 1
    pages = sorted(path.name for path in (tmp_path / "out" / "grids").iterdir())
    assert pages == ["page_001.png", "page_002.png"]
    assert io.image_size(tmp_path / "out" / "grids" / "page_001.png")[0] > 3 * sizes[0][0]


def test_labels_in_the_folders_of_labelme(tmp_path: Path) -> None:
    """`NAME/img.png` and `NAME/label.png`, as the doves have them; the photo itself is no label."""
    io.write_png(tmp_path / "photos" / "0" / "label.png", square())
    drawn(tmp_path, {"0/img": square(), "1/img": square()}, figures="row", labels=str(tmp_path / "photos"))
    with_label, without = (io.image_size(tmp_path / "out" / "figures" / name / "img.png") for name in "01")
    assert with_label[1] > without[1]


def test_a_label_of_another_size(tmp_path: Path) -> None:
    io.write_png(tmp_path / "labels" / "a.png", square()[:20])
    with pytest.raises(ValueError, match=r"does not fit its photo \(got 60x20, expected 60x40, width x height\)"):
        drawn(tmp_path, {"a": square()}, figures="row", labels=str(tmp_path / "labels"))


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"opacity": 1.5}, r"--opacity: got 1.5, expected a share from 0"),
        ({"opacity": 0.5, "style": "contour"}, r"--opacity: contours have none"),
        ({"labels": "."}, r"--labels without --figures has no effect"),
        ({"labels": "nowhere", "figures": "row"}, r"--labels nowhere: no such folder"),
        ({"polygons": "coco"}, r"--polygons: shapes hide one another"),
    ],
)
def test_flags_that_cannot_work(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(PictureOptions(**flags), multilabel=True)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is loaded: the weights, which are not there, are not asked for."""
    tiny = make_all(tmp_path)
    (tiny / "model.pdparams").unlink()
    io.write_png(tmp_path / "a.png", photo(30, 40))
    monkeypatch.setitem(sys.modules, "PIL.ImageFont", None)
    assert run("predict", "--model_path", tiny, "--image_path", tmp_path / "a.png", "--figures", "row") == 2
    said = capsys.readouterr().err
    assert "--figures writes class names with Pillow (" in said and "Install it: pip install pillow." in said
    with pytest.raises(ValueError, match="--legend writes class names with Pillow"):
        check(PictureOptions(legend=True))


def test_predict_and_infer_take_the_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = make_all(tmp_path)
    io.write_png(tmp_path / "in" / "a.png", photo(30, 40))
    flags = ("--image_path", tmp_path / "in", "--figures", "row", "--style", "both", "--opacity", "0.7", "--legend")
    out = tmp_path / "out"
    assert run("predict", "--model_path", tiny, *flags, "--save_dir", out, "--polygons", "coco") == 0
    assert io.image_size(out / "mask" / "a.png") == (30, 40)
    assert io.image_size(out / "added_prediction" / "a.png")[0] > 30
    assert (out / "figures" / "a.png").is_file()
    assert json.loads((out / "polygons" / "coco.json").read_text())["images"][0]["file_name"] == "../../in/a.png"
    assert run("export", "--model_path", tiny, "--save_dir", tmp_path / "exported") == 0
    infer = ("infer", "--config", tmp_path / "exported", *flags, "--save_dir", tmp_path / "out2")
    assert run(*infer, "--added", "--polygons") == 0
    assert (tmp_path / "out2" / "polygons" / "a.json").is_file()
    for folder in ("added_prediction", "figures"):
        np.testing.assert_array_equal(
            io.read_image(tmp_path / "out2" / folder / "a.png"), io.read_image(out / folder / "a.png")
        )
    capsys.readouterr()
    assert run(*infer) == 2
    assert re.search(r"--legend without --added has no effect", capsys.readouterr().err)
