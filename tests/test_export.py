"""export: what is written, that it agrees with the model, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import yaml

from segkit import Config, io
from segkit.deploy.backends.choice import made_up_photo
from segkit.deploy.spec import DeploySpec
from segkit.engine import agreement, convert, export, paddle2
from segkit.engine.export import output_folder
from segkit.engine.segmenter import load, load_model
from segkit.errors import InputError
from segkit.options import ExportOptions
from segkit.registry import MODELS
from tests.tiny_model import PLAIN, RESIZE, make_all, make_config, make_data, make_weights, photo, run

PLAIN_FLAGS = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("tiny"), class_names=["ground", "großer Vogel", "猫"])


def to(tiny, folder, *flags):
    return run("export", "--model_path", tiny, "--save_dir", folder, *flags)


def test_what_is_written(tiny, tmp_path, capsys):
    assert to(tiny, tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["config.yml", "deploy.yaml", "model.json", "model.pdiparams"]
    assert os.listdir(tmp_path) == ["out"]
    node = yaml.safe_load((tmp_path / "out" / "deploy.yaml").read_text(encoding="utf-8"))["Deploy"]
    assert node["model"] == "model.json" and node["params"] == "model.pdiparams"
    assert node["transforms"] == RESIZE
    assert node["input_shape"] == [-1, 3, 48, 64]
    assert (node["output_op"], node["output_dtype"]) == ("none", "float32")
    assert node["num_classes"] == 3 and node["classes"] == ["ground", "großer Vogel", "猫"]
    assert node["palette"][1] == [128, 0, 0] and len(node["palette"]) == 3
    assert (node["img_channels"], node["threshold"], node["multilabel"]) == (3, None, False)
    said = capsys.readouterr().err
    for number in range(3):
        expected = rf"paddle agrees with the trained model on \S+{number}.png: largest difference \S+ .* 100.0000 % of"
        assert re.search(expected, said)
    assert Config.from_model_path(tmp_path / "out").data == Config.from_model_path(tiny).data


def test_a_graph_for_every_size(tiny, tmp_path):
    assert to(tiny, tmp_path / "out", *PLAIN_FLAGS) == 0
    assert DeploySpec.load(tmp_path / "out").input_shape == [-1, 3, -1, -1]
    cfg = Config.from_model_path(tiny).update({"val_dataset.transforms": PLAIN})
    from segkit.engine.segmenter import from_model

    trained, exported = from_model(cfg, load_model(cfg, tiny)), load(tmp_path / "out")
    for size in ((97, 131), (64, 64), (33, 200)):
        np.testing.assert_array_equal(trained.predict(photo(*size)), exported.predict(photo(*size)))


@pytest.mark.parametrize("op", ["softmax", "argmax"])
def test_output_ops(tiny, tmp_path, op):
    assert to(tiny, tmp_path / "out", "--output_op", op) == 0
    spec = DeploySpec.load(tmp_path / "out")
    assert (spec.output_op, spec.output_dtype) == (op, "uint8" if op == "argmax" else "float32")
    trained, exported = load(tiny), load(tmp_path / "out")
    image = photo(48, 64)
    np.testing.assert_array_equal(exported.predict(image), trained.predict(image))
    if op == "softmax":
        big = photo(90, 100)
        np.testing.assert_array_equal(exported.predict(big), trained.predict(big))
        np.testing.assert_allclose(exported.predict_proba(big), trained.predict_proba(big), atol=1e-5)
    else:
        with pytest.raises(InputError, match="exported with --output_op argmax, which keeps no probabilities"):
            exported.predict_proba(image)
        exported.threshold = 0.5
        with pytest.raises(InputError, match="a threshold needs scores"):
            exported.predict(image)


@pytest.mark.parametrize("op", ["none", "softmax", "argmax"])
def test_one_sigmoid_channel(tmp_path, op):
    make_data(tmp_path / "data", classes=2)
    node = {"type": "UNet", "base_channels": 4, "num_classes": 1}
    folder = make_weights(make_config(tmp_path, model=node, num_classes=2), tmp_path / "best_model")
    assert to(folder, tmp_path / "out", "--output_op", op) == 0
    trained, exported, image = load(folder), load(tmp_path / "out"), photo(48, 64)
    mask = exported.predict(image)
    np.testing.assert_array_equal(mask, trained.predict(image))
    assert set(np.unique(mask)) <= {0, 1}
    if op != "argmax":
        np.testing.assert_allclose(exported.predict_proba(image), trained.predict_proba(image), atol=1e-5)


def test_several_labels_a_pixel(tmp_path):
    make_data(tmp_path / "data")
    folder = make_weights(make_config(tmp_path, use_multilabel=True), tmp_path / "best_model")
    assert to(folder, tmp_path / "out", "--output_op", "softmax") == 0
    image = photo(48, 64)
    np.testing.assert_array_equal(load(tmp_path / "out").predict(image), load(folder).predict(image))
    with pytest.raises(InputError, match="argmax: a pixel may have several labels here"):
        export.check(Config.from_model_path(folder), ExportOptions(output_op="argmax"))


def test_the_older_format(tiny, tmp_path):
    """This Paddle either writes .pdmodel, and it works, or says that it cannot."""
    cfg = Config.from_model_path(tiny)
    options = ExportOptions(save_dir=str(tmp_path / "out"), format="paddle2")
    try:
        export.export(cfg, load_model(cfg, tiny), options)
    except InputError as error:
        assert "cannot write model.pdmodel" in str(error)
        assert not (tmp_path / "out").exists()
        return
    assert sorted(os.listdir(tmp_path / "out")) == ["config.yml", "deploy.yaml", "model.pdiparams", "model.pdmodel"]
    np.testing.assert_array_equal(load(tmp_path / "out").predict(photo(50, 60)), load(tiny).predict(photo(50, 60)))


def test_a_paddle_without_the_older_format(tiny, tmp_path, monkeypatch):
    class Done:
        returncode, stderr = 1, "warning\nRuntimeError: no such thing\n"

    monkeypatch.setattr(paddle2.subprocess, "run", lambda *args, **kwargs: Done)
    cfg = Config.from_model_path(tiny)
    with pytest.raises(InputError, match=r"cannot write model.pdmodel \(RuntimeError: no such thing\)"):
        export.export(cfg, load_model(cfg, tiny), ExportOptions(save_dir=str(tmp_path / "out"), format="paddle2"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("op, said", [("none", "largest difference .* % of"), ("argmax", r"0.png: [\d.]+ % of")])
def test_a_graph_that_disagrees_is_refused(tiny, tmp_path, monkeypatch, op, said):
    cfg = Config.from_model_path(tiny)
    original = export.save_graph

    def save_and_change(model, folder, shape):
        original(model, folder, shape)
        weight = model.parameters()[-2]
        weight.set_value(-weight)

    monkeypatch.setattr(export, "save_graph", save_and_change)
    with pytest.raises(RuntimeError, match=rf"disagrees with the trained one .*{said} pixels agree"):
        export.export(cfg, load_model(cfg, tiny), ExportOptions(save_dir=str(tmp_path / "out"), output_op=op))
    assert os.listdir(tmp_path) == []


def test_small_differences_of_scores_are_seen(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "MAX_DIFFERENCE", -1)
    cfg = Config.from_model_path(tiny)
    with pytest.raises(RuntimeError, match=r"100.000 % of pixels agree"):
        export.export(cfg, load_model(cfg, tiny), ExportOptions(save_dir=str(tmp_path / "out")))


def test_without_the_data(tiny, tmp_path, capsys):
    flags = ("--opts", "val_dataset.dataset_root=nowhere", "train_dataset.dataset_root=nowhere")
    for number, more in enumerate(((), (f"val_dataset.transforms={json.dumps(PLAIN)}",))):
        assert to(tiny, tmp_path / str(number), *flags, *more) == 0
        assert "on a random photo of " in capsys.readouterr().err


class Picky(paddle.nn.Layer):
    """Takes multiples of 16 only."""

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__()
        self.down = paddle.nn.Conv2D(in_channels, 8, 16, stride=16)
        self.up = paddle.nn.Conv2DTranspose(8, num_classes, 16, stride=16)
        self.skip = paddle.nn.Conv2D(in_channels, num_classes, 1)

    def forward(self, x):
        return [self.up(self.down(x)) + self.skip(x)]


def test_a_model_that_takes_some_sizes_only(tmp_path, monkeypatch, capsys):
    """A made-up photo of another size is left out where the transforms or the trained model cannot take it."""
    monkeypatch.setitem(MODELS._classes, "Picky", Picky)
    padded = [{"type": "Padding", "target_size": [144, 112]}, {"type": "Normalize"}]
    folder = make_all(tmp_path, model={"type": "Picky"}, transforms=padded)
    assert to(folder, tmp_path / "out", "--input_shape", -1, 3, -1, -1) == 0
    said = capsys.readouterr().err
    assert "not checked on a random photo of 421x333 pixels: the image does not fit into Padding" in said
    assert said.count("agrees with the trained model on") == 3
    for number in range(3):
        io.write_png(tmp_path / "data" / "images" / f"{number}.png", photo(48, 64))
    assert to(folder, tmp_path / "out", "--opts", f"val_dataset.transforms={json.dumps(PLAIN)}") == 0
    said = capsys.readouterr().err
    assert "not checked on a random photo of 421x333 pixels, which the trained model cannot take: " in said
    assert said.count("agrees with the trained model on") == 3


def test_the_scores_of_a_made_up_photo_count_and_not_its_pixels(tiny, tmp_path):
    assert to(tiny, tmp_path / "out") == 0
    spec, x = DeploySpec.load(tmp_path / "out"), np.zeros((3, 8, 8), np.float32)
    near = np.zeros((3, 8, 8), np.float32)
    near[1] = 1e-6  # the trained model's classes are all 0, the export's all 1
    for factor, good in ((1, True), (1e4, False)):
        exported = SimpleNamespace(run=lambda batch, factor=factor: factor * near[None])
        found = agreement.MadeUp("made up", np.zeros((8, 8, 3), np.uint8), x, [])
        with contextlib.nullcontext() if good else pytest.raises(RuntimeError, match="on made up: largest difference"):
            assert agreement._check(x, spec, exported, found, "paddle")["agreement"] == 0
    with pytest.raises(RuntimeError, match=r"0.000 % of pixels agree"):
        exported = SimpleNamespace(run=lambda batch: near[None])
        agreement._check(x, spec, exported, agreement.Photo("val.png", found.image, x, []), "paddle")


@pytest.mark.parametrize("shape", [(333, 421, 3), (5, 7, 1), (64, 48, 8)])
def test_made_up_photos_have_texture(shape):
    found = made_up_photo(*shape)
    assert found.shape == shape and found.dtype == np.uint8
    flat = np.diff(found.astype(int), axis=1) == 0
    assert flat.mean() < 0.3 and 60 < found.mean() < 190


def test_a_second_export_replaces_the_first_and_keeps_what_others_wrote(tiny, tmp_path):
    folder = tmp_path / "out"
    assert to(tiny, folder, "--output_op", "argmax") == 0
    (folder / "notes.txt").write_text("mine")
    assert to(tiny, folder) == 0
    assert DeploySpec.load(folder).output_op == "none"
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_replaced_loses_nothing(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    replace = os.replace

    def refuse(source, target):
        if Path(source).name == "out":
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    refused = pytest.raises(InputError, match=r"out: cannot be replaced \(Device or resource busy\)\. Choose another")
    with refused, output_folder(tmp_path / "out") as folder:
        (folder / "model.json").write_text("{}")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["notes.txt"]


def test_fixed_shape(tiny, tmp_path, capsys):
    assert to(tiny, tmp_path / "out", "--input_shape", 1, 3, 48, 64) == 0
    assert DeploySpec.load(tmp_path / "out").input_shape == [1, 3, 48, 64]
    assert to(tiny, tmp_path / "other", "--input_shape", -1, 3, -1, -1) == 0
    assert DeploySpec.load(tmp_path / "other").input_shape == [-1, 3, -1, -1]
    capsys.readouterr()
    assert to(tiny, tmp_path / "no", "--input_shape", 1, 3, 64, 48) == 2
    assert "--input_shape 1 3 64 48: the transforms bring" in capsys.readouterr().err


def test_own_transforms_of_deployment(tiny, tmp_path, capsys):
    nodes = [{"type": "Resize", "target_size": [32, 32]}, {"type": "Normalize"}]
    assert to(tiny, tmp_path / "out", "--opts", f"export.transforms={json.dumps(nodes)}") == 0
    assert DeploySpec.load(tmp_path / "out").transforms == nodes
    assert "export.transforms differ from val_dataset.transforms" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--input_shape", 1, 4, 32, 32), r"got 4 channels, but the data set has img_channels: 3. Give 1 3 32 32"),
        (("--input_shape", 1, 3, 0, 32), r"--input_shape: got \[1, 3, 0, 32\], expected N C H W, each above 0"),
        (("--save_dir", "{file}"), r"this is a file. Choose another --save_dir"),
        (("--save_dir", "{folder}"), r"there are other files in this folder, and it would be replaced"),
        (("--save_dir", "{file}/x"), r"cannot be written"),
    ],
)
def test_bad_input(tiny, tmp_path, capsys, flags, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    io.write_png(tmp_path / "folder" / "a.png", photo(8, 8))
    given = [str(flag).format(file=tmp_path / "file", folder=tmp_path / "folder") for flag in flags]
    assert to(tiny, tmp_path / "out", *given) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_without_weights(tiny, tmp_path, capsys):
    assert run("export", "--config", tiny / "config.yml", "--save_dir", tmp_path / "out") == 2
    assert "--model_path is missing" in capsys.readouterr().err


def test_the_model_is_left_as_it_was(tiny, tmp_path):
    cfg = Config.from_model_path(tiny)
    model = load_model(cfg, tiny)
    model.train()
    export.export(cfg, model, ExportOptions(save_dir=str(tmp_path / "out")))
    assert model.training and all(layer.training for layer in model.sublayers())


def test_weights_alone(tiny, tmp_path):
    assert to(tiny, tmp_path / "out", "--format", "safetensors") == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["config.yml", "model.safetensors"]
    np.testing.assert_array_equal(load(tmp_path / "out").predict(photo(33, 50)), load(tiny).predict(photo(33, 50)))


def test_weights_alone_take_the_place_of_an_older_export_and_a_graph_that_of_weights(tiny, tmp_path, capsys):
    cfg, folder = Config.from_model_path(tiny), tmp_path / "out"
    assert to(tiny, folder) == 0
    (folder / "notes.txt").write_text("mine")
    model = load_model(cfg, tiny)
    for weight in model.parameters():
        weight.set_value(-weight)
    export.export(cfg, model, ExportOptions(save_dir=str(folder), format="safetensors"))
    assert sorted(os.listdir(folder)) == ["config.yml", "model.safetensors", "notes.txt"]
    mask = load(folder).predict(photo(33, 50))
    assert (mask != load(tiny).predict(photo(33, 50))).any()
    assert to(tiny, folder) == 0
    assert sorted(os.listdir(folder)) == ["config.yml", "deploy.yaml", "model.json", "model.pdiparams", "notes.txt"]
    assert to(tiny, tiny, "--format", "safetensors") == 2
    assert "best_model: there are other files in this folder" in capsys.readouterr().err


def test_weights_alone_appear_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    cfg, folder = Config.from_model_path(tiny), tmp_path / "out"
    assert to(tiny, folder) == 0
    before = sorted(os.listdir(folder))

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Config, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export.export(cfg, load_model(cfg, tiny), ExportOptions(save_dir=str(folder), format="safetensors"))
    assert sorted(os.listdir(folder)) == before and os.listdir(tmp_path) == ["out"]


def test_formats_whose_packages_are_not_installed(tiny, tmp_path, capsys, monkeypatch):
    here, missing = convert.importlib.util.find_spec, []
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None if name in missing else here(name))
    for absent, flag, message in (
        (
            ("paddle2onnx",),
            "onnx",
            r"--format onnx: not installed: paddle2onnx\. .* extra onnx: pip install paddle2onnx\.",
        ),
        (
            ("openvino",),
            "openvino",
            r"--format openvino: not installed: openvino\. .* extra openvino: pip install openvino\.",
        ),
        (
            ("onnxslim", "openvino"),
            "all",
            r"onnxslim, openvino\. .* extra onnx and openvino: pip install onnxslim openvino\.",
        ),
    ):
        missing[:] = absent
        assert to(tiny, tmp_path / "out", "--format", flag) == 2
        assert re.search(message, capsys.readouterr().err)
    assert os.listdir(tmp_path) == []


def test_a_model_that_onnx_cannot_say(tiny, tmp_path, monkeypatch):
    class Done:
        returncode, stdout, stderr = 1, "", "noise\nRuntimeError: (NotFound) no such operator\n"

    monkeypatch.setattr(convert.subprocess, "run", lambda *args, **kwargs: Done)
    with pytest.raises(
        InputError, match=r"paddle2onnx \S+ cannot convert this model \(RuntimeError: \(NotFound\) no such"
    ):
        convert.to_onnx(tmp_path)


def test_a_graph_that_openvino_cannot_read(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"--format openvino: OpenVINO \S+ cannot convert this model"):
        convert.to_openvino(tmp_path)


@pytest.mark.parametrize("names", [[], ["Normalize", "Resize"]])
def test_normalisation_that_cannot_be_folded(tiny, tmp_path, capsys, names):
    nodes = [{"type": name, **({"target_size": [32, 32]} if name == "Resize" else {})} for name in names]
    opts = ("--opts", f"val_dataset.transforms={json.dumps(nodes)}")
    assert to(tiny, tmp_path / "out", "--fold_preprocess", *opts) == 2
    assert "--fold_preprocess needs Normalize as the last of the transforms" in capsys.readouterr().err
