"""Inference engines: the same masks from each, the choice among them, and what each of them cannot do."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

from segkit import io
from segkit.deploy.backends import choice, onnx_runtime, open_backend, openvino_runtime, paddle_inference
from segkit.deploy.backends.onnx_runtime import OnnxBackend
from segkit.deploy.infer import infer, segmenter
from segkit.deploy.spec import DeploySpec
from segkit.engine.machine import OPENCV
from segkit.engine.segmenter import load
from segkit.errors import InputError, enough_memory
from segkit.options import InferOptions
from tests import backend_cases
from tests.tiny_model import PLAIN, make_all, photo

tiny = backend_cases.tiny
spec = backend_cases.spec
said = backend_cases.said
short_turns = backend_cases.short_turns


ENGINES = ("paddle", "openvino", "onnxruntime")


def engine(spec, name="auto", **options):
    return segmenter(spec, open_backend(spec, InferOptions(backend=name, **options)))


def test_what_all_formats_write(tiny):
    folder = tiny.parent / "all"
    files = ["config.yml", "deploy.yaml", "model.bin", "model.json", "model.onnx", "model.pdiparams", "model.xml"]
    assert sorted(os.listdir(folder)) == files
    node = yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]
    assert (node["model"], node["onnx"], node["openvino"]) == ("model.json", "model.onnx", "model.xml")
    assert (node["input_dtype"], node["input_layout"], node["precision"]) == ("float32", "NCHW", "fp32")
    folded = yaml.safe_load((tiny.parent / "folded" / "deploy.yaml").read_text())["Deploy"]
    assert (folded["input_dtype"], folded["input_layout"]) == ("uint8", "NHWC")
    assert folded["transforms"] == [] and folded["input_shape"] == [-1, 3, -1, -1]
    assert (folded["output_op"], folded["output_dtype"]) == ("argmax", "uint8")


@pytest.mark.parametrize("name", ENGINES)
def test_masks_are_those_of_predict(tiny, spec, name):
    trained, exported = load(tiny), engine(spec, name)
    for size in ((120, 160), (33, 200)):
        expected, found = trained.predict(photo(*size)), exported.predict(photo(*size))
        assert len(np.unique(expected)) > 1
        assert (found == expected).mean() >= 0.999
    np.testing.assert_allclose(exported.predict_proba(photo(50, 60)), trained.predict_proba(photo(50, 60)), atol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_normalisation_and_argmax_in_the_graph(tiny, name):
    """The graph takes the photo as it is, of any size, and gives the trained model's class numbers in bytes."""
    from segkit import Config
    from segkit.engine.segmenter import from_model, load_model

    cfg = Config.from_model_path(tiny).update({"val_dataset.transforms": PLAIN})
    trained, exported = from_model(cfg, load_model(cfg, tiny)), engine(DeploySpec.load(tiny.parent / "folded"), name)
    prepared = exported.prepare(photo(40, 56))
    assert prepared.x.dtype == np.uint8 and prepared.x.shape == (40, 56, 3)
    found = exported.run(prepared.x[None])
    assert found.dtype == np.uint8 and found.shape == (1, 40, 56)
    for size in ((40, 56), (97, 131)):
        assert (exported.predict(photo(*size)) == trained.predict(photo(*size))).mean() >= 0.999
    with pytest.raises(InputError, match=r"takes photos of type uint8 \(got float32\)"):
        exported.predict(300.0 * photo(40, 56).astype(np.float32))


