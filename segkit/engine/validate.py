"""Evaluation during training: the validation set, its numbers, and its pictures for the dashboard."""

from __future__ import annotations

from typing import Any

import paddle

from segkit import build
from segkit.config import Config
from segkit.engine.dashboard import Dashboard
from segkit.engine.evaluate import evaluate
from segkit.options import EvalOptions, TrainOptions

_PANELS = 4


class Validator:
    """Holds the validation set and evaluates a model on it."""

    def __init__(self, cfg: Config, options: TrainOptions):
        self.cfg = cfg
        self.dataset = build.build_dataset(cfg, "val", use_multilabel=options.use_multilabel)
        self.options = EvalOptions(
            num_workers=options.num_workers,
            precision=options.precision,
            use_multilabel=options.use_multilabel,
            no_onednn=options.no_onednn,
        )

    def __call__(self, model: paddle.nn.Layer) -> dict[str, Any]:
        """Metrics of the model on the whole set; on several ranks each takes its share."""
        return evaluate(model, self.dataset, self.options, self.cfg.test_config)

    def row(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """What goes into metrics.jsonl."""
        names = ("mIoU", "Acc", "Kappa", "mDice", "class_iou")
        return {name: metrics[name] for name in names if name in metrics}

    def panels(self, dashboard: Dashboard, model: paddle.nn.Layer, iteration: int) -> None:
        """Input, label and prediction of the first few samples."""
        if not dashboard.on or self.options.use_multilabel or getattr(self.dataset, "use_multilabel", False):
            return
        from segkit.engine.evaluate import predict_sample

        for number in range(min(_PANELS, len(self.dataset))):
            raw = self.dataset.read(number)
            prediction = predict_sample(model, self.dataset, number, self.options, self.cfg.test_config)
            dashboard.panel(iteration, number, (raw["image"], raw["label"], prediction), self.dataset.palette)
