"""The training loss of a batch: one loss for each output of the model, weighted and added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from segkit.errors import InputError


def total_loss(
    outputs: list[paddle.Tensor], losses: list[tuple[str, Callable[..., Any], float]], batch: dict[str, Any]
) -> tuple[paddle.Tensor, dict[str, paddle.Tensor]]:
    """Weighted sum over the outputs [N, C, H, W] against the label, and each part under `loss_<name>`.

    A loss with `edge_label` is compared with the edges instead.
    """
    if len(outputs) != len(losses):
        raise InputError(
            f"loss.coef: the model gives {len(outputs)} outputs in training, but there are {len(losses)} losses. "
            f"Give one loss for each, or a single one with coef: {[1] * len(outputs)}."
        )
    total, parts = None, {}
    for output, (name, loss, coefficient) in zip(outputs, losses):
        target = batch.get("edge" if getattr(loss, "edge_label", False) else "label")
        if target is None:
            raise InputError(f"loss {name} compares with edges: set train_dataset.edge: True.")
        value = loss(output, target)
        parts[f"loss_{name}"] = value.detach()
        total = value * coefficient if total is None else total + value * coefficient
    return total, parts
