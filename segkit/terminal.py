"""What a terminal gets that a file does not: colours, and lines broken between words instead of within them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import unicodedata
from collections.abc import Sequence
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
    width = columns(stream)
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def columns(stream: TextIO) -> int:
    """Width of this very terminal: the standard output may be a file."""
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return found or shutil.get_terminal_size().columns


def columns_of(text: str) -> int:
    """How many columns a terminal shows a text in: two for Chinese and the like, none for accents that join letters."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in ("W", "F"))
        for character in text
    )


def folded(words: Sequence[str], width: int, indent: str) -> list[str]:
    """Lines of `words`, none of them broken, no wider than `width` columns where that is possible. The words hold the
    spaces between them; lines but the first begin with `indent`."""
    lines = [""]
    for word in words:
        if lines[-1].strip() and columns_of(lines[-1] + word) > width:
            lines.append(indent + word.lstrip())
        else:
            lines[-1] += word
    return lines


def _wrapped(line: str, width: int) -> str:
    if columns_of(line) <= width or line[:1] in ("+", "|"):
        return line
    head = _HEAD.match(line)
    indent = " " * (min(columns_of(head[0]), width // 2) if head else 2)
    return "\n".join(folded(re.findall(r"\s*\S+", line), width, indent))
