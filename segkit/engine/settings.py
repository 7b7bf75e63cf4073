"""Where flags and config meet: one config and one set of options that say the same."""

from __future__ import annotations

import dataclasses
from typing import Any

from segkit.config import Config
from segkit.errors import InputError
from segkit.options import TrainOptions

_LR_KEYS = ("learning_rate", "base_learning_rate", "max_learning_rate")


def with_flags(cfg: Config, options: TrainOptions) -> Config:
    """`cfg` with the flags that stand for keys of the config over it; 0 counts."""
    changes: dict[str, Any] = {}
    for name in ("iters", "batch_size", "seed"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    if options.to_static_training:
        changes["to_static_training"] = True
    if options.use_multilabel:  # written into config.yml, so that val, predict and export know
        changes.update(
            {f"{part}.use_multilabel": True for part in ("train_dataset", "val_dataset") if part in cfg.data}
        )
    if options.learning_rate is not None:
        node = cfg.data["lr_scheduler"]
        key = next((key for key in _LR_KEYS if key in node), None)
        if key is None:
            raise InputError(
                f"--learning_rate: {node['type']} has no base learning rate ({cfg.mark('lr_scheduler')}). "
                "Override its values with --opts instead."
            )
        changes[f"lr_scheduler.{key}"] = options.learning_rate
    return cfg.update(changes, source="--") if changes else cfg


def settle(options: TrainOptions, cfg: Config) -> TrainOptions:
    """Defaults that depend on the config filled in, and impossible values refused."""
    for name in ("log_iters", "keep_checkpoint_max", "repeats", "accumulate_steps"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: got {getattr(options, name)}, expected at least 1. Give such a number.")
    if options.num_workers is not None and options.num_workers < 0:
        raise InputError(f"--num_workers: got {options.num_workers}, expected at least 0. Give such a number.")
    interval = options.save_interval
    if interval is None:
        interval = max(1, min(1000, -(-cfg.iters // 5)))
    elif interval < 1:
        raise InputError(f"--save_interval: got {interval}, expected at least 1. Give such a number.")
    if options.early_stop_intervals is not None and options.early_stop_intervals < 1:
        raise InputError(
            f"--early_stop_intervals: got {options.early_stop_intervals}, expected at least 1. Give such a number."
        )
    if options.early_stop_intervals is not None and not options.do_eval:
        raise InputError("--early_stop_intervals counts evaluations: add --do_eval.")
    if bool(options.teacher_config) != bool(options.teacher_model_path):
        raise InputError("--teacher_config and --teacher_model_path go together. Give both.")
    return dataclasses.replace(options, save_interval=interval, seed=cfg.seed if cfg.seed is not None else 42)


def check_best_metric(name: str, class_names: list[str]) -> None:
    """`mIoU`, `mDice`, `Acc`, `Kappa` or `IoU/<class>`, else an `InputError`."""
    if name in ("mIoU", "mDice", "Acc", "Kappa"):
        return
    kind, _, wanted = name.partition("/")
    if kind != "IoU" or wanted not in class_names:
        raise InputError(
            f"--best_metric {name}: expected mIoU, mDice, Acc, Kappa or IoU/<class> with one of "
            f"{', '.join(class_names)}."
        )


def metric_value(metrics: dict[str, Any], name: str) -> float:
    """The number of `best_metric` in what evaluate returned; a class that never occurred counts as 0."""
    if not name.startswith("IoU/"):
        return float(metrics[name])
    value = metrics["class_iou"][metrics["class_names"].index(name[4:])]
    return 0.0 if value is None or value != value else float(value)
