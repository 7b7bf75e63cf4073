"""infer on videos, cameras, big photos and GeoTIFFs, and what it writes beside masks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from segkit import io
from segkit.data.shapes import draw_shapes
from segkit.deploy import pipeline, stages, video
from segkit.deploy.inputs import collect
from segkit.deploy.pipeline import Segmenter
from segkit.deploy.stages import check_failed
from segkit.engine.segmenter import load
from segkit.errors import InputError
from segkit.polygons import outlines, write_labelme
from tests import infer_cases
from tests.infer_cases import alike, pixels
from tests.tiny_model import photo, run

tiny, infer, predict = infer_cases.tiny, infer_cases.infer, infer_cases.predict


def make_video(path, frames=5):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
    for number in range(frames):
        writer.write(photo(32, 48, number))
    writer.release()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_video_among_photos(infer, predict, tmp_path, batch):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "walk 猫.avi")
    io.write_png(tmp_path / "in" / "a.png", photo(20, 30))
    assert infer(tmp_path / "in", "--added", "--batch_size", batch) == 0
    assert predict(tmp_path / "in") == 0
    names = ["a.png", *(f"walk 猫/frame_{number:06d}.png" for number in range(1, 6))]
    for name in names:
        assert alike(pixels(tmp_path / "out" / name), pixels(tmp_path / "predicted" / "mask" / name)), name
    for overlay in (tmp_path / "out", tmp_path / "predicted"):
        folder = overlay / "added_prediction"
        assert sorted(path.name for path in folder.iterdir()) == ["a.png", "walk 猫.mp4"]
        capture = cv2.VideoCapture(str(folder / "walk 猫.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and capture.get(cv2.CAP_PROP_FPS) == 5


def test_a_frame_that_memory_does_not_suffice_for_is_named(infer, tmp_path, monkeypatch, capsys):
    make_video(tmp_path / "walk.avi")

    def outputs(self, photos, scores=False):
        raise MemoryError

    monkeypatch.setattr(Segmenter, "outputs", outputs)
    assert infer(tmp_path / "walk.avi") == 2
    assert f"{tmp_path / 'walk.avi'}, frame 1: the memory does not suffice (48x32 pixels" in capsys.readouterr().err


def test_a_frame_that_the_transforms_refuse_does_not_stop_the_others(infer, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.avi")
    make_video(tmp_path / "in" / "b.avi")
    prepare = Segmenter.prepare

    def refused(self, image, name=""):
        if "a.avi, frame 2" in name:
            raise InputError(f"{name}: the image does not fit into Padding")
        return prepare(self, image, name)

    monkeypatch.setattr(Segmenter, "prepare", refused)
    assert infer(tmp_path / "in") == 2
    said = capsys.readouterr().err
    assert "1 of 2 inputs could not be segmented, the others are done:" in said
    assert f"{tmp_path / 'in' / 'a.avi'}, frame 2: the image does not fit into Padding" in said
    assert len(list((tmp_path / "out" / "b").iterdir())) == 5


def test_many_inputs_with_the_same_mistake_are_named_together():
    failed = [f"{number}.png: it is torn. Copy it again." for number in range(23)]
    with pytest.raises(InputError) as error:
        check_failed([*failed, "a.png: it is empty."], 24)
    assert str(error.value).splitlines() == [
        "24 of 24 inputs could not be segmented:",
        f"  {', '.join(f'{number}.png' for number in range(20))} and 3 more: it is torn. Copy it again.",
        "  a.png: it is empty.",
    ]


class Camera:
    """OpenCV's VideoCapture of a camera that sends a signal to this process after some frames."""

    after, number = 40, signal.SIGINT  # more than are read ahead

    def __init__(self, source):
        self.source, self.count = source, 0

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 12.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def read(self):
        if self.source != 3:
            return False, None
        self.count += 1
        if self.count == self.after:
            os.kill(os.getpid(), self.number)
        return True, photo(32, 48, self.count)

    def release(self):
        pass


