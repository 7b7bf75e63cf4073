"""Numbers of a data set against numpy over all pixels at once."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit import io as sio
from segkit.cli.main import main
from segkit.data import stats
from segkit.errors import InputError
from segkit.log import logger
from tests import tiny

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiny.make_data(tmp_path, train=5, val=2, classes=3)
    label = np.array(Image.open(tmp_path / "labels" / "000.png"))
    label[:2] = 255
    Image.fromarray(label).save(tmp_path / "labels" / "000.png")
    (tmp_path / "classes.txt").write_text("ground\nred\nblue\n")
    return tmp_path


def pixels(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 3] and labels [N, H, W] of the train part."""
    pairs = [line.split() for line in (root / "train.txt").read_text().splitlines()]
    return tuple(np.stack([np.asarray(Image.open(root / pair[i])) for pair in pairs]) for i in (0, 1))


def test_numbers_are_those_of_all_pixels(root: Path) -> None:
    found = stats.statistics(str(root))
    images, labels = pixels(root)
    flat = images.reshape(-1, 3).astype(float)
    assert np.allclose(found["mean"], flat.mean(0)) and np.allclose(found["std"], flat.std(0))
    assert np.allclose(found["normalize"]["mean"], flat.mean(0) / 255)
    counts = np.array([(labels == value).sum() for value in range(3)])
    assert [row["pixels"]["train"] for row in found["classes"]] == counts.tolist()
    assert np.allclose([row["share"] for row in found["classes"]], counts / counts.sum())
    assert found["ignored"] == pytest.approx((labels == 255).mean())
    assert found["sizes"]["width"] == dict.fromkeys(["0%", "5%", "25%", "50%", "75%", "95%", "100%"], 32)
    assert found["crop"] == [32, 32] and all(1 <= count <= 32 for count in found["batch"].values())
    frequency = []
    for value in range(3):
        shown = [label for label in labels if (label == value).any()]
        frequency.append(sum((x == value).sum() for x in shown) / sum((x != 255).sum() for x in shown))
    assert np.allclose(found["weights"]["median_frequency"], np.median(frequency) / np.array(frequency), atol=1e-4)
    beta = (counts.sum() - 1) / counts.sum()
    weights = (1 - beta) / (1 - beta ** counts.astype(float))
    assert np.allclose(found["weights"]["effective_number"], weights / weights.mean(), rtol=1e-3)


def test_many_bands_and_pixels_without_data(tmp_path: Path) -> None:
    lines, every = [], []
    for number in range(3):
        image = RNG.normal(2000, 300, (10 + number, 12, 6)).astype(np.float32)
        image[0, 0] = np.nan
        every.append(image.reshape(-1, 6)[1:])
        np.save(tmp_path / f"{number}.npy", image)
        sio.write_png(tmp_path / f"{number}.png", np.zeros(image.shape[:2], np.uint8))
        lines.append(f"{number}.npy {number}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    config = tiny.tiny_config(tmp_path, tmp_path / "c.yml")
    found = stats.statistics(
        str(config), ["train_dataset.img_channels=6", f"val_dataset.val_path={tmp_path / 'train.txt'}"]
    )
    whole = np.concatenate(every).astype(float)
    assert np.allclose(found["mean"], whole.mean(0), rtol=1e-4) and np.allclose(found["std"], whole.std(0), rtol=1e-4)


def test_classes_that_never_occur_weigh_one() -> None:
    assert stats.effective_number([0, 0]) == [1.0, 1.0] and stats.effective_number([10, 0])[1] == 1.0
    assert stats.median_frequency([], 2) == [1.0, 1.0]


def test_crops_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stats.suggest_crop([(200, 210)]) == (192, 192)
    assert stats.suggest_crop([(20, 3000), (20, 3000)]) == (512, 32)
    monkeypatch.setattr(stats, "memory", lambda: 10 << 30)
    assert stats.batch_that_fits((512, 512), 15200) == 1 and stats.batch_that_fits((512, 512), 1820) == 13

    def gpu(*args: object, **kwargs: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess([], 0, "24576\n", "")

    monkeypatch.undo()
    monkeypatch.setattr(stats.subprocess, "run", gpu)
    assert stats.memory() == 24576 << 20


def test_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "stats", str(root)]) == 0
    text = capsys.readouterr().out
    assert "2 blue" in text and "type: Normalize, mean: [" in text and "effective-number weight" in text
    assert main(["data", "stats", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"] == {"train": 5, "val": 2}
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no photo can be read\. Run segkit data check on it"):
        stats.statistics(str(root))


def test_photos_that_cannot_be_read_are_said(root: Path, monkeypatch) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    first = sorted((root / "images").iterdir())[0]
    first.write_bytes(first.read_bytes()[:40])
    stats.statistics(str(root))
    assert "photos that cannot be read, and are not counted: 1 of 5. Run segkit data check" in said[0]
