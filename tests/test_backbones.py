"""A backbone in a config: its classification weights, and the data set's number of bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

from segkit.build import build_model
from segkit.config import Config
from segkit.engine import start
from segkit.engine.start import load_pretrained
from segkit.engine.weights import load_weights, save_state
from segkit.errors import InputError
from segkit.models.backbones.resnet_vd import ResNet18_vd
from segkit.registry import BACKBONES
from tests.model_cases import TINY_ADAPTER, TINY_CAE, TINY_VIT
from tests.tiny import make_data, tiny_config


def config(folder: Path, **backbone: object) -> Path:
    model = {"type": "BiseNetV1", "conv_channel": 8, "backbone": {"type": "ResNet18_vd", **backbone}}
    loss = {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 1, 1]}
    return tiny_config(make_data(folder / "data", train=2, val=1), folder / "config.yml", model=model, loss=loss)


def test_classification_weights_load_into_the_backbone(tmp_path, monkeypatch):
    paddle.seed(3)
    state = {key: value.numpy() for key, value in ResNet18_vd().state_dict().items()}
    save_state({**state, "out.weight": np.zeros((512, 1000), "float32")}, tmp_path / "resnet.pdparams")
    cfg = Config(config(tmp_path, output_stride=8, pretrained="resnet.pdparams"))
    paddle.seed(0)
    model = build_model(cfg)
    head = model.ffm.conv_1x1._conv.weight.numpy().copy()
    said: list[str] = []
    monkeypatch.setattr(start.logger, "info", lambda text, *arguments: said.append(text % arguments))
    load_pretrained(cfg, model)
    for key, value in model.backbone.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key])
    np.testing.assert_array_equal(model.ffm.conv_1x1._conv.weight.numpy(), head)
    assert said[0].startswith("model.backbone.pretrained: ") and "unknown  out.weight" in said[0]


def test_the_number_of_bands_reaches_the_backbone(tmp_path):
    path = config(tmp_path)
    data = yaml.safe_load(path.read_text())
    data["train_dataset"]["img_channels"] = 4
    path.write_text(yaml.safe_dump(data))
    model = build_model(Config(path))
    assert model.backbone.conv1_1._conv.weight.shape[1] == 4
    assert model.spatial_path.conv_7x7._conv.weight.shape[1] == 4


@pytest.mark.parametrize(
    "node, side",
    [(TINY_VIT, "img_size"), (TINY_CAE, "img_size"), (TINY_ADAPTER, "pretrain_size")],
    ids=["VisionTransformer", "CAE", "ViTAdapter"],
)
def test_positions_learned_for_photos_of_another_size(node, side, tmp_path):
    """They are interpolated as the network itself does for a photo of that size."""
    build = BACKBONES.get(node["type"])
    arguments = {key: value for key, value in node.items() if key != "type"}
    paddle.seed(0)
    small, large = build(**{**arguments, side: 48}), build(**{**arguments, side: 80})
    for parameter in small.parameters():
        parameter.set_value(0.3 * paddle.randn(parameter.shape))
    save_state(small.state_dict(), tmp_path / "small.pdparams")
    with pytest.raises(InputError, match=r"pos_embed: got \[1, 10, 16\], expected \[1, 26, 16\]"):
        load_weights(large, tmp_path / "small.pdparams", strict=True)
    report = load_weights(large, tmp_path / "small.pdparams", any_size=True)
    assert report.complete and "pos_embed" in report.refitted
    assert f"{len(report.refitted)} interpolated from photos of another size" in str(report)
    small.eval(), large.eval()
    photo = paddle.randn([1, 3, 80, 80])
    with paddle.no_grad():
        for got, expected in zip(large(photo), small(photo)):
            np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "key, shapes",
    [
        ("pos_embed", [[1, 11, 16], [1, 1, 16], [10, 16], [1, 10, 8], []]),
        ("blocks.0.attn.relative_position_bias_table", [[29, 2], [28, 3], [2, 2], [28], []]),
    ],
)
def test_what_is_no_square_of_positions_is_skipped(key, shapes, tmp_path):
    model = BACKBONES.get("CAE")(**{name: value for name, value in TINY_CAE.items() if name != "type"})
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    for shape in shapes:
        save_state({**state, key: np.zeros(shape, "float32")}, tmp_path / "model.pdparams")
        report = load_weights(model, tmp_path, any_size=True)
        assert [name for name, *_ in report.shape_mismatch] == [key] and not report.refitted
