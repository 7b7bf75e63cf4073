"""Messages that no other test provokes."""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
import pytest

from segkit import build
from segkit.config import Config
from segkit.deploy import inputs
from segkit.deploy.spec import DeploySpec
from segkit.engine.dashboard import Dashboard
from segkit.engine.loss import total_loss
from segkit.errors import InputError
from segkit.registry import OPTIMIZERS
from tests.tiny import make_data, tiny_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny_config(make_data(tmp_path / "data", train=2, val=1), tmp_path / "c.yml")


def test_two_values_to_ignore(config: Path) -> None:
    cfg = Config(config, ["loss.ignore_index=0"])
    with pytest.raises(
        InputError, match=r"loss\.ignore_index is 0, but the data set ignores 255\. Give it in one place"
    ):
        build.build_losses(cfg)


def test_a_key_below_an_item_of_a_list(config: Path) -> None:
    with pytest.raises(InputError, match=r"train_dataset\.class_names\.0 is 'ground', it has no keys of its own"):
        Config(config, ["train_dataset.class_names.0.x=1"])


def test_an_unknown_optimizer_of_paddle() -> None:
    with pytest.raises(InputError, match=r"unknown optimizer type 'Adom'\. Did you mean 'Adam'\?"):
        OPTIMIZERS.get("Adom")


def test_a_dashboard_without_visualdl(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(InputError, match=r"--use_vdl needs VisualDL .*pip install visualdl"):
        Dashboard(tmp_path, ["use_vdl"])


def test_an_edge_loss_without_edges() -> None:
    loss = paddle.nn.BCEWithLogitsLoss()
    loss.edge_label = True
    outputs = [paddle.zeros([1, 1, 2, 2])]
    with pytest.raises(InputError, match=r"loss Edge compares with edges: set train_dataset\.edge: True"):
        total_loss(outputs, [("Edge", loss, 1.0)], {"label": paddle.zeros([1, 2, 2])})


def test_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--image_path is missing\. Give a photo, a folder"):
        inputs.collect(None, str(tmp_path))
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\xfa\n")
    with pytest.raises(InputError, match=r"list\.txt: this list is not UTF-8 text\. Save it as UTF-8"):
        inputs.collect(str(tmp_path / "list.txt"), str(tmp_path / "out"))


def test_a_deploy_yaml_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_bytes(b"\xff\xfe\xfa\x00")
    with pytest.raises(InputError, match=r"deploy\.yaml: cannot be read as UTF-8 text"):
        DeploySpec.load(tmp_path)