WITH_CAMERA = """
import signal, sys
from segkit.cli.main import main
from segkit.deploy import video
from tests.test_infer_inputs import Camera
video.cv2.VideoCapture, Camera.number = Camera, int(sys.argv[1])
before = signal.getsignal(signal.SIGTERM)
code = main(sys.argv[2:])
assert signal.getsignal(signal.SIGTERM) == before
sys.exit(code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_ends_by_ctrl_c(tiny, tmp_path, root, number):
    flags = ["--config", tiny.parent / "exported", "--image_path", "3", "--save_dir", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", WITH_CAMERA, str(int(number)), "infer", *flags, "--added", "--json"],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    masks = sorted(path.name for path in (tmp_path / "out" / "camera_3").iterdir())
    assert masks == [f"frame_{index:06d}.png" for index in range(1, len(masks) + 1)] and len(masks) >= 1
    assert json.loads(done.stdout)["images"] == len(masks) and "camera_3 is stopped" in done.stderr
    (overlay,) = (tmp_path / "out" / "added_prediction").iterdir()
    assert overlay.name == "camera_3.mp4"
    assert cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FRAME_COUNT) == len(masks)


def test_a_camera_that_is_not_there(infer, monkeypatch, capsys):
    monkeypatch.setattr(video.cv2, "VideoCapture", Camera)
    assert infer("1") == 2
    said = capsys.readouterr().err
    assert "camera 1: it gives no picture" in said and "Traceback" not in said
    assert threading.active_count() < 20


def test_a_geotiff_keeps_its_coordinates(infer, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(400000, 5600000, 2, 2)}
    image = photo(40, 50)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=50, height=40, count=3, dtype="uint8", **place
    ) as f:
        f.write(image.transpose(2, 0, 1))
    assert infer(tmp_path / "a.tif") == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as found:
        assert found.crs.to_epsg() == 32633 and found.transform == place["transform"]
        np.testing.assert_array_equal(found.read(1), pixels(tmp_path / "out" / "a.png"))


def test_polygons_paint_the_mask(infer, tiny, tmp_path):
    io.write_png(tmp_path / "in" / "sub" / "a.png", photo(60, 80))
    assert infer(tmp_path / "in", "--polygons") == 0
    path = tmp_path / "out" / "polygons" / "sub" / "a.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (path.parent / found["imagePath"]).resolve() == (tmp_path / "in" / "sub" / "a.png").resolve()
    assert (found["imageHeight"], found["imageWidth"]) == (60, 80)
    numbers = {"_background_": 0, **{name: number for number, name in enumerate(load(tiny).class_names)}}
    mask = pixels(tmp_path / "out" / "sub" / "a.png")
    np.testing.assert_array_equal(draw_shapes(found["shapes"], numbers, (60, 80)), mask)


@pytest.mark.parametrize("names", [["background", "a", "b"], ["road", "a", "b"], []])
def test_outlines_give_any_mask_again(tmp_path, names):
    rng = np.random.default_rng(0)
    numbers = {"_background_": 0, "0": 0, "1": 1, "2": 2, "__ignore__": 255}
    numbers.update((name, number) for number, name in enumerate(names))
    for height, width in ((1, 1), (1, 9), (7, 1), (13, 17), (40, 30)):
        mask = rng.choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
        write_labelme(tmp_path / "a.json", mask, names)
        shapes = json.loads((tmp_path / "a.json").read_text())["shapes"]
        np.testing.assert_array_equal(draw_shapes(shapes, numbers, mask.shape), mask)


def test_background_has_no_outline_of_its_own():
    mask = np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = 1
    mask[8:12, 8:12] = 0
    assert [value for value, _ in outlines(mask, background=0)] == [1, 0]
    assert [value for value, _ in outlines(mask)] == [0, 1, 0]


def test_the_same_file_twice_is_segmented_once(infer, tmp_path, capsys):
    io.write_png(tmp_path / "a.png", photo(8, 9))
    (tmp_path / "list.txt").write_text(f"a.png\n{tmp_path}/a.png\n./a.png\n")
    assert infer(tmp_path / "list.txt") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    said = capsys.readouterr().err
    assert "2 of 3 inputs are named twice, and segmented once" in said and "taken by another" not in said


def test_streams_are_cameras():
    (item,) = collect("rtsp://127.0.0.1:1/live", "out")
    assert item.is_camera and item.is_video and item.name == "stream"


def test_a_place_that_cannot_be_written_is_known_first(infer, tmp_path, capsys):
    io.write_png(tmp_path / "a.png", photo(8, 9))
    (tmp_path / "out").write_text("in the way")
    assert infer(tmp_path / "a.png") == 2
    assert f"--save_dir {tmp_path / 'out'}: cannot be written (File exists)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("(ResourceExhausted) Out of memory error on GPU 0")])
def test_a_photo_too_big_for_the_memory(infer, tmp_path, capsys, monkeypatch, error):
    def full(self, photos, scores):
        raise error

    monkeypatch.setattr(Segmenter, "outputs", full)
    io.write_png(tmp_path / "a.png", photo(8, 9))
    assert infer(tmp_path / "a.png") == 2
    said = capsys.readouterr().err
    assert (
        "a.png: the memory does not suffice (9x8 pixels, 1 at a time). Go over it in windows, with --is_slide" in said
    )


def test_reading_ahead_is_bounded_in_bytes():
    most, held, lock = [0], [0], threading.Lock()

    def load_one(size):
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])
        return size

    for size in stages.prefetched(load_one, [4, 4, 4, 30, 4, 4, 50, 50, 4], 8, size=lambda size: size, limit=12):
        with lock:
            held[0] -= size
    assert held[0] == 0 and most[0] <= 50


def test_an_iterator_is_read_in_a_thread_of_its_own():
    threads = set()

    def items():
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    assert list(stages.ahead(items())) == list(range(20))
    assert threading.main_thread() not in threads


def test_no_result_replaces_an_input(tiny, tmp_path, capsys):
    """Whatever leads to it: the photo's own folder, a link to it, an overlay, a list, predict's masks."""
    for name in ("mask/a.png", "added_prediction/a.png", "b.bmp"):
        io.write_png(tmp_path / "in" / f"{name}.png", photo(20, 30))
        (tmp_path / "in" / f"{name}.png").rename(tmp_path / "in" / name)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "list.txt").write_text("in/b.bmp\nin/mask/a.png\nin/gone.png\n")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")}
    exported, predict = ("infer", "--config", tiny.parent / "exported"), ("predict", "--model_path", tiny)
    for command, images, save_dir in (
        (exported, "in/mask/a.png", "in/mask"),
        (exported, "in", "link"),
        (exported, "in/added_prediction", "in"),
        (exported, "list.txt", ""),
        (predict, "in/mask", "link"),
    ):
        assert run(*command, "--image_path", tmp_path / images, "--save_dir", tmp_path / save_dir) == 2
        assert re.search(
            r"a\.png: the result of \S+ would overwrite this input. Choose another --save_dir", capsys.readouterr().err
        )
        assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")} == before
    assert run(*exported, "--image_path", tmp_path / "in" / "b.bmp", "--save_dir", tmp_path / "in") == 0


def test_results_beside_the_inputs(tiny, tmp_path):
    """What replaces nothing is written: a video's frames have a folder; a second run leaves the first one's results out."""
    make_video(tmp_path / "walk.mp4")
    flags = ("--image_path", tmp_path / "walk.mp4", "--save_dir", tmp_path)
    assert run("infer", "--config", tiny.parent / "exported", *flags) == 0
    assert len(list((tmp_path / "walk").iterdir())) == 5
    io.write_png(tmp_path / "in" / "a.png", photo(20, 30))
    for _ in range(2):
        assert run("predict", "--model_path", tiny, "--image_path", tmp_path / "in", "--save_dir", tmp_path / "in") == 0
    assert [path.name for path in (tmp_path / "in" / "mask").iterdir()] == ["a.png"]


def test_a_photo_that_the_transforms_would_blow_up(tiny, tmp_path, monkeypatch, capsys):
    """84 bytes of 1x3000 pixels to a short side of 48; the others are done."""
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "1000000")
    folder = shutil.copytree(tiny.parent / "exported", tmp_path / "short")
    text = (folder / "deploy.yaml").read_text()
    short = "transforms:\n  - {type: ResizeByShort, short_size: 48}\n"
    (folder / "deploy.yaml").write_text(re.sub("transforms:\n", short, text))
    io.write_png(tmp_path / "in" / "good.png", photo(40, 50))
    io.write_png(tmp_path / "in" / "long.png", photo(1, 3000))
    assert run("infer", "--config", folder, "--image_path", tmp_path / "in", "--save_dir", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "long.png: the transforms would make too many pixels of it (got 3000 x 1 -> 144000 x 48, expected" in said
    assert "1 of 2 inputs could not be segmented, the others are done" in said
    assert (tmp_path / "out" / "good.png").is_file()


@pytest.mark.parametrize(
    "error, message",
    [
        (MemoryError(), "b.png: the memory does not suffice to read it"),
        (cv2.error("Failed to allocate 9 bytes in function 'OutOfMemoryError'"), "b.png: the memory does not suffice"),
        (cv2.error("dsize.area() > 0"), "b.png: OpenCV cannot transform it"),
    ],
)
def test_one_photo_does_not_end_the_run(infer, tmp_path, monkeypatch, capsys, error, message):
    for name in "abc":
        io.write_png(tmp_path / "in" / f"{name}.png", photo(20, 30))

    def fail(path, channels):
        if str(path).endswith("b.png"):
            raise error
        return io.read_image(path, channels)

    monkeypatch.setattr(pipeline, "read_image", fail)
    assert infer(tmp_path / "in", "--backend", "paddle", "--batch_size", 2) == 2
    said = capsys.readouterr().err
    assert message in said and "1 of 3 inputs could not be segmented" in said
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "c.png"]
