"""infer: masks of predict from an exported folder, without the training code; and what is refused."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit import io
from segkit.deploy import backends, timing
from segkit.deploy import infer as infer_module
from segkit.deploy.backends import paddle_inference
from segkit.deploy.infer import infer
from segkit.deploy.spec import DeploySpec
from segkit.engine.segmenter import load
from segkit.errors import InputError
from segkit.options import InferOptions
from segkit.palette import voc_palette
from tests.tiny_model import PLAIN, make_all, photo, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A best_model folder; its export lies beside it."""
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    assert run("export", "--model_path", folder, "--save_dir", folder.parent / "exported") == 0
    opts = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    assert run("export", "--model_path", folder, "--save_dir", folder.parent / "any_size", *opts) == 0
    return folder


@pytest.fixture
def exported(tiny):
    return tiny.parent / "exported"


def run_infer(exported, images, save_dir, *flags):
    return run("infer", "--config", exported / "deploy.yaml", "--image_path", images, "--save_dir", save_dir, *flags)


def masks(folder):
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in folder.rglob("*.png")}


@pytest.mark.parametrize("name, batch", [("exported", 1), ("exported", 3), ("any_size", 2)])
def test_masks_are_those_of_predict_on_real_photos(tiny, shared, tmp_path, name, batch):
    photos = sorted((shared / "data" / "cats8" / "images").iterdir(), key=lambda path: np.prod(io.image_size(path)))
    photos = photos if name == "exported" else photos[:3]
    images = tmp_path / "photos.txt"
    images.write_text("\n".join(map(str, photos)))
    opts = () if name == "exported" else ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    flags = ("--model_path", tiny, "--image_path", images, *opts)
    assert run("predict", *flags, "--save_dir", tmp_path / "p", "--no_onednn") == 0
    assert run("predict", *flags, "--save_dir", tmp_path / "fast") == 0
    plain = ("--batch_size", batch, "--enable_mkldnn", False)
    assert run_infer(tiny.parent / name, images, tmp_path / "i", *plain) == 0
    assert run_infer(tiny.parent / name, images, tmp_path / "onednn", "--batch_size", batch) == 0
    found, others = masks(tmp_path / "i"), [tmp_path / "p" / "mask", tmp_path / "fast" / "mask", tmp_path / "onednn"]
    assert len(found) == len(photos) and all(len(np.unique(mask)) > 1 for mask in found.values())
    for other in map(masks, others):
        assert set(other) == set(found)
        assert np.mean(np.concatenate([(other[key] == mask).ravel() for key, mask in found.items()])) >= 0.9999


def test_masks_are_bit_for_bit_those_of_predict_with_the_kernels_that_mkl_chooses(tiny, root, tmp_path):
    """Those for AVX2, which segkit asks for on AMD's CPUs, divide products differently in a graph and in training."""
    images = tmp_path / "in"
    for number, size in enumerate([(97, 131), (300, 200), (200, 333)]):
        io.write_png(images / f"{number}.png", photo(*size, number))
    environment, flags = {**os.environ, "MKL_DEBUG_CPU_TYPE": "0"}, ["--image_path", images, "--save_dir"]
    infer = ["infer", "--config", tiny.parent / "exported", "--enable_mkldnn", "False", *flags, tmp_path / "i"]
    for command in (["predict", "--model_path", tiny, "--no_onednn", *flags, tmp_path / "p"], infer):
        whole = [sys.executable, "-m", "segkit", *map(str, command)]
        subprocess.run(whole, env=environment, cwd=root, check=True, capture_output=True, timeout=100)
    found, expected = masks(tmp_path / "i"), masks(tmp_path / "p" / "mask")
    assert set(found) == set(expected) and len(found) == 3
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, expected[name])


