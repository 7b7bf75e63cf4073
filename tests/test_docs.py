"""README, docs and deploy: every fenced block works as written, every flag, file and link in them is there."""

from __future__ import annotations

import importlib
import os
import re
import unicodedata
from pathlib import Path

import pytest

from segkit.cli import data
from segkit.cli.flags import Parser, add_common
from segkit.cli.main import COMMANDS
from segkit.config import Config
from tests.pages import LONG, PAGES, QUICK, ROOT, Block, Reader, blocks, commands, shared_base

ALL = [block for page in PAGES for block in blocks(page)]
BASH = [block for block in ALL if block.kind == "bash"]


@pytest.fixture(scope="session")
def base(tmp_path_factory, request) -> Path:
    """The clone that each page starts from; with --slow it has all of the 124 doves."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return shared_base(folder, 124 if request.config.getoption("--slow") else 12)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_every_block_runs_as_written(page: str, base: Path, tmp_path: Path, request, record_property) -> None:
    """Those that read letter for letter as one of an earlier page are not run a second time."""
    slow = request.config.getoption("--slow")
    earlier = {block.text for other in PAGES[: PAGES.index(page)] for block in blocks(other) if block.kind == "bash"}
    ran, left = 0, []
    reader = Reader(base, tmp_path, LONG if slow else QUICK)
    try:
        for block in blocks(page):
            if "not run" in block.marks:
                left.append(f"line {block.line}: {block.marks['not run']}")
            elif "slow" in block.marks and not slow:
                left.append(f"line {block.line}: slow")
            elif block.text in earlier:
                left.append(f"line {block.line}: run in an earlier page")
            else:
                reader.do(block)
                ran += 1
    finally:
        reader.close()
    told = f"; not: {'; '.join(left)}" if left else ""
    record_property("told", f"{page}: {ran} of {len(blocks(page))} blocks run{told}")


def test_blocks_are_of_known_kinds_and_say_why_they_are_not_run() -> None:
    for block in ALL:
        assert block.kind in ("bash", "yaml", "python"), block.place
        assert block.marks.get("not run", "because") != "", block.place
        if block.kind == "yaml":
            assert {"file", "merged into", "not run"} & set(block.marks), f"{block.place}: of which config is this?"
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        marks = re.findall(r"^ *<!-- (?:slow|not run|file|merged into|serves)\b.*-->$", text, re.MULTILINE)
        assert len(marks) == sum(len(block.marks) for block in blocks(page)), f"{page}: a mark without a block"


@pytest.mark.parametrize("block", BASH, ids=lambda block: block.place)
def test_flags_and_files(block: Block) -> None:
    """Also of blocks that are not run."""
    made = {other.marks.get("file") for other in blocks(block.page)}
    for words in commands(block):
        name, rest = _command(words)
        if name is None:
            continue
        module = importlib.import_module(f"segkit.cli.{name}")
        parser = Parser(prog="segkit", allow_abbrev=False)
        module.add_arguments(parser)
        add_common(parser)
        parser.parse(rest)
        for word in rest:
            if word.startswith("configs/") and word not in made:
                assert Config(ROOT / word).problems() == [], word


def _command(words: list[str]) -> tuple[str | None, list[str]]:
    """(module of segkit.cli, its arguments) of a command line, or (None, []) where it is another program's."""
    script = next((word for word in words if re.fullmatch(r"(\S*/)?(tools/\w+|deploy/python/infer)\.py", word)), None)
    if script is not None:
        assert (ROOT / script.removeprefix("../")).is_file() or script.startswith("deploy"), script
        return Path(script).stem, words[words.index(script) + 1 :]
    if words[0] != "segkit":
        return None, []
    command, rest = words[1], words[2:]
    if command.startswith("-"):
        return None, []
    if command == "data":
        name, rest = data.subcommand(rest)
        return f"data_{name}", rest
    assert command in COMMANDS, command
    return command, rest


def test_the_two_commands_of_the_start() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -r requirements.txt && python tools/train.py --config configs/unet_dove.yml --do_eval" in text
    assert "pip install -r requirements-dev.txt && python -m pytest" in text
    assert "paddlepaddle-gpu" in (ROOT / "requirements-gpu.txt").read_text(encoding="utf-8")
    assert "paddlepaddle" not in (ROOT / "setup.py").read_text(encoding="utf-8").replace("PaddlePaddle", "")


def test_both_languages_have_the_same_commands() -> None:
    ours, theirs = (
        [re.sub(r" *#.*", "", block.text) for block in blocks(page)] for page in ("README.md", "README.zh-CN.md")
    )
    assert ours == theirs


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """Of the same repository: the file is there, and the heading in it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"\w+://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(_slug, headings), f"{page}: {link}"


def _slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


def test_pages_are_listed_and_pictures_are_small() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"({page.removeprefix('docs/')})" in index, page
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 60_000, picture
