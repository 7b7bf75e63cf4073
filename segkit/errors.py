"""The one exception that means "the user's input is wrong"."""

from __future__ import annotations

from typing import Iterable


class InputError(ValueError):
    """A mistake in a config, a flag, a file or the data.

    The message says where, what is wrong, what was expected and how to mend it. The command line prints
    it without a traceback and exits with 2; any other exception is a bug and keeps its traceback.
    """


def counted(count: int, noun: str) -> str:
    """'1 photo', '2 photos': `noun` in the singular, of those that take an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def list_problems(title: str, problems: Iterable[str], limit: int = 20) -> str:
    """One message for many problems: `title`, then the first `limit` of them, then how many more there are."""
    rows = list(problems)
    lines = [title, *(f"  {row}" for row in rows[:limit])]
    if len(rows) > limit:
        lines.append(f"  ... and {len(rows) - limit} more")
    return "\n".join(lines)
