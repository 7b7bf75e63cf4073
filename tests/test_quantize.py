"""quantize: an int8 model that runs and is judged, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import openvino
import pytest

from segkit.deploy.spec import DeploySpec
from segkit.engine import quantize
from segkit.engine.segmenter import load
from segkit.errors import InputError
from segkit.options import QuantizeOptions
from tests.tiny_model import make_all, photo, run

ANY = ("--max_class_drop", 1, "--min_agreement", 0)  # noise has no class that int8 could keep


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    out = folder.parent / "exported"
    assert run("export", "--model_path", folder, "--format", "openvino", "--save_dir", out) == 0
    return out


def to(exported, folder, *flags):
    return run("quantize", "--model_path", exported, "--save_dir", folder, "--photos", 3, *ANY, *flags)


def test_an_int8_model(exported, tmp_path, capsys):
    assert to(exported, tmp_path / "int8", "--max_drop", 1, "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["drop"] == pytest.approx(found["float32"]["mIoU"] - found["int8"]["mIoU"])
    assert found["int8"]["bytes"] < found["float32"]["bytes"] and found["photos"] == 3
    kept = 100 * found["agreement"]
    assert f"int8 leaves {kept:.3f} % of the val set's pixels as they were; " in said.err and 90 < kept < 100
    assert found["worst_class"]["float32"] >= found["worst_class"]["int8"] > 0
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


def test_what_pixels_and_single_classes_may_cost(exported, tmp_path, capsys):
    """mIoU alone would let it pass."""
    bounds = ("--max_drop", 1, "--min_agreement", 0.99999, "--max_class_drop", -1)
    assert to(exported, tmp_path / "int8", *bounds) == 2
    said = capsys.readouterr().err
    assert re.search(r"int8 costs \S+ of the IoU of .+, more than --max_class_drop -1.0; and \S+ % of the pixels", said)
    assert "expected at least --min_agreement 0.99999" in said and os.listdir(tmp_path) == []


def test_what_is_no_number_is_refused():
    rows = {"float32": {"mIoU": float("nan")}, "int8": {"mIoU": 0.5}}
    worst = {"name": "a", "float32": 0.5, "int8": 0.5}
    with pytest.raises(InputError, match=r"int8 costs nan of mIoU .*; and nan % of the pixels"):
        quantize._refuse(rows, float("nan"), worst, float("nan"), QuantizeOptions())


@pytest.mark.parametrize("length, count", [(560, 100), (199, 100), (7, 100), (1, 3)])
def test_photos_come_from_the_whole_list(monkeypatch, length, count):
    read = []

    class Model:
        def prepare(self, path):
            read.append(path)
            return path

        def first_batch(self, path, at):
            assert 0 <= at < 1
            return np.zeros((1, 3, 4, 4), np.float32)

    files = SimpleNamespace(files=[(number, None) for number in range(length)])
    monkeypatch.setattr(quantize, "build_dataset", lambda cfg, part: files)
    photos = quantize._Photos(None, Model(), -1, count)
    assert read == [] and len(list(photos)) == photos.count == min(length, count)
    assert (
        read[0] == 0
        and read[-1] == length - 1
        and len(set(np.diff(read)) - {length // count, length // count + 1}) == 0
    )
    read.clear()
    in_twos = quantize._Photos(None, Model(), 2, count)
    assert [batch.shape[0] for batch in in_twos] == [2] * -(-min(length, count) // 2) and in_twos.count == photos.count


def test_windows_and_a_graph_of_several_photos(exported, tmp_path, capsys):
    """Calibrated on windows, and judged with them, as the config says."""
    folder, config = tmp_path / "exported", exported.parent / "best_model"
    plain = ("val_dataset.transforms=[{type: Normalize}]", "test_config.is_slide=true", "test_config.crop_size=[48,48]")
    flags = ("--format", "openvino", "--input_shape", 2, 3, 48, 48, "--save_dir", folder, "--opts", *plain)
    assert run("export", "--model_path", config, *flags) == 0
    assert run("val", "--model_path", folder, "--save_dir", tmp_path / "m") == 0
    expected = json.loads((tmp_path / "m" / "metrics.json").read_text())["mIoU"]
    capsys.readouterr()
    assert to(folder, tmp_path / "int8", "--max_drop", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["float32"]["mIoU"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("op", ["none", "argmax"])
def test_a_graph_for_whole_photos_whatever_the_config_says(exported, tmp_path, op):
    """As `--output_op argmax` writes it, and exports did before they kept windows."""
    folder, windows = exported, ("--opts", "test_config.is_slide=true", "test_config.crop_size=[32,32]")
    if op == "argmax":
        folder, flags = tmp_path / "classes", ("--format", "openvino", "--output_op", op, *windows)
        assert run("export", "--model_path", exported.parent / "best_model", "--save_dir", folder, *flags) == 0
    assert to(folder, tmp_path / "int8", "--max_drop", 1, *windows) == 0


def test_a_class_that_one_stray_pixel_brings_in():
    before, after = ({"class_iou": [0.9, 0.8, *others]} for others in ((None, 0.0, None), (0.0, None, None)))
    assert quantize._drop(before, after) == 0
    after["class_iou"][1] = 0.6
    assert quantize._drop(before, after) == pytest.approx(0.1)
    assert quantize._drop({"class_iou": [None]}, {"class_iou": [None]}) == 0


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
