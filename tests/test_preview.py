"""The contact sheet shows the photos as they are fed, with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segkit import io as sio
from segkit.cli.main import main
from segkit.data.preview import preview, undo_normalize
from segkit.errors import InputError
from segkit.transforms.color import Normalize
from tests import tiny


def test_tiles_are_the_photos_and_their_overlays(tmp_path: Path) -> None:
    root = tiny.make_data(tmp_path / "data", train=4, val=2)
    paths = preview(str(root), str(tmp_path / "p.png"), count=1)
    sheet = sio.read_image(tmp_path / "p.png")
    assert sheet.shape == (24 + 12, 64 + 12, 3)
    photo = sio.read_image(paths[0])
    label = sio.read_label(paths[0].replace("images", "labels"))
    left, right = sheet[6:30, 6:38], sheet[6:30, 38:70]
    assert np.array_equal(left, photo)
    assert np.array_equal(right[label == 0], photo[label == 0])
    assert (right[label == 1] != photo[label == 1]).any(axis=1).mean() > 0.9


def test_a_config_is_shown_after_its_transforms(tmp_path: Path) -> None:
    config = tiny.tiny_config(tiny.make_data(tmp_path / "data", train=6, val=2), tmp_path / "c.yml")
    out = tmp_path / "sheet.png"
    assert main(["data", "preview", str(config), "-n", "4", "--columns", "2", "--out", str(out)]) == 0
    assert sio.read_image(out).shape == (2 * 16 + 3 * 6, 2 * 2 * 16 + 3 * 6, 3)
    first = out.read_bytes()
    assert main(["data", "preview", str(config), "-n", "4", "--columns", "2", "--out", str(out)]) == 0
    assert out.read_bytes() == first  # the same seed draws the same sheet
    assert main(["data", "preview", str(config), "-n", "2", "--part", "val", "--out", str(out)]) == 0
    assert sio.read_image(out).shape[0] == 24 + 12


def test_normalize_is_undone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    transform = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    fed = transform({"image": image, "path": "x", "geometry": []}, np.random.default_rng(0))["image"]
    assert np.array_equal(undo_normalize(fed, [transform]), image)


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    root = tiny.make_data(tmp_path / "data", train=2, val=1)
    with pytest.raises(InputError, match=r"no sample in the part test \(it has train, val\)"):
        preview(str(root), str(tmp_path / "p.png"), part="test")
    with pytest.raises(InputError, match=r"-n: got 0 samples"):
        preview(str(root), str(tmp_path / "p.png"), count=0)


def test_files_of_the_data_set_are_not_overwritten(tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path / "d", train=2, val=1)
    label = sorted((data / "labels").iterdir())[0]
    before = label.read_bytes()
    with pytest.raises(InputError, match=r"--out .*: it is a file of the data set, and is not overwritten"):
        preview(str(data), str(label), 1)
    with pytest.raises(InputError, match=r"--out sheet\.jpg: the sheet is a PNG \(expected a name that ends in"):
        preview(str(data), "sheet.jpg", 1)
    assert label.read_bytes() == before
