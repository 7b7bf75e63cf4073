"""Every schedule and optimizer against PaddleSeg's values."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from segkit.optim import build_optimizer, build_scheduler
from tests.optim_cases import rates, toy


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "parity/schedules.json").read_text())


@pytest.fixture(scope="module")
def arrays(shared):
    return np.load(shared / "parity/optim.npz")


def test_schedules_give_the_reference_rates(reference):
    cases = [case for case in reference["schedules"] + reference["extra_schedules"] if "error" not in case]
    assert len(cases) > 50
    for case in cases:
        runs = [(1000, case["run1000"])]
        if "native" in case and case["iters"] <= 20000:
            runs.append((case["iters"], case["native"]))
        for iters, expected in runs:
            found = rates(case["lr_scheduler"], iters, max(map(int, expected)))
            for step, value in expected.items():
                assert found[int(step)] == pytest.approx(value, rel=1e-9, abs=1e-15), (case["lr_scheduler"], step)


def test_long_schedules_at_single_steps(reference):
    for case in reference["schedules"]:
        if case["iters"] <= 20000:
            continue
        warmup = case["lr_scheduler"].get("warmup_iters", 0)
        for step, value in case["native"].items():
            scheduler = build_scheduler(dict(case["lr_scheduler"]), case["iters"])
            if int(step) >= warmup and warmup:
                scheduler.step(warmup)  # LinearWarmup passes the steps on from there
            scheduler.step(int(step))
            assert scheduler() == pytest.approx(value, rel=1e-6, abs=1e-12), (case["lr_scheduler"], step)


def test_optimizers_move_toy_parameters_as_the_reference(reference, arrays):
    cases = [case for case in reference["optimizers"] if "param_order" in case]
    assert len(cases) >= 28
    for case in cases:
        model = toy(case["param_order"], arrays)
        schedule = build_scheduler(
            {"type": "PolynomialDecay", "learning_rate": 0.01, "power": 0.9, "end_lr": 0}, iters=10
        )
        optimizer = build_optimizer(case["optimizer"], schedule, model)
        assert type(optimizer).__name__ == case["paddle_class"].replace("AdamWDL", "AdamW")
        used = []
        for _ in case["lr_used"]:
            used.append(optimizer.get_lr())
            total = sum(
                (value * paddle.to_tensor(arrays[f"grad_{name}"])).sum() for name, value in model.named_parameters()
            )
            total.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()
        assert used == pytest.approx(case["lr_used"])
        for name, value in model.named_parameters():
            np.testing.assert_allclose(
                value.numpy(),
                arrays[f"after_{case['id']}_{name}"],
                rtol=1e-5,
                atol=1e-7,
                err_msg=f"{case['id']} {name}",
            )
