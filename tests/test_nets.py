"""Arguments of the stand-alone networks that PaddleSeg's reference numbers do not reach."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.errors import InputError
from segkit.models.attention_unet import AttentionUNet
from segkit.models.backbones.mobilenetv3 import MobileNetV3_small_x0_35
from segkit.models.backbones.stdc import STDC1
from segkit.models.fastscnn import FastSCNN
from segkit.models.lraspp import LRASPP
from segkit.models.pp_liteseg import PPLiteSeg
from segkit.models.stdcseg import STDCSeg
from segkit.models.unet_3plus import UNet3Plus


def noise(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


def tiny_stdc() -> STDC1:
    return STDC1(base_channels=8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet3Plus(2, is_CGM=True), r"model.is_CGM: .*got true, expected false"),
        (lambda: AttentionUNet(2, base_channels=1), r"model.base_channels: .*got 1, expected 2 or more"),
        (
            lambda: PPLiteSeg(2, tiny_stdc(), arm_type="UFAM"),
            r"model.arm_type: unknown \(got 'UFAM', expected one of UAFM",
        ),
        (lambda: PPLiteSeg(2, tiny_stdc(), arm_out_chs=[8, 8]), r"model.arm_out_chs: .*got 2, expected 1 or 3"),
    ],
)
def test_arguments_that_cannot_work_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_unet_3plus_without_batch_norm_in_the_encoder_keeps_its_keys():
    with_norm = set(UNet3Plus(2, base_channels=2).state_dict())
    without = set(UNet3Plus(2, base_channels=2, is_batchnorm=False).state_dict())
    assert without < with_norm
    assert all(key.startswith("encoder.") and ".1." in key for key in with_norm - without)


def test_stdcseg_boundaries_are_those_asked_for():
    model = STDCSeg(2, tiny_stdc(), use_boundary_4=True, use_boundary_16=True)
    model.train()
    outputs = model(noise(2, 3, 64, 96))
    assert [output.shape for output in outputs] == [[2, 2, 64, 96]] * 3 + [[2, 1, 16, 24], [2, 1, 8, 12], [2, 1, 4, 6]]
    assert model.train_outputs == 6


def test_relative_lr_scales_the_backbone_step_alone():
    step = {}
    for rate in (1.0, 0.1):
        paddle.seed(0)
        model = PPLiteSeg(2, STDC1(base_channels=8, relative_lr=rate))
        before = {key: value.numpy() for key, value in model.named_parameters()}
        model(noise(2, 3, 32, 32))[0].sum().backward()
        paddle.optimizer.SGD(1.0, parameters=model.parameters()).step()
        step[rate] = {key: value.numpy() - before[key] for key, value in model.named_parameters()}
    for key in ("backbone.features.1.bn.bias", "backbone.features.1.bn.weight"):
        np.testing.assert_allclose(step[0.1][key], 0.1 * step[1.0][key], rtol=1e-2, atol=1e-6)
    key = "seg_heads.0.conv._batch_norm.bias"
    np.testing.assert_allclose(step[0.1][key], step[1.0][key], rtol=1e-2, atol=1e-6)


def test_weight_decay_leaves_mobilenet_norms_alone():
    backbone = MobileNetV3_small_x0_35()
    norm, weight = backbone.conv.bn.weight, backbone.conv.conv.weight
    before = norm.numpy(), weight.numpy()
    loss = 0.0 * sum(x.sum() for x in backbone(noise(2, 3, 32, 32)))
    loss.backward()
    paddle.optimizer.SGD(1.0, parameters=backbone.parameters(), weight_decay=0.5).step()
    np.testing.assert_array_equal(norm.numpy(), before[0])
    np.testing.assert_allclose(weight.numpy(), 0.5 * before[1], rtol=1e-5)


def test_lraspp_windows_on_a_map_smaller_than_one_are_the_mean_of_what_is_there():
    paddle.seed(0)
    backbone = MobileNetV3_small_x0_35()
    windows, whole = LRASPP(2, backbone, use_gap=False), LRASPP(2, backbone)
    whole.set_state_dict(windows.state_dict())
    windows.eval(), whole.eval()
    image = noise(1, 3, 65, 97)
    with paddle.no_grad():
        np.testing.assert_allclose(windows(image)[0].numpy(), whole(image)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_fastscnn_without_auxiliary_loss_has_one_output():
    model = FastSCNN(2, enable_auxiliary_loss=False)
    assert model.train_outputs == len(model(noise(2, 3, 32, 32))) == 1
    assert not any(key.startswith("auxlayer") for key in model.state_dict())
