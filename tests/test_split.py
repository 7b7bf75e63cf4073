"""Dividing a data set: seeded, shares kept, rare classes everywhere, what belongs together in one part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.cli import main as cli
from segkit.data.duplicates import look
from segkit.data.split import Sample, Shares, assign
from segkit.data.split_folder import split_folder
from segkit.errors import InputError
from tests.tiny import make_data


def sample(index: int, pixels: dict[int, int], image: np.ndarray | None = None) -> Sample:
    counts = np.zeros(256, np.int64)
    for number, count in pixels.items():
        counts[number] = count
    return Sample(
        f"images/{index:03d}.png", f"labels/{index:03d}.png", counts, (10, 10), None if image is None else look(image)
    )


def rare_set() -> list[Sample]:
    """100 photos; class 1 in half of them, class 2 in four, class 3 in three."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(100):
        pixels = {0: 900, 1: int(rng.integers(0, 2)) * int(rng.integers(10, 90))}
        pixels[2] = 5 if index in (3, 40, 41, 77) else 0
        pixels[3] = 2 if index in (10, 11, 90) else 0
        rows.append(sample(index, pixels))
    return rows


def test_shares_and_seed() -> None:
    rows = rare_set()
    first = assign(rows, Shares(0.7, 0.15, 0.15), seed=1)
    assert Counter(first) == {"train": 70, "val": 15, "test": 15}
    assert first == assign(rows, Shares(70, 15, 15), seed=1) != assign(rows, Shares(0.7, 0.15, 0.15), seed=2)
    assert set(assign(rows, Shares(0.8, 0.2, 0))) == {"train", "val"}


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_reach_every_part(seed: int) -> None:
    rows = rare_set()
    parts = assign(rows, Shares(0.7, 0.15, 0.15), seed, stratify=True)
    for number in (1, 2, 3):
        assert {part for row, part in zip(rows, parts) if row.pixels[number]} == {"train", "val", "test"}
    assert max(abs(Counter(parts)[part] - count) for part, count in (("train", 70), ("val", 15), ("test", 15))) <= 1
    ones = {
        part: sum(row.pixels[1] for row, own in zip(rows, parts) if own == part) for part in ("train", "val", "test")
    }
    assert abs(ones["train"] / sum(ones.values()) - 0.7) < 0.05


def test_folds_are_even_and_stratified() -> None:
    rows = rare_set()
    parts = assign(rows, Shares(1, 0, 0), 0, stratify=True, folds=4)
    assert Counter(parts) == {str(fold): 25 for fold in range(4)}
    assert {part for row, part in zip(rows, parts) if row.pixels[2]} == {"0", "1", "2", "3"}


def test_near_identical_photos_and_groups_stay_together() -> None:
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(10)]
    rows = []
    for index in range(40):
        frame = scenes[index % 10].astype(int) + rng.integers(-3, 4, (64, 64, 1))
        rows.append(sample(index, {0: 5}, np.clip(frame, 0, 255).astype(np.uint8)))
    parts = assign(rows, Shares(0.6, 0.2, 0.2), 0)
    assert all(parts[index] == parts[index % 10] for index in range(40)) and len(set(parts)) == 3
    plain = [sample(index, {0: 5}) for index in range(40)]
    by_tens = assign(plain, Shares(0.5, 0.25, 0.25), 0, group_by=r"images/(\d\d)")
    assert all(len(set(by_tens[start : start + 10])) == 1 for start in range(0, 40, 10)) and len(set(by_tens)) == 3


def test_mistakes(tmp_path: Path) -> None:
    rows = rare_set()
    with pytest.raises(InputError, match=r"--train, --val, --test: got 0, 1, 0, expected shares of 0 or more"):
        assign(rows, Shares(0, 1, 0))
    with pytest.raises(InputError, match=r"--group_by: not a regular expression \(got '\('"):
        assign(rows, Shares(1, 1, 1), group_by="(")
    with pytest.raises(InputError, match=r"--group_by: 'video' matches no photo \(such as images/000\.png\)"):
        assign(rows, Shares(1, 1, 1), group_by="video")
    with pytest.raises(
        InputError, match=r"--train, --val, --test: too many parts \(got 3, expected at most 1, one for each"
    ):
        assign(rows, Shares(1, 1, 1), group_by="images")
    with pytest.raises(InputError, match=r"--folds: got 1, expected 2 or more"):
        split_folder(str(tmp_path), (1, 1, 1), folds=1)
    with pytest.raises(InputError, match=r"gone: no such folder"):
        split_folder(str(tmp_path / "gone"), (1, 1, 1))


def test_the_command_keeps_the_old_lists(tmp_path: Path, capsys) -> None:
    data = make_data(tmp_path / "d", train=12, val=4)
    before = (data / "train.txt").read_bytes()
    assert (
        cli.main(["data", "split", str(data), "--train", "0.5", "--val", "0.25", "--test", "0.25", "--stratify"]) == 0
    )
    assert (data / "previous_lists_1" / "train.txt").read_bytes() == before
    lines = [line for part in ("train", "val", "test") for line in (data / f"{part}.txt").read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 16
    assert len((data / "train.txt").read_text().splitlines()) == 8
    assert "now in previous_lists_1/" in capsys.readouterr().err
    assert cli.main(["data", "split", str(data), "--folds", "4", "--quiet"]) == 0
    held_out = [line for fold in range(4) for line in (data / "folds" / str(fold) / "val.txt").read_text().splitlines()]
    assert sorted(held_out) == sorted(lines)
    assert len((data / "folds" / "2" / "train.txt").read_text().splitlines()) == 12


def test_all_bad_photos_are_listed(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=5, val=2)
    Image.new("L", (5, 5)).save(data / "labels" / "001.png")
    (data / "images" / "002.png").write_bytes(b"")
    (data / "labels" / "003.png").unlink()
    with pytest.raises(
        InputError,
        match=r"(?s)3 files cannot be used.*003\.png: no such file.*001\.png: its mask .* does not fit.*the file is empty",
    ):
        split_folder(str(data), (1, 1, 1))
