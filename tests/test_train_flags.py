"""The flags of training: what they do, and what is wrong with them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit.config import Config
from segkit.engine import checkpoint
from segkit.engine.freeze import freeze
from segkit.engine.sampler import EpochSampler
from segkit.engine.train import train
from segkit.engine.weights import load_state
from segkit.errors import InputError
from tests import train_cases
from tests.tiny import make_data, tiny_config
from tests.train_cases import options

data = train_cases.data
config = train_cases.config
lines = train_cases.lines


class TestResumeMistakes:
    def test_nothing_left_to_train_and_another_optimizer(self, config: Path, tmp_path: Path) -> None:
        cfg = Config(config).update({"iters": 2})
        train(cfg, options(tmp_path / "out"))
        with pytest.raises(InputError, match=r"finished: it stands at iteration 2 of 2\. Raise --iters"):
            train(cfg, options(tmp_path / "out", resume_model=str(tmp_path / "out")))
        other = cfg.update({"iters": 4, "optimizer.type": "Adam"})
        with pytest.raises(InputError, match=r"was trained with Momentum, the config says Adam"):
            train(other, options(tmp_path / "out", resume_model="auto"))
        with pytest.raises(InputError, match=r"has no ema_model\.pdparams: it was trained without --use_ema"):
            train(cfg.update({"iters": 4}), options(tmp_path / "out", resume_model="auto", use_ema=True))
        train(cfg, options(tmp_path / "ema", use_ema=True))
        with pytest.raises(InputError, match=r"was trained with --use_ema\. Resume with it"):
            train(cfg.update({"iters": 4}), options(tmp_path / "ema", resume_model="auto"))

    def test_auto_with_nothing_there_starts_anew(self, config: Path, tmp_path: Path, lines) -> None:
        train(Config(config).update({"iters": 1}), options(tmp_path / "out", resume_model="auto"))
        assert any("holds no checkpoint yet, training starts from the beginning" in line for line in lines)

    def test_a_torn_folder_is_not_picked(self, config: Path, tmp_path: Path) -> None:
        cfg = Config(config).update({"iters": 2})
        train(cfg, options(tmp_path / "out"))
        (tmp_path / "out" / "iter_2" / "trainer.json").rename(tmp_path / "kept.json")
        assert [p.name for p in checkpoint.iterations(tmp_path / "out")] == ["iter_1"]
        (tmp_path / "out" / "iter_1" / "trainer.json").write_text("{", encoding="utf-8")
        assert checkpoint.find("auto", tmp_path / "out") is None
        with pytest.raises(InputError, match=r"trainer\.json: cannot be read .*Resume from another iter folder"):
            train(cfg, options(tmp_path / "out", resume_model=str(tmp_path / "out" / "iter_1")))

    def test_a_file_that_is_shorter_or_changed_is_passed_over(self, config: Path, tmp_path: Path, lines) -> None:
        cfg = Config(config).update({"iters": 3})
        train(cfg, options(tmp_path / "out", save_interval=1))
        out = tmp_path / "out"
        weights = out / "iter_3" / "model.pdparams"
        weights.write_bytes(weights.read_bytes()[:-1])
        optimizer = out / "iter_2" / "model.pdopt"
        content = bytearray(optimizer.read_bytes())
        content[len(content) // 2] ^= 1
        optimizer.write_bytes(content)
        assert checkpoint.find("auto", out) == out / "iter_1"
        torn = f"{out / 'iter_3'}: torn, and passed over: a file is missing, or not as long as it was written."
        damaged = f"{out / 'iter_2'}: damaged, and passed over: model.pdopt changed on the disk."
        remedy = (
            "Nothing needs to be done: the newest whole one is taken, if there is one. Or copy this one here again."
        )
        assert all(any(line.startswith(f"{said} {remedy}") for line in lines) for said in (torn, damaged))
        with pytest.raises(InputError, match=r"iter_3: torn: .*Copy it again, or resume from another"):
            checkpoint.find(str(out / "iter_3"), out)
        with pytest.raises(InputError, match=r"iter_2: damaged: model\.pdopt changed on the disk since it was written"):
            checkpoint.find(str(out / "iter_2"), out)


class TestFreeze:
    def test_frozen_parameters_stay(self, data: Path, tmp_path: Path) -> None:
        cfg = Config(tiny_config(data, tmp_path / "c.yml", freeze=["encode"], iters=2))
        train(cfg.update({"lr_scheduler.learning_rate": 0.0}), options(tmp_path / "a"))
        train(cfg, options(tmp_path / "b"))
        a, b = (load_state(tmp_path / part / "iter_2" / "model.pdparams") for part in "ab")
        for key in a:
            if key.startswith("encode"):
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        assert not np.array_equal(
            a["decode.up_sample_list.0.double_conv.0._conv.weight"],
            b["decode.up_sample_list.0.double_conv.0._conv.weight"],
        )

    def test_a_pattern_that_matches_nothing(self) -> None:
        with pytest.raises(
            InputError, match=r"freeze: 'backbon\*' matches no parameter\. They start with weight, bias"
        ):
            freeze(paddle.nn.Linear(1, 1), ["backbon*"])


class TestFlags:
    def test_flags_win_over_the_config_zero_included(self, config: Path, tmp_path: Path) -> None:
        train(Config(config), options(tmp_path / "out", iters=1, batch_size=1, learning_rate=0.0, seed=5))
        saved = Config(tmp_path / "out" / "iter_1" / "config.yml")
        assert (saved.iters, saved.batch_size, saved.seed) == (1, 1, 5)
        assert saved.data["lr_scheduler"]["learning_rate"] == 0.0

    def test_the_best_by_one_class(self, config: Path, tmp_path: Path) -> None:
        train(Config(config), options(tmp_path / "out", do_eval=True, save_interval=3, best_metric="IoU/square"))
        rows = [
            json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        best = max(row["class_iou"][1] or 0 for row in rows if row["kind"] == "eval")
        assert json.loads((tmp_path / "out" / "iter_6" / "trainer.json").read_text())["best_score"] == pytest.approx(
            best
        )

    def test_a_schedule_without_a_base_rate(self, data: Path, tmp_path: Path) -> None:
        node = {"type": "PiecewiseDecay", "boundaries": [2], "values": [0.1, 0.01]}
        cfg = Config(tiny_config(data, tmp_path / "c.yml", lr_scheduler=node))
        with pytest.raises(InputError, match=r"--learning_rate: PiecewiseDecay has no base learning rate"):
            train(cfg, options(tmp_path / "out", learning_rate=0.5))


class TestMistakes:
    def test_a_loss_that_is_not_finite_names_iteration_files_and_rate(self, data: Path, tmp_path: Path) -> None:
        cfg = Config(tiny_config(data, tmp_path / "c.yml", optimizer={"type": "SGD"}, iters=60)).update(
            {"lr_scheduler.learning_rate": 3e38}
        )
        with pytest.raises(
            InputError,
            match=r"the loss is not finite at iteration \d+ \(learning rate \S+, files .*images.*\.png\)\. Lower the",
        ):
            train(cfg, options(tmp_path / "out"))

    def test_outputs_and_losses_differ_in_number(self, data: Path, tmp_path: Path, monkeypatch) -> None:
        from segkit.models.bisenet import BiSeNetV2

        path = tiny_config(data, tmp_path / "c.yml", model={"type": "BiSeNetV2"})
        message = r"the model gives 5 outputs in training, but there are 1 losses.*coef: \[1, 1, 1, 1, 1\]"
        with pytest.raises(InputError, match=r"c\.yml:\d+: loss\.coef: " + message):
            Config(path)
        monkeypatch.delattr(BiSeNetV2, "train_outputs")  # a model that does not say: found at the first batch
        with pytest.raises(InputError, match=message):
            train(Config(path), options(tmp_path / "out"))

    def test_all_bad_samples_are_listed_and_what_was_trained_is_saved(self, tmp_path: Path) -> None:
        root = make_data(tmp_path / "data", train=30)
        order = EpochSampler(30, 2, seed=42)
        keys = [number for batch in itertools.islice(order, 15) for _, number in batch]
        for index in keys[6:]:  # the first three batches are good
            (root / "images" / f"{index:03d}.png").write_bytes(b"")
        cfg = Config(tiny_config(root, tmp_path / "c.yml", iters=10))
        with pytest.raises(InputError, match=r"24 of 30 train samples cannot be used:") as caught:
            train(cfg, options(tmp_path / "out"))
        assert str(caught.value).count(".png: ") == 20
        assert "... and 4 more" in str(caught.value)
        assert [path.name for path in checkpoint.iterations(tmp_path / "out")] == ["iter_2", "iter_3"]
        log = (tmp_path / "out" / "train.log").read_text(encoding="utf-8")
        assert "24 of 30 train samples cannot be used" in log

    def test_a_failing_evaluation_leaves_the_checkpoint(self, tmp_path: Path) -> None:
        root = make_data(tmp_path / "data")
        (root / "images" / "013.png").write_bytes(b"\x89PNG")
        cfg = Config(tiny_config(root, tmp_path / "c.yml", iters=2))
        with pytest.raises(InputError, match=r"013\.png"):
            train(cfg, options(tmp_path / "out", do_eval=True, save_interval=2))
        assert [path.name for path in checkpoint.iterations(tmp_path / "out")] == ["iter_2"]

    def test_a_refused_run_leaves_the_old_one_in_place(self, config: Path, tmp_path: Path) -> None:
        cfg = Config(config).update({"iters": 1})
        train(cfg, options(tmp_path / "out"))
        with pytest.raises(InputError, match="needs a distill_loss"):
            train(cfg, options(tmp_path / "out", teacher_config=str(config), teacher_model_path="x"))
        assert (tmp_path / "out" / "iter_1").is_dir()
        assert not (tmp_path / "out" / "previous_1").exists()

    def test_a_read_only_folder(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(InputError, match=r"--save_dir .*file/out: cannot be written"):
            train(Config(config), options(tmp_path / "file" / "out"))

    def test_a_full_disk_leaves_the_last_checkpoint(self, config: Path, tmp_path: Path, monkeypatch) -> None:
        cfg = Config(config)
        train(cfg.update({"iters": 2}), options(tmp_path / "out", save_interval=2))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "_sync", full)
        with pytest.raises(InputError, match=r"iter_4: cannot be written \(No space left on device\)\. Free space"):
            train(cfg.update({"iters": 4}), options(tmp_path / "out", save_interval=2, resume_model="auto"))
        assert [p.name for p in checkpoint.iterations(tmp_path / "out")] == ["iter_2"]
        assert not list((tmp_path / "out").glob(".*.part"))

    def test_pretrained_weights_of_another_model(self, config: Path, tmp_path: Path) -> None:
        train(Config(config).update({"iters": 1}), options(tmp_path / "unet"))
        weights = tmp_path / "unet" / "iter_1" / "model.pdparams"
        cfg = Config(config, ["model.type=DoveNet", f"model.pretrained={weights}"])
        with pytest.raises(InputError, match=r"model\.pretrained: .*model\.pdparams"):
            train(cfg, options(tmp_path / "out"))

    def test_a_teacher_without_a_distillation_loss(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--teacher_config needs a distill_loss in the config"):
            train(
                Config(config), options(tmp_path / "out", teacher_config=str(config), teacher_model_path="x.pdparams")
            )


def test_a_teacher_pulls_the_student(config: Path, data: Path, tmp_path: Path) -> None:
    train(Config(config).update({"iters": 1}), options(tmp_path / "teacher"))
    cfg = Config(
        tiny_config(data, tmp_path / "s.yml", distill_loss={"types": [{"type": "KLLoss"}], "coef": [3]}, iters=2)
    )
    weights = str(tmp_path / "teacher" / "iter_1")
    train(cfg, options(tmp_path / "out", log_iters=1, teacher_config=str(config), teacher_model_path=weights))
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["loss"] == pytest.approx(row["loss_CrossEntropyLoss"] + 3 * row["loss_distill_KLLoss"], rel=1e-5)


def test_a_teacher_and_the_label(config: Path, data: Path, tmp_path: Path) -> None:
    """DistillCrossEntropyLoss is given the label too; a plain loss compares the scores alone."""
    train(Config(config).update({"iters": 1}), options(tmp_path / "teacher"))
    types = [{"type": "DistillCrossEntropyLoss"}, {"type": "MSELoss"}]
    cfg = Config(tiny_config(data, tmp_path / "s.yml", distill_loss={"types": types, "coef": [2, 0.5]}, iters=1))
    weights = str(tmp_path / "teacher" / "iter_1")
    train(cfg, options(tmp_path / "out", log_iters=1, teacher_config=str(config), teacher_model_path=weights))
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    distilled = 2 * row["loss_distill_DistillCrossEntropyLoss"] + 0.5 * row["loss_distill_MSELoss"]
    assert row["loss"] == pytest.approx(row["loss_CrossEntropyLoss"] + distilled, rel=1e-5)


def test_teachers_that_cannot_teach(config: Path, data: Path, tmp_path: Path) -> None:
    cfg = Config(tiny_config(data, tmp_path / "s.yml", distill_loss={"types": [{"type": "KLLoss"}], "coef": [3]}))
    other = Config(config, ["train_dataset.num_classes=4", "train_dataset.class_names=null",
                            "val_dataset.num_classes=4", "val_dataset.class_names=null"])  # fmt: skip
    other.save(tmp_path / "four.yml")
    for teacher, message in (
        (tmp_path / "four.yml", r"four\.yml: the teacher tells 4 classes apart \(expected 2"),
        (config, r"nowhere"),
        (tmp_path / "none.yml", r"none\.yml"),
    ):
        with pytest.raises(InputError, match=message):
            train(cfg, options(tmp_path / "out", teacher_config=str(teacher), teacher_model_path="nowhere"))
    alone = {"types": [{"type": "DistillCrossEntropyLoss"}], "coef": [1]}
    with pytest.raises(InputError, match=r"loss DistillCrossEntropyLoss compares with a teacher\. Put it under"):
        train(Config(tiny_config(data, tmp_path / "l.yml", loss=alone)), options(tmp_path / "out"))