def test_leaky_relu_after_a_convolution(root, tmp_path):
    """Paddle's pass that would fuse the two ends the process."""
    backbone = {"type": "MobileNetV3_small_x0_35"}
    folder = make_all(tmp_path, model={"type": "CCNet", "backbone": backbone})
    command = [sys.executable, "-m", "segkit", "export", "--model_path", folder, "--save_dir", tmp_path / "exported"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert b"leaky_relu" in (tmp_path / "exported" / "model.json").read_bytes()


@pytest.mark.parametrize(
    "name, hint", [(name, "auto") for name in ENGINES] + [("openvino", "throughput"), ("onnxruntime", "throughput")]
)
def test_many_threads_at_once(spec, name, hint):
    backend = open_backend(spec, InferOptions(backend=name, hint=hint))
    inputs = [np.random.default_rng(seed).standard_normal((1, 3, 48, 64), np.float32) for seed in range(12)]
    expected = [backend.run(x) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        for one, other in zip(expected, pool.map(backend.run, inputs)):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_hint_and_the_precision_reach_openvino(spec):
    backend = open_backend(spec, InferOptions(backend="openvino", hint="throughput", cpu_threads=2))
    compiled = backend._requests.get().get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("THROUGHPUT")
    assert backend.parallel == compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") > 1


def test_providers_of_onnx_runtime():
    find = onnx_runtime._providers
    assert find(InferOptions()) == ["CPUExecutionProvider"]
    for device, number in (("gpu", 0), ("gpu:0", 0), ("gpu:3", 3)):
        cuda = ("CUDAExecutionProvider", {"device_id": number})
        assert find(InferOptions(device=device)) == [cuda, "CPUExecutionProvider"]
    name, settings = find(InferOptions(device="gpu:2", use_trt=True, precision="fp16", min_subgraph_size=7))[0]
    assert name == "TensorrtExecutionProvider" and settings["trt_min_subgraph_size"] == 7
    assert settings["trt_fp16_enable"] and not settings["trt_int8_enable"] and settings["device_id"] == 2


def test_onnx_runtime_that_would_compute_on_the_cpu_unasked(spec, monkeypatch):
    import onnxruntime

    taken = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class Session:
        def __init__(self, path, settings, providers):
            self.get_inputs = lambda: [type("Input", (), {"name": "x"})]
            self.get_providers = lambda: taken

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    onnx_runtime.OnnxBackend(spec, InferOptions(device="gpu:1"))
    del taken[0]
    with pytest.raises(
        InputError, match=r"--device gpu:1: ONNX Runtime cannot start its CUDAExecutionProvider here and"
    ):
        onnx_runtime.OnnxBackend(spec, InferOptions(device="gpu:1"))


def test_the_gpu_s_number_reaches_paddle(spec, monkeypatch):
    import paddle
    from paddle import inference

    from segkit.deploy.backends import paddle_inference

    asked = []

    class Config(inference.Config):
        def enable_use_gpu(self, *given):
            asked.append(given[:2])

    monkeypatch.setattr(inference, "Config", Config)
    paddle_inference._config(inference, spec, InferOptions(device="gpu:1"))
    assert asked == [(256, 1)]
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    assert paddle_inference.PaddleBackend.obstacle(spec, InferOptions(device="gpu:0")) is None
    with pytest.raises(InputError, match=r"--device gpu:1: no such GPU \(Paddle sees 1, counted from 0\)"):
        open_backend(spec, InferOptions(backend="paddle", device="gpu:1"))


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "gpu:", "gpu:x"])
def test_a_device_that_is_none(spec, device):
    with pytest.raises(InputError, match=rf"--device: unknown device \(got '{device}', expected cpu, gpu or gpu:N\)"):
        open_backend(spec, InferOptions(device=device))


def test_auto_chooses_remembers_and_says_so(tiny, tmp_path, said):
    folder = tiny.parent / "all"
    (folder / choice.FILE).unlink(missing_ok=True)
    io.write_png(tmp_path / "a.png", photo(50, 60))
    options = InferOptions(config=str(folder), image_path=str(tmp_path / "a.png"), save_dir=str(tmp_path / "out"))
    infer(options)
    line = next(line for line in said if line.startswith("engine: "))
    times = {name: float(ms) for name, ms in re.findall(r"(\w+) fp32 ([\d.e+]+) ms and 100.000 % equal", line)}
    assert set(times) == set(ENGINES)
    assert line.startswith(f"engine: {min(times, key=times.get)} fp32, the fastest on [1, 3, 48, 64]")
    assert len(json.loads((folder / choice.FILE).read_text())) == 1
    said.clear()
    infer(options)
    assert any("as remembered in" in line for line in said) and not any("fastest" in line for line in said)
    assert (io.read_label(tmp_path / "out" / "a.png") == load(tiny).predict(photo(50, 60))).mean() >= 0.999


def test_onednn_that_fails_gives_way_to_paddles_own(spec, said, monkeypatch):
    backend = open_backend(spec, InferOptions(backend="paddle"))
    original, calls = backend._once, []

    def fail_once(batch):
        calls.append(batch)
        if len(calls) == 1:
            raise RuntimeError("not support")
        return original(batch)

    monkeypatch.setattr(backend, "_once", fail_once)
    assert backend.run(np.zeros((1, 3, 48, 64), np.float32)).shape == (1, 3, 48, 64)
    assert "oneDNN's kernels fail on this model (not support): Paddle's own are used." in said


