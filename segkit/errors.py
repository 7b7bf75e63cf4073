"""The one exception that means "the user's input is wrong", and what becomes one."""

from __future__ import annotations

import contextlib
import re
from typing import Callable, Iterable, Iterator

_LONGEST = 200
_NO_MEMORY = re.compile(
    "out of memory|bad_alloc|bad allocation|ResourceExhausted|(can't|cannot|could not|failed to) allocate",
    re.IGNORECASE,
)


class InputError(ValueError):
    """A mistake in a config, a flag, a file or the data.

    The message says where, what is wrong, what was expected and how to mend it. The command line prints
    it without a traceback and exits with 2; any other exception is a bug and keeps its traceback.
    """


class EngineError(InputError):
    """An engine failed at an input of the right shape: to a user at the terminal a matter of the exported folder, to
    the client of a server none of its own."""


def shown(value: object) -> str:
    """A value as messages give it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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


def out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice, Python's or an engine's."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def enough_memory(message: Callable[[], str]) -> Iterator[None]:
    """Within the block, memory that does not suffice (Python's, OpenCV's, an engine's or a GPU's) is an `InputError`
    with that message."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise InputError(message()) from error
