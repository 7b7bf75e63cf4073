"""Device choice, seeds, generator states, ranks."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import paddle
import pytest

from segkit import log
from segkit.engine import device as module
from segkit.engine.device import check_seed, init_distributed, seed_everything, set_up_device
from segkit.errors import InputError
from segkit.runtime import GPU_LINE


@pytest.fixture(autouse=True)
def back_to_cpu(monkeypatch):
    monkeypatch.setattr(log, "_said", set())
    yield
    monkeypatch.undo()
    paddle.set_device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Makes Paddle look built for a GPU or not, with so many visible, on a machine with a driver or without."""

    def set_up(built: bool, gpus: int = 0, driver: bool = False, bf16: bool = True) -> list:
        chosen: list = []
        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: built)
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(module, "has_nvidia_gpu", lambda: driver)
        monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda device=None: bf16)
        monkeypatch.setattr(paddle, "set_device", chosen.append)
        return chosen

    return set_up


@pytest.fixture
def lines():
    records: list = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    log.logger.addHandler(handler)
    yield records
    log.logger.removeHandler(handler)


def test_cpu(machine, lines):
    chosen = machine(built=False)
    assert set_up_device(None) == "cpu" and set_up_device("cpu", "bf16") == "cpu" and set_up_device("CPU") == "cpu"
    assert chosen == ["cpu"] * 3 and not lines


def test_a_gpu_is_used_where_there_is_one(machine, monkeypatch):
    chosen = machine(built=True, gpus=2)
    assert [set_up_device(d) for d in (None, "gpu", "gpu:1", "cpu")] == ["gpu:0", "gpu:0", "gpu:1", "cpu"]
    assert chosen == ["gpu:0", "gpu:0", "gpu:1", "cpu"]
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("FLAGS_selected_gpus", "1")
    assert set_up_device(None) == "gpu:1"
    machine(built=True, gpus=0)
    assert set_up_device(None) == "cpu"


def test_a_gpu_that_paddle_cannot_use_is_said_once(machine, lines):
    machine(built=False, driver=True)
    set_up_device(None)
    set_up_device(None)
    assert len(lines) == 1 and GPU_LINE in lines[0] and "has an NVIDIA GPU" in lines[0]


def test_gpu_asked_for_but_not_there(machine):
    machine(built=False)
    with pytest.raises(
        InputError, match=r"--device gpu: the installed Paddle computes on the CPU only .*no NVIDIA"
    ) as e:
        set_up_device("gpu")
    assert GPU_LINE in str(e.value) and "--device cpu" in str(e.value)
    machine(built=False, driver=True)
    with pytest.raises(InputError, match=r"this machine has an NVIDIA GPU"):
        set_up_device("gpu:0")
    machine(built=True, gpus=0)
    with pytest.raises(InputError, match=r"--device gpu: Paddle sees no GPU .got 0, .*nvidia-smi"):
        set_up_device("gpu")
    machine(built=True, gpus=2)
    with pytest.raises(InputError, match=r"--device gpu:2: no such GPU .got number 2, expected 0 to 1"):
        set_up_device("gpu:2")


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "gpu:x", "gpu:-1", ""])
def test_unknown_device(name):
    with pytest.raises(InputError, match=rf"--device: unknown device .got '{name}', expected cpu, gpu or gpu:N"):
        set_up_device(name)


def test_precision_that_the_device_lacks(machine):
    machine(built=False)
    with pytest.raises(InputError, match=r"--precision: fp16 needs a GPU .*Use --precision bf16 or fp32"):
        set_up_device(None, "fp16")
    machine(built=True, gpus=1, bf16=False)
    with pytest.raises(InputError, match=r"--precision: this GPU cannot compute in bf16 .*Use --precision fp16"):
        set_up_device("gpu", "bf16")
    assert set_up_device("gpu", "fp16") == "gpu:0"


def test_deterministic_kernels_on_a_gpu(machine, monkeypatch):
    machine(built=True, gpus=1)
    flags: dict = {}
    monkeypatch.setattr(paddle, "set_flags", flags.update)
    set_up_device("gpu")
    assert not flags
    set_up_device("gpu", deterministic=True)
    assert flags["FLAGS_cudnn_deterministic"] is True


def draw() -> list:
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.standard_normal(3).tolist(),
        paddle.rand([3]).numpy().tolist(),
        paddle.nn.functional.dropout(paddle.ones([20])).numpy().tolist(),
    ]


def test_seeds():
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert draw() != first
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match=r"--seed: out of range .got -?\d+, expected 0 to 4294967295"):
            check_seed(seed)


def test_one_process_needs_no_ranks():
    init_distributed()
    assert not paddle.distributed.is_initialized()


def test_two_cpu_ranks(tmp_path, root):
    """Each rank takes half of a batch; DataParallel over gloo gives both the gradient of the whole."""
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import numpy as np
        import paddle
        from segkit.dist import rank, world_size
        from segkit.engine.device import init_distributed, set_up_device
        from segkit.engine.loader import train_loader

        class Numbers:
            def __len__(self):
                return 8
            def get(self, index, rng):
                return {"image": np.full((1, 1, 1), index, np.float32), "path": str(index)}

        assert set_up_device("cpu") == "cpu"
        init_distributed()
        init_distributed()
        model = paddle.nn.Linear(1, 1)
        net = paddle.DataParallel(model) if world_size() > 1 else model
        with train_loader(Numbers(), 4 // world_size(), num_workers=0, seed=3) as batches:
            net(next(batches)["image"].flatten(1)).mean().backward()
        print("GRAD", model.weight.grad.numpy().tolist(), flush=True)
        """)
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")}
    environment["PYTHONPATH"] = os.pathsep.join([os.fspath(root), environment.get("PYTHONPATH", "")])
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment)
    assert alone.returncode == 0, alone.stderr
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    both = subprocess.run([*launch, script], capture_output=True, text=True, timeout=90, env=environment)
    assert both.returncode == 0, both.stdout + both.stderr
    expected = [line for line in alone.stdout.splitlines() if line.startswith("GRAD")]
    for number in (0, 1):
        assert expected[0] in (tmp_path / "log" / f"workerlog.{number}").read_text()
