"""What checkpoints survive: other courses in the folder, a disk that refuses, weights that are not finite, fp16."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from segkit.config import Config
from segkit.engine import checkpoint
from segkit.engine import train as module
from segkit.engine.loss_scaler import LossScaler
from segkit.engine.train import train
from segkit.engine.trainlog import TrainLog
from segkit.engine.weights import load_state
from segkit.errors import InputError
from tests.train_cases import config, data, lines, options

__all__ = ["config", "data", "lines"]


def weights(folder: Path) -> dict[str, bytes]:
    return {key: np.asarray(value).tobytes() for key, value in load_state(folder / "model.pdparams").items()}


def test_going_back_keeps_the_best_model_of_the_course_that_is_left(config: Path, tmp_path: Path) -> None:
    """That of the new one soon takes its name."""
    cfg, out = Config(config), tmp_path / "out"
    train(cfg, options(out, do_eval=True, save_interval=2, keep_checkpoint_max=3))
    best = weights(out / "best_model")
    progress = out / "iter_2" / "trainer.json"
    found = json.loads(progress.read_text(encoding="utf-8"))
    progress.write_text(json.dumps({**found, "best_score": -1.0}), encoding="utf-8")  # anything is better than that
    back = options(out, do_eval=True, save_interval=2, learning_rate=1e-6, resume_model=str(out / "iter_2"))
    train(cfg, back)
    assert weights(out / "best_model") != best
    assert weights(out / "previous_1" / "best_model") == best


def test_a_run_that_comes_from_elsewhere_mixes_with_nothing(config: Path, tmp_path: Path) -> None:
    """Else `auto` may go on from what the folder held before."""
    cfg, a, b = Config(config), tmp_path / "a", tmp_path / "b"
    train(cfg.update({"iters": 2}), options(a, do_eval=True, save_interval=1))
    train(cfg.update({"iters": 2}), options(b, do_eval=True, save_interval=1, seed=7))
    held, came = weights(b / "best_model"), weights(a / "best_model")
    flags = {"do_eval": True, "save_interval": 9, "log_iters": 1, "keep_checkpoint_max": 1}
    train(
        cfg.update({"iters": 3, "lr_scheduler.learning_rate": 0.0}), options(b, **flags, resume_model=str(a / "iter_2"))
    )
    assert [path.name for path in checkpoint.iterations(b)] == ["iter_3"]
    assert [path.name for path in checkpoint.iterations(b / "previous_1")] == ["iter_1", "iter_2"]
    assert weights(b / "previous_1" / "best_model") == held
    assert came in (weights(b / "best_model"), weights(a / "best_model"))
    rows = [json.loads(line) for line in (b / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["iter"] for row in rows} == {3}


@pytest.mark.parametrize("name", ["iter_1", "best_model"])
def test_a_rename_that_fails_is_told_and_leaves_the_old_one(tmp_path: Path, monkeypatch, name: str) -> None:
    folder, rename = tmp_path / name, Path.rename
    checkpoint.publish(folder, lambda path: (path / "a").write_text("old"))

    def full(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(
        InputError, match=rf"{name}: cannot be written \(No space left.*the last whole checkpoint is unt"
    ):
        checkpoint.publish(folder, lambda path: (path / "a").write_text("new"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "a").read_text() == "old"


def test_metrics_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, 4, (0, 0), 2, 1)
    log.jsonl.mkdir()
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(.*--resume_model auto"):
        log.write("train", 1, {"loss": 1.0})
    log.close()


def test_weights_that_are_not_finite_are_never_the_newest_checkpoint(config: Path, tmp_path: Path, monkeypatch) -> None:
    """A finite loss may have gradients that are not."""
    out, update = tmp_path / "out", module.Step._update

    def overflow(self: module.Step) -> None:
        if (out / "iter_2").is_dir():
            weight = self.state.model.parameters()[0]
            weight.grad.set_value(np.full(weight.shape, np.inf, np.float32))
        update(self)

    monkeypatch.setattr(module.Step, "_update", overflow)
    message = (
        r"iter_3: not written: not finite after iteration 3: \S.*\. Lower the learning .*--resume_model .*iter_2\."
    )
    with pytest.raises(InputError, match=message):
        train(Config(config), options(out, save_interval=1))
    monkeypatch.undo()
    assert checkpoint.find("auto", out) == out / "iter_2"
    train(Config(config), options(out, save_interval=1, resume_model="auto"))


class Scaled(module.Step):
    """As in fp16 on a GPU: gradients of a scaled loss, which overflow in the third iteration."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.scaler = LossScaler(init_loss_scaling=1024.0, incr_every_n_steps=2)
        assert self.scaler.is_enable()

    def __call__(self, batches: list, iteration: int, log: TrainLog) -> dict[str, paddle.Tensor]:
        self.now = iteration
        return super().__call__(batches, iteration, log)

    def _update(self) -> None:
        if self.now == 3:
            weight = self.state.model.parameters()[0]
            weight.grad.set_value(np.full(weight.shape, np.inf, np.float32))
        super()._update()


def test_the_scale_of_the_loss_is_resumed(config: Path, tmp_path: Path, monkeypatch, lines) -> None:
    """The scaler itself on the CPU, where Paddle switches it off: told that it is on a GPU in fp16."""
    from paddle.amp import grad_scaler

    place = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    monkeypatch.setattr(grad_scaler, "amp_global_state", lambda: SimpleNamespace(amp_dtype="float16"))
    monkeypatch.setattr(module, "Step", Scaled)
    cfg = Config(config).update({"lr_scheduler.decay_steps": 6})
    train(cfg, options(tmp_path / "whole", save_interval=1, keep_checkpoint_max=9))
    scales = [checkpoint.read_progress(tmp_path / "whole" / f"iter_{n}" / "trainer.json").scaler for n in range(1, 7)]
    assert [scale["scale"] for scale in scales] == [[1024], [2048], [1024], [1024], [2048], [2048]]
    assert "fp16: gradients overflowed, the step was skipped; the loss scale is now 1024" in lines
    for stop in (3, 4):  # with each of its counts on the way
        out = tmp_path / f"parts-{stop}"
        train(cfg.update({"iters": stop}), options(out, save_interval=stop))
        assert checkpoint.read_progress(out / f"iter_{stop}" / "trainer.json").scaler == scales[stop - 1]
        train(cfg, options(out, save_interval=6, resume_model="auto"))
        assert checkpoint.read_progress(out / "iter_6" / "trainer.json").scaler == scales[-1]
        assert weights(out / "iter_6") == weights(tmp_path / "whole" / "iter_6")
