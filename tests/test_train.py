"""Training: what comes out, exact resume, and the options that change the loop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from segkit.config import Config
from segkit.engine import checkpoint
from segkit.engine.checkpoint import Progress
from segkit.engine.ema import WeightAverage
from segkit.engine.start import note_device
from segkit.engine.train import train
from segkit.engine.weights import load_state
from segkit.options import TrainOptions
from tests import train_cases
from tests.tiny import make_data, tiny_config
from tests.train_cases import options

data = train_cases.data
config = train_cases.config
lines = train_cases.lines


ROOT = Path(__file__).resolve().parents[1]


def same_weights(first: Path, second: Path) -> None:
    a, b = load_state(first / "model.pdparams"), load_state(second / "model.pdparams")
    assert list(a) == list(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    cfg = Config(tiny_config(data, folder / "config.yml"))
    train(cfg, options(folder / "out", do_eval=True, use_vdl=True, save_interval=2, keep_checkpoint_max=2))
    return folder / "out"


class TestOutput:
    def test_folders(self, run: Path) -> None:
        assert sorted(path.name for path in run.glob("iter_*")) == ["iter_4", "iter_6"]
        assert {p.name for p in (run / "iter_6").iterdir()} == {
            "model.pdparams",
            "model.pdopt",
            "config.yml",
            "trainer.json",
        }
        assert {p.name for p in (run / "best_model").iterdir()} == {"model.pdparams", "config.yml", "trainer.json"}
        assert [path.name for path in run.glob(".*")] == [".lock"]

    def test_log_lines(self, run: Path) -> None:
        text = (run / "train.log").read_text(encoding="utf-8")
        pattern = (
            r"\[TRAIN\] epoch: 1, iter: 2/6, loss: \d+\.\d{4}, lr: \d\.\d{6}, batch_cost: \d+\.\d{4}, "
            r"reader_cost: \d+\.\d{4}, ips: \d+\.\d samples/sec \| ETA \d\d:\d\d:\d\d"
        )
        assert re.search(pattern, text)
        assert re.search(r"\[EVAL\] #Images: 4 mIoU: \d\.\d{4} Acc: \d\.\d{4} Kappa: -?\d\.\d{4} Dice: \d\.\d{4}", text)
        assert "| square |" in text.replace("  ", " ")

    def test_metrics_jsonl(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [(row["kind"], row["iter"]) for row in rows] == [(k, i) for i in (2, 4, 6) for k in ("train", "eval")]
        assert {"loss", "lr", "batch_cost", "reader_cost", "ips", "epoch"} <= set(rows[0])
        assert {"mIoU", "Acc", "Kappa", "mDice", "class_iou"} <= set(rows[1])
        assert rows[4]["epoch"] == 1

    def test_learning_rates_are_those_of_the_iteration(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        # iteration 2 is the second of two warm-up steps; then the polynomial over the 4 that remain
        expected = {2: 0.05 / 2, 4: 0.05 * (1 - 1 / 4) ** 0.9, 6: 0.05 * (1 - 3 / 4) ** 0.9}
        for row in rows:
            if row["kind"] == "train":
                assert row["lr"] == pytest.approx(expected[row["iter"]], rel=1e-6)

    def test_dashboard(self, run: Path) -> None:
        from visualdl import LogReader

        reader = LogReader(file_path=str(run / "vdlrecords.segkit.log"))
        tags = {tag.replace("%", "/") for tag in reader.tags()}
        for tag in ("Train/loss", "Train/lr", "Train/batch_cost", "Train/reader_cost", "Evaluate/mIoU", "Evaluate/Acc",
                    "Evaluate/IoU_square"):  # fmt: skip
            assert any(tag in found for found in tags), tag
        assert any("sample_0" in found for found in tags)
        assert [record.id for record in reader.get_data("scalar", "Train/loss")] == [2, 4, 6]
        (graph,) = run.glob("vdlgraph.*.log")
        assert b"conv2d" in graph.read_bytes()

    def test_the_best_model_is_that_of_the_best_evaluation(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        scores = {row["iter"]: row["mIoU"] for row in rows if row["kind"] == "eval"}
        progress = json.loads((run / "iter_6" / "trainer.json").read_text(encoding="utf-8"))
        best = json.loads((run / "best_model" / "trainer.json").read_text(encoding="utf-8"))
        assert best["iteration"] == best["best_iteration"] == progress["best_iteration"] and not best["files"]
        assert re.fullmatch(r"cpu, \d+ threads?, fp32", *progress["trained_on"])
        assert progress["best_score"] == max(scores.values())
        assert progress["best_iteration"] == max(scores, key=scores.get)
        folder = run / f"iter_{progress['best_iteration']}"
        if folder.exists():
            same_weights(run / "best_model", folder)

    def test_the_config_in_the_folder_is_resolved(self, run: Path) -> None:
        assert Config(run / "best_model" / "config.yml").data["optimizer"]["type"] == "Momentum"


def test_training_learns(data: Path, tmp_path: Path, lines) -> None:
    cfg = Config(tiny_config(data, tmp_path / "c.yml", iters=60, batch_size=4, optimizer={"type": "Adam"}))
    train(cfg, options(tmp_path / "out", do_eval=True, save_interval=60, learning_rate=0.01))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["mIoU"] > 0.85


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_run_ends_with_the_same_weights(config: Path, tmp_path: Path, workers: int) -> None:
    five = ["model.type=BiSeNetV2", "loss.coef=[1,1,1,1,1]", "iters=4"]  # with dropout in the auxiliary heads
    cfg = Config(config, five if workers else ["optimizer.type=Adam"])
    common = {"num_workers": workers, "use_ema": True, "accumulate_steps": 2, "do_eval": True, "save_interval": 2}
    train(cfg, options(tmp_path / "whole", **common))
    stop = {"iters": 2}
    half = cfg.update({"lr_scheduler.decay_steps": cfg.iters - 2})  # the schedule of the whole run
    train(half.update(stop), options(tmp_path / "parts", **common))
    train(half, options(tmp_path / "parts", **common, resume_model="auto"))
    last = f"iter_{cfg.iters}"
    same_weights(tmp_path / "whole" / last, tmp_path / "parts" / last)
    for name in ("model.pdopt", "ema_model.pdparams"):
        a, b = (checkpoint.load_objects(tmp_path / part / last / name) for part in ("whole", "parts"))
        assert list(a) == list(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    rows = [
        [json.loads(line) for line in (tmp_path / part / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for part in ("whole", "parts")
    ]
    values = [[(r["iter"], r.get("loss"), r.get("lr"), r.get("mIoU")) for r in part] for part in rows]
    assert values[0] == values[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_weights(data: Path, tmp_path: Path, number: int) -> None:
    path = tiny_config(data, tmp_path / "c.yml", iters=150)
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "--config", str(path), "--num_workers", "1",
               "--device", "cpu", "--save_interval", "1000", "--log_iters", "5"]  # fmt: skip
    if number == signal.SIGINT:
        command += ["--use_ema", "--do_eval"]

    def start(folder: str, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--save_dir", str(tmp_path / folder), *more], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )

    stopped = start("parts")
    log = tmp_path / "parts" / "train.log"
    while stopped.poll() is None and not (log.exists() and "iter: 20/" in log.read_text(encoding="utf-8")):
        time.sleep(0.05)
    stopped.send_signal(number)
    said = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 128 + number, said
    assert "Traceback" not in said
    found = re.search(r"stopped at iteration (\d+)\. To go on, run the same command with --resume_model (\S+)", said)
    assert found, said
    assert (tmp_path / "parts" / f"iter_{found[1]}" / "model.pdparams").exists()
    resumed = start("parts", "--resume_model", "auto")
    whole = start("whole")
    for process in (resumed, whole):
        assert process.communicate(timeout=120) and process.returncode == 0
    same_weights(tmp_path / "whole" / "iter_150", tmp_path / "parts" / "iter_150")


def test_a_new_run_moves_the_old_one_aside(config: Path, tmp_path: Path, lines) -> None:
    cfg = Config(config).update({"iters": 1})
    train(cfg, options(tmp_path / "out"))
    before = (tmp_path / "out" / "iter_1" / "model.pdparams").read_bytes()
    train(cfg, options(tmp_path / "out", seed=7))
    assert (tmp_path / "out" / "previous_1" / "iter_1" / "model.pdparams").read_bytes() == before
    assert (tmp_path / "out" / "previous_1" / "train.log").exists()
    assert (tmp_path / "out" / "iter_1" / "model.pdparams").read_bytes() != before
    moved = [line for line in lines if "held an earlier run: moved to" in line]
    assert moved
    assert f"--resume_model {tmp_path / 'out' / 'previous_1'}" in moved[0]
    assert "held an earlier run" in (tmp_path / "out" / "train.log").read_text(encoding="utf-8")


def test_accumulated_batches_count_as_one_large_batch(data: Path, tmp_path: Path) -> None:
    """Without BatchNorm, whose statistics are those of the small batch, two batches of 2 train as one of 4."""
    changes = {"freeze": ["*batch_norm*"], "optimizer": {"type": "SGD"}, "iters": 3}
    cfg = Config(tiny_config(data, tmp_path / "c.yml", **changes))
    a = train(cfg.update({"batch_size": 4}), options(tmp_path / "a"))
    b = train(cfg, options(tmp_path / "b", accumulate_steps=2))
    for key, value in a.state_dict().items():
        np.testing.assert_allclose(value.numpy(), b.state_dict()[key].numpy(), rtol=1e-4, atol=1e-6, err_msg=key)


def test_early_stop_counts_evaluations_without_gain(config: Path, tmp_path: Path, lines) -> None:
    cfg = Config(config).update({"iters": 40, "lr_scheduler.learning_rate": 0.0, "freeze": ["*batch_norm*"]})
    train(cfg, options(tmp_path / "out", do_eval=True, save_interval=1, early_stop_intervals=2))
    assert [path.name for path in checkpoint.iterations(tmp_path / "out")][-1] == "iter_3"
    assert any("early stop: 2 evaluations without a better mIoU" in line for line in lines)
    again = options(tmp_path / "out", do_eval=True, save_interval=1, early_stop_intervals=2, resume_model="auto")
    train(cfg, again)  # it had enough already
    assert [path.name for path in checkpoint.iterations(tmp_path / "out")][-1] == "iter_3"


def test_going_back_to_an_older_checkpoint_loses_neither_course(config: Path, tmp_path: Path) -> None:
    cfg, out = Config(config), tmp_path / "out"
    train(cfg, options(out, do_eval=True, save_interval=2, keep_checkpoint_max=3))
    train(cfg, options(out, do_eval=True, save_interval=2, keep_checkpoint_max=1, resume_model=str(out / "iter_2")))
    assert [path.name for path in checkpoint.iterations(out)] == ["iter_6"]
    assert [path.name for path in checkpoint.iterations(out / "previous_1")] == ["iter_4", "iter_6"]


def test_the_best_model_comes_along_into_another_folder(config: Path, tmp_path: Path) -> None:
    cfg = Config(config).update({"lr_scheduler.learning_rate": 0.0, "freeze": ["*batch_norm*"]})  # never better
    train(cfg, options(tmp_path / "a", do_eval=True, save_interval=2))
    before = (tmp_path / "a" / "iter_4" / "trainer.json").read_bytes()
    train(cfg, options(tmp_path / "b", do_eval=True, save_interval=2, resume_model=str(tmp_path / "a" / "iter_4")))
    same_weights(tmp_path / "a" / "best_model", tmp_path / "b" / "best_model")
    assert (tmp_path / "a" / "iter_4" / "trainer.json").read_bytes() == before


@pytest.mark.parametrize("files", [None, {"model.pdparams": 3}, {"model.pdparams": [1, 2, 3]}])
def test_a_damaged_progress_file_is_passed_over(tmp_path: Path, files: object) -> None:
    folder = tmp_path / "iter_1"
    folder.mkdir()
    for name in ("model.pdparams", "model.pdopt"):
        (folder / name).write_bytes(b"")
    (folder / "trainer.json").write_text(json.dumps({"iteration": 1, "files": files}))
    assert checkpoint.iterations(tmp_path) == [] and checkpoint.find("auto", tmp_path) is None


def test_average_of_weights() -> None:
    model = paddle.nn.Linear(1, 1, bias_attr=False)
    model.weight.set_value(np.array([[1.0]], np.float32))
    average = WeightAverage(model, decay=0.9)
    expected = 1.0
    for number in range(3):
        model.weight.set_value(np.array([[2.0 + number]], np.float32))
        average.update(model)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * (2.0 + number)
    assert average.weights()["weight"].item() == pytest.approx(expected)
    with average.applied_to(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 4.0


def test_a_compiled_graph_trains_to_the_same_weights(config: Path, tmp_path: Path) -> None:
    cfg = Config(config).update({"iters": 2})
    a = train(cfg, options(tmp_path / "a"))
    b = train(cfg, options(tmp_path / "b", to_static_training=True))
    for key, value in a.state_dict().items():
        np.testing.assert_allclose(value.numpy(), b.state_dict()[key].numpy(), rtol=1e-3, atol=1e-5, err_msg=key)


def test_one_sigmoid_channel(data: Path, tmp_path: Path) -> None:
    changes = {"model": {"type": "UNet", "base_channels": 4, "num_classes": 1}, "optimizer": {"type": "Adam"},
               "loss": {"types": [{"type": "DiceLoss"}], "coef": [1]}, "iters": 60, "batch_size": 4}  # fmt: skip
    cfg = Config(tiny_config(data, tmp_path / "c.yml", **changes))
    model = train(cfg, options(tmp_path / "out", do_eval=True, save_interval=60, learning_rate=0.01))
    assert model(paddle.zeros([1, 3, 16, 16]))[0].shape == [1, 1, 16, 16]
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["mIoU"] > 0.85


def test_multilabel_flag_is_written_down(tmp_path: Path, data: Path) -> None:
    """Two planes side by side a label; the flag stands in config.yml, so that the other tools need none."""
    root = tmp_path / "planes"
    make_data(root)
    for path in (root / "labels").glob("*.png"):
        label = np.asarray(Image.open(path))
        Image.fromarray(np.concatenate([1 - label, label], axis=1)).save(path)
    changes = {"loss": {"types": [{"type": "BCELoss"}], "coef": [1]}, "iters": 2}
    cfg = Config(tiny_config(root, tmp_path / "c.yml", **changes))
    train(cfg, options(tmp_path / "out", use_multilabel=True, do_eval=True, use_vdl=True, save_interval=2))
    saved = Config(tmp_path / "out" / "best_model" / "config.yml")
    assert saved.data["train_dataset"]["use_multilabel"] is True
    assert saved.data["val_dataset"]["use_multilabel"] is True
    again = Config(tiny_config(root, tmp_path / "t.yml", test_config={"use_multilabel": True}, **changes))
    assert again.data["val_dataset"]["use_multilabel"] is True


@pytest.mark.parametrize("iteration, expected", [(0, 1), (5, 2)])
def test_a_checkpoint_that_does_not_tell_its_device(iteration: int, expected: int) -> None:
    """One of an older segkit: the iterations before are not credited to this device."""
    progress = Progress(iteration=iteration)
    for _ in range(2):
        note_device(progress, TrainOptions())
    assert len(progress.trained_on) == expected and "cpu" in progress.trained_on[-1]
    assert (progress.trained_on[0] == "what its checkpoint does not tell") == (expected == 2)
