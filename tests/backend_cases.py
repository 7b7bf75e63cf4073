"""An exported model for the tests of engines, and what the log says."""

from __future__ import annotations

import json
import logging

import pytest

from segkit.deploy.backends import choice
from segkit.deploy.backends.paddle_inference import PaddleBackend
from segkit.deploy.spec import DeploySpec
from segkit.log import logger
from tests.tiny_model import PLAIN, make_all, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A best_model folder; beside it exports in all formats: `all`, and `folded`: photos in, class numbers out."""
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    flags = ("export", "--model_path", folder, "--format", "all", "--save_dir")
    assert run(*flags, folder.parent / "all") == 0
    plain = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    assert run(*flags, folder.parent / "folded", "--fold_preprocess", "--output_op", "argmax", *plain) == 0
    return folder


@pytest.fixture
def spec(tiny):
    return DeploySpec.load(tiny.parent / "all")


@pytest.fixture
def said():
    """The log's lines."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(choice, "_TURN_SECONDS", 0.02)
    monkeypatch.setattr(PaddleBackend, "spins", 0.0)
