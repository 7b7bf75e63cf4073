"""Models: every registered one for what all must do, PaddleSeg's reference numbers, and DoveNet's table."""

from __future__ import annotations

import inspect
import json
import zlib

import numpy as np
import paddle
import pytest

from segkit.engine.summary import describe
from segkit.errors import InputError
from segkit.models.bisenet import BiSeNetV2
from segkit.models.dovenet import DoveNet
from segkit.models.layers import same_padding
from segkit.models.unet import UNet
from segkit.registry import MODELS

NAMES = MODELS.names()
VARIANTS = [(name, {}) for name in NAMES] + [("UNet", {"use_deconv": True}), ("UNet", {"align_corners": True})]


def make(name: str, num_classes: int = 3, **arguments) -> paddle.nn.Layer:
    """A narrow model where its width can be chosen."""
    cls = MODELS.get(name)
    if "base_channels" in inspect.signature(cls).parameters:
        arguments.setdefault("base_channels", 4)
    paddle.seed(0)
    return cls(num_classes=num_classes, **arguments)


def noise(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


# What every model of the registry must do


@pytest.mark.parametrize("name", NAMES)
def test_only_the_number_of_classes_is_required(name):
    parameters = inspect.signature(MODELS.get(name)).parameters
    assert [key for key, value in parameters.items() if value.default is value.empty] == ["num_classes"]
    assert {"in_channels", "pretrained"} <= set(parameters)
    assert not any(value.kind is value.VAR_KEYWORD for value in parameters.values())
    assert make(name, pretrained="there.pdparams").pretrained == "there.pdparams"


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
def test_any_size_and_the_same_answer_twice(name, arguments):
    model = make(name, **arguments)
    model.eval()
    with paddle.no_grad():
        for height, width in ((64, 96), (97, 131), (33, 47), (5, 7), (1, 1), (1, 40)):
            first, second = model(noise(1, 3, height, width)), model(noise(1, 3, height, width))
            assert isinstance(first, list) and len(first) == 1
            assert first[0].shape == [1, 3, height, width]
            assert bool(paddle.isfinite(first[0]).all())
            np.testing.assert_array_equal(first[0].numpy(), second[0].numpy())


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(33, 47), (5, 7)])
def test_training_outputs_and_finite_gradients_everywhere(name, arguments, size):
    model = make(name, **arguments)
    model.train()
    outputs = model(noise(2, 3, *size))
    assert isinstance(outputs, list) and all(output.shape == [2, 3, *size] for output in outputs)
    sum((output * noise(*output.shape)).mean() for output in outputs).backward()
    for key, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, key
            assert bool(paddle.isfinite(parameter.grad).all()), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_bands_and_a_single_output_channel(name, channels):
    model = make(name, num_classes=1, in_channels=channels)
    model.eval()
    assert model(noise(1, channels, 32, 48))[0].shape == [1, 1, 32, 48]


