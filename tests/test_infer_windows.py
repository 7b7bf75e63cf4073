"""infer in sliding windows, by flags and by the config that a model was exported with."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segkit import io
from segkit.deploy.pipeline import Segmenter
from segkit.deploy.spec import DeploySpec
from segkit.deploy.windows import Windows
from segkit.engine.segmenter import load
from segkit.transforms.color import Normalize
from tests import infer_cases
from tests.infer_cases import alike, pixels
from tests.tiny_model import RESIZE, photo, run

tiny, infer, predict = infer_cases.tiny, infer_cases.infer, infer_cases.predict


@pytest.mark.parametrize("size", [(150, 190), (40, 300), (20, 24), (1, 1)])
def test_windows_give_the_masks_of_predict(infer, predict, tmp_path, size):
    flags = ("--is_slide", "--crop_size", 64, 48, "--stride", 40, 30)
    io.write_png(tmp_path / "a.png", photo(*size))
    assert infer(tmp_path / "a.png", *flags) == 0
    assert predict(tmp_path / "a.png", *flags) == 0
    found = pixels(tmp_path / "out" / "a.png")
    assert found.shape == size
    np.testing.assert_array_equal(found, pixels(tmp_path / "predicted" / "mask" / "a.png"))
    if size == (150, 190):  # and the windows matter
        assert infer(tmp_path / "a.png") == 0
        assert (pixels(tmp_path / "out" / "a.png") != found).any()


def test_windows_of_other_flags(infer, predict, tiny, tmp_path):
    """Probabilities, and a threshold; the scores then agree with the classes that were decided strip by strip."""
    io.write_png(tmp_path / "a.png", photo(150, 190))
    flags = ("--is_slide", "--crop_size", 64, 48, "--threshold", "0.36")
    assert predict(tmp_path / "a.png", *flags) == 0
    strips = pixels(tmp_path / "predicted" / "mask" / "a.png")
    assert predict(tmp_path / "a.png", *flags, "--save_prob") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "predicted" / "mask" / "a.png"), strips)
    best = np.load(tmp_path / "predicted" / "prob" / "a.npy").max(0)
    sure = abs(best - 0.36) > 1e-5
    np.testing.assert_array_equal((strips == 255)[sure], (best < 0.36)[sure])
    assert 0 < (strips == 255).sum() < strips.size


def test_windows_hold_a_strip_of_the_scores_only():
    largest = [0]

    def engine(x):
        largest[0] = max(largest[0], x.nbytes)
        return np.repeat(x[:, :1], 50, axis=1) * np.arange(50, dtype=np.float32)[:, None, None]

    model = Segmenter(engine, [Normalize()], [], None, windows=Windows((32, 32), (32, 32)))
    image = np.full((4096, 64, 3), 255, np.uint8)
    image[:2048] = 0
    import tracemalloc

    tracemalloc.start()
    mask = model.predict(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (mask[:2048] == 0).all() and (mask[2048:] == 49).all()
    assert peak < 0.5 * 50 * 4 * image.shape[0] * image.shape[1]
    assert model.predict_proba(image).shape == (50, 4096, 64)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--is_slide",), "is_slide needs crop_size"),
        (("--crop_size", 8, 8), "--crop_size without --is_slide has no effect"),
        (("--is_slide", "--crop_size", 8, 8, "--stride", 9, 8), "stride [9, 8] is larger than crop_size [8, 8]"),
        (("--is_slide", "--crop_size", 0, 8), "crop_size: expected two integers above 0"),
    ],
)
def test_bad_windows(infer, tmp_path, capsys, flags, message):
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert infer(tmp_path / "a.png", *flags) == 2
    assert message in capsys.readouterr().err


def test_class_numbers_cannot_be_averaged(tiny, tmp_path, capsys):
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert run("export", "--model_path", tiny, "--save_dir", tmp_path / "argmax", "--output_op", "argmax") == 0
    flags = ("--image_path", tmp_path / "a.png", "--is_slide", "--crop_size", 8, 8, "--save_dir", tmp_path / "out")
    assert run("infer", "--config", tmp_path / "argmax", *flags) == 2
    assert "--is_slide averages scores, but the model was exported with --output_op argmax" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sliding(tiny):
    """The same weights exported with windows in the config: as they are, and with photos in."""
    config = ("--opts", "test_config.is_slide=true", "test_config.crop_size=[64,48]", "test_config.stride=[40,30]")
    for name, fold in (("sliding", ()), ("folded", ("--fold_preprocess",))):
        assert run("export", "--model_path", tiny, "--save_dir", tiny.parent / name, *fold, *config) == 0
    return tiny.parent


def test_an_export_keeps_the_windows_of_its_config(sliding, predict, tmp_path):
    """infer, predict, load and val slide as predict does with the weights; flags count more."""
    image = tmp_path / "a.png"
    io.write_png(image, photo(150, 190))
    assert predict(image, "--is_slide", "--crop_size", 64, 48, "--stride", 40, 30) == 0
    expected = pixels(tmp_path / "predicted" / "mask" / "a.png")
    infer = ("infer", "--enable_mkldnn", "False", "--image_path", image, "--save_dir", tmp_path / "out", "--config")
    assert run(*infer, sliding / "folded") == 0
    assert (pixels(tmp_path / "out" / "a.png") == expected).mean() >= 0.999
    assert run(*infer, sliding / "sliding") == 0
    assert alike(pixels(tmp_path / "out" / "a.png"), expected)
    folder = sliding / "sliding"
    assert run("predict", "--model_path", folder, "--no_onednn", *infer[3:6], tmp_path / "p") == 0
    assert alike(pixels(tmp_path / "p" / "mask" / "a.png"), expected)
    assert (load(folder, "cpu").predict(image) == expected).mean() >= 0.999
    assert run(*infer, folder, "--is_slide", "False") == 0
    whole = pixels(tmp_path / "out" / "a.png")
    assert (whole != expected).any()
    assert run(*infer, sliding / "exported") == 0
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "a.png"), whole)


def test_an_export_of_classes_cannot_keep_windows(tiny, tmp_path, capsys):
    config = ("--opts", "test_config.is_slide=true", "test_config.crop_size=[64,48]", "test_config.aug_pred=true")
    flags = ("--output_op", "argmax", "--save_dir", tmp_path / "argmax")
    assert run("export", "--model_path", tiny, *flags, *config) == 0
    said = capsys.readouterr().err
    assert said.count("windows average scores, which --output_op argmax does not keep") == 1
    assert said.count("test_config.aug_pred: an exported model is applied once") == 1
    assert DeploySpec.load(tmp_path / "argmax").test_config is None


def test_a_graph_of_one_size_for_windows(tiny, tmp_path, capsys):
    """Checked on the first windows of photos that are larger."""
    io.write_png(tmp_path / "a.png", photo(90, 100))
    flags = ("export", "--model_path", tiny, "--save_dir", tmp_path / "fixed", "--input_shape", 1, 3, 48, 48)
    assert run(*flags) == 2
    assert "test_config.is_slide=true test_config.crop_size=[48,48]" in capsys.readouterr().err
    windows = ("--opts", "test_config.is_slide=true", "test_config.crop_size=[48,48]")
    assert run(*flags, *windows) == 0
    images = ("--image_path", tmp_path / "a.png", "--save_dir")
    assert run("infer", "--config", tmp_path / "fixed", "--enable_mkldnn", "False", *images, tmp_path / "out") == 0
    assert run("predict", "--model_path", tiny, "--no_onednn", *images, tmp_path / "p", *windows) == 0
    assert alike(pixels(tmp_path / "out" / "a.png"), pixels(tmp_path / "p" / "mask" / "a.png"))


@pytest.fixture(scope="module")
def fixed(tiny, tmp_path_factory):
    """The same weights exported for windows of 48x48."""
    folder = tmp_path_factory.mktemp("fixed") / "exported"
    windows = ("--opts", "test_config.is_slide=true", "test_config.crop_size=[48,48]")
    assert run("export", "--model_path", tiny, "--save_dir", folder, "--input_shape", 1, 3, 48, 48, *windows) == 0
    return folder


@pytest.mark.parametrize("more", [(), ("--batch_size", 2), ("--benchmark", "True")])
def test_a_photo_that_does_not_fit_the_graph_does_not_stop_the_others(fixed, tmp_path, capsys, more):
    """The first of them, so that the choice of the engine meets it too."""
    for name, side in (("0", 40), ("1", 90), ("2", 40), ("3", 60)):
        io.write_png(tmp_path / "in" / f"{name}.png", photo(side, side))
    infer = ("infer", "--config", fixed, "--image_path", tmp_path / "in", "--save_dir", tmp_path / "out")
    assert run(*infer, *more) == 2
    said = capsys.readouterr().err
    assert "2 of 4 inputs could not be segmented, the others are done:" in said
    names = ", ".join(str(tmp_path / "in" / f"{number}.png") for number in (0, 2))
    assert f"{names}: {fixed / 'deploy.yaml'}: the model takes inputs of shape" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "3.png"]


def test_windows_on_photos_of_one_size(tiny, tmp_path):
    """Of the size that the transforms give every photo, a graph takes as much as a window does."""
    io.write_png(tmp_path / "a.png", photo(90, 100))
    resize = f"val_dataset.transforms={json.dumps(RESIZE)}"  # to 64 x 48
    windows = ("--opts", "test_config.is_slide=true", "test_config.crop_size=[32,64]", resize)
    assert run("export", "--model_path", tiny, "--save_dir", tmp_path / "out", *windows) == 0
    assert DeploySpec.load(tmp_path / "out").input_shape == [-1, 3, 48, 32]
    images = ("--image_path", tmp_path / "a.png", "--save_dir")
    assert run("infer", "--config", tmp_path / "out", "--enable_mkldnn", "False", *images, tmp_path / "i") == 0
    assert run("predict", "--model_path", tiny, "--no_onednn", *images, tmp_path / "p", *windows) == 0
    assert alike(pixels(tmp_path / "i" / "a.png"), pixels(tmp_path / "p" / "mask" / "a.png"))
