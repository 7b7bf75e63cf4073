"""Going through the table: a spoilt copy of the world for each row, and what is said there."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.bad_input import world
from tests.bad_input.table import ROWS, Row

EXPECTED = Path(__file__).with_name("expected.txt")
OPEN = "…"
"""stands in expected.txt for what depends on the machine or on a library's version"""


@contextlib.contextmanager
def patches(name: str) -> Iterator[None]:
    """Something that the machine lacks."""
    kind, _, what = name.partition(" ")
    if name == "few shared":
        from segkit import log
        from segkit.engine import loader

        with mock.patch.object(loader, "_shared_memory_left", lambda: 0), mock.patch.object(log, "_said", set()):
            yield
    elif kind == "few":
        with mock.patch.dict(os.environ, {"SEGKIT_MAX_PIXELS": "1100"}):
            yield
    elif kind == "full":

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        with mock.patch("os.replace", full), mock.patch("os.fsync", full):
            yield
    elif what == "paddle":
        find = importlib.util.find_spec
        gone = {name: module for name, module in sys.modules.items() if name == "paddle"}
        with (
            mock.patch.dict(sys.modules),
            mock.patch("importlib.util.find_spec", lambda name, *rest: None if name == "paddle" else find(name, *rest)),
        ):
            for found in gone:
                del sys.modules[found]
            yield
    elif kind == "no":
        load = builtins.__import__

        def absent(name: str, *rest: Any, **more: Any) -> Any:
            if name.split(".")[0] == what:
                raise ImportError(f"No module named '{what}'")
            return load(name, *rest, **more)

        with mock.patch.dict(sys.modules, {what: None}), mock.patch("builtins.__import__", absent):
            yield
    else:
        yield


def play(row: Row, template: Path, target: Path) -> str:
    """Exit code and message of a row, in a spoilt copy of `template` at `target`."""
    folder = world.copy(template, target)
    for change in row.changes:
        change(folder)
    with world.inside(folder), patches(row.patch):
        code, said = world.run(row.argv.split())
    if row.goes_on:
        (said,) = (line.split(" ", 2)[2] for line in said.splitlines() if row.goes_on in line)
    return f"exit {code}\n{world.message(said, folder)}"


def expected() -> dict[str, str]:
    """Row -> what expected.txt holds for it."""
    blocks = EXPECTED.read_text(encoding="utf-8").split("\n\n## ")
    return {block.partition("\n")[0]: block.partition("\n")[2].partition("\n")[2].strip() for block in blocks[1:]}


def rewrite() -> int:
    """Write expected.txt of what is said now; lines with `…` that still fit are kept."""
    import re

    old = expected() if EXPECTED.is_file() else {}
    parts = ["# What is said about each mistake of table.py. `python -m tests.bad_input` writes this file.\n"]
    with tempfile.TemporaryDirectory() as folder:
        template = world.build(Path(folder, "world"))
        for number, row in enumerate(ROWS):
            found = play(row, template, Path(folder, str(number)))
            pattern = ".*".join(map(re.escape, old.get(row.name, "").split(OPEN)))
            text = old[row.name] if row.name in old and re.fullmatch(pattern, found, re.DOTALL) else found
            parts.append(f"\n## {row.name}\n$ segkit {row.argv}\n{text}\n")
    EXPECTED.write_text("".join(parts), encoding="utf-8")
    return 0


def main() -> int:
    """The command line of `python -m tests.bad_input`."""
    from tests.bad_input.mutate import KINDS, many

    parser = argparse.ArgumentParser(prog="python -m tests.bad_input")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help=f"try N mutated {kind}")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    asked = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind)}
    if not asked:
        return rewrite()
    with tempfile.TemporaryDirectory() as folder:
        template = world.build(Path(folder, "world"))
        os.chdir(template)
        bugs = [many(kind, count, template, args.first)["bugs"] for kind, count in asked.items()]
        return int(any(bugs))