def test_a_model_that_onednn_cannot_open(spec, said, monkeypatch):
    """Also where its passes fail, as on Swin; a model that nothing can open is not blamed on oneDNN."""
    original, configs = paddle_inference._create, []

    def refuse(inference, config, spec):
        configs.append(config)
        if config.mkldnn_enabled():
            raise InputError("cannot load")
        return original(inference, config, spec)

    monkeypatch.setattr(paddle_inference, "_create", refuse)
    backend = open_backend(spec, InferOptions(backend="paddle"))
    assert backend.run(np.zeros((1, 3, 48, 64), np.float32)).shape == (1, 3, 48, 64) and len(configs) == 2
    assert "oneDNN's kernels fail on this model (cannot load): Paddle's own are used." in said
    with pytest.raises(InputError, match="cannot load"):
        open_backend(spec, InferOptions(backend="paddle", enable_mkldnn=True))


@pytest.mark.parametrize("kind", [openvino_runtime.OpenVinoBackend, onnx_runtime.OnnxBackend])
def test_an_engine_that_is_not_installed(spec, kind, monkeypatch):
    monkeypatch.setattr(kind, "installed", classmethod(lambda cls: False))
    with pytest.raises(InputError, match=rf"--backend {kind.name}: the package is not installed. pip install "):
        open_backend(spec, InferOptions(backend=kind.name))


def test_what_an_engine_cannot_do(spec, monkeypatch):
    monkeypatch.setattr(paddle_inference.runtime, "cpu_facts", dict)
    for name, options, message in (
        ("paddle", {"precision": "bf16"}, "this CPU has no bf16 instructions"),
        ("onnxruntime", {"precision": "bf16"}, "ONNX Runtime has none on the CPU"),
        ("onnxruntime", {"device": "gpu"}, "has no CUDAExecutionProvider"),
        ("onnxruntime", {"device": "gpu", "use_trt": True}, "has no TensorrtExecutionProvider"),
        ("openvino", {"device": "gpu", "use_trt": True}, "OpenVINO has no TensorRT"),
        (
            "paddle",
            {"device": "gpu", "use_trt": True},
            r"wants the older format \(got model.json\). Export --format paddle2",
        ),
        ("openvino", {"precision": "int8"}, "holds a float32 model. Quantize it first"),
    ):
        with pytest.raises(InputError, match=message):
            open_backend(spec, InferOptions(backend=name, **options))
    with pytest.raises(InputError, match=r"no inference engine here.*\n  paddle: .*\n  openvino: .*\n  onnxruntime: "):
        open_backend(spec, InferOptions(precision="int8"))


