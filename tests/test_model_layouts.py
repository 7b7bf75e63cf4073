"""What single models and backbones are made of, and which layouts are refused."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import paddle
import pytest

from segkit.build import build
from segkit.engine.summary import describe
from segkit.errors import InputError
from segkit.models.backbones.resnet_vd import ResNet18_vd
from segkit.models.backbones.xception_deeplab import Xception65_deeplab
from segkit.models.bisenet import BiSeNetV2
from segkit.models.deeplab import DeepLabV3, DeepLabV3P
from segkit.models.dmnet import DMNet
from segkit.models.dovenet import DoveNet
from segkit.models.gcnet import GCNet
from segkit.models.hrnet_contrast import HRNetW48Contrast
from segkit.models.knet import KNet
from segkit.models.layers import same_padding
from segkit.models.mla_transformer import MLATransformer
from segkit.models.mscale_ocrnet import MscaleOCRNet
from segkit.models.stfpm import STFPM
from segkit.models.unet import UNet
from segkit.registry import BACKBONES, MODELS
from tests.model_cases import NAMES, make, noise
from tests.tiny_backbone import TinyBackbone

# Backbones


@pytest.mark.parametrize("name", BACKBONES.names())
def test_backbone_signature(name):
    parameters = inspect.signature(BACKBONES.get(name)).parameters
    assert parameters["in_channels"].default == 3 and parameters["pretrained"].default is None
    assert not [key for key, value in parameters.items() if value.default is value.empty]


@pytest.mark.parametrize(
    "name", ["ResNet18", "ResNet18_vd", "ResNet50_vd", "HRNet_W18_Small_V1", "UHRNet_W18_Small", "TinyBackbone"]
)
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 5)])
def test_backbone_maps_have_the_channels_it_says(name, size):
    backbone = BACKBONES.get(name)(in_channels=2)
    backbone.eval()
    with paddle.no_grad():
        maps = backbone(noise(1, 2, *size))
    assert [x.shape[1] for x in maps] == list(backbone.feat_channels)
    assert all(fine.shape[2] >= coarse.shape[2] for fine, coarse in zip(maps, maps[1:]))


@pytest.mark.parametrize(("stride", "sides"), [(8, [16, 8, 8, 8]), (16, [16, 8, 4, 4]), (32, [16, 8, 4, 2])])
def test_output_stride_of_resnet(stride, sides):
    maps = ResNet18_vd(output_stride=stride)(noise(1, 3, 64, 64))
    assert [x.shape[2] for x in maps] == sides


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: ResNet18_vd(output_stride=4), r"backbone.output_stride: .*got 4, expected 8, 16 or 32"),
        (lambda: ResNet18_vd(multi_grid=[2]), r"backbone.multi_grid: .*got \[2\], expected 2 or more"),
        (lambda: DeepLabV3P(2, ResNet18_vd(), [0]), r"model.backbone_indices: .*got \[0\], expected 2 of them"),
        (lambda: Xception65_deeplab(output_stride=32), r"backbone.output_stride: .*got 32, expected 8 or 16"),
        (lambda: GCNet(2, TinyBackbone(), ratio=0.001), r"model.ratio: no channels .*got 0.001 of 512"),
        (lambda: MscaleOCRNet(2, TinyBackbone(), mscale=[0, 1]), r"model.mscale: scales above 0 .*got \[0, 1\]"),
        (
            lambda: KNet(2, TinyBackbone(), kernel_update_head_params={"in_channels": 8}),
            r"model.kernel_update_head_params: .*in_channels 8",
        ),
        (
            lambda: KNet(2, TinyBackbone(), kernel_update_head_params={"heads": 8}),
            r"kernel_update_head_params.heads: unknown key",
        ),
        (
            lambda: KNet(2, TinyBackbone(), kernel_generate_head_params={"head_layer": "X"}),
            r"head_layer: no such head \(got X",
        ),
        (
            lambda: MLATransformer(2, [16, 32], TinyBackbone()),
            r"model.in_channels: .*got \[16, 32\], expected \[16, 32, 6",
        ),
        (lambda: STFPM(2), r"model.num_classes: .*got 2, expected 1"),
        (lambda: STFPM(1, TinyBackbone()), r"model.backbone: .*got TinyBackbone, expected ResNet18"),
        (lambda: DMNet(2, TinyBackbone(), filter_sizes=[0]), r"model.filter_sizes: .*got \[0\]"),
        (lambda: HRNetW48Contrast(2, TinyBackbone(), bb_channels=720), r"model.bb_channels: .*got 720, expected 16"),
        (lambda: DeepLabV3(2, ResNet18_vd(), [4]), r"model.backbone_indices: .*got \[4\].*each below 4"),
    ],
)
def test_impossible_layouts_are_refused(make_it, message):
    with pytest.raises(InputError, match=message):
        make_it()


@pytest.mark.parametrize("bands", [51, 52, 60])
def test_enet_of_more_bands_than_its_first_stage_is_wide(bands):
    model = build(MODELS, {"type": "ENet"}, num_classes=2, in_channels=bands)
    model(noise(1, bands, 24, 40))[0].mean().backward()
    model.eval()
    assert model(noise(1, bands, 24, 40))[0].shape == [1, 2, 24, 40]


def test_espnetv2_looks_at_direct_neighbours_alone():
    # What the published weights are of: Paddle leaves the dilation out where the padding is "same".
    conv = build(MODELS, {"type": "ESPNetV2"}, num_classes=2).eesp_psp[0].spp_modules[3]
    x = paddle.zeros([1, conv.weight.shape[0], 9, 9])
    x[:, :, 4, 4] = 1
    rows, columns = np.nonzero(conv(x).abs().sum([0, 1]).numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 5, 3, 5)


def test_building_one_model_imports_no_other():
    code = (
        "import sys; from segkit.registry import MODELS; MODELS.get('PSPNet')(2);"
        "print(sorted(name for name in sys.modules if name.startswith('segkit.models.')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = ["backboned", "backbones", "backbones.resnet_vd", "layers", "pspnet", "pyramid", "residual"]
    assert found.splitlines()[-1] == str([f"segkit.models.{name}" for name in expected])


# Arguments


def test_unet_widths_follow_the_base():
    assert [stage[1]._conv.weight.shape[0] for stage in UNet(2, base_channels=6).encode.down_sample_list] == [
        12, 24, 48, 48,
    ]  # fmt: skip
    deconv = UNet(2, base_channels=3, use_deconv=True)
    deconv.eval()
    assert deconv(noise(1, 3, 20, 30))[0].shape == [1, 2, 20, 30]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(2, base_channels=0), r"model.base_channels: .*got 0, expected 2 or more"),
        (lambda: DoveNet(2, base_channels=0), r"model.base_channels: .*got 0, expected 1 or more"),
        (lambda: BiSeNetV2(2, lambd=0.01), r"model.lambd: .*got 0.01, expected 1/32 or more"),
    ],
)
def test_a_width_of_nothing_is_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_bisenet_width_of_the_semantic_branch():
    assert BiSeNetV2(2, lambd=0.5).aux_head1.conv_1x1.weight.shape == [2, 32, 1, 1]


def test_same_padding_is_a_number_only_where_that_is_exact():
    assert same_padding(3, 1, 1) == 1 and same_padding(1, 1, 1) == 0 and same_padding(5, 1, 1) == 2
    assert same_padding(3, 2, 1) == "same" and same_padding(2, 1, 1) == "same" and same_padding(3, 1, 2) == "same"


DOVENET = """
32,112,112 896 | 32,112,112 128 | 64,112,112 2400 | 64,112,112 256 | 64,112,112 4736 | 64,112,112 256 | 64,56,56 0 |
64,56,56 2112 | 128,56,56 8896 | 128,56,56 512 | 128,56,56 17664 | 128,56,56 512 | 128,28,28 0 | 128,28,28 8320 |
256,28,28 34176 | 256,28,28 1024 | 256,28,28 68096 | 256,28,28 1024 | 256,14,14 0 | 256,14,14 33024 |
256,14,14 590080 | 256,14,14 1024 | 256,14,14 590080 | 256,14,14 1024 | 256,28,28 0 | 256,28,28 65792 |
128,28,28 295040 | 128,28,28 512 | 128,28,28 147584 | 128,28,28 512 | 128,56,56 0 | 128,56,56 32896 |
64,56,56 73792 | 64,56,56 256 | 64,56,56 36928 | 64,56,56 256 | 64,112,112 0 | 64,112,112 8256 |
32,112,112 18464 | 32,112,112 128 | 32,112,112 9248 | 32,112,112 128 | 32,224,224 0 | 32,224,224 2080 | 2,224,224 578
"""


def test_dovenet_is_its_table(capsys):
    model = DoveNet(2)
    found = describe(model, [1, 3, 224, 224])
    expected = [row.split() for row in DOVENET.replace("\n", " ").split("|")]
    assert [(row.output, row.params) for row in found.rows] == [
        ([1, *map(int, shape.split(","))], int(params)) for shape, params in expected
    ]
    assert (found.params, found.trainable) == (2_058_690, 2_054_914)
    assert [row.type for row in found.rows[:8]] == [
        "Conv2D", "BatchNorm2D", "SeparableConv", "BatchNorm2D", "SeparableConv", "BatchNorm2D", "MaxPool2D", "Conv2D",
    ]  # fmt: skip
    summary = paddle.summary(model, (1, 3, 224, 224))
    capsys.readouterr()
    assert int(summary["total_params"]) == found.params
    assert sum(row.params for row in found.rows if row.type == "BatchNorm2D") == 7552
    text = found.table()
    assert "2,058,690 (2,054,914 trainable)" in text and "encoder.0.conv1 " in text and "FLOPs: 1.941 G" in text


class Twice(paddle.nn.Layer):
    """Uses one layer twice, and another under two names."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(2, 2, 3, padding=1, groups=2)
        self.up = paddle.nn.Conv2DTranspose(2, 4, 2, stride=2, bias_attr=False)
        self.linear = self.again = paddle.nn.Linear(6, 5)
        self.linear.weight.stop_gradient = True

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.linear(self.up(self.conv(self.conv(x))))]


def test_flops_and_parameters_by_hand():
    model = Twice()
    model.train()
    found = describe(model, [1, 2, 4, 3])
    assert [(row.name, row.output, row.params, row.flops) for row in found.rows] == [
        ("conv", [1, 2, 4, 3], 2 * 9 + 2, 2 * (2 * 12 * 9)),
        ("up", [1, 4, 8, 6], 2 * 4 * 4, 2 * 12 * 4 * 4),
        ("linear", [1, 4, 8, 5], 35, 4 * 8 * 5 * 6),
    ]
    assert found.params == 20 + 32 + 35 and found.trainable == 20 + 32 + 5
    assert found.flops == 432 + 384 + 960
    assert model.training and model.conv.training
    assert len(model.conv._forward_post_hooks) == 0


@pytest.mark.parametrize("name", NAMES)
def test_described_parameters_are_those_of_paddle_summary(name, capsys):
    model = make(name)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    found = describe(model, [1, 3, 32, 32])
    total = int(paddle.summary(model, (1, 3, 32, 32))["total_params"])
    capsys.readouterr()
    used = sum(row.params for row in found.rows)  # evaluation leaves the auxiliary heads out
    assert used <= found.params and total in (used, found.params)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(before[key], value.numpy())
