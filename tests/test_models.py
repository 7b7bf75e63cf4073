"""Models: every registered one for what all must do. PaddleSeg's numbers: parity/."""

from __future__ import annotations

import inspect

import numpy as np
import paddle
import pytest

from segkit.engine.graph import methods_converted_once
from segkit.registry import MODELS
from tests.model_cases import NAMES, channels, make, noise

TINY_SWIN = {
    "type": "SwinTransformer", "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 3,
}  # fmt: skip
VARIANTS = [(name, {}) for name in NAMES] + [
    ("UNet", {"use_deconv": True}),
    ("UNet", {"align_corners": True}),
    ("UPerNet", {"backbone": TINY_SWIN, "backbone_indices": [0, 1]}),
    ("FCN", {"backbone": {"type": "TinyHRFormer"}}),
    ("FCN", {"backbone": {"type": "TinyLiteHRNet", "use_head": True}, "backbone_indices": [0]}),
]
# Parts of keys that published weights hold and no loss reaches, in PaddleSeg either.
UNUSED = {
    "EMANet": ["head.ema_mid_conv"],
    "ESPNetV2": [f"backbone.level{level}.eesp._act" for level in ("2", "3_0", "4_0")],
    "ESPNetV1": ["br3.weight", "br3.bias", "level2_proj"],
    "GINet": ["head.gloru.graph.gamma_word", "head.gloru.graph.transfer.value_conv_vis"],
    "KNet": ["attention.q_proj", "attention.k_proj"],
    "PFPNNet": ["head.fpn_out.3", "head.scale_heads.3", "head.conv_last"],
    "PointRend": ["neck.fpn_out.3"],
    "PPHumanSegLite": [f"block1.{n}._depthwise_separable_0" for n in (1, 2, 3)]
    + [f"block2.{n}._depthwise_separable_0" for n in range(1, 8)],
    "STFPM": ["teacher.", "student.model.7."],  # the teacher's are fixed
    "UPerNet": ["head.conv_last"],
}


def flat(outputs: object) -> list[paddle.Tensor]:
    """The tensors of lists, pairs and dicts inside each other."""
    if isinstance(outputs, paddle.Tensor):
        return [outputs]
    return [x for output in (outputs.values() if isinstance(outputs, dict) else outputs) for x in flat(output)]


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
            outputs = model(noise(1, 3, height, width))
            assert isinstance(outputs, list) and len(outputs) == 1
            assert outputs[0].shape == [1, channels(name), height, width]
            assert bool(paddle.isfinite(outputs[0]).all())
        np.testing.assert_array_equal(outputs[0].numpy(), model(noise(1, 3, height, width))[0].numpy())


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(33, 47), (5, 7)])
def test_training_outputs_and_finite_gradients_everywhere(name, arguments, size):
    model = make(name, **arguments)
    model.train()
    outputs = model(noise(2, 3, *size))
    declared = getattr(model, "train_outputs", None)
    assert declared is None or len(outputs) == declared
    assert isinstance(outputs[0], (dict, list)) or outputs[0].shape == [2, channels(name), *size]
    outputs = flat(outputs)
    sum((output * noise(*output.shape)).mean() for output in outputs).backward()
    for key, parameter in model.named_parameters():
        if not parameter.stop_gradient and not any(part in key for part in UNUSED.get(name, ())):
            assert parameter.grad is not None, key
            assert bool(paddle.isfinite(parameter.grad).all()), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bands", [1, 4])
def test_other_numbers_of_bands_and_a_single_output_channel(name, bands):
    model = make(name, num_classes=1, in_channels=bands)
    model.eval()
    assert model(noise(1, bands, 32, 48))[0].shape == [1, 1, 32, 48]


@pytest.mark.parametrize("name", NAMES)
def test_batch_entries_do_not_touch_each_other(name):
    model = make(name)
    model.eval()
    both = noise(2, 3, 33, 47)
    with paddle.no_grad():
        together, alone = model(both)[0][:1], model(both[:1])[0]
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=1e-4, atol=1e-5 * max(1, float(alone.abs().max())))


# Tracing their many layers takes seconds each; the others stand for them, `benchmarks export_formats` takes all.
LONG_GRAPHS = {
    "AttentionUNet", "BiseNetV1", "DDRNet_23", "ENet", "EfficientFormerSeg", "ESPNetV2", "FastSCNN", "HRNetW48Contrast", "HarDNet",
    "LRASPP", "MaskFormer", "MobileSeg", "MscaleOCRNet", "PIDNet", "PPHumanSegLite", "PPMobileSeg", "PortraitNet",
    "SFNet", "SINet", "SeaFormerSeg", "TopFormer", "U2Net", "U2Netp", "UNet3Plus", "UNetPlusPlus",
    "UPerNetViTAdapter",
}  # fmt: skip
GRAPHS = [
    pytest.param(name, arguments, marks=pytest.mark.slow if name in LONG_GRAPHS else ()) for name, arguments in VARIANTS
]


@pytest.mark.parametrize(("name", "arguments"), GRAPHS, ids=str)
def test_saved_graph_takes_every_size_and_agrees(name, arguments, tmp_path):
    model = make(name, **arguments)
    model.eval()
    images = [noise(2, 3, *size) for size in ((64, 96), (97, 131), (5, 7))]
    with paddle.no_grad():
        expected = [model(image)[0].numpy() for image in images]
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32")]
    with methods_converted_once():
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
    for output in flat(make(name)(noise(2, 3, 64, 64)))[:1]:
        assert 0.0005 < float(output.std()) < 20
