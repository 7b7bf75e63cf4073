"""Curves and pictures for TensorBoard and Weights & Biases, read back by their own packages where these are there."""

from __future__ import annotations

import io
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli import main as cli
from segkit.engine import train as training
from segkit.engine.dashboard import Dashboard
from segkit.errors import InputError
from segkit.palette import voc_palette
from tests.tiny import make_data, tiny_config

FLAGS = ("use_vdl", "use_tensorboard")


def events(folder: Path) -> Any:
    """TensorBoard's own view of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of each tag, as TensorBoard shows them."""
    found = events(folder)
    return {tag: [(item.step, item.value) for item in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def vdl_scalars(folder: Path, tags: list[str]) -> dict[str, list[tuple[int, float]]]:
    from visualdl import LogReader

    reader = LogReader(file_path=str(folder / "vdlrecords.segkit.log"))
    return {tag: [(item.id, item.value) for item in reader.get_data("scalar", tag)] for tag in tags}


def row(loss: float) -> dict[str, float]:
    return {"loss": loss, "loss_Dice": loss / 2, "lr": 0.1, "batch_cost": 0.2, "reader_cost": 0.1, "ips": 8.0}


def write(board: Dashboard, iterations: range) -> None:
    """A log line an iteration, an evaluation and a picture every second one."""
    label = np.zeros((6, 8), np.uint8)
    for iteration in iterations:
        board.train(iteration, row(1 / iteration))
        if iteration % 2 == 0:
            metrics = {"mIoU": 0.1 * iteration, "Acc": 0.5, "class_names": ["a", "b"], "class_iou": [0.5, None]}
            board.panel(iteration, 0, (np.full((6, 8, 3), 100, np.uint8), label, label + 1), voc_palette(2))
            board.evaluate(iteration, metrics)
    board.flush()


def test_a_graph_that_visualdl_cannot_draw(tmp_path: Path, logged: list[str]) -> None:
    board = Dashboard(tmp_path, ["use_vdl"])
    board.graph("no model", [1, 3, 8, 8])
    board.close()
    assert len(logged) == 1 and re.match(
        r"VisualDL could not draw the model's graph \(\w+\)\. Nothing needs to be done: curves and pictures", logged[0]
    )


def test_tensorboard_reads_numbers_pictures_and_settings(tmp_path: Path) -> None:
    board = Dashboard(tmp_path, ["use_tensorboard"])
    board.settings({"batch_size": 4, "model": "UNet"})
    write(board, range(1, 5))
    board.close()
    found = scalars(tmp_path)
    names = ("loss", "loss_Dice", "lr", "batch_cost", "reader_cost", "ips")
    assert set(found) == {*(f"Train/{name}" for name in names), "Evaluate/mIoU", "Evaluate/Acc", "Evaluate/IoU_a"}
    assert found["Train/loss"] == [(n, pytest.approx(1 / n)) for n in (1, 2, 3, 4)]
    assert found["Evaluate/mIoU"] == [(2, pytest.approx(0.2)), (4, pytest.approx(0.4))]
    pictures = events(tmp_path).Images("Evaluate/sample_0: input, label, prediction")
    assert [item.step for item in pictures] == [2, 4]
    picture = Image.open(io.BytesIO(pictures[0].encoded_image_string))
    assert picture.size == (24, 6)
    assert picture.getpixel((20, 3)) == (111, 60, 60)  # 0.6 of the photo, 0.4 of class 1's colour
    assert "_hparams_/session_start_info" in events(tmp_path).summary_metadata


@pytest.mark.parametrize("evaluated", [4, 2], ids=["evaluated", "stopped before the evaluation"])
def test_a_resumed_run_writes_what_one_in_one_go_does(tmp_path: Path, evaluated: int) -> None:
    """Killed at iteration 7 of 8, the newest checkpoint is that of 4."""
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    board = Dashboard(straight, FLAGS)
    write(board, range(1, 9))
    board.close()
    board = Dashboard(cut, FLAGS)
    write(board, range(1, 8))
    board.close()
    board = Dashboard(cut, FLAGS, 4, evaluated)
    if evaluated < 4:
        board.evaluate(4, {"mIoU": 0.4, "Acc": 0.5, "class_names": ["a", "b"], "class_iou": [0.5, None]})
    write(board, range(5, 9))
    board.close()
    expected = scalars(straight)
    assert len(expected["Train/loss"]) == 8
    assert scalars(cut) == expected
    tags = ["Train/loss", "Train/loss_Dice", "Evaluate/mIoU", "Evaluate/IoU_a"]
    assert vdl_scalars(cut, tags) == vdl_scalars(straight, tags)
    Dashboard(cut, FLAGS).close()  # begun anew
    assert scalars(cut) == {}


def test_pictures_of_any_bands(tmp_path: Path) -> None:
    board = Dashboard(tmp_path, ["use_tensorboard"])
    label = np.zeros((6, 8), np.uint8)
    for number, channels in enumerate((1, 2, 7)):
        image = np.random.default_rng(0).integers(0, 9999, (6, 8, channels)).astype(np.float32)
        board.panel(1, number, (image, label, label), voc_palette(2))
    board.close()
    for number in range(3):
        (item,) = events(tmp_path).Images(f"Evaluate/sample_{number}: input, label, prediction")
        assert Image.open(io.BytesIO(item.encoded_image_string)).size == (24, 6)


def test_files_of_others_stay(tmp_path: Path) -> None:
    other = tmp_path / "events.out.tfevents.1.host.2.3"
    other.write_bytes(b"not ours")
    Dashboard(tmp_path, ["use_tensorboard"]).close()
    assert other.read_bytes() == b"not ours"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Dashboard(tmp_path, ["use_tensorboard"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writers[0]._writer, "flush", full)
    with pytest.raises(InputError, match=r"not all of the curves could be written.*or leave out --use_tensorboard"):
        board.flush()


class FakeWandb(types.ModuleType):
    """What segkit uses of wandb 0.31, tried against the real one: a test run need not install 25 MB of it."""

    class Error(Exception):
        pass

    def __init__(self, summary: dict[str, float], refuse: str = ""):
        super().__init__("wandb")
        self.errors = types.SimpleNamespace(Error=self.Error)
        self.summary, self.refuse = summary, refuse
        self.rows: list[dict[str, Any]] = []
        self.given: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.steps: dict[str, str] = {}
        self.ended: list[int] = []
        self.url = "https://wandb.ai/somebody/segkit/runs/1"

    def login(self) -> None:
        if self.refuse:
            raise self.Error(self.refuse)

    def Settings(self, **given: object) -> dict:
        return given

    def Image(self, picture: np.ndarray) -> np.ndarray:
        return picture

    def init(self, **given: Any) -> Any:
        self.given = given
        return types.SimpleNamespace(
            summary=self.summary, url=self.url, log=self.rows.append,
            config=types.SimpleNamespace(update=lambda values, allow_val_change: self.config.update(values)),
            define_metric=lambda name, step_metric=None, hidden=None: self.steps.update({name: step_metric}),
            finish=lambda exit_code: self.ended.append(exit_code),
        )  # fmt: skip


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb({})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def test_weights_and_biases_get_the_same(tmp_path: Path, wandb: FakeWandb) -> None:
    board = Dashboard(tmp_path / "run", ["use_wandb"])
    board.settings({"batch_size": 4})
    write(board, range(1, 3))
    board.close()
    assert (wandb.given["project"], wandb.given["name"], wandb.given["resume"]) == ("segkit", "run", "allow")
    assert wandb.config == {"batch_size": 4} and wandb.ended == [0]
    assert [item.get("Train/loss") for item in wandb.rows] == [1.0, 0.5, None, None]
    assert wandb.rows[3]["Evaluate/mIoU"] == pytest.approx(0.2) and wandb.rows[3]["Evaluate/iteration"] == 2
    assert wandb.rows[2]["Evaluate/sample_0: input, label, prediction"].shape == (6, 24, 3)
    assert wandb.steps["Train/*"] == "Train/iteration"


def test_a_resumed_run_goes_on_in_its_own(tmp_path: Path, wandb: FakeWandb, monkeypatch) -> None:
    """Killed at iteration 7, resumed at 4: the server has what came in between, and gets only the rest."""
    Dashboard(tmp_path, ["use_wandb"]).close()
    again = FakeWandb({"Train/iteration": 7, "Evaluate/iteration": 6})
    monkeypatch.setitem(sys.modules, "wandb", again)
    write(Dashboard(tmp_path, ["use_wandb"], 4, 4), range(5, 9))
    assert again.given["id"] == wandb.given["id"]
    assert [item["Train/iteration"] for item in again.rows if "Train/loss" in item] == [8]
    assert [item["Evaluate/iteration"] for item in again.rows if "Evaluate/mIoU" in item] == [8]
    Dashboard(tmp_path, ["use_wandb"])
    assert again.given["id"] != wandb.given["id"], "begun anew"


def test_a_resumed_run_offline_logs_nothing_twice(tmp_path: Path, wandb: FakeWandb, monkeypatch) -> None:
    """Its files cannot be shortened, and there is no server to ask: killed at iteration 7, resumed at 4, killed again
    before anything new was logged, and resumed."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(Dashboard(tmp_path, ["use_wandb"]), range(1, 8))
    write(Dashboard(tmp_path, ["use_wandb"], 4, 4), range(5, 7))
    write(Dashboard(tmp_path, ["use_wandb"], 4, 4), range(5, 9))
    assert [item["Train/iteration"] for item in wandb.rows if "Train/loss" in item] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [item["Evaluate/iteration"] for item in wandb.rows if "Evaluate/mIoU" in item] == [2, 4, 6, 8]
    write(Dashboard(tmp_path, ["use_wandb"]), range(1, 3))
    assert len([item for item in wandb.rows if "Train/loss" in item]) == 10, "begun anew"


def test_nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb({}, "No API key configured."))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(InputError, match=r"No API key configured. Log in with `wandb login`, or set WANDB_MODE=off"):
        Dashboard(tmp_path, ["use_wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    Dashboard(tmp_path, ["use_wandb"])


@pytest.mark.parametrize("flag", ["tensorboard", "wandb"])
def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    for name in ("tensorboard.summary.writer", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf"--use_{flag} needs .*pip install 'segkit\[{flag}\]' \(or: pip install {flag}"
    ):
        Dashboard(tmp_path, [f"use_{flag}"])


def test_off_unless_asked_and_aside_with_a_new_run(tmp_path: Path, wandb: FakeWandb, monkeypatch) -> None:
    config = tiny_config(make_data(tmp_path / "data", train=2, val=1), tmp_path / "c.yml", iters=2)
    asked: list[list[str]] = []
    monkeypatch.setattr(training, "Dashboard", lambda *given: asked.append(given[1]) or Dashboard(*given))
    argv = ["train", str(config), "--save_dir", str(tmp_path / "run"), "--device", "cpu", "--num_workers", "0"]
    argv += ["--quiet", "--log_iters", "1"]
    assert cli.main([*argv, "--use_tensorboard", "--use_wandb"]) == 0
    assert cli.main(argv) == 0
    assert asked == [["use_tensorboard", "use_wandb"], []]
    moved = tmp_path / "run" / "previous_1"
    losses = [json.loads(line)["loss"] for line in (moved / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [value for _, value in scalars(moved)["Train/loss"]] == pytest.approx(losses)
    assert [item["Train/loss"] for item in wandb.rows] == losses
    assert (moved / "wandb_id.txt").is_file() and not list((tmp_path / "run").glob("events*"))
