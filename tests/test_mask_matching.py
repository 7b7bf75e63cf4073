"""MaskFormer's loss against PaddleSeg's, and the assignment behind it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import paddle
import pytest

from segkit.engine.loss import total_loss
from segkit.errors import InputError
from segkit.losses.mask_matching import MaskFormerLoss, assign
from segkit.models.maskformer import MaskFormer
from tests.tiny_backbone import TinyBackbone


def outputs(rng: np.random.RandomState, dtype: str = "float32") -> dict[str, paddle.Tensor]:
    """Scores of 7 queries for 4 classes and nothing, and their masks."""
    found = {}
    for key, shape in (("pred_logits", (2, 7, 5)), ("pred_masks", (2, 7, 6, 8))):
        found[key] = paddle.to_tensor(rng.standard_normal(shape).astype("float32")).astype(dtype)
        found[key].stop_gradient = False
    return found


def case(dtype: str = "float32") -> tuple[dict, paddle.Tensor]:
    """Two images with three classes each, a fourth of the first one ignored, and three layers of a decoder."""
    rng = np.random.RandomState(0)
    layers = [outputs(rng, dtype) for _ in range(3)]
    label = rng.randint(0, 4, (2, 12, 16))
    label[0][label[0] == 2] = 255
    label[0, :3] = 255
    label[1] = np.where(label[1] == 0, 3, label[1])
    return {**layers[0], "aux_outputs": layers[1:]}, paddle.to_tensor(label)


def test_value_and_gradients_are_those_of_paddleseg():
    found, label = case()
    value = MaskFormerLoss(num_classes=4)(found, label)
    value.backward()
    assert float(value) == pytest.approx(15.515553, rel=1e-6)
    assert float(found["pred_logits"].grad.norm()) == pytest.approx(0.3453844, rel=1e-5)
    assert float(found["aux_outputs"][1]["pred_masks"].grad.norm()) == pytest.approx(0.2236477, rel=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_label_types(dtype):
    found, label = case()
    assert float(MaskFormerLoss(4)(found, label.astype(dtype))) == pytest.approx(15.515553, rel=1e-6)


def test_low_precision_is_computed_in_float32():
    low, label = case("bfloat16")
    value = MaskFormerLoss(4)(low, label)
    assert value.dtype == paddle.float32 and float(value) == pytest.approx(15.5, rel=0.01)


def test_without_a_valid_pixel_nothing_is_learned():
    found, label = case()
    value = MaskFormerLoss(4)(found, paddle.full_like(label, 255))
    value.backward()
    assert float(value) == 0 and float(found["pred_masks"].grad.abs().max()) == 0


def test_broken_numbers_end_in_a_loss_that_is_no_number():
    found, label = case()
    found["pred_masks"] = found["pred_masks"] * float("nan")
    assert np.isnan(float(MaskFormerLoss(4)(found, label)))


def test_assignment_is_the_cheapest_one():
    for seed in range(60):
        rng = np.random.RandomState(seed)
        cost = rng.standard_normal(rng.randint(1, 6, 2))
        rows, columns = assign(cost)
        short = cost if cost.shape[0] <= cost.shape[1] else cost.T
        best = min(short[range(len(short)), list(p)].sum() for p in permutations(range(short.shape[1]), len(short)))
        assert cost[rows, columns].sum() == pytest.approx(best, abs=1e-9)
        assert len(set(columns)) == len(rows) == min(cost.shape) and (np.diff(rows) > 0).all()


def test_a_model_learns_its_masks():
    paddle.seed(0)
    model = MaskFormer(3, TinyBackbone(), decoder_layers=1)
    image = paddle.randn([1, 3, 32, 32])
    label = (image[:, 0] > 0).astype("int64") + (image[:, 1] > 1).astype("int64")
    losses = [("MaskFormerLoss", MaskFormerLoss(3), 1.0)]
    optimizer = paddle.optimizer.AdamW(2e-3, parameters=model.parameters())
    values = []
    for _ in range(8):
        total, _ = total_loss(model(image), losses, {"label": label}, model)
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        values.append(float(total))
    assert min(values[-3:]) < 0.8 * values[0]


def test_scores_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"the model gives class scores \(expected the masks of MaskFormer\)\. Use"):
        MaskFormerLoss(4)(paddle.zeros([1, 4, 8, 8]), paddle.zeros([1, 8, 8], "int64"))


def test_another_number_of_classes_is_refused() -> None:
    outputs = {"pred_logits": paddle.zeros([1, 2, 6]), "pred_masks": paddle.zeros([1, 2, 4, 4])}
    with pytest.raises(InputError, match=r"num_classes: got 150, but the model has 5 classes\. Give the loss the same"):
        MaskFormerLoss(150)(outputs, paddle.zeros([1, 8, 8], "int64"))
