"""`segkit info`: what it says of machines that are not set up as they should be."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from segkit import runtime
from segkit.cli import main as cli
from segkit.engine import machine
from segkit.engine.machine import Machine, problems

ROOT = Path(__file__).resolve().parents[1]
GOOD = Machine(
    packages={"numpy": "2.0", "opencv-python": None},
    opencv={"opencv-python-headless": "4.11"},
    paddles={"paddlepaddle": "3.1.0"},
    paddle="3.1.0",
    features=["AVX", "AVX2"],
    cores=4,
    memory=2**34,
    shared=2**33,
    disk=2**36,
)
GPU = dataclasses.replace(
    GOOD, paddles={"paddlepaddle-gpu": "3.1.0"}, paddle_cuda="12.6", driver=True, gpus_for_paddle=1
)


@pytest.mark.parametrize("good", [GOOD, GPU])
def test_nothing_is_said_of_a_good_machine(good: Machine) -> None:
    assert problems(good) == []


@pytest.mark.parametrize(
    "machine, what, mend",
    [
        ({"paddle": None}, "PaddlePaddle is not installed", "pip install paddlepaddle; on an NVIDIA GPU: pip install"),
        ({"paddle": "2.6.2"}, "Paddle 2.6.2 is too old", "pip install -U paddlepaddle"),
        ({"driver": True}, "has an NVIDIA GPU, but the installed Paddle", "pip uninstall -y paddlepaddle, then pip i"),
        ({"paddle_cuda": "12.6"}, "there is no NVIDIA driver", "docker run --gpus all"),
        ({"paddle_cuda": "12.6", "driver": True}, "sees no GPU (CUDA_VISIBLE_DEVICES is ", "update the driver"),
        (
            {"paddles": {"paddlepaddle": "3.1.0", "paddlepaddle-gpu": "3.1.0"}},
            "paddlepaddle and paddlepaddle-gpu are both installed",
            "pip uninstall -y paddlepaddle paddlepaddle-gpu, then pip install paddlepaddle",
        ),
        (
            {"opencv": {"opencv-python": "4.11", "opencv-python-headless": "4.11"}},
            "opencv-python and opencv-python-headless are both installed",
            "pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python-headless",
        ),
        ({"opencv": {}}, "not installed: opencv-python", "pip install opencv-python"),
        ({"packages": {"visualdl": None}}, "not installed: visualdl", "pip install visualdl"),
        ({"features": ["AMX-BF16"]}, "this CPU has no AVX", "another machine"),
        ({"threads": "1"}, "OMP_NUM_THREADS=1 leaves 3 of 4 cores idle", "unset OMP_NUM_THREADS"),
        ({"no_onednn": "SEGKIT_ONEDNN=0"}, "slow without oneDNN: SEGKIT_ONEDNN=0", "unset SEGKIT_ONEDNN"),
        ({"no_onednn": "this Paddle brings no libdnnl.so.3"}, "brings no libdnnl", "pip install paddlepaddle"),
        ({"shared": 64 * 2**20}, "/dev/shm has 0.1 GB free", "--shm-size 8g"),
        ({"memory": 2**30}, "only 1.0 GB of memory are free", "smaller --batch_size"),
        ({"disk": 2**30}, "only 1.0 GB are free on the disk of", "--save_dir on another disk"),
        ({"home_writable": False}, "cannot be written", "set SEGKIT_HOME"),
    ],
)
def test_every_problem_comes_with_its_mend(machine: dict, what: str, mend: str) -> None:
    (found,) = problems(dataclasses.replace(GOOD, **machine))
    assert what in found.what
    assert mend in found.mend


def test_opencv_without_its_display_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "segkit._cv2", raising=False)
    seen = dataclasses.replace(GOOD, opencv_error=machine._opencv_error())
    (found,) = problems(seen)
    assert "OpenCV cannot be loaded" in found.what
    assert found.mend == "pip uninstall -y opencv-python; pip install opencv-python-headless"


def test_extras_are_those_of_setup_py() -> None:
    needed, extras = machine.requirements()
    assert "numpy" in needed
    assert extras["openvino"] == ["openvino"]
    assert set(extras["serve"]) == {"fastapi", "uvicorn", "python-multipart", "prometheus-client"}
    assert "all" not in extras


def test_extras_of_an_installed_segkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["numpy>=1.24", 'old>=1; python_version < "3.0" and extra == "onnx"', 'onnxslim; extra == "onnx"']
    monkeypatch.setattr(machine, "PACKAGE", tmp_path / "segkit")
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: [*lines, 'onnxslim; extra == "all"'])
    assert machine.requirements() == (["numpy"], {"onnx": ["onnxslim"]})


def test_info_prints_and_gives_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(machine.runtime, "physical_cores", lambda: 8)
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "CPU features" in printed and "segkit[onnx]" in printed
    assert "OMP_NUM_THREADS=1 leaves 7 of 8 cores idle.\n   Mend: unset OMP_NUM_THREADS" in printed
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["paddle"].startswith("3") and found["cores"] == 8
    assert {"what": "OMP_NUM_THREADS=1 leaves 7 of 8 cores idle", "mend": "unset OMP_NUM_THREADS"} in found["problems"]


def test_info_needs_no_package_but_yaml(tmp_path: Path) -> None:
    """Neither paddle nor numpy nor OpenCV: a Python without its site-packages, PyYAML excepted."""
    import yaml

    (tmp_path / "yaml").symlink_to(Path(yaml.__file__).parent)
    code = (
        f"import sys; sys.path += [{str(tmp_path)!r}, {str(ROOT)!r}]; from segkit.cli.main import main; main(['info'])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1. PaddlePaddle is not installed" in done.stdout
    assert "not installed: numpy, opencv-python, pillow" in done.stdout


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "6400000 100000"}, 8),
        ({}, 8),
    ],
)
def test_a_container_counts_the_cores_it_may_use(files, cores, tmp_path, monkeypatch) -> None:
    """docker run --cpus=2 and Kubernetes' limits leave every CPU in sight and grant a share of their time."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(runtime, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda pid: {1000 + n for n in range(8)}, raising=False)
    assert runtime.physical_cores() == cores
