"""Knowledge distillation: a trained teacher's outputs as a further target."""

from __future__ import annotations

import inspect
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
        teacher_cfg = Config(options.teacher_config, trust=cfg.trust)
        classes, own = (build.data_info(each).num_classes for each in (teacher_cfg, cfg))
        if classes != own:
            raise InputError(
                f"--teacher_config {options.teacher_config}: the teacher tells {classes} classes apart "
                f"(expected {own}, those of {cfg.path}). Take a teacher of the same data."
            )
        self.model = build.build_model(teacher_cfg)
        load_weights(self.model, options.teacher_model_path, strict=True)
        self.model.eval()
        self.losses = build.build_losses(cfg, "distill_loss")

    def add(
        self,
        total: paddle.Tensor,
        parts: dict[str, paddle.Tensor],
        outputs: list[paddle.Tensor],
        batch: dict[str, Any],
    ) -> tuple[paddle.Tensor, dict[str, Any]]:
        """`total` with the distillation losses of the main output [N, C, H, W] added; each part under its name.

        Losses made for it are given the label too, whose ignored pixels they leave out.
        """
        with paddle.no_grad():
            target = self.model(batch["image"])[0]
        for name, loss, coefficient in self.losses:
            label = (batch["label"],) if "teacher" in inspect.signature(loss.forward).parameters else ()
            value = loss(outputs[0], target, *label)
            parts = {**parts, f"loss_distill_{name}": value.detach()}
            total = total + value * coefficient
        return total, parts
