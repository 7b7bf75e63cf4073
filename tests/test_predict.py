"""predict: which files are read, what is written, and what is said of bad input."""

from __future__ import annotations

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from segkit import io
from segkit.deploy.inputs import collect
from segkit.deploy.stages import batched, prefetched
from segkit.engine import apply
from segkit.engine.segmenter import load
from segkit.errors import InputError
from segkit.palette import voc_palette
from tests.tiny_model import PLAIN, make_all, make_config, make_data, make_weights, photo, run

FOLDERS = ("added_prediction", "pseudo_color_prediction", "mask")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def photos(tmp_path):
    """A tree of photos: sub-folders, two of one name, a hidden file, a text, a unicode name."""
    root = tmp_path / "photos"
    for name, size in (("a.png", (50, 70)), ("sub/b.png", (33, 40)), ("sub/deep/größe 猫.png", (20, 30))):
        io.write_png(root / name, photo(*size))
    cv2.imwrite(str(root / "a.jpg"), photo(40, 60))
    io.write_png(root / ".hidden.png", photo(8, 8))
    (root / "notes.md").write_text("no photo")
    return root


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def predict(tiny, *flags):
    return run("predict", "--model_path", tiny, *flags)


def test_a_folder_with_sub_folders(tiny, photos, tmp_path, capsys):
    assert predict(tiny, "--image_path", photos, "--save_dir", tmp_path / "out") == 0
    expected = ["a.png", "a_png.png", "sub/b.png", "sub/deep/größe 猫.png"]
    for folder in FOLDERS:
        assert names(tmp_path / "out" / folder) == expected
    assert "its results are saved as a_png, because a is taken by another file" in capsys.readouterr().err
    for name, source in (("a", "a.jpg"), ("a_png", "a.png"), ("sub/b", "sub/b.png")):
        mask = Image.open(tmp_path / "out" / "mask" / f"{name}.png")
        height, width = io.image_size(photos / source)
        assert mask.mode == "L" and mask.size == (width, height)
        np.testing.assert_array_equal(mask, load(tiny).predict(photos / source))


@pytest.mark.parametrize("flags", [(), ("--no_onednn",)])
def test_photos_of_one_size_go_together(tiny, photos, tmp_path, monkeypatch, flags):
    seen, scores = [], apply.Applied.scores

    def watched(self, x):
        seen.append(x.shape)
        return scores(self, x)

    monkeypatch.setattr(apply.Applied, "scores", watched)
    assert predict(tiny, "--image_path", photos, "--save_dir", tmp_path / "all", *flags) == 0
    assert seen == [(4, 3, 48, 64)]
    for name, source in (("a", "a.jpg"), ("a_png", "a.png"), ("sub/b", "sub/b.png")):
        assert predict(tiny, "--image_path", photos / source, "--save_dir", tmp_path / "one", *flags) == 0
        one, found = (tmp_path / "one" / "mask" / f"{source[:-4].split('/')[-1]}.png", tmp_path / "all" / "mask")
        np.testing.assert_array_equal(Image.open(one), Image.open(found / f"{name}.png"))


def test_what_is_written(tiny, photos, tmp_path):
    flags = ("--image_path", photos / "a.png", "--save_dir", tmp_path, "--save_prob")
    assert predict(tiny, *flags) == 0
    mask = np.asarray(Image.open(tmp_path / "mask" / "a.png"))
    colours = Image.open(tmp_path / "pseudo_color_prediction" / "a.png")
    assert colours.mode == "P"
    np.testing.assert_array_equal(colours, mask)
    np.testing.assert_array_equal(colours.convert("RGB"), voc_palette()[mask])
    prob = np.load(tmp_path / "prob" / "a.npy")
    assert prob.dtype == np.float32 and prob.shape == (3, 50, 70)
    np.testing.assert_allclose(prob.sum(0), 1, atol=1e-5)
    assert (prob.argmax(0) == mask).mean() > 0.999
    overlay = np.asarray(Image.open(tmp_path / "added_prediction" / "a.png")).astype(float)
    np.testing.assert_allclose(overlay, 0.6 * photo(50, 70) + 0.4 * voc_palette()[mask], atol=1)


def test_threshold_makes_unsure_pixels_255(tiny, photos, tmp_path):
    flags = ("--image_path", photos / "a.png", "--save_dir", tmp_path, "--save_prob")
    assert predict(tiny, *flags, "--threshold", "0.4") == 0
    mask = np.asarray(Image.open(tmp_path / "mask" / "a.png"))
    best = np.load(tmp_path / "prob" / "a.npy").max(0)
    assert 0 < (mask == 255).sum() < mask.size
    np.testing.assert_array_equal((mask == 255)[abs(best - 0.4) > 1e-5], (best < 0.4)[abs(best - 0.4) > 1e-5])
    overlay = np.asarray(Image.open(tmp_path / "added_prediction" / "a.png"))
    np.testing.assert_array_equal(overlay[mask == 255], photo(50, 70)[mask == 255])


