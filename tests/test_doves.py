"""The drawn doves: same bytes everywhere, whole or not at all, in the layout of the real set."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segkit.datasets import doves
from segkit.datasets.doves import DoveDataset, draw_if_absent
from segkit.datasets.drawing import draw_photo
from segkit.datasets.drawing.bird import crow, draw_bird, plumage
from segkit.datasets.drawing.poses import AIR_POSES, GROUND_POSES
from segkit.errors import InputError
from segkit.log import logger
from segkit.palette import voc_palette


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "doves"
    assert draw_if_absent(root, count=20, seed=doves.SEED)
    return root


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.*")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_layout(drawn: Path) -> None:
    assert [folder.name for folder in sorted(drawn.iterdir())] == [f"{i:03d}" for i in range(20)]
    for folder in drawn.iterdir():
        names = {path.name for path in folder.iterdir()}
        assert names == {"img.png", "label.png", "label_names.txt", "label_viz.png"}
        assert (folder / "label_names.txt").read_text() == "_background_\ndove\n"
    label = Image.open(drawn / "000/label.png")
    assert label.mode == "P" and np.array_equal(np.reshape(label.getpalette(), (-1, 3))[:21], voc_palette(21))
    image = Image.open(drawn / "000/img.png")
    assert image.mode == "RGB" and image.size == label.size == Image.open(drawn / "000/label_viz.png").size
    assert not [path for path in drawn.parent.iterdir() if path != drawn]  # nothing left beside it


def test_pictures_are_varied_and_hold_doves(drawn: Path) -> None:
    labels = [np.array(Image.open(drawn / f"{i:03d}/label.png")) for i in range(20)]
    assert all(set(np.unique(label)) == {0, 1} for label in labels)
    shares = [label.mean() for label in labels]
    assert min(shares) > 0.025 and max(shares) < 0.6 and 0.05 < np.mean(shares) < 0.25
    shapes = {label.shape for label in labels}
    assert len(shapes) > 4 and any(h > w for h, w in shapes) and any(h < w for h, w in shapes)
    assert all(375 <= side <= 700 for shape in shapes for side in shape)
    means = [np.array(Image.open(drawn / f"{i:03d}/img.png")).mean(axis=(0, 1)) for i in range(20)]
    assert np.ptp(means, axis=0).min() > 40


def test_colour_alone_does_not_find_doves(drawn: Path) -> None:
    """The best threshold on how likely a colour is dove, by a histogram of RGB made on the same pictures."""
    inside, outside = np.ones((8, 8, 8)), np.ones((8, 8, 8))
    pictures = []
    for i in range(20):
        image, label = (np.array(Image.open(drawn / f"{i:03d}/{name}.png")) for name in ("img", "label"))
        bins = tuple((image // 32).transpose(2, 0, 1))
        pictures.append((bins, label))
        np.add.at(inside, tuple(axis[label == 1] for axis in bins), 1)
        np.add.at(outside, tuple(axis[label == 0] for axis in bins), 1)
    share = inside / (inside + outside)
    best = 0.0
    for cut in np.linspace(0.05, 0.9, 18):
        found = [(share[bins] > cut, label == 1) for bins, label in pictures]
        best = max(best, sum((p & t).sum() for p, t in found) / sum((p | t).sum() for p, t in found))
    assert best < 0.6


def test_same_seed_same_bytes_in_another_process(drawn: Path, tmp_path: Path) -> None:
    code = f"from segkit.datasets.doves import draw_if_absent; draw_if_absent({str(tmp_path / 'd')!r}, 20)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    root = Path(doves.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=root)
    assert digest(tmp_path / "d") == digest(drawn)
    first, other = draw_photo(doves.SEED, 3)[0], draw_photo(doves.SEED + 1, 3)[0]
    assert np.array_equal(first, np.array(Image.open(drawn / "003/img.png")))
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_drawing_loads_no_paddle() -> None:
    code = "import sys; from segkit.datasets.doves import draw_if_absent; import segkit.datasets.drawing; "
    code += "assert not [m for m in sys.modules if m.split('.')[0] == 'paddle']"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(doves.__file__).parents[2])


@pytest.mark.parametrize("pose", [*GROUND_POSES, *AIR_POSES])
def test_every_pose_is_one_bird(pose: str) -> None:
    """A bird is one piece, and a dove is told from a crow by its brightness."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        dove, dark = draw_bird(rng, 90, pose, plumage(rng), 0.3), draw_bird(rng, 90, pose, crow(rng), 0.3)
        pieces, _, stats, _ = cv2.connectedComponentsWithStats((dove.alpha > 0.5).astype(np.uint8))
        assert pieces >= 2 and stats[1:, cv2.CC_STAT_AREA].max() > 0.98 * (dove.alpha > 0.5).sum()
        assert dove.rgb[dove.alpha > 0.9].mean() > dark.rgb[dark.alpha > 0.9].mean() + 40


