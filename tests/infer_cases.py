"""A model of any size, its export, and predict and infer with them, for the tests of infer."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.tiny_model import PLAIN, make_all, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A best_model folder without Resize; its export lies beside it."""
    folder = make_all(tmp_path_factory.mktemp("tiny"), transforms=PLAIN)
    assert run("export", "--model_path", folder, "--save_dir", folder.parent / "exported") == 0
    return folder


@pytest.fixture
def infer(tiny, tmp_path):
    def call(images, *flags):
        config = ("--config", tiny.parent / "exported", "--enable_mkldnn", "False")  # predict's kernels
        return run("infer", *config, "--image_path", images, "--save_dir", tmp_path / "out", *flags)

    return call


@pytest.fixture
def predict(tiny, tmp_path):
    def call(images, *flags):
        flags = ("--image_path", images, "--save_dir", tmp_path / "predicted", "--no_onednn", *flags)
        return run("predict", "--model_path", tiny, *flags)

    return call


def alike(found, expected):
    """Equal masks but for a pixel where two scores are equal to rounding."""
    return found.shape == expected.shape and (found != expected).sum() <= 1 + found.size // 10_000


def pixels(path):
    return np.asarray(Image.open(path))
