"""`segkit dashboard`: the real server of VisualDL, over HTTP."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli import main as cli
from segkit.engine.dashboard import Dashboard
from segkit.palette import voc_palette
from tests.model_cases import make

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    board = Dashboard(tmp_path / "run", ["use_vdl"])
    board.settings({"batch_size": 4, "model": "UNet"})
    board.graph(make("UNet"), [1, 3, 32, 32])
    for iteration in (1, 2, 3):
        row = {"loss": 1 / iteration, "lr": 0.1, "batch_cost": 0.2, "reader_cost": 0.1, "ips": 8.0}
        board.train(iteration, row)
    photo = np.full((6, 8, 3), 100, np.uint8)
    label = np.zeros((6, 8), np.uint8)
    board.panel(3, 0, (photo, label, label + 1), voc_palette(2))
    board.flush()
    board.close()
    return tmp_path


def get(url: str, **query: object) -> bytes:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=30) as reply:
        return reply.read()


def test_a_scalar_and_an_image_come_back_over_http(records: Path) -> None:
    command = [sys.executable, "-m", "segkit", "dashboard", str(records), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        address = re.search(r"VisualDL shows 1 run of \S+ on (http://127.0.0.1:\d+) \(Ctrl-C stops\)", said).group(1)
        assert b"<html" in get(f"{address}/app/index")
        api = f"{address}/app/api"
        (run,) = json.loads(get(f"{api}/runs"))["data"]
        rows = json.loads(get(f"{api}/scalar/list", run=run, tag="Train/loss"))["data"]
        assert [row[1] for row in rows] == [1, 2, 3]
        assert [row[2] for row in rows] == pytest.approx([1, 1 / 2, 1 / 3], rel=1e-6)
        tag = "Evaluate/sample_0: input, label, prediction"
        picture = Image.open(io.BytesIO(get(f"{api}/image/image", run=run, tag=tag, index=0)))
        assert picture.size == (24, 6)
        assert picture.convert("RGB").getpixel((20, 3)) == (111, 60, 60)  # 0.6 of the photo, 0.4 of class 1's colour
        hyper, *_ = json.loads(get(f"{api}/hparams/list"))["data"]
        assert (hyper["hparams"]["batch_size"], hyper["hparams"]["model"]) == (4, "UNet")
        assert json.loads(get(f"{api}/graph_runs"))["data"] == [run]
        assert "conv2d" in get(f"{api}/graph/graph", run=run, expand_all=True).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT  # 130 in a shell
    finally:
        process.kill()
        process.stderr.close()


def test_mistakes(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for argv, message in (
            (["nowhere"], r"nowhere: no such folder. Give the save_dir of a run"),
            ([str(tmp_path / "empty")], r"there are no VisualDL records in it. Train with --use_vdl"),
            ([str(records), "--port", port], rf"--host 127.0.0.1 --port {port}: cannot be listened on"),
        ):
            assert cli.main(["dashboard", *argv]) == 2
            assert re.search(message, capsys.readouterr().err)


def test_without_visualdl(records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "visualdl.server.app", None)
    assert cli.main(["dashboard", str(records)]) == 2
    assert "segkit dashboard needs VisualDL" in capsys.readouterr().err