def test_threshold_of_one_channel(tmp_path):
    make_data(tmp_path / "data", classes=2)
    node = {"type": "UNet", "base_channels": 4, "num_classes": 1}
    folder = make_weights(make_config(tmp_path, model=node, num_classes=2), tmp_path / "best_model")
    image = tmp_path / "data" / "images" / "1.png"
    prob = load(folder).predict_proba(image)
    assert prob.shape == (2, 97, 131)
    for threshold in ("0.3", "0.7"):
        assert predict(folder, "--image_path", image, "--save_dir", tmp_path / "o", "--threshold", threshold) == 0
        mask = np.asarray(Image.open(tmp_path / "o" / "mask" / "1.png"))
        sure = abs(prob[1] - float(threshold)) > 1e-4
        np.testing.assert_array_equal(mask[sure], (prob[1] > float(threshold))[sure])


def test_custom_colours(tiny, photos, tmp_path):
    flags = ("--image_path", photos / "a.png", "--save_dir", tmp_path, "--custom_color")
    assert predict(tiny, *flags, *map(str, (1, 2, 3, 10, 20, 30, 100, 110, 120))) == 0
    colours = Image.open(tmp_path / "pseudo_color_prediction" / "a.png")
    table = np.array([[1, 2, 3], [10, 20, 30], [100, 110, 120]], np.uint8)
    np.testing.assert_array_equal(colours.convert("RGB"), table[np.asarray(colours)])


def test_several_labels_a_pixel(tiny, photos, tmp_path):
    assert predict(tiny, "--image_path", photos / "a.png", "--save_dir", tmp_path, "--use_multilabel") == 0
    prob = load(tiny)
    prob.multilabel = True
    planes = prob.predict_proba(photos / "a.png") > 0.5
    for number in range(3):
        plane = Image.open(tmp_path / "mask" / "a" / f"class {number}.png")
        np.testing.assert_array_equal(plane, planes[number])
    overlay = np.asarray(Image.open(tmp_path / "added_prediction" / "a.png"))
    untouched = ~planes.any(0)
    np.testing.assert_array_equal(overlay[untouched], photo(50, 70)[untouched])


def test_a_list_and_a_glob(tiny, photos, tmp_path):
    text = photos / "list.txt"
    text.write_text("# photos\na.png\n\nsub/b.png sub/label.png\nsub/deep/größe 猫.png\n", encoding="utf-8")
    assert predict(tiny, "--image_path", text, "--save_dir", tmp_path / "list") == 0
    assert names(tmp_path / "list" / "mask") == ["a.png", "sub/b.png", "sub/deep/größe 猫.png"]
    assert predict(tiny, "--image_path", f"{photos}/**/*.png", "--save_dir", tmp_path / "glob") == 0
    assert names(tmp_path / "glob" / "mask") == ["a.png", "sub/b.png", "sub/deep/größe 猫.png"]