def test_what_is_written(exported, tmp_path):
    io.write_png(tmp_path / "in" / "sub" / "猫.png", photo(50, 70))
    assert run_infer(exported, tmp_path / "in", tmp_path / "out", "--added") == 0
    found = Image.open(tmp_path / "out" / "sub" / "猫.png")
    assert found.mode == "P" and found.size == (70, 50)
    np.testing.assert_array_equal(found.convert("RGB"), voc_palette()[np.asarray(found)])
    overlay = np.asarray(Image.open(tmp_path / "out" / "added_prediction" / "sub" / "猫.png")).astype(float)
    np.testing.assert_allclose(overlay, 0.6 * photo(50, 70) + 0.4 * voc_palette()[np.asarray(found)], atol=1)


def test_benchmark(exported, tmp_path, monkeypatch, logged):
    monkeypatch.setattr(infer_module, "_ALONE", 5)
    for number in range(4):
        io.write_png(tmp_path / "in" / f"{number}.png", photo(20, 20 + number))
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    options = InferOptions(config=str(exported), image_path=str(tmp_path / "in"), save_dir=str(tmp_path / "o"))
    options.benchmark = True
    with pytest.raises(InputError, match="1 of 5 inputs could not be segmented, the others are done"):
        infer(options)
    (tmp_path / "in" / "bad.png").unlink()
    result = infer(options)
    found = result["benchmark"]
    assert result["images"] == found["images"] == 4 and found["latency_photos"] == 5
    assert list(found["latency"]) == ["read", "run", "mask", "write", "end to end"]
    for row in found["latency"].values():
        assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
    parts = sum(row["median_ms"] for name, row in found["latency"].items() if name != "end to end")
    assert found["latency"]["end to end"]["p99_ms"] > parts / 2
    assert found["images_per_second"] == pytest.approx(4 / found["seconds"], rel=0.01)
    assert set(found["busy"]) == set(found["seconds_by_stage"]) == {"read", "run", "mask", "write"}
    for name, share in found["busy"].items():
        spent = found["seconds_by_stage"][name] / (found["threads"][name] * found["seconds"])
        assert 0 <= share <= 1 and share == pytest.approx(spent, rel=0.02, abs=3e-3)  # seconds come rounded to 0.1 ms
    assert found["peak_memory_mib"] > 10
    assert json.loads(json.dumps(result)) == result
    assert re.search(r"end to end +\d+\.\d\d .*\n.*images in .* a second, peak memory .*\nbound by ", "\n".join(logged))
    assert set(found["waits"]) == {"read", "finish"} and sum(found["waits"].values()) <= 1


def test_what_bounds_the_run():
    clock = timing.Clock()
    clock.seconds.update(mask=[0.2], write=[0.3])
    for read, finish, expected in ((6, 1, "decode + preprocess"), (1, 1, "run"), (1, 6, "write")):
        clock.waits.update(read=read, finish=finish)
        assert timing.bound_by(clock, 10.0) == expected
    clock = timing.Clock()
    with clock.stage("run", 4):
        pass
    assert len(clock.seconds["run"]) == 4 and len(set(clock.seconds["run"])) == 1


def test_a_fixed_batch_is_filled_up(tiny, tmp_path):
    folder = tmp_path / "fixed"
    assert run("export", "--model_path", tiny, "--save_dir", folder, "--input_shape", 2, 3, 48, 64) == 0
    for number in range(3):
        io.write_png(tmp_path / "in" / f"{number}.png", photo(40, 60, number))
    assert run_infer(folder, tmp_path / "in", tmp_path / "out", "--batch_size", 3) == 0
    for number in range(3):
        expected = load(tiny).predict(photo(40, 60, number))
        np.testing.assert_array_equal(masks(tmp_path / "out")[f"{number}.png"], expected)


def test_paddlesegs_own_file(exported, tmp_path):
    """Without classes and palette, as PaddleSeg writes it."""
    folder = shutil.copytree(exported, tmp_path / "old")
    node = yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]
    kept = {key: node[key] for key in ("model", "params", "input_shape", "output_op", "output_dtype", "transforms")}
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": kept}))
    io.write_png(tmp_path / "a.png", photo(30, 40))
    assert run_infer(folder, tmp_path / "a.png", tmp_path / "out") == 0
    np.testing.assert_array_equal(masks(tmp_path / "out")["a.png"], load(exported).predict(photo(30, 40)))


