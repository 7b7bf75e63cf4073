"""quantize: an int8 model that runs and is judged, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import openvino
import pytest

from segkit.deploy.spec import DeploySpec
from segkit.engine import quantize
from segkit.engine.segmenter import load
from tests.tiny_model import make_all, photo, run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    out = folder.parent / "exported"
    assert run("export", "--model_path", folder, "--format", "openvino", "--save_dir", out) == 0
    return out


def to(exported, folder, *flags):
    return run("quantize", "--model_path", exported, "--save_dir", folder, "--photos", 3, *flags)


def test_an_int8_model(exported, tmp_path, capsys):
    assert to(exported, tmp_path / "int8", "--max_drop", 1, "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["drop"] == pytest.approx(found["float32"]["mIoU"] - found["int8"]["mIoU"])
    assert found["int8"]["bytes"] < found["float32"]["bytes"] and found["photos"] == 3
    assert re.search(r"int8: mIoU [\d.]+, [\d.]+ MB, [\d.]+ ms a photo", said.err)
    assert sorted(os.listdir(tmp_path / "int8")) == ["config.yml", "deploy.yaml", "model.bin", "model.xml"]
    spec = DeploySpec.load(tmp_path / "int8")
    assert (spec.precision, spec.openvino, spec.model, spec.onnx) == ("int8", "model.xml", None, None)
    int8, float32 = load(tmp_path / "int8").predict(photo(60, 80)), load(exported).predict(photo(60, 80))
    assert (int8 == float32).mean() > 0.9 and len(np.unique(int8)) > 1
    assert to(tmp_path / "int8", tmp_path / "again") == 2
    assert "this model is int8 already" in capsys.readouterr().err


def test_the_first_and_the_last_layer_stay_float32(exported, tmp_path):
    assert to(exported, tmp_path / "int8", "--max_drop", 1) == 0
    model = openvino.Core().read_model(tmp_path / "int8" / "model.xml")
    convolutions = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    is_float = [op.input_value(1).get_node().get_type_name() == "Constant" for op in convolutions]
    assert is_float == [True, *[False] * (len(is_float) - 2), True]
    assert quantize.outer_layers(model) == sorted(op.get_friendly_name() for op in (convolutions[0], convolutions[-1]))


def test_bad_results_are_refused(exported, tmp_path, capsys):
    assert to(exported, tmp_path / "int8", "--max_drop", -1) == 2
    assert re.search(r"int8 costs \S+ of mIoU \(0\.\d+ -> 0\.\d+\), more than --max_drop -1", capsys.readouterr().err)
    assert os.listdir(tmp_path) == []


def test_bad_input(exported, tmp_path, capsys, monkeypatch):
    assert to(exported, exported) == 2
    assert "this is the float32 model's folder" in capsys.readouterr().err
    assert to(exported, tmp_path / "out", "--photos", 0) == 2
    assert "--photos: got 0, expected at least 1" in capsys.readouterr().err
    other = shutil.copytree(exported, tmp_path / "other")
    shutil.move(other / "model.xml", other / "model.onnx")
    text = (other / "deploy.yaml").read_text().replace("openvino: model.xml", "onnx: model.onnx")
    (other / "deploy.yaml").write_text(text)
    assert to(other, tmp_path / "out") == 2
    assert "there is no OpenVINO model to quantize. Export again with --format openvino" in capsys.readouterr().err
    assert run("quantize", "--config", exported / "config.yml") == 2
    assert "--model_path is missing. Give an exported folder" in capsys.readouterr().err
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    assert to(exported, tmp_path / "out") == 2
    assert (
        "segkit quantize needs NNCF. Install the extra quantize: pip install nncf openvino" in capsys.readouterr().err
    )
