"""The Python API: light to import, and the same results as the tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segkit
from segkit import io, runtime
from segkit.errors import InputError
from segkit.registry import MODELS
from tests.tiny_model import make_all, photo, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    assert run("export", "--model_path", folder, "--save_dir", folder.parent / "exported") == 0
    return folder


@pytest.fixture(params=["trained", "exported"])
def seg(request, tiny):
    return segkit.load(tiny if request.param == "trained" else tiny.parent / "exported")


def python(code, root):
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_light(root):
    code = (
        "import time; start = time.perf_counter(); import segkit; print(time.perf_counter() - start); import sys;"
        "print([name for name in ('paddle', 'numpy', 'cv2', 'yaml') if name in sys.modules]); print(dir(segkit))"
    )
    runs = [python(code, root).splitlines() for _ in range(3)]
    assert min(float(lines[0]) for lines in runs) < 0.2
    assert runs[0][1] == "[]"
    for name in ("Config", "load", "train", "evaluate", "__version__"):
        assert f"'{name}'" in runs[0][2]


@pytest.mark.parametrize("first", ["segkit.load", "segkit.Config('configs/unet_dove.yml')"])
def test_paddle_is_imported_with_its_threads_set_and_without_noise(root, first):
    code = (
        f"import os; os.environ.pop('OMP_NUM_THREADS', 0); import segkit; {first}; print(os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (int(done.stdout), done.stderr) == (runtime.physical_cores(), "")


def test_without_paddle(monkeypatch):
    assert "UNet" in MODELS.names()
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "paddle")
    monkeypatch.delitem(vars(segkit), "load", raising=False)
    with pytest.raises(InputError, match="PaddlePaddle is not installed"):
        segkit.load  # noqa: B018
    monkeypatch.delitem(MODELS._classes, "UNet", raising=False)
    with pytest.raises(InputError, match="PaddlePaddle is not installed"):
        MODELS.get("UNet")


def test_deployment_code_imports_no_paddle(root):
    code = "import segkit.deploy.infer, segkit.cli.infer, sys; print('paddle' in sys.modules)"
    assert python(code, root).strip() == "False"


def test_unknown_names():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        segkit.nonsense  # noqa: B018


def test_predict_takes_paths_and_arrays(seg, tmp_path):
    io.write_png(tmp_path / "a.png", photo(50, 70))
    mask = seg.predict(tmp_path / "a.png")
    assert mask.shape == (50, 70) and mask.dtype == np.uint8
    np.testing.assert_array_equal(seg.predict(str(tmp_path / "a.png")), mask)
    np.testing.assert_array_equal(seg.predict(photo(50, 70)), mask)
    prob = seg.predict_proba(photo(50, 70))
    assert prob.shape == (3, 50, 70) and prob.dtype == np.float32
    np.testing.assert_allclose(prob.sum(0), 1, atol=1e-5)
    assert (prob.argmax(0) == mask).mean() > 0.999
    gray = photo(50, 70)[:, :, 0]
    np.testing.assert_array_equal(seg.predict(gray), seg.predict(np.stack([gray] * 3, 2)))
    assert seg.class_names == ["class 0", "class 1", "class 2"]


def test_both_kinds_agree_with_the_tool(tiny, tmp_path):
    image = tiny.parent / "data" / "images" / "1.png"
    assert run("predict", "--model_path", tiny, "--image_path", image, "--save_dir", tmp_path) == 0
    expected = np.asarray(Image.open(tmp_path / "mask" / "1.png"))
    for folder in (tiny, tiny / "model.pdparams", tiny.parent, tiny.parent / "exported"):
        np.testing.assert_array_equal(segkit.load(folder).predict(image), expected)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 5, 3), np.float32), r"got values of type float32 of at most 0, expected 0\.\.255"),
        (np.zeros((4, 5, 4), np.uint8), r"got the shape \[4, 5, 4\], expected \[height, width, 3\] or"),
        (np.zeros((0, 5, 3), np.uint8), r"array: not a picture \(got uint8 of shape \[0, 5, 3\]"),
        ("nowhere.jpg", r"nowhere.jpg: no such file"),
    ],
)
def test_bad_images(tiny, image, message):
    with pytest.raises(InputError, match=message):
        segkit.load(tiny).predict(image)


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match=r"there is no config.yml beside these weights"):
        segkit.load(tmp_path)
    (tmp_path / "deploy.yaml").write_text("Deploy: {}")
    with pytest.raises(InputError, match=r"Deploy.transforms is missing"):
        segkit.load(tmp_path)


def test_train_evaluate_predict_export(tiny, tmp_path):
    cfg = segkit.Config(tiny.parent / "config.yml")
    model = segkit.train(cfg, save_dir=str(tmp_path / "run"), device="cpu", num_workers=0)
    found = segkit.evaluate(cfg, model, save_dir=str(tmp_path))
    assert found["num_images"] == 3
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    images = tiny.parent / "data" / "images"
    assert segkit.predict(cfg, model, image_path=str(images), save_dir=str(tmp_path / "p"))["images"] == 3
    assert segkit.export(cfg, model, save_dir=str(tmp_path / "e"))["agreement"] == 1.0
    mask = np.asarray(Image.open(tmp_path / "p" / "mask" / "0.png"))
    np.testing.assert_array_equal(segkit.load(Path(tmp_path) / "e").predict(images / "0.png"), mask)


def test_an_unknown_option(tiny):
    cfg = segkit.Config(tiny.parent / "config.yml")
    with pytest.raises(InputError, match=r"unknown option 'batchsize'. Did you mean 'batch_size'\?"):
        segkit.train(cfg, batchsize=3)