def test_threshold_of_the_file(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "cut")
    text = (folder / "deploy.yaml").read_text().replace("threshold: null", "threshold: 0.4")
    (folder / "deploy.yaml").write_text(text)
    mask, prob = load(folder).predict(photo(30, 40)), load(exported).predict_proba(photo(30, 40)).max(0)
    sure = abs(prob - 0.4) > 1e-5
    np.testing.assert_array_equal((mask == 255)[sure], (prob < 0.4)[sure])
    assert 0 < (mask == 255).sum() < mask.size


def test_one_corrupt_photo_does_not_stop_the_others(exported, tmp_path, capsys):
    io.write_png(tmp_path / "in" / "a.png", photo(20, 20))
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    assert run_infer(exported, tmp_path / "in", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "1 of 2 inputs could not be segmented, the others are done:" in said and "bad.png" in said
    assert list(masks(tmp_path / "out")) == ["a.png"]


def test_the_door_works_from_another_folder(exported, root, tmp_path):
    io.write_png(tmp_path / "a.png", photo(20, 20))
    command = [sys.executable, root / "deploy" / "python" / "infer.py", "--config", exported / "deploy.yaml"]
    flags = ["--image_path", "a.png", "--save-dir", "out", "--json", "--quiet"]
    done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"images": 1, "save_dir": "out"}
    assert (tmp_path / "out" / "a.png").is_file()


def test_deploy_never_imports_the_training_code(root):
    for path in (root / "segkit" / "deploy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in found:
                assert not re.match(r"segkit\.(engine|models|losses|datasets|optim|metrics|cli)|paddle\.nn", name), path
                assert path.name == "paddle_inference.py" or not name.startswith("paddle"), path


CHANGES = [
    ("model: model.json", "model: 3", r"Deploy.model: got 3, expected a file name"),
    ("model: model.json", "model: gone.json", r"Deploy.model names gone.json, which is not in"),
    ("params: model.pdiparams", "parms: x", r"Deploy.params is missing. Export the model again"),
    ("Deploy:", "Deplo:", r"there is no section 'Deploy:'"),
    ("Deploy:", "Deploy: [", r"deploy.yaml:\d+: this is not valid YAML"),
    ("[-1, 3, 48, 64]", "[3, 48]", r"Deploy.input_shape: got \[3, 48\], expected four integers N, C, H, W"),
    ("output_op: none", "output_op: max", r"Deploy.output_op: got 'max', expected none or softmax or argmax"),
    ("threshold: null", "threshold: 3", r"Deploy.threshold: got 3, expected a number from 0 to 1"),
    ("- [0, 0, 0]", "- [0, 0]", r"Deploy.palette: got .*expected a list of \[r, g, b\]"),
    ("type: Resize", "type: Rezise", r"Deploy.transforms.0: unknown transform type 'Rezise'. Did you mean 'Resize'"),
    ("target_size:", "size:", r"Deploy.transforms.0: .*size"),
    ("multilabel: false", "multilabel: 7", r"Deploy.multilabel: got 7, expected true or false"),
    ("img_channels: 3", "img_channels: 0", r"Deploy.img_channels: got 0, expected an integer above 0"),
    ("classes: [", "classes: 3 #", r"Deploy.classes: got 3, expected a list of names"),
]


@pytest.mark.parametrize("old, new, message", CHANGES)
def test_a_malformed_deploy_yaml(exported, tmp_path, capsys, old, new, message):
    folder = shutil.copytree(exported, tmp_path / "exported")
    text = (folder / "deploy.yaml").read_text()
    assert old in text
    (folder / "deploy.yaml").write_text(text.replace(old, new, 1))
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert run_infer(folder, tmp_path / "a.png", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert re.search(message, said, re.DOTALL), said


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--backend", "onnxruntime"), r"--backend onnxruntime: .* has no model for it \(it has one for paddle\)"),
        (("--backend", "openvino"), r"--backend openvino: .* Export again with --format all"),
        (("--use_trt",), r"--use_trt needs a GPU \(got --device cpu\)"),
        (("--use_int8",), r"--use_int8 works with TensorRT only. Add --use_trt"),
        (("--precision", "fp16"), r"--precision fp16 needs a GPU"),
        (("--precision", "int8"), r"--precision int8: .* holds a float32 model. Quantize it first"),
        (("--precision", "bf16", "--enable_mkldnn", "False"), r"bf16 on the CPU means oneDNN's kernels"),
        (("--device", "gpu", "--enable_mkldnn"), r"--enable_mkldnn is for the CPU"),
        (("--device", "gpu", "--precision", "int8"), r"--precision int8 works with TensorRT only"),
        (("--cpu_threads", "0"), r"--cpu_threads: expected at least 1"),
        (("--batch_size", "0"), r"--batch_size: got 0, expected at least 1"),
        (("--image_path", "nowhere.png"), r"nowhere.png: there is no such file or folder"),
        (("--config", "nowhere"), r"nowhere: there is no such file. Give the deploy.yaml of an exported folder"),
    ],
)
def test_bad_input(exported, tmp_path, capsys, flags, message):
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert run_infer(exported, tmp_path / "a.png", tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there(exported, tmp_path, monkeypatch):
    import paddle

    options = InferOptions(config=str(exported), device="gpu")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    monkeypatch.setattr(paddle_inference.runtime, "has_nvidia_gpu", lambda: False)
    with pytest.raises(InputError, match=r"the installed Paddle is for the CPU\. Use --device cpu"):
        backends.open_backend(DeploySpec.load(exported), options)
    monkeypatch.setattr(paddle_inference.runtime, "has_nvidia_gpu", lambda: True)
    with pytest.raises(InputError, match="Install the GPU one: pip install paddlepaddle-gpu"):
        backends.open_backend(DeploySpec.load(exported), options)
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="Paddle sees no GPU on this machine"):
        backends.open_backend(DeploySpec.load(exported), options)


