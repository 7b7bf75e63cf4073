"""Schedules and optimizers of Paddle and of configs, and what a mistaken node is answered with."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.errors import InputError
from segkit.optim import (
    OptimizerKeys,
    SchedulerKeys,
    build_optimizer,
    build_scheduler,
    effective_type,
    optimizer_classes,
    scheduler_classes,
)
from tests.optim_cases import rates, toy


def optimizer(node: dict, names=("backbone.w", "head.w")) -> paddle.optimizer.Optimizer:
    return build_optimizer(node, build_scheduler({"type": "PolynomialDecay", "learning_rate": 0.1}, 10), toy(names))


def groups(node: dict, names=("backbone.w", "head.w")) -> list[tuple[float, float | None]]:
    return [(group["learning_rate"], group.get("weight_decay")) for group in optimizer(node, names)._param_groups]


def test_type_in_any_case_and_sgd_with_momentum():
    assert effective_type({"type": "sgd", "momentum": 0.9}) == "Momentum"
    assert effective_type({"type": "sgd"}) == "SGD"
    assert effective_type({"type": "adamw"}) == "AdamW"
    assert type(optimizer({"type": "sgd", "momentum": 0.5})).__name__ == "Momentum"
    assert (
        type(build_scheduler({"type": "stepdecay", "learning_rate": 1.0, "step_size": 5}, 10)).__name__ == "StepDecay"
    )


def test_every_optimizer_of_paddle_takes_a_step():
    for name in optimizer_classes():
        made = optimizer({"type": name})
        for parameter in made._parameter_list:
            (parameter * 2).sum().backward()
        before = [value.numpy().copy() for value in made._parameter_list]
        made.step()
        assert all((old != new.numpy()).any() for old, new in zip(before, made._parameter_list)), name


@pytest.mark.parametrize(
    "node",
    [
        {"type": "NoamDecay", "d_model": 64, "warmup_steps": 10},
        {"type": "OneCycleLR", "max_learning_rate": 0.1},
        {"type": "LinearLR", "learning_rate": 0.1},
        {"type": "CyclicLR", "base_learning_rate": 0.1, "max_learning_rate": 0.2, "step_size_up": 5},
        {"type": "CosineAnnealingWarmRestarts", "learning_rate": 0.1, "T_0": 5},
        {"type": "LinearWarmup", "learning_rate": {"type": "StepDecay", "learning_rate": 0.1, "step_size": 5},
         "warmup_steps": 5, "start_lr": 0.0, "end_lr": 0.1},
    ],
    ids=lambda node: node["type"],
)  # fmt: skip
def test_other_schedules_of_paddle_run_to_the_end(node):
    assert all(np.isfinite(rates(node, 20, 19)))


def test_cosine_falls_to_zero_by_the_last_iteration_without_being_told():
    node = {"type": "CosineAnnealingDecay", "learning_rate": 0.1, "warmup_iters": 4, "warmup_start_lr": 0.01}
    found = rates(node, 20, 20)
    assert found[0] == 0.01 and found[4] == pytest.approx(0.1) and found[20] == pytest.approx(0.0)


def test_groups_backbone_and_layerwise_multipliers():
    assert groups({"type": "SGD", "backbone_lr_mult": 0.1}) == [(0.1, None), (1.0, None)]
    node = {"type": "AdamW", "custom_cfg": [{"name": "head", "weight_decay_mult": 0.5, "lr_mult": 2}]}
    assert groups(node) == [(1.0, 0.01), (2.0, 0.005)]  # Paddle's own decay, halved
    names = ["backbone.pos_embed", "backbone.blocks.0.w", "backbone.blocks.1.w", "head.w"]
    found = groups({"type": "AdamWDL", "layerwise_decay": 0.5, "weight_decay": 0.1}, names)
    assert [rate for rate, _ in found] == [0.125, 0.25, 0.5, 1.0]


def test_frozen_parameters_are_left_out():
    model = toy(["backbone.w", "head.w"])
    model.backbone.w.stop_gradient = True
    schedule = build_scheduler({"type": "PolynomialDecay", "learning_rate": 0.1}, 10)
    assert len(build_optimizer({"type": "SGD"}, schedule, model)._parameter_list) == 1
    model.head.w.stop_gradient = True
    with pytest.raises(InputError, match="no parameter is left to train"):
        build_optimizer({"type": "SGD"}, schedule, model)


def test_a_group_that_fits_nothing_is_named_with_the_models_parts(caplog):
    from segkit.log import logger

    logger.addHandler(caplog.handler)
    try:
        optimizer({"type": "SGD", "custom_cfg": [{"name": "bakbone", "lr_mult": 0.1}]})
    finally:
        logger.removeHandler(caplog.handler)
    assert "no parameter has 'bakbone' in its name" in caplog.text
    assert "backbone, head" in caplog.text


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"type": "SDG"}, "unknown optimizer type 'SDG'. Did you mean 'SGD'"),
        ({"type": "SGD", "momentun": 0.9}, "optimizer.momentun: SGD takes no 'momentun'"),
        ({"type": "Momentum", "weight_decai": 1}, "Did you mean 'weight_decay'"),
        ({"type": "SGD", "weight_decay": -1.0}, r"optimizer.weight_decay: not a usable number \(got -1.0, expected 0"),
        ({"type": "Adam", "beta1": 1.5}, "Adam refuses its arguments .*beta1"),
        ({"type": "Rprop"}, "unknown optimizer type 'Rprop'"),
        ({"type": "SGD", "custom_cfg": [{"lr_mult": 1}]}, "custom_cfg.0: expected {name"),
        ({"type": "SGD", "custom_cfg": [{"name": "a", "lr_mul": 1}]}, "custom_cfg.0.lr_mul: .* Did you mean 'lr_mult'"),
        ({"type": "SGD", "custom_cfg": [{"name": "a", "lr_mult": -1}]}, "custom_cfg.0.lr_mult: not a usable number"),
        ({"type": "SGD", "grad_clip_cfg": {"name": "ByNorm"}}, "unknown way of clipping .*'ByNorm'"),
        ({"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByNorm"}}, "ClipGradByNorm refuses .*clip_norm"),
        ({"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByNorm", "clip_norm": -1}}, "clip_norm: not a usable"),
        ({"type": "SGD", "grad_clip": {}, "grad_clip_cfg": {}}, "say the same thing"),
        ({"type": "LBFGS"}, "unknown optimizer type 'LBFGS'"),
    ],
)
def test_mistaken_optimizer_nodes(node, message):
    with pytest.raises(InputError, match=message):
        optimizer(node)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"type": "PolyDecay", "learning_rate": 1.0}, "unknown lr_scheduler type 'PolyDecay'"),
        ({"type": "LambdaDecay", "learning_rate": 1.0}, "unknown lr_scheduler type 'LambdaDecay'"),
        ({"type": "PolynomialDecay", "learning_rate": -0.1}, "lr_scheduler.learning_rate: not a usable number"),
        ({"type": "PolynomialDecay", "learning_rate": float("nan")}, "learning_rate: not a usable number"),
        ({"type": "PolynomialDecay"}, "PolynomialDecay refuses its arguments .*learning_rate"),
        ({"type": "StepDecay", "learning_rate": 0.1, "gama": 1}, "StepDecay takes no 'gama'. Did you mean 'gamma'"),
        ({"type": "MultiStepDecay", "learning_rate": 0.1, "milestones": [5, 3]}, "MultiStepDecay refuses"),
        ({"type": "StepDecay", "learning_rate": 0.1, "step_size": 5, "warmup_iters": 1.5}, "warmup_iters: expected a"),
        ({"type": "StepDecay", "learning_rate": 0.1, "step_size": 5, "warmup_iters": -1}, "warmup_iters: not a usable"),
    ],
)
def test_mistaken_schedule_nodes(node, message):
    with pytest.raises(InputError, match=message):
        build_scheduler(node, 10)


def test_nothing_to_train():
    with pytest.raises(InputError, match="iters: nothing to train"):
        build_scheduler({"type": "PolynomialDecay", "learning_rate": 0.1}, 0)


def test_a_learning_rate_of_zero_is_kept():
    assert rates({"type": "PolynomialDecay", "learning_rate": 0.0, "end_lr": 0.0}, 10, 3) == [0.0] * 4


def test_the_checker_knows_names_and_further_keys():
    assert {"PolynomialDecay", "StepDecay", "PiecewiseDecay", "CosineAnnealingDecay"} <= set(scheduler_classes())
    assert {"SGD", "Momentum", "Adam", "AdamW", "RMSProp"} <= set(optimizer_classes())
    assert {"custom_cfg", "grad_clip_cfg", "weight_decay"} <= set(OptimizerKeys.__dataclass_fields__)
    assert {"warmup_iters", "warmup_start_lr"} == set(SchedulerKeys.__dataclass_fields__)