def test_split_in_name_order(drawn: Path) -> None:
    train, val = DoveDataset(None, str(drawn)), DoveDataset(None, str(drawn), mode="val")
    folders = [Path(image).parent.name for image, _ in train.files + val.files]
    assert len(train) == 17 and len(val) == 3 and folders == sorted(folders)
    sample = val.read(0)
    assert sample["image"].shape[:2] == sample["label"].shape
    assert DoveDataset.info()["class_names"] == ["background", "dove"]


def test_drawn_only_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger, "info", said.append)
    monkeypatch.setattr(doves, "COUNT", 3)
    monkeypatch.setattr(doves.draw_if_absent, "__defaults__", (3, 1))
    (tmp_path / "doves").mkdir()  # an empty folder counts as absent
    data = DoveDataset(None, str(tmp_path / "doves"))
    assert len(data) == 2 and len(said) == 1
    assert "there are no photos, so 3 pictures of doves are drawn there" in said[0]
    DoveDataset(None, str(tmp_path / "doves"), mode="val")
    assert len(said) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(InputError, match=r"other: 0 folders with img\.png and label\.png in it"):
        DoveDataset(None, str(tmp_path / "other"))


def test_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = doves._draw_folder

    def stopped(folder: Path, seed: int, index: int) -> None:
        draw(folder, seed, index)
        if index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(doves, "_draw_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        draw_if_absent(tmp_path / "data/doves", 3)
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_killed_drawing_left_is_swept(tmp_path: Path) -> None:
    for name, age in ((".doves-old.part", 7200), (".doves-new.part", 60), (".cats-old.part", 7200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    draw_if_absent(tmp_path / "doves", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"doves", ".doves-new.part", ".cats-old.part"}


def test_a_faster_process_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "doves"

    def late(folder: Path, count: int, seed: int) -> None:
        (folder / "mine").mkdir()
        (root / "theirs").mkdir(parents=True)

    monkeypatch.setattr(doves, "draw_set", late)
    assert not draw_if_absent(root)
    assert [path.name for path in tmp_path.rglob("*")] == ["doves", "theirs"]


def test_other_ranks_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setattr(doves, "draw_set", lambda *_: pytest.fail("rank 1 draws"))
    root = tmp_path / "doves"

    def main_rank() -> None:
        time.sleep(0.3)
        beside = tmp_path / "beside/000"
        beside.mkdir(parents=True)
        beside.parent.rename(root)

    thread = threading.Thread(target=main_rank)
    thread.start()
    assert not draw_if_absent(root)
    thread.join()


def test_other_ranks_help_themselves_without_a_shared_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setattr(doves, "PATIENCE", 0.3)
    assert draw_if_absent(tmp_path / "doves", 2) and len(list((tmp_path / "doves").iterdir())) == 2


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.doves: the dove pictures cannot be drawn there .*Set dataset_root"):
        draw_if_absent(tmp_path / "file/doves")


def real(root: Path, names: str, values: list[int]) -> DoveDataset:
    for i in range(2):
        folder = root / f"{i}_json"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "img.png")
        Image.fromarray(np.resize(np.array(values, np.uint8), (4, 6))).save(folder / "label.png")
        (folder / "label_names.txt").write_text(names)
        (folder / "info.yaml").touch()
    return DoveDataset(None, str(root))


def test_label_numbers_of_a_real_set_are_mapped_by_name(tmp_path: Path) -> None:
    label = real(tmp_path, "dove\r\n_background_\n\n__ignore__\n", [0, 1, 2]).read(0)["label"]
    assert label.ravel()[:3].tolist() == [1, 0, 255]
    with pytest.raises(InputError, match=r"label_names\.txt: unknown names cat, dog \(expected _background_, dove\)"):
        real(tmp_path, "_background_\ncat\ndog\n", [0, 1]).read(0)
    with pytest.raises(InputError, match=r"label\.png: label values \[2\] have no name .*names 0\.\.1"):
        real(tmp_path, "_background_\ndove\n", [0, 1, 2]).read(0)
    data = real(tmp_path, "_background_\ndove\n", [0, 1])
    (tmp_path / "0_json/label_names.txt").unlink()
    assert data.read(0)["label"].max() == 1
    (tmp_path / "0_json/img.png").unlink()
    with pytest.raises(InputError, match=r"(?s)of the train samples, files that are not there: 1.*img\.png: image"):
        DoveDataset(None, str(tmp_path))


def test_values_are_exchanged_at_reading(tmp_path: Path) -> None:
    real(tmp_path, "_background_\ndove\n", [0, 1])
    dataset = DoveDataset([], str(tmp_path), label_map={1: 0, 0: 1})
    assert set(np.unique(dataset.read(0)["label"])) <= {0, 1}
    plain = DoveDataset([], str(tmp_path))
    assert np.array_equal(dataset.read(0)["label"], 1 - plain.read(0)["label"])
