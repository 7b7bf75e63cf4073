"""Single findings of data check, without a whole data set."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from segkit.data.check import check_dataset, quick_check
from segkit.datasets.labels import likely_reason
from tests import tiny


def test_upside_down_labels_of_turned_photos(shared: Path, tmp_path: Path) -> None:
    """The masks of carrot_weed_8mp turned into the frame in which its photos are stored."""
    source = shared / "data" / "carrot_weed_8mp"
    lines = [line for line in (source / "train.txt").read_text().splitlines() if line][:1]
    for line in lines:
        image, label = line.split()
        for name in (image, label):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, tmp_path / name)
        Image.fromarray(np.asarray(Image.open(tmp_path / label))[::-1, ::-1]).save(tmp_path / label)
    (tmp_path / "train.txt").write_text("\n".join(lines))
    report = check_dataset(str(tmp_path))
    assert [finding.kind for finding in report.errors] == ["frame"], report.text()


def test_data_sets_of_other_classes_are_left_alone() -> None:
    class Own:
        def __len__(self) -> int:
            return 3

    quick_check(train=Own(), val=None)


def test_gray_of_a_palette_is_told_from_class_numbers() -> None:
    assert "gray values of palette colours" in likely_reason([0, 38, 75, 113], 4, 255)
    assert "shifted by one" in likely_reason([0, 4], 4, 255)
    assert "gray levels 60 apart" in likely_reason([0, 60, 120], 4, 255)


def test_the_commands_load_paddle_without_its_noise(tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path / "d", train=2, val=1)
    code = f"import sys; from segkit.cli.main import main; sys.exit(main(['data', 'check', {str(data / 'c.yml')!r}]))"
    (data / "c.yml").write_text(
        "iters: 1\nbatch_size: 1\nmodel: {type: UNet}\noptimizer: {type: SGD}\n"
        f"train_dataset: {{type: Dataset, dataset_root: {str(data)!r}, num_classes: 2}}\n"
        "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.1}\n"
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1]}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr


def test_one_class_too_few_is_no_shift() -> None:
    assert "set `num_classes: 2`" in likely_reason([0, 1], 1, 255)
