"""Knowledge distillation: a trained teacher's outputs as a further target."""

from __future__ import annotations

from typing import Any

import paddle

from segkit import build
from segkit.config import Config
from segkit.engine.weights import load_weights
from segkit.errors import InputError
from segkit.options import TrainOptions


class Teacher:
    """The teacher of `--teacher_config` and `--teacher_model_path`, compared by the config's `distill_loss`."""

    def __init__(self, cfg: Config, options: TrainOptions):
        if "distill_loss" not in cfg.data:
            raise InputError(
                f"{cfg.path}: --teacher_config needs a distill_loss in the config. "
                "Add for example `distill_loss: {types: [{type: KLLoss}], coef: [3]}`."
            )
        teacher_cfg = Config(options.teacher_config)
        self.model = build.build_model(teacher_cfg)
        load_weights(self.model, options.teacher_model_path, strict=True)
        self.model.eval()
        self.losses = build.build_losses(cfg, "distill_loss")

    def add(
        self, total: paddle.Tensor, parts: dict[str, paddle.Tensor], outputs: list[paddle.Tensor], image: paddle.Tensor
    ) -> tuple[paddle.Tensor, dict[str, Any]]:
        """`total` with the distillation losses of the main output [N, C, H, W] added; each part under its name."""
        with paddle.no_grad():
            target = self.model(image)[0]
        for name, loss, coefficient in self.losses:
            value = loss(outputs[0], target)
            parts = {**parts, f"loss_distill_{name}": value.detach()}
            total = total + value * coefficient
        return total, parts
