"""A service of two small models, and bodies to send to it."""

from __future__ import annotations

import io as memory
import json
import struct
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from segkit import io
from segkit.deploy.backends import open_backend
from segkit.deploy.infer import segmenter
from segkit.deploy.serve.app import Service
from segkit.deploy.serve.limits import Limits
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.model import ServedModel
from segkit.deploy.spec import DeploySpec
from segkit.deploy.windows import windows_as
from segkit.options import InferOptions, ServeOptions
from tests.tiny_model import PLAIN, make_all, run

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three exported folders: of a fixed size, of any, and of any in windows."""
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    fixed, free = folder.parent / "fixed", folder.parent / "any_size"
    assert run("export", "--model_path", folder, "--save_dir", fixed) == 0
    opts = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    assert run("export", "--model_path", folder, "--save_dir", free, *opts) == 0
    slide = ("test_config.is_slide=true", "test_config.crop_size=[64,48]")
    assert run("export", "--model_path", folder, "--save_dir", folder.parent / "windows", *opts, *slide) == 0
    return {"fixed": fixed, "free": free, "windows": folder.parent / "windows"}


def make_service(folders, queue=256, **changed):
    options = ServeOptions(**changed)
    metrics = Metrics()
    served = {name: ServedModel(name, str(folder), options, metrics, 2) for name, folder in folders.items()}
    return Service(served, Limits(1 << 20, 200_000, queue, 5.0, 190_000), metrics, 2)


@pytest.fixture(scope="module")
def service(folders):
    made = make_service(folders)
    for model in made.models.values():
        model._warm.result(60)
    yield made
    made.close()


@pytest.fixture
def client(service):
    return TestClient(service.guard)


@pytest.fixture(scope="module")
def model(folders):
    """What infer makes of the same folder."""
    return without_server(folders["fixed"])


def without_server(folder):
    spec = DeploySpec.load(folder)
    return segmenter(spec, open_backend(spec, InferOptions()), windows_as(InferOptions(), spec.test_config))


def png(image):
    return io.encode_png(image)


def header_only(width, height):
    """A small PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    made = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def pixels(body):
    return np.asarray(Image.open(memory.BytesIO(body)))
