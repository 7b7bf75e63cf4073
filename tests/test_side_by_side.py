"""Photos side by side in an engine, and what OpenVINO leaves behind."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from segkit import io
from segkit.deploy import infer as infer_module
from segkit.deploy.backends import open_backend
from segkit.deploy.infer import infer
from segkit.deploy.spec import DeploySpec
from segkit.deploy.windows import Windows
from segkit.options import InferOptions
from tests import backend_cases
from tests.tiny_model import photo

tiny = backend_cases.tiny
spec = backend_cases.spec


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_many_photos_are_run_side_by_side(spec, tmp_path, monkeypatch, name):
    """Unless they are asked for one by one; `--benchmark` times one by one what has all cores for itself."""
    for seed in range(16):
        io.write_png(tmp_path / "in" / f"{seed}.png", photo(40, 50, seed))
    opened = []

    def watched(spec, options, tune_on=None):
        opened.append(options.hint)
        return open_backend(spec, options, tune_on)

    monkeypatch.setattr(infer_module, "open_backend", watched)
    common = {"config": str(spec.folder), "image_path": str(tmp_path / "in"), "backend": name, "cpu_threads": 2}
    for hint in ("auto", "latency"):
        infer(InferOptions(**common, hint=hint, save_dir=str(tmp_path / hint), benchmark=hint == "auto"))
    assert opened == ["throughput", "latency", "latency"]
    for seed in range(16):
        found, expected = (np.asarray(Image.open(tmp_path / hint / f"{seed}.png")) for hint in ("auto", "latency"))
        assert (found == expected).mean() >= 0.999


def test_few_big_or_moving_pictures_have_all_cores():
    photo, video = SimpleNamespace(is_video=False), SimpleNamespace(is_video=True)
    many, two = [photo] * 16, InferOptions(cpu_threads=2)
    small = DeploySpec(Path("."), [], input_shape=[-1, 3, 512, 512], num_classes=19)
    big = dataclasses.replace(small, input_shape=[-1, 3, 2048, 2048])
    any_size = dataclasses.replace(small, input_shape=[-1, 3, -1, -1])
    for options, spec, items, windows, hint in (
        (two, small, many, None, "throughput"),
        (two, small, many[:15], None, "latency"),
        (two, small, [*many, video], None, "latency"),
        (two, small, many, Windows((512, 512), (400, 400)), "latency"),
        (two, big, many, None, "latency"),
        (two, any_size, many, None, "latency"),
        (InferOptions(cpu_threads=1), small, many, None, "latency"),
        (InferOptions(cpu_threads=2, device="gpu"), small, many, None, "latency"),
    ):
        assert infer_module._hint(options, spec, items, windows) == hint


DROPPED = """
import gc, signal, sys, threading, time
from segkit.deploy.backends import open_backend
from segkit.deploy.spec import DeploySpec
from segkit.options import InferOptions

def drop():
    held.clear()
    gc.collect()

signal.signal(signal.SIGALRM, lambda *_: print("handled"))
for in_thread in (True, False):
    held = [open_backend(DeploySpec.load(sys.argv[1]), InferOptions(backend="openvino"))]
    if in_thread:
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
    drop()
    signal.alarm(1)
    time.sleep(2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm signal")
def test_signals_still_arrive_when_openvino_is_gone(spec, root):
    """It had ended the process: a signal stack that OpenVINO's plugin left behind was unmapped with it."""
    command = [sys.executable, "-c", DROPPED, str(spec.folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\nhandled\n"), done.stderr
