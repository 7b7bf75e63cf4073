"""deploy/lite/convert.py: ncnn says what the exported model says. Needs the packages pnnx and ncnn."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from segkit import io
from segkit.errors import InputError
from tests.tiny_model import make_all, photo, run

TOOL = Path(__file__).resolve().parents[1] / "deploy" / "lite"


@pytest.fixture(scope="module")
def convert():
    """The tool as a module."""
    sys.path.insert(0, str(TOOL))
    try:
        import convert
    finally:
        sys.path.remove(str(TOOL))
    return convert


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with model.onnx, and a photo beside it."""
    best = make_all(tmp_path_factory.mktemp("lite"))
    assert run("export", "--model_path", best, "--save_dir", best.parent / "exported", "--format", "onnx") == 0
    io.write_png(best.parent / "photo.png", photo(60, 90))
    return best.parent / "exported"


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pnnx", "ncnn"))), reason="ncnn: needs its packages (pip install pnnx ncnn)"
)
@pytest.mark.parametrize("precision, share, difference", [("fp32", 0.999, 1e-3), ("fp16", 0.99, 0.2)])
def test_ncnn_agrees(convert, exported, tmp_path, precision, share, difference):
    image = str(exported.parent / "photo.png")
    flags = ["--config", str(exported), "--image_path", image, "--save_dir", str(tmp_path), "--precision", precision]
    result = convert.main(flags)
    assert result["agreement"] >= share and 0 < result["max_difference"] < difference
    assert {file.name for file in tmp_path.iterdir()} == {"model.ncnn.param", "model.ncnn.bin", "deploy.yaml"}


@pytest.mark.parametrize(
    "change, flags, message",
    [
        ({"output_op": "argmax"}, (), "the graph ends in argmax. Export the model with --output_op none"),
        ({"scores_are": "distances"}, (), "its scores are distances (expected logits). Use infer.py"),
        ({"input_dtype": "uint8", "input_layout": "NHWC"}, (), "without --fold_preprocess"),
        ({"input_shape": [-1, 3, -1, -1]}, (), "the model takes any size, ncnn one. Give it: --input_size H W"),
        ({}, ("--image_path", "nowhere.png"), "nowhere.png: there is no such file"),
        ({}, ("--image_path", "0"), "--image_path 0: there is no photo to compare on (got videos or cameras alone)"),
        ({}, ("--input_sise", "3"), "Did you mean '--input_size'"),
    ],
)
def test_mistakes_are_told(convert, exported, tmp_path, change, flags, message):
    content = yaml.safe_load((exported / "deploy.yaml").read_text())
    content["Deploy"].update(change)
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "model.onnx").write_bytes(b"")
    image = str(exported.parent / "photo.png")
    with pytest.raises(InputError) as caught:
        convert.main(["--config", str(tmp_path), "--image_path", image, "--save_dir", str(tmp_path / "out"), *flags])
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
