"""A backbone in a config: its classification weights, and the data set's number of bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import yaml

from segkit.build import build_model
from segkit.config import Config
from segkit.engine import start
from segkit.engine.start import load_pretrained
from segkit.engine.weights import save_state
from segkit.models.backbones.resnet_vd import ResNet18_vd
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
