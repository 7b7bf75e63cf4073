"""The loss of a batch: which output is compared with what."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.engine.loss import total_loss
from segkit.errors import InputError
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.distillation import KLLoss
from segkit.models.pidnet import PIDNet

RNG = np.random.default_rng(0)


def scores(*shape: int) -> paddle.Tensor:
    tensor = paddle.to_tensor(RNG.standard_normal(shape).astype("float32"))
    tensor.stop_gradient = False
    return tensor


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def test_kl_loss_compares_the_first_output_with_the_second_wherever_it_stands() -> None:
    outputs = [scores(2, 3, 4, 5), scores(2, 3, 4, 5)]
    label = paddle.zeros([2, 4, 5], "int64")
    losses = [("CrossEntropyLoss", CrossEntropyLoss(), 0.0), ("KLLoss", KLLoss(), 2.0)]
    total, parts = total_loss(outputs, losses, {"label": label})
    student, teacher = (log_softmax(output.numpy()) for output in outputs)
    expected = float((np.exp(teacher) * (teacher - student)).mean())
    assert float(parts["loss_KLLoss"]) == pytest.approx(expected, rel=1e-5)
    assert float(total) == pytest.approx(2 * expected, rel=1e-5)
    total.backward()
    assert outputs[1].grad is None and float(outputs[0].grad.abs().sum()) > 0


def test_kl_loss_of_a_model_with_one_output_is_refused() -> None:
    with pytest.raises(InputError, match=r"loss KLLoss compares the model's first output with its second \(got a mode"):
        total_loss([scores(1, 2, 3, 3)], [("KLLoss", KLLoss(), 1.0)], {"label": paddle.zeros([1, 3, 3], "int64")})


def test_a_fourth_loss_of_pidnet_sees_predicted_borders_alone() -> None:
    outputs = [scores(1, 3, 2, 2), scores(1, 3, 2, 2), paddle.to_tensor([[[[5.0, -5.0], [1.0, 2.0]]]])]
    label = paddle.to_tensor([[[0, 1], [2, 255]]], dtype="uint8")
    one = CrossEntropyLoss()
    losses = [(f"loss{number}", one, weight) for number, weight in enumerate((0.0, 0.0, 0.0, 1.0))]
    losses[2] = ("border", lambda output, target: output.sum(), 0.0)
    total, parts = total_loss(outputs, losses, {"label": label}, PIDNet)
    # sigmoid(1) is below 0.8; where it is 2 the label is ignored
    expected = -log_softmax(outputs[1].numpy())[0, 0, 0, 0]
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert len(parts) == 4
    total_loss(outputs, losses[:3], {"label": label}, PIDNet)
