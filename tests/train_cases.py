"""Data, a config and flags for the tests of training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from segkit.options import TrainOptions
from tests.tiny import make_data, tiny_config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Path:
    return tiny_config(data, tmp_path / "config.yml")


@pytest.fixture
def lines():
    """The messages of the log."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger("segkit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def options(save_dir: Path, **changes: object) -> TrainOptions:
    return TrainOptions(**{"save_dir": str(save_dir), "num_workers": 0, "device": "cpu", "log_iters": 2, **changes})
