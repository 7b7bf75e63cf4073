"""The C++ program of deploy/cpp: the masks of infer, and messages as clear. Needs CMake, a compiler, OpenCV's and yaml-cpp's headers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit import io
from segkit.palette import voc_palette
from tests.tiny_model import PLAIN, RESIZE, make_all, photo, run

SOURCE = Path(__file__).resolve().parents[1] / "deploy" / "cpp"
HEADERS = ("opencv4/opencv2/imgcodecs.hpp", "yaml-cpp/yaml.h")
pytestmark = pytest.mark.skipif(
    not (
        shutil.which("cmake")
        and shutil.which("c++")
        and all((Path("/usr/include") / name).is_file() for name in HEADERS)
    ),
    reason="the C++ program: needs cmake, a compiler, libopencv-dev and libyaml-cpp-dev",
)
SHORT = [{"type": "ResizeByLong", "long_size": 64}, {"type": "Padding", "target_size": [64, 64]}, *PLAIN]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, built with warnings as errors."""
    build = tmp_path_factory.mktemp("cpp")
    flags = [f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_CXX_FLAGS=-Werror", "-DCMAKE_BUILD_TYPE=None"]
    for command in (["cmake", "-S", SOURCE, "-B", build, *flags], ["cmake", "--build", build, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "segkit_infer"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A best_model folder; beside it `xml`, exported for OpenVINO, and `onnx`, with normalisation in the graph."""
    best = make_all(tmp_path_factory.mktemp("tiny"))
    assert run("export", "--model_path", best, "--save_dir", best.parent / "xml", "--format", "openvino") == 0
    flags = ("--format", "onnx", "--fold_preprocess", "--opts", f"val_dataset.transforms={json.dumps(SHORT)}")
    assert run("export", "--model_path", best, "--save_dir", best.parent / "onnx", *flags) == 0
    return best


def call(program, *flags):
    """(exit code, what was said)."""
    done = subprocess.run([str(program), *map(str, flags)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name, transforms", [("xml", RESIZE), ("onnx", SHORT)])
def test_masks_are_those_of_predict(program, tiny, tmp_path, name, transforms):
    for seed, size in enumerate([(61, 83), (140, 97), (48, 64)]):
        io.write_png(tmp_path / "in" / "sub 猫" / f"{seed}.png", photo(*size, seed))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(photo(50, 80, 7)).save(tmp_path / "in" / "turned.jpg", exif=turned, quality=95)
    Image.fromarray(photo(50, 80, 8)).convert("L").save(tmp_path / "in" / "gray.png")
    flags = ("--image_path", tmp_path / "in")
    opts = ("--no_onednn", "--opts", f"val_dataset.transforms={json.dumps(transforms)}")
    assert run("predict", "--model_path", tiny, *flags, "--save_dir", tmp_path / "expected", *opts) == 0
    code, said = call(program, "--config", tiny.parent / name, *flags, "--save_dir", tmp_path / "found")
    assert code == 0, said
    files = sorted(path.relative_to(tmp_path / "found") for path in (tmp_path / "found").rglob("*.png"))
    assert len(files) == 5
    for file in files:
        found, expected = Image.open(tmp_path / "found" / file), Image.open(tmp_path / "expected" / "mask" / file)
        assert found.mode == "P" and found.size == expected.size
        np.testing.assert_array_equal(np.asarray(found.convert("RGB")), voc_palette()[np.asarray(found)])
        same = (np.asarray(found) == np.asarray(expected)).mean()
        assert same >= (0.99 if file.stem == "turned" else 0.999), file
        assert len(np.unique(expected)) > 1


def test_masks_are_named_apart_as_infer_names_them(program, tiny, tmp_path):
    names = ("a.bmp", "a.jpg", "a.png", "A.PNG", "a_png.png", ".hidden.png", "sub/a.png")
    for seed, name in enumerate(names):
        io.write_png(tmp_path / "in" / f"{name}.png", photo(48, 64, seed))
        (tmp_path / "in" / f"{name}.png").rename(tmp_path / "in" / name)
    flags = ("--config", tiny.parent / "xml", "--image_path", tmp_path / "in", "--save_dir")
    assert call(program, *flags, tmp_path / "found")[0] == 0
    assert run("infer", *flags, tmp_path / "expected", "--backend", "openvino") == 0
    found, expected = (sorted((tmp_path / part).rglob("*.png")) for part in ("found", "expected"))
    assert [file.relative_to(tmp_path / "found") for file in found] == [
        file.relative_to(tmp_path / "expected") for file in expected
    ]
    assert len(found) == 6
    for ours, theirs in zip(found, expected):
        assert (np.asarray(Image.open(ours)) == np.asarray(Image.open(theirs))).mean() >= 0.999


def test_mistakes_are_told(program, tiny, tmp_path):
    io.write_png(tmp_path / "good.png", photo(60, 80))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"abc")
    io.write_png(tmp_path / "photos" / "good.png", photo(60, 80))
    Image.fromarray(photo(90, 90)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1500])
    folder = tiny.parent / "xml"
    good = ("--config", folder, "--image_path", tmp_path / "good.png", "--save_dir", tmp_path / "out")

    def said(*flags):
        code, text = call(program, *flags)
        assert code == 2, text
        return text

    def changed(**changes):
        """A copy of the exported folder with another deploy.yaml."""
        other = tmp_path / "other"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(folder, other)
        content = yaml.safe_load((folder / "deploy.yaml").read_text())
        content["Deploy"].update(changes)
        (other / "deploy.yaml").write_text(yaml.safe_dump(content))
        return said("--config", other, *good[2:])

    assert "--image_path is missing" in said("--config", folder)
    assert "--speed: there is no such flag" in said(*good, "--speed", 3)
    assert "--precision: got int4, expected fp32 or bf16" in said(*good, "--precision", "int4")
    assert "nowhere: there is no such file" in said("--config", "nowhere", *good[2:])
    assert "nowhere: there is no such file or folder" in said("--config", folder, "--image_path", "nowhere")
    before = (tmp_path / "good.png").read_bytes()
    assert "would overwrite this photo. Choose another --save_dir" in said(*good[:4], "--save_dir", tmp_path)
    assert (tmp_path / "good.png").read_bytes() == before
    assert "cut.jpg: not a readable image" in said("--config", folder, "--image_path", tmp_path / "cut.jpg", *good[4:])
    text = said("--config", folder, "--image_path", tmp_path / "photos", *good[4:])
    assert text.startswith("1 of 2 photos could not be segmented, the others are done:") and "bad.jpg" in text
    assert (tmp_path / "out" / "good.png").is_file()
    assert "Deploy.transforms.0: this program does not know RandomBlur" in changed(transforms=[{"type": "RandomBlur"}])
    assert "Resize: there is no argument `size`" in changed(transforms=[{"type": "Resize", "size": 3}])
    assert "Resize: wrong value of `target_size`" in changed(transforms=[{"type": "Resize", "target_size": "a"}])
    assert "the model takes 48 rows and 64 columns, but the transforms give 60 and 80" in changed(transforms=PLAIN)
    assert f"{tmp_path / 'good.png'}: {tmp_path}" in changed(transforms=PLAIN)
    assert f"{tmp_path / 'good.png'}: " in changed(img_channels=1, transforms=RESIZE[:1])  # OpenVINO's own words
    assert "Deploy.test_config: sliding windows are not" in changed(test_config={"is_slide": True, "crop_size": 64})
    assert "Deploy.multilabel is not done by this program" in changed(multilabel=True)
    assert "Deploy.scores_are is not done by this program (got distances)" in changed(scores_are="distances")
    assert "Deploy.openvino names gone.xml, which is not in" in changed(openvino="gone.xml")
    assert "holds no model that OpenVINO reads. Export it with --format openvino" in changed(openvino=None)
    (tmp_path / "other" / "deploy.yaml").write_text("Deploy:\n  a: [1\n")
    assert "this is not valid YAML" in said("--config", tmp_path / "other", *good[2:])
    (tmp_path / "other" / "deploy.yaml").write_text((folder / "deploy.yaml").read_text())
    (tmp_path / "other" / "model.xml").write_text("<net>")
    assert "model.xml: OpenVINO cannot load this model" in said("--config", tmp_path / "other", *good[2:])
