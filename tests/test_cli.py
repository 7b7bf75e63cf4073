"""The command line: exit codes, messages, and both spellings of flags."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segkit.cli import data
from segkit.cli import main as cli
from segkit.options import TrainOptions
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny_config(make_data(tmp_path / "data", train=4, val=2), tmp_path / "c.yml", iters=2)


def test_train_through_the_command(config: Path, tmp_path: Path, capsys) -> None:
    argv = ["train", "--config", str(config), "--save-dir", str(tmp_path / "out"), "--num-workers=0", "--device", "cpu",
            "--do-eval", "--save_interval_iters", "1", "--opts", "optimizer.momentum=0.5", "--json"]  # fmt: skip
    assert cli.main(argv) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["save_dir"] == str(tmp_path / "out")
    assert "momentum: 0.5" in (tmp_path / "out" / "iter_1" / "config.yml").read_text(encoding="utf-8")


def test_quiet_says_nothing(config: Path, tmp_path: Path, capsys) -> None:
    argv = [
        "train",
        "--config",
        str(config),
        "--save_dir",
        str(tmp_path / "out"),
        "--num_workers",
        "0",
        "--device",
        "cpu",
    ]
    assert cli.main([*argv, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    assert "[TRAIN]" in (tmp_path / "out" / "train.log").read_text(encoding="utf-8")


def test_a_full_disk_is_no_bug(monkeypatch, capsys) -> None:
    import segkit.cli.config as command

    def full(_: object) -> None:
        raise OSError(28, "No space left on device", "out/x")

    monkeypatch.setattr(command, "run", full)
    assert cli.main(["config", "x.yml"]) == 2
    assert "out/x: cannot be written, the disk is full. Free space" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    import segkit.cli.config as command

    def bug(_: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr(command, "run", bug)
    with pytest.raises(ValueError, match="ours"):
        cli.main(["config", "x.yml"])


def test_obsolete_flags_are_accepted_with_a_notice(config: Path, tmp_path: Path, capsys) -> None:
    argv = ["train", "--config", str(config), "--save_dir", str(tmp_path / "o"), "--num_workers", "0", "--device", "cpu",
            "--profiler_options", "batch_range=[1,2]", "--for_fd"]  # fmt: skip
    assert cli.main(argv) == 0
    said = capsys.readouterr().err
    for flag in ("--profiler_options", "--for_fd"):
        assert f"{flag} is an obsolete flag of PaddleSeg: accepted, without effect" in said


ALL = [[], *([name] for name in cli.COMMANDS), *(["data", name] for name in data.COMMANDS)]


@pytest.mark.parametrize("command", ALL, ids=lambda c: " ".join(c) or "segkit")
def test_help(command: list[str], capsys) -> None:
    try:
        code = cli.main([*command, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    text = capsys.readouterr().out
    assert "usage: segkit" in text
    if command == ["train"]:
        for name in TrainOptions.__dataclass_fields__:
            assert f"--{name} " in text or f"--{name}]" in text or f"--{name}\n" in text, name


def test_an_unknown_data_command(capsys) -> None:
    assert cli.main(["data", "convrt"]) == 2
    assert "segkit data: unknown command 'convrt'." in capsys.readouterr().err


def test_version(capsys) -> None:
    from segkit import __version__

    for argv in (["--version"], ["train", "--version"]):
        assert cli.main(argv) == 0
        assert capsys.readouterr().out == f"segkit {__version__}\n"


@pytest.mark.parametrize("tool", ["train", "val", "predict", "export"])
def test_doors_run_from_another_folder(tool: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("segkit ")


def test_bad_data_ends_with_2_too(config: Path, tmp_path: Path, capsys) -> None:
    from PIL import Image

    argv = [
        "train",
        "--config",
        str(config),
        "--save_dir",
        str(tmp_path / "o"),
        "--num_workers",
        "0",
        "--device",
        "cpu",
    ]
    label = tmp_path / "data" / "labels" / "000.png"
    Image.new("L", (32, 24), 7).save(label)
    assert cli.main(argv) == 2
    assert "000.png" in (said := capsys.readouterr().err)
    assert "7" in said
    Image.new("L", (24, 32), 1).save(label)
    assert cli.main(argv) == 2
    assert "EXIF" in capsys.readouterr().err
    (tmp_path / "data" / "train.txt").write_text("", encoding="utf-8")
    assert cli.main(argv) == 2
    assert "train.txt" in capsys.readouterr().err
    assert cli.main([*argv[:-1], "gpu"]) == 2
    assert "--device" in capsys.readouterr().err


def test_transforms_may_be_left_empty(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", train=4, val=2)
    path = tiny_config(data, tmp_path / "c.yml", iters=1)
    argv = ["train", "--config", str(path), "--save_dir", str(tmp_path / "o"), "--num_workers", "0", "--device", "cpu"]
    assert cli.main([*argv, "--do_eval", "--opts", "train_dataset.transforms=null", "val_dataset.transforms=null"]) == 0


def test_config_prints_what_it_resolved(config: Path, capsys) -> None:
    import yaml

    assert cli.main(["config", str(config), "--opts", "iters=9"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["iters"] == 9
    assert cli.main(["config", str(config), "--check"]) == 0
    assert "no problems found" in capsys.readouterr().out


def test_info(capsys) -> None:
    assert cli.main(["info"]) == 0
    assert "paddlepaddle" in capsys.readouterr().out
    assert cli.main(["info", "--config", str(ROOT / "configs" / "dovenet_dove.yml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["params"], found["trainable"]) == (2_058_690, 2_054_914)


def test_a_missing_paddle_is_answered_with_both_lines(monkeypatch) -> None:
    import importlib.util

    from segkit import runtime
    from segkit.errors import InputError

    monkeypatch.delitem(sys.modules, "paddle")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"pip install paddlepaddle\. On an NVIDIA GPU: pip install paddlepaddle-gpu -i https"
    ):
        runtime.require_paddle()


# Slow to import, or only for one purpose: a command that does not need them must not wait for them.
LOADED = """
import sys
from segkit.cli.main import main
code = main(sys.argv[1:])
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), *(n for n in sys.modules if n.count(".") == 1))
"""


@pytest.mark.parametrize(
    "argv, absent",
    [
        (["--help"], {"paddle", "numpy", "cv2", "PIL", "yaml", "segkit.registry", "segkit.config"}),
        (["--version"], {"paddle", "numpy", "cv2", "PIL", "yaml"}),
        (["train", "--version"], {"paddle", "numpy", "cv2", "PIL", "yaml"}),
        (
            ["config", "configs/unet_cats.yml", "--check"],
            {"visualdl", "albumentations", "matplotlib", "onnxruntime", "openvino", "sklearn", "segkit.engine"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_needs_alone(argv: list[str], absent: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *argv], cwd=ROOT, capture_output=True, text=True)
    code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == "0" and "segkit" in loaded, done.stderr
    assert not absent & set(loaded)
