"""What a terminal gets that a file does not: colours, and lines broken between words instead of within them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import textwrap
from typing import TextIO

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}  # yellow, red
_BOLD = "1"
_HEAD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d |  \S+ +"
)  # a time, or the name of a row: what follows stands under it


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody watches."""
    return bool(getattr(stream, "isatty", lambda: False)())


def has_colours(stream: TextIO) -> bool:
    """Whether to colour: on a terminal that can, unless `NO_COLOR` is set (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt"
    return not plain and is_terminal(stream)


def coloured(text: str, level: int) -> str:
    """Warnings yellow, errors red, and the scores of an evaluation bold."""
    colour = _COLOURS.get(level, _BOLD if "[EVAL] #" in text else "")
    return f"\033[{colour}m{text}\033[0m" if colour else text


def wrapped(text: str, stream: TextIO) -> str:
    """Lines that are wider than the terminal, broken between words and indented. Tables stay as they are."""
    width = _columns(stream)
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _columns(stream: TextIO) -> int:
    """Width of this very terminal: the standard output may be a file."""
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return found or shutil.get_terminal_size().columns


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width or line[:1] in ("+", "|"):
        return line
    head = _HEAD.match(line)
    indent = " " * (min(len(head[0]), width // 2) if head else 2)
    lines = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