def test_int8_by_onnx_runtimes_tensorrt(spec, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    for flags in ({"use_int8": True}, {"precision": "int8"}):
        options = InferOptions(device="gpu", use_trt=True, **flags)
        assert "needs ranges of int8, which are not made here" in OnnxBackend.obstacle(spec, options)
    assert OnnxBackend.obstacle(spec, InferOptions(device="gpu", use_trt=True, precision="fp16")) is None


def test_engines_without_a_model_are_named(spec, said):
    open_backend(dataclasses.replace(spec, onnx=None, openvino=None), InferOptions())
    assert said == [
        f"openvino and onnxruntime are installed and mostly faster, but {spec.folder} has no model for them: "
        "export with --format all"
    ]


def test_openvino_without_the_device_or_the_instructions(spec, monkeypatch):
    import openvino

    class Core:
        available_devices: ClassVar[list[str]] = ["CPU"]

        def get_property(self, device, name):
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(InputError, match=r"--device gpu: OpenVINO finds none here \(it has CPU\)"):
        open_backend(spec, InferOptions(backend="openvino", device="gpu"))
    with pytest.raises(InputError, match="--precision bf16: this CPU has no such instructions"):
        open_backend(spec, InferOptions(backend="openvino", precision="bf16"))


@pytest.mark.parametrize("file, name", [("model.onnx", "onnxruntime"), ("model.xml", "openvino")])
def test_a_damaged_model(tiny, tmp_path, file, name):
    import shutil

    folder = shutil.copytree(tiny.parent / "all", tmp_path / "all")
    (folder / file).write_text("nonsense")
    with pytest.raises(InputError, match=rf"{file}: .* cannot load this model"):
        open_backend(DeploySpec.load(folder), InferOptions(backend=name))


def test_files_that_deploy_yaml_names(tiny, tmp_path):
    import shutil

    folder = shutil.copytree(tiny.parent / "all", tmp_path / "all")
    (folder / "model.bin").unlink()
    with pytest.raises(InputError, match=r"Deploy.openvino with its weights names model.bin, which is not in"):
        DeploySpec.load(folder)


@pytest.fixture
def bare(tmp_path):
    """The Python of an environment that has numpy, OpenCV, pyyaml, ONNX Runtime with what it needs, and nothing else."""
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    opencv = next(name for name in OPENCV if list(metadata.distributions(name=name)))
    for name in ("numpy", opencv, "PyYAML", "onnxruntime", "flatbuffers", "packaging", "protobuf"):
        package = metadata.distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(package.locate_file(top))
    return tmp_path / "env" / "bin" / "python"


def test_a_machine_without_paddle(tiny, root, tmp_path, bare):
    """numpy, OpenCV, pyyaml and one engine are enough."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    for package in ("paddle", "PIL", "tqdm", "prettytable", "segkit", "openvino"):
        refused = subprocess.run([bare, "-c", f"import {package}"], cwd=tmp_path, env=environment, capture_output=True)
        assert refused.returncode == 1, package
    io.write_png(tmp_path / "in" / "a.png", photo(90, 70))
    Image.fromarray(photo(90, 70)).save(tmp_path / "b.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes() + b"what a phone puts behind it")
    command = [bare, root / "deploy" / "python" / "infer.py", "--config", tiny.parent / "all" / "deploy.yaml"]
    flags = ["--image_path", tmp_path / "in", "--save_dir", tmp_path / "out", "--added"]
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "b.png").is_file()
    assert "onnxruntime on cpu: 2 photos" in done.stderr
    assert (io.read_label(tmp_path / "out" / "a.png") == load(tiny).predict(photo(90, 70))).mean() >= 0.999
    Image.fromarray(photo(90, 70)).save(tmp_path / "in" / "c.tif")
    (tmp_path / "in" / "d.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-500])
    told = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "2 of 4 inputs could not be segmented" in told.stderr
    names = ", ".join(str(tmp_path / "in" / name) for name in ("c.tif", "d.jpg"))
    assert re.search(rf"{re.escape(names)}: reading it needs Pillow .* Install it: pip install pillow", told.stderr)
    paddle = subprocess.run(
        [*command, *flags, "--backend", "paddle"], env=environment, capture_output=True, text=True, check=False
    )
    assert paddle.returncode == 2 and "--backend paddle: the package is not installed. pip install" in paddle.stderr


class Foreign(Exception):
    """As ONNX Runtime's errors: of no kind that Python knows."""


class Broken:
    def __init__(self, *_, **__):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"]

    def get_inputs(self):
        return [SimpleNamespace(name="x")]

    def run(self, names, inputs):
        raise Foreign(self.said)

    said = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_sizes_that_the_graph_refuses(tiny, tmp_path, name):
    """deploy.yaml says any size, the graph has one."""
    folder = shutil.copytree(tiny.parent / "all", tmp_path / "lies")
    spec = dataclasses.replace(DeploySpec.load(folder), input_shape=[-1, 3, -1, -1])
    backend = open_backend(spec, InferOptions(backend=name))
    with pytest.raises(InputError, match=r"the model cannot run an input of shape \[1, 3, 30, 40\]"):
        backend.run(np.zeros((1, 3, 30, 40), np.float32))


def test_errors_of_onnx_runtime(spec, monkeypatch, said):
    """A failed run leaves it out of the trial; memory that does not suffice stays a matter of memory."""
    backend = open_backend(spec, InferOptions(backend="onnxruntime"))
    monkeypatch.setattr(backend, "_session", Broken())
    with pytest.raises(InputError, match="the model cannot run an input"):
        backend.run(np.zeros((1, 3, 48, 64), np.float32))
    monkeypatch.setattr(Broken, "said", "Failed to allocate memory for requested buffer of size 9")
    with pytest.raises(InputError, match="too big"), enough_memory(lambda: "too big"):
        backend.run(np.zeros((1, 3, 48, 64), np.float32))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Broken)
    assert open_backend(spec, InferOptions(cpu_threads=3)).name != "onnxruntime"
    assert any("engine onnxruntime fp32 is left out: " in line for line in said)
