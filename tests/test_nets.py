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
from segkit.models.fpn import scale_head
from segkit.models.gscnn import GSCNN
from segkit.models.hardnet import HarDNet
from segkit.models.layers import fill_to
from segkit.models.lpsnet import LPSNet
from segkit.models.lraspp import LRASPP
from segkit.models.pfpnnet import PFPNNet
from segkit.models.pp_liteseg import PPLiteSeg
from segkit.models.pp_mobileseg import PPMobileSeg
from segkit.models.rtformer import RTFormer
from segkit.models.seaformer import SeaFormerSeg
from segkit.models.segnext import SegNeXt
from segkit.models.setr import SegmentationTransformer
from segkit.models.sinet import SINet
from segkit.models.stdcseg import STDCSeg
from segkit.models.transformer import DropPath
from segkit.models.unet_3plus import UNet3Plus
from segkit.registry import BACKBONES


def noise(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


def tiny_stdc() -> STDC1:
    return STDC1(base_channels=8)


def tiny_stride(**arguments) -> paddle.nn.Layer:
    return BACKBONES.get("MobileSeg_Tiny")(**arguments)


def setr(head: str) -> SegmentationTransformer:
    backbone = BACKBONES.get("VisionTransformer")(img_size=32, embed_dim=16, depth=2, num_heads=2)
    return SegmentationTransformer(3, backbone, [0, 1], head=head)


@pytest.mark.parametrize(
    ("halvings", "smaller", "layers", "size"), [(0, False, 1, 6), (0, True, 2, 12), (-1, False, 1, 6), (2, True, 4, 24)]
)
def test_a_map_is_doubled_where_it_is_smaller(halvings, smaller, layers, size):
    head = scale_head(lambda channels, wanted: paddle.nn.Conv2D(channels, wanted, 1), 4, 5, halvings, smaller, False)
    assert len(head) == layers and head(noise(1, 4, 6, 6)).shape == [1, 5, size, size]


@pytest.mark.parametrize(("width", "doubled"), [(8, False), (12, True), (4, False), (16, True)])
def test_pfpnnet_doubles_by_the_maps_widths(width, doubled):
    backbone = tiny_stdc()
    backbone.feat_channels = [8, width]
    head = PFPNNet(2, backbone, [0, 1], channels=4).head.scale_heads[1]
    assert len(head) == 1 + doubled


@pytest.mark.parametrize(("head", "outputs"), [("naive", 2), ("pup", 3), ("mla", 3)])
def test_setr_heads_at_odd_sizes(head, outputs):
    model = setr(head)
    found = model(noise(2, 3, 33, 47))
    assert [x.shape for x in found] == [[2, 3, 33, 47]] * outputs and model.train_outputs == outputs
    model.eval()
    assert [x.shape for x in model(noise(1, 3, 5, 7))] == [[1, 3, 5, 7]]


STRIDES = {
    "EfficientFormerv2_s2": [4, 8, 16, 32],
    "GhostNet_x0_5": [4, 8, 16, 32],
    "MixVisionTransformer_B0": [4, 8, 16, 32],
    "MobileNetV2_x0_25": [4, 8, 16, 32],
    "MobileNetV3_large_x0_35": [4, 8, 16, 32],
    "MobileNetV3_large_x1_0_os8": [4, 8, 8, 8],
    "MobileNetV3_small_x0_35": [4, 8, 16, 32],
    "MobileNetV3_small_x1_0_os8": [4, 8, 8, 8],
    "MobileSeg_Base": [8],
    "MobileSeg_Tiny": [16],
    "PIDNet_Small": [8, 8, 8],
    "STDC1": [2, 4, 8, 16, 32],
    "ShuffleNetV2_x0_25": [4, 8, 16, 32],
    "TopTransformer_Small": [8, 16, 32],
}


@pytest.mark.parametrize("name", STRIDES)
def test_backbone_maps_are_as_small_and_wide_as_it_says(name):
    backbone = BACKBONES.get(name)(in_channels=2)
    backbone.eval()
    with paddle.no_grad():
        maps = backbone(noise(1, 2, 64, 96))
    assert [x.shape for x in maps] == [
        [1, channels, 64 // stride, 96 // stride] for channels, stride in zip(backbone.feat_channels, STRIDES[name])
    ]


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
        (lambda: tiny_stride(inj_type="origin"), r"backbone.inj_type: .*got 'origin', expected one of AAM, AAMSx8"),
        (lambda: tiny_stride(out_feat_chs=[64]), r"backbone.out_feat_chs: .*got \[64\], expected \[32, 64, 128\]"),
        (lambda: PPMobileSeg(2, tiny_stride(), upsample="nearest"), r"model.upsample: unknown \(got 'nearest'"),
        (
            lambda: BACKBONES.get("EfficientFormerv2_s0")(resolution=0),
            r"backbone.resolution: not a side in pixels \(got 0, expected 1 or more",
        ),
        (lambda: GSCNN(2, tiny_stdc(), [0, 1, 2, 3]), r"model.backbone: has no stem .*got STDC1, expected a ResNet"),
        (lambda: LPSNet(2, depths=[1] * 4), r"model.depths, model.channels: .*got 4 and 5, expected the same number"),
        (lambda: LPSNet(2, scale_ratios=[0]), r"model.scale_ratios: no path is left \(got \[0\]"),
        (lambda: RTFormer(2, base_channels=6, num_heads=7), r"model.num_heads: .*base_channels, 48 \(got 7\)"),
        (
            lambda: HarDNet(2, gr=[4, 4]),
            r"model.ch_list, model.gr, model.n_layers: .*got 5, 2 and 5, expected the same",
        ),
        (lambda: SINet(2, stage3_blocks=9), r"model.config: not a row for each block \(got 10 for 2 and 9 blocks"),
        (lambda: SINet(2, config=[[[3, 1]]] * 10), r"model.config: not two branches, .*got \[\[3, 1\]\], "),
        (lambda: setr("mlp"), r"model.head: unknown \(got 'mlp', expected one of naive, pup, mla"),
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


def test_drop_path_leaves_whole_images_out_and_keeps_the_mean():
    paddle.seed(3)
    drop = DropPath(0.25)
    ones = paddle.ones([4000, 2, 1])
    found = drop(ones).numpy()
    assert set(np.unique(found).round(5)) == {0.0, np.float32(1 / 0.75).round(5)}
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    assert found.mean() == pytest.approx(1, abs=0.05)
    drop.eval()
    np.testing.assert_array_equal(drop(ones).numpy(), ones.numpy())


def test_fill_to_adds_zeros_at_the_right_and_bottom_alone():
    x = noise(1, 2, 3, 9)
    filled = fill_to(x, 5)
    assert filled.shape == [1, 2, 5, 9]
    np.testing.assert_array_equal(filled[:, :, :3].numpy(), x.numpy())
    assert float(filled[:, :, 3:].abs().sum()) == 0
    assert fill_to(x, 3) is x


def test_segnext_factorises_as_lee_and_seung_do():
    model = SegNeXt(2, decoder_cfg={"ham_channels": 16, "num_groups": 4, "ham_kwargs": {"MD_R": 3, "MD_S": 2}})
    model.eval()
    ham = model.decode_head.hamburger.ham
    x = noise(2, 16, 5, 7).abs()
    found = ham(x).numpy()
    for image, answer in zip(x.numpy(), found):
        for half in (slice(0, 8), slice(8, 16)):
            seen, patterns = image[half].reshape(8, 35), ham.start.numpy()[0]
            patterns = patterns / np.linalg.norm(patterns, axis=0)
            shares = np.exp(patterns.T @ seen)
            shares /= shares.sum(0)
            for _ in range(7):
                shares = shares * (patterns.T @ seen) / (patterns.T @ patterns @ shares)
                patterns = patterns * (seen @ shares.T) / (patterns @ shares @ shares.T)
            shares = shares * (patterns.T @ seen) / (patterns.T @ patterns @ shares)
            np.testing.assert_allclose(answer[half].reshape(8, 35), patterns @ shares, rtol=1e-3, atol=1e-4)
    model.train()
    assert float((ham(x) - ham(x)).abs().max()) > 1e-4  # drawn anew each time


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"channels": 100}, "model.decoder_cfg.channels: not a multiple of num_groups .*got 100 and 32"),
        ({"ham_kwargs": {"MD_S": 3}}, "model.decoder_cfg.ham_kwargs: cannot take 512 channels apart .*MD_S 3"),
        ({"ham_kwargs": {"SIZE": 3}}, "model.decoder_cfg.ham_kwargs.SIZE: unknown key"),
    ],
)
def test_segnext_decoders_that_cannot_be(decoder, message):
    with pytest.raises(InputError, match=message):
        SegNeXt(2, decoder_cfg=decoder)


@pytest.mark.parametrize(
    "wrong",
    [{"embed_dims": [8]}, {"in_index": [0, 1]}, {"head_channels": 8}, {"input_transform": "resize_concat"}],
)
def test_seaformer_heads_that_do_not_fit(wrong):
    with pytest.raises(InputError, match=r"model.embed_dims: does not fit the head"):
        SeaFormerSeg(2, **wrong)
