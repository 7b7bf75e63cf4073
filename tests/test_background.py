"""Work in the background: order, bounds, errors and stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from segkit import io
from segkit.deploy.background import Background
from segkit.errors import InputError
from tests.tiny_model import make_all, photo, run


def test_one_thread_keeps_the_order():
    done = []
    with Background() as background:
        for number in range(20):
            background.submit(1, done.append, number)
    assert done == list(range(20))


def test_what_waits_is_bounded():
    gate, held, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def job(size):
        gate.wait(5)
        with lock:
            held[0] -= size

    def open_gate():
        time.sleep(0.05)
        gate.set()

    with Background(threads=2, limit=10) as background:
        threading.Thread(target=open_gate).start()
        for size in (4, 4, 4, 50, 4, 50, 50):
            background.submit(size, job, size)
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
    assert held[0] == 0
    assert most[0] <= 50  # the single job that is larger than the limit


def fail(number):
    raise InputError(f"job {number}")


def test_the_first_error_is_raised():
    ran = []
    with pytest.raises(InputError, match="job 1"), Background() as background:
        background.submit(1, ran.append, 0)
        background.submit(1, fail, 1)
        background.submit(1, fail, 2)
    assert ran == [0]


def test_an_error_stops_the_caller_soon():
    count = 0
    with pytest.raises(InputError, match="job 0"), Background() as background:
        background.submit(1, fail, 0)
        while True:
            count += 1
            assert count < 100
            background.submit(1, time.sleep, 0.01)


def test_an_interrupt_drops_what_has_not_begun():
    ran = []

    def slow(number):
        time.sleep(0.05)
        ran.append(number)

    with pytest.raises(KeyboardInterrupt), Background() as background:
        for number in range(50):
            background.submit(1, slow, number)
        raise KeyboardInterrupt
    assert len(ran) < 10


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("tiny"))


def test_a_writer_that_fails_is_a_message(tiny, tmp_path, capsys):
    """The folder of the overlays is a file: known only when the first one is written."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "added_prediction").write_text("in the way")
    images = tiny.parent / "data" / "images"
    assert run("predict", "--model_path", tiny, "--image_path", images, "--save_dir", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and "Traceback" not in said


def test_ctrl_c_ends_predict(tiny, tmp_path, root):
    for number in range(300):
        io.write_png(tmp_path / "in" / f"{number}.png", photo(97, 131, number))
    command = [sys.executable, "-m", "segkit", "predict", "--model_path", tiny, "--device", "cpu"]
    command += ["--image_path", tmp_path / "in", "--save_dir", tmp_path / "out"]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "out" / "mask").is_dir() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.rstrip().endswith("stopped") and "Traceback" not in said
    assert 0 < len(list((tmp_path / "out" / "mask").iterdir())) < 300
