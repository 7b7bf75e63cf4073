"""What the README tells people to type: every flag exists, every file is there, its config and its links hold."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from segkit.cli.flags import Parser, add_common
from segkit.config import Config

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
LINES = [
    part.strip()
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    for part in line.split("&&")
    if part.strip()
]
COMMANDS = [line for line in LINES if re.search(r"(tools/\w+|infer)\.py", line)]


def test_the_two_commands_of_the_start() -> None:
    joined = "\n".join(block for _, block in BLOCKS)
    assert "pip install -r requirements.txt && python tools/train.py --config configs/unet_dove.yml --do_eval" in joined
    assert "pip install -r requirements-dev.txt && python -m pytest" in joined


@pytest.mark.parametrize("line", COMMANDS)
def test_flags_and_files(line: str) -> None:
    words = shlex.split(line)
    script = next(word for word in words if word.endswith(".py"))
    assert (ROOT / script).is_file()
    module = importlib.import_module(f"segkit.cli.{Path(script).stem}")
    parser = Parser(prog="segkit", allow_abbrev=False)
    module.add_arguments(parser)
    add_common(parser)
    args = parser.parse(words[words.index(script) + 1 :])
    if str(args.config).startswith("configs/"):
        assert Config(ROOT / args.config).problems() == []


def test_the_config_for_your_own_photos(tmp_path: Path) -> None:
    block = next(block for kind, block in BLOCKS if kind == "yaml")
    path = tmp_path / "my.yml"
    path.write_text(block.replace("_base_/", f"{ROOT / 'configs' / '_base_'}/"), encoding="utf-8")
    assert Config(path).problems() == []


def test_requirements_name_files_that_are_there() -> None:
    for name in re.findall(r"-r (\S+\.txt)", TEXT):
        assert (ROOT / name).is_file(), name
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link
    gpu = (ROOT / "requirements-gpu.txt").read_text(encoding="utf-8")
    assert "paddlepaddle-gpu" in gpu
    assert "paddlepaddle" not in (ROOT / "setup.py").read_text(encoding="utf-8").replace("PaddlePaddle", "")
