"""The training loss of a batch: one loss for each output of the model, weighted and added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from segkit.errors import InputError


def total_loss(
    outputs: list[paddle.Tensor],
    losses: list[tuple[str, Callable[..., Any], float]],
    batch: dict[str, Any],
    model: Any = None,
) -> tuple[paddle.Tensor, dict[str, paddle.Tensor]]:
    """Weighted sum over the outputs [N, C, H, W] against the label, and each part under `loss_<name>`.

    A loss with `edge_label` is compared with the edges instead. One with `of_two_outputs`, such as KLLoss, compares
    the first output with the second, which it leaves as it is. Losses beyond the outputs get what the model's
    `further_terms(outputs, label, ignore_index)` gives: pairs of an output and a target.
    """
    pairs: list[tuple[paddle.Tensor, Any]] = [(output, None) for output in outputs]
    further = getattr(model, "further_terms", None)
    if further is not None and len(losses) > len(outputs):
        pairs += further(outputs, batch["label"], getattr(losses[-1][1], "ignore_index", 255))
    if len(pairs) != len(losses):
        raise InputError(
            f"loss.coef: the model gives {len(pairs)} outputs in training, but there are {len(losses)} losses. "
            f"Give one loss for each, or a single one with coef: {[1] * len(pairs)}."
        )
    total, parts = None, {}
    for (output, target), (name, loss, coefficient) in zip(pairs, losses):
        if getattr(loss, "of_two_outputs", False):
            value = loss(outputs[0], _second(outputs, name))
        else:
            value = loss(output, _target(loss, name, batch) if target is None else target)
        parts[f"loss_{name}"] = value.detach()
        total = value * coefficient if total is None else total + value * coefficient
    return total, parts


def _target(loss: Callable[..., Any], name: str, batch: dict[str, Any]) -> Any:
    if getattr(loss, "needs_teacher", False):
        raise InputError(f"loss {name} compares with a teacher. Put it under distill_loss, and give --teacher_config.")
    target = batch.get("edge" if getattr(loss, "edge_label", False) else "label")
    if target is None:
        raise InputError(f"loss {name} compares with edges: set train_dataset.edge: True.")
    return target


def _second(outputs: list[paddle.Tensor], name: str) -> paddle.Tensor:
    if len(outputs) < 2:
        raise InputError(
            f"loss {name} compares the model's first output with its second (got a model with one output in training). "
            "Take a model with an auxiliary output, or put it under distill_loss, with a teacher."
        )
    return outputs[1].detach()