def test_a_video(tiny, tmp_path):
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
    for number in range(4):
        writer.write(photo(32, 48, number))
    writer.release()
    assert predict(tiny, "--image_path", path, "--save_dir", tmp_path / "out") == 0
    frames = [f"walk/frame_{number:06d}.png" for number in range(1, 5)]
    assert names(tmp_path / "out" / "mask") == frames
    assert names(tmp_path / "out" / "added_prediction") == ["walk.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "added_prediction" / "walk.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (48, 32)


def test_a_damaged_video(tiny, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 10)
    assert predict(tiny, "--image_path", tmp_path / "broken.mp4", "--save_dir", tmp_path / "out") == 2
    assert "this video has no frame that OpenCV can read" in capsys.readouterr().err


def test_one_corrupt_photo_does_not_stop_the_others(tiny, photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes((photos / "a.jpg").read_bytes()[:100])
    (photos / "empty.png").write_bytes(b"")
    assert predict(tiny, "--image_path", photos, "--save_dir", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "2 of 6 inputs could not be segmented, the others are done:" in said
    assert "bad.jpg" in said and "empty.png: the file is empty" in said and "Traceback" not in said
    assert len(names(tmp_path / "out" / "mask")) == 4


def test_earlier_results_are_not_read_again(tiny, photos):
    for _ in range(2):
        assert predict(tiny, "--image_path", photos, "--save_dir", photos / "out") == 0
        assert len(names(photos / "out" / "mask")) == 4


def test_linked_folders_are_followed_once(photos):
    (photos / "sub" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "link").symlink_to(photos / "sub" / "deep", target_is_directory=True)
    assert [item.name for item in collect(str(photos), "out")] == ["a", "a_png", "link/größe 猫", "sub/b"]


def test_names_that_differ_in_case_alone_do_not_collide(photos):
    shutil.copy(photos / "a.png", photos / "A.png")
    found = [item.name for item in collect(str(photos), "out")]
    assert len({name.lower() for name in found}) == len(found) == 5


@pytest.mark.parametrize("name", ["UNet", "BiSeNetV2", "DoveNet"])
def test_every_model_takes_every_size(name, tmp_path):
    make_data(tmp_path / "data")
    node = {"type": name, **({"base_channels": 4} if name == "UNet" else {})}
    folder = make_weights(make_config(tmp_path, transforms=PLAIN, model=node), tmp_path / "best_model")
    seg = load(folder)
    for size in ((900, 900), (97, 131)):
        mask = seg.predict(photo(*size))
        assert mask.shape == size and mask.dtype == np.uint8


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--image_path", "nowhere.jpg"), r"nowhere.jpg: there is no such file or folder .*Mend --image_path"),
        (("--image_path", "nowhere/*.jpg"), r"no photo matches"),
        ((), r"--image_path is missing"),
        (("--image_path", "{empty}"), r"there is no photo in this folder \(looked for .jpg"),
        (("--image_path", "{text}"), r"cannot read this kind of file"),
        (("--image_path", "{list}"), r"this list is empty"),
        (
            ("--image_path", "{photo}", "--threshold", "1.5"),
            r"--threshold: got 1.5, expected a probability from 0 to 1",
        ),
        (("--image_path", "{photo}", "--custom_color", "1", "2"), r"--custom_color: wrong number of values \(got 2"),
        (("--image_path", "{photo}", "--crop_size", "8", "8"), r"--crop_size without --is_slide has no effect"),
        (("--image_path", "{photo}", "--device", "gpu"), r"--device gpu"),
        (("--image_path", "{photo}", "--precision", "fp16"), r"fp16 needs a GPU"),
    ],
)
def test_bad_input(tiny, tmp_path, capsys, monkeypatch, flags, message):
    import paddle

    if "gpu" in flags and paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle knows GPUs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "list.txt").write_text("# nothing\n")
    io.write_png(tmp_path / "photo.png", photo(20, 20))
    places = {"empty": "empty", "text": "notes.md", "list": "list.txt", "photo": "photo.png"}
    given = [flag.format(**places) for flag in flags]
    # argparse itself asks for a missing required flag
    message = rf"{message}|required: --image_path" if not flags else message
    assert predict(tiny, *given, "--save_dir", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_an_exported_folder(tiny, photos, tmp_path, capsys):
    assert run("export", "--model_path", tiny, "--save_dir", tmp_path / "exported") == 0
    (tmp_path / "exported" / "config.yml").unlink()
    flags = ("--image_path", photos, "--threshold", "0.36", "--save_prob", "--custom_color", *range(9))
    for model, name in ((tmp_path / "exported", "a"), (tiny, "b")):
        assert predict(model, *flags, "--save_dir", tmp_path / name, "--no_onednn") == 0
    assert "could not" not in capsys.readouterr().err
    files = names(tmp_path / "a")
    assert files == names(tmp_path / "b") and len(files) == 16
    for name in files:
        found, expected = tmp_path / "a" / name, tmp_path / "b" / name
        if found.suffix == ".npy":
            np.testing.assert_allclose(np.load(found), np.load(expected), atol=1e-5)
        else:
            assert np.mean(np.asarray(Image.open(found)) == np.asarray(Image.open(expected))) > 0.999, name
    assert predict(tmp_path / "exported", *flags[:2], "--save_dir", tmp_path / "c", "--opts", "a.b=1") == 0
    assert "its own transforms and classes count, --config and --opts do not" in capsys.readouterr().err
    assert predict(tmp_path / "exported", *flags[:2], "--aug_pred", "--flip_horizontal") == 2
    assert "an exported model is applied plainly or in windows" in capsys.readouterr().err
    assert predict(tiny, *flags[:2], "--backend", "openvino") == 2
    assert "--backend openvino runs an exported folder" in capsys.readouterr().err


def test_missing_model_path(tiny, photos, capsys):
    assert run("predict", "--config", tiny / "config.yml", "--image_path", photos) == 2
    assert "--model_path is missing" in capsys.readouterr().err


def test_warped_val_transforms(tiny, photos, tmp_path, capsys):
    transforms = json.dumps([{"type": "RandomRotation"}, {"type": "Normalize"}])
    flags = ("--image_path", photos / "a.png", "--save_dir", tmp_path, "--opts", f"val_dataset.transforms={transforms}")
    assert predict(tiny, *flags) == 2
    assert "cannot be undone on a prediction" in capsys.readouterr().err


def test_read_only_save_dir(tiny, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert predict(tiny, "--image_path", photos / "a.png", "--save_dir", tmp_path / "file") == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and "could not be segmented" not in said


def test_prefetched_keeps_the_order_and_passes_errors_on():
    assert list(prefetched(lambda n: n * n, range(50), 3)) == [n * n for n in range(50)]
    assert list(prefetched(lambda n: n, range(3), 0)) == [0, 1, 2]
    with pytest.raises(InputError, match="bad"):
        list(prefetched(lambda n: (_ for _ in ()).throw(InputError("bad")), range(5), 2))


def test_batches_hold_one_size_each():
    items = list(range(20))
    found = list(batched(items, lambda n: n % 3, 4))
    assert all(len({n % 3 for n in group}) == 1 and len(group) <= 4 for group in found)
    assert sorted(n for group in found for n in group) == items
    many = list(batched(range(100), lambda n: n, 2))
    assert len(many) == 100