@pytest.mark.parametrize("name", NAMES)
def test_batch_entries_do_not_touch_each_other(name):
    model = make(name)
    model.eval()
    both = noise(2, 3, 33, 47)
    with paddle.no_grad():
        together, alone = model(both)[0][:1], model(both[:1])[0]
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
def test_saved_graph_takes_every_size_and_agrees(name, arguments, tmp_path):
    model = make(name, **arguments)
    model.eval()
    images = [noise(2, 3, *size) for size in ((64, 96), (97, 131), (5, 7))]
    with paddle.no_grad():
        expected = [model(image)[0].numpy() for image in images]
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32")]
    paddle.jit.save(paddle.jit.to_static(model, input_spec=spec, full_graph=True), str(tmp_path / "model"))
    loaded = paddle.jit.load(str(tmp_path / "model"))
    for image, answer in zip(images, expected):
        found = loaded(image)
        found = found[0] if isinstance(found, (list, tuple)) else found
        np.testing.assert_allclose(found.numpy(), answer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_round_trip(name):
    first, second = make(name), make(name)
    for value in second.state_dict().values():
        value.set_value(paddle.zeros_like(value))
    second.set_state_dict({key: value.numpy() for key, value in first.state_dict().items()})
    first.eval(), second.eval()
    np.testing.assert_array_equal(first(noise(1, 3, 33, 47))[0].numpy(), second(noise(1, 3, 33, 47))[0].numpy())


@pytest.mark.parametrize("name", NAMES)
def test_start_keeps_the_signal_alive(name):
    """Untrained scores of unit noise are neither dead nor exploding: a step of training has something to work on."""
    outputs = make(name)(noise(2, 3, 64, 64))
    for output in outputs:
        assert 0.02 < float(output.std()) < 20


# PaddleSeg's numbers


def reference_weights(keys: list) -> dict[str, np.ndarray]:
    """The weights that ../shared/parity/README.md describes."""
    found = {}
    for key, shape, _ in keys:
        rng = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
        last = key.split(".")[-1]
        if len(shape) >= 2 and last == "weight":
            fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
            value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        elif key.endswith("_variance") or (len(shape) == 1 and last == "weight"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.standard_normal(shape) * 0.1
        found[key] = value.astype("float32")
    return found


CASES = ["unet_c2", "unet_c19", "unet_deconv_c2", "bisenetv2_c19"]


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    folder = shared / "parity/models"
    description = json.loads((folder / f"{request.param}.json").read_text())
    paddle.seed(1)
    model = MODELS.get(description["model"])(**description["kwargs"])
    return description, np.load(folder / f"{request.param}.npz"), model


def test_reference_start_and_layers(case):
    description, _, model = case
    state = model.state_dict()
    assert [[key, value.shape, str(value.dtype).split(".")[-1]] for key, value in state.items()] == description["keys"]
    for (key, _, _), (mean, std) in zip(description["keys"], description["init_stats"]):
        value = state[key].numpy().astype("float64")
        assert value.std() == pytest.approx(std, rel=6 / np.sqrt(2 * value.size) + 1e-3), key
        assert value.mean() == pytest.approx(mean, abs=6 * std / np.sqrt(value.size) + 1e-6), key
    for first, second in description["aliases"]:
        assert state[first] is state[second]
    norms = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)}
    expected = description["bn_layers"]["momentum=0.9 eps=1e-05"]
    assert len(norms) == expected if isinstance(expected, int) else sorted(norms) == sorted(expected)
    assert all(layer._momentum == 0.9 and layer._epsilon == 1e-5 for layer in norms.values())
    dropouts = [[n, "Dropout", x.p] for n, x in model.named_sublayers() if isinstance(x, paddle.nn.Dropout)]
    assert dropouts == description["dropouts"]
    assert sum(value.size for value in model.parameters() if not value.stop_gradient) == description["num_params"]


def test_reference_outputs(case):
    description, arrays, model = case
    model.set_state_dict(reference_weights(description["keys"]))
    model.eval()
    sensitivity = description["sizes"][0]["outputs"][0]["sens"]
    for entry in description["sizes"]:
        height, width = entry["size"]
        image = np.random.RandomState(0).standard_normal((1, 3, height, width)).astype("float32")
        with paddle.no_grad():
            outputs = [output.numpy() for output in model(paddle.to_tensor(image))]
        assert [list(output.shape) for output in outputs] == [item["shape"] for item in entry["outputs"]]
        stored, stride = arrays[f"s{height}x{width}_o0"], entry["outputs"][0]["stride"]
        error = np.abs(outputs[0][..., ::stride, ::stride] - stored).max() / np.abs(outputs[0]).max()
        assert error < max(1e-5, 20 * sensitivity)
        if stride > 1:
            corner = arrays[f"s{height}x{width}_o0_br"]
            found = outputs[0][..., -corner.shape[-2] :, -corner.shape[-1] :]
            assert np.abs(found - corner).max() / np.abs(outputs[0]).max() < max(1e-5, 20 * sensitivity)
        agreement = (outputs[0].argmax(1) == arrays[f"s{height}x{width}_argmax"]).mean()
        assert agreement > 0.999


def test_reference_training_outputs(case):
    description, _, model = case
    model.train()
    expected = description["train_outputs"]
    size = [side // 2 for side in expected["input"][2:]]  # half the size: the count and the ratio are what matters
    with paddle.no_grad():
        outputs = model(noise(2, 3, *size))
    assert len(outputs) == expected["n"]
    assert [output.shape for output in outputs] == [shape[:2] + size for shape in expected["shapes"]]


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


# The layer table

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
