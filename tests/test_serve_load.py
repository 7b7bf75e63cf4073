"""segkit serve in a process of its own: under load, and ended by signals."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segkit.deploy.serve import server
from tests import serve_cases
from tests.serve_cases import header_only, pixels, png
from tests.tiny_model import photo

folders = serve_cases.folders
service = serve_cases.service
client = serve_cases.client
model = serve_cases.model


class Running:
    """`segkit serve` in a process."""

    def __init__(self, root, log, *argv):
        self.log = log
        with open(log, "w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "segkit", "serve", *map(str, argv), "--port", "0"]
            self.process = subprocess.Popen(command, cwd=root, stderr=file)
        end = time.monotonic() + 90
        while "serving" not in self.text() or "is ready" not in self.text():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.1)
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)", self.text())[1])

    def text(self):
        return Path(self.log).read_text(encoding="utf-8")

    def memory(self):
        """MiB that it holds."""
        (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(line) / 1024

    def post(self, body, path="/predict", timeout=60, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, body, {"Content-Type": "image/png", **headers})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@pytest.fixture
def running(folders, root, tmp_path):
    made = Running(
        root, tmp_path / "log", folders["fixed"], "--max_body_mb", "0.5", "--max_pixels", "1000000", "--timeout", "1.5"
    )
    yield made
    made.process.kill()
    made.process.wait()


def right_answer(status, reply, mask):
    """A batch may round other than a single photo does."""
    return status == 200 and np.mean(pixels(reply) == mask) >= 0.999


def test_200_at_once_and_a_signal_under_load(running, model):
    """A third malformed or huge, all answered, the right ones rightly; then SIGTERM, which loses none."""
    images = [photo(40 + number, 60, number) for number in range(8)]
    right = [(png(image), model.predict(image)) for image in images]
    wrong = [
        (b"junk", 400),
        (right[0][0][:-50], 400),
        (header_only(20_000, 20_000), 413),
        (bytes(1 << 20), 413),
        (b"", 400),
    ]

    def ask(number):
        if number % 3 == 2:
            body, status = wrong[number % len(wrong)]
            return running.post(body)[0] == status
        body, mask = right[number % len(right)]
        return right_answer(*running.post(body), mask)

    held = []
    with ThreadPoolExecutor(200) as pool:
        for _ in range(3):
            assert all(pool.map(ask, range(200)))
            held.append(running.memory())
    assert held[2] - held[0] < 50, held
    slow = socket.create_connection(("127.0.0.1", running.port))
    slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nContent-Type: image/png\r\n\r\nabc")
    assert b"408" in slow.recv(100)
    slow.close()

    answers, lost, begun = [], [], threading.Event()

    def load_it():
        while True:
            try:
                status, reply = running.post(right[0][0])
            except (ConnectionRefusedError, ConnectionResetError):  # not accepted any more, or not yet
                return
            except Exception as error:  # else it would end this thread alone
                lost.append(error)
                return
            answers.append(right_answer(status, reply, right[0][1]))
            if len(answers) > 30:
                begun.set()

    threads = [threading.Thread(target=load_it) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    for thread in threads:
        thread.join(30)
    assert lost == [] and all(answers) and len(answers) > 30
    assert "Traceback" not in running.text() and "stopped, every request was answered" in running.text()
    lines = [line for line in running.text().splitlines() if " POST /predict " in line]
    assert len(lines) == len(answers) + 601


def test_a_second_signal_stops_at_once(running):
    sender = socket.create_connection(("127.0.0.1", running.port))
    sender.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nContent-Type: image/png\r\n\r\n")
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == server.STOPPED
    assert "stopped at once: 1 requests were not answered" in running.text()
    sender.close()