def test_a_damaged_model(exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "exported")
    (folder / "model.json").write_text("{}")
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert run_infer(folder, tmp_path / "a.png", tmp_path / "out") == 2
    assert "Paddle Inference cannot load this model" in capsys.readouterr().err


def test_transforms_that_do_not_fit_the_graph(exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "exported")
    text = (folder / "deploy.yaml").read_text().replace("target_size: [64, 48]", "target_size: [64, 32]")
    (folder / "deploy.yaml").write_text(text)
    io.write_png(tmp_path / "a.png", photo(20, 20))
    assert run_infer(folder, tmp_path / "a.png", tmp_path / "out") == 2
    assert (
        "takes inputs of shape [-1, 3, 48, 64] (N, C, H, W), but the transforms give 32 rows" in capsys.readouterr().err
    )


class FakeConfig:
    """Records the calls that set up Paddle Inference."""

    def __init__(self, *files):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_tensorrt_flags_reach_paddle(exported, tmp_path):
    from paddle import inference

    class Fake:
        PrecisionType = inference.PrecisionType
        Config = FakeConfig

    shapes = tmp_path / "shapes.pbtxt"
    shapes.write_text("x")
    options = InferOptions(device="gpu", use_trt=True, precision="fp16", min_subgraph_size=7, batch_size=4)
    options.auto_tuned_shape_file = str(shapes)
    calls = {
        name: (args, kwargs)
        for name, args, kwargs in paddle_inference._config(Fake, DeploySpec.load(exported), options).calls
    }
    assert calls["enable_use_gpu"][0] == (256, 0, inference.PrecisionType.Float32)
    trt = calls["enable_tensorrt_engine"][1]
    assert (trt["precision_mode"], trt["min_subgraph_size"], trt["max_batch_size"]) == (
        inference.PrecisionType.Half,
        7,
        4,
    )
    assert calls["enable_tuned_tensorrt_dynamic_shape"][0] == (str(shapes), True)
    plain = InferOptions(device="gpu", precision="bf16")
    calls = {name: args for name, args, _ in paddle_inference._config(Fake, DeploySpec.load(exported), plain).calls}
    assert calls["enable_use_gpu"] == (256, 0, inference.PrecisionType.Bfloat16)
    assert "enable_tensorrt_engine" not in calls
