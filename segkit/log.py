"""Logging: one logger, plain lines, a progress bar that the lines do not tear."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from segkit import terminal
from segkit.dist import is_main

logger = logging.getLogger("segkit")
logger.propagate = False
logger.setLevel(logging.INFO)
_said: set[str] = set()


class _TerminalHandler(logging.StreamHandler):
    """Writes above a live tqdm bar where one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr  # whatever it is now: notebooks and tests replace it
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:
            super().emit(record)
        else:
            tqdm.tqdm.write(self.format(record), file=self.stream)
            self.flush()

    def format(self, record: logging.LogRecord) -> str:
        """Lines fitted to a terminal, but those of warnings, whose commands are to be copied whole."""
        text = super().format(record)
        if record.levelno == logging.INFO and terminal.is_terminal(self.stream):
            text = terminal.wrapped(text, self.stream)
        return terminal.coloured(text, record.levelno) if terminal.has_colours(self.stream) else text


def setup(quiet: bool = False) -> None:
    """Log to the terminal: everything from the main rank, only errors from the others or when `quiet`."""
    for handler in [h for h in logger.handlers if isinstance(h, _TerminalHandler)]:
        logger.removeHandler(handler)
    handler = _TerminalHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.setLevel(logging.ERROR if quiet or not is_main() else logging.INFO)
    logger.addHandler(handler)


def talks() -> bool:
    """Whether the terminal gets more than errors: not on other ranks than the main one, nor under `--quiet`."""
    return any(isinstance(handler, _TerminalHandler) and handler.level <= logging.INFO for handler in logger.handlers)


class _Formatter(logging.Formatter):
    """`2026-01-31 12:00:00 [WARNING] text`; the level is left out for INFO."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno == logging.INFO:
            return text
        stamp = len(self.formatTime(record, self.datefmt))
        return f"{text[:stamp]} [{record.levelname}]{text[stamp:]}"


class _Early(logging.Handler):
    """Keeps what is said while no file is open, so that a run's file begins at the run's beginning."""

    def __init__(self, most: int = 200):
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


_early = _Early()
logger.addHandler(_early)


class _File(logging.FileHandler):
    """A log that goes on without its file where the disk is full: what needs the room says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing, where logging itself prints a traceback."""

    def close(self) -> None:
        """Close the file, which may try once more to write."""
        with contextlib.suppress(OSError):
            super().close()


def log_to_file(path: Path) -> logging.Handler:
    """Append every line to `path`, those said since the last file was closed included; give the handler to
    `stop_file` at the end."""
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(_Formatter())
    while _early.records:
        handler.emit(_early.records.popleft())
    logger.removeHandler(_early)
    logger.addHandler(handler)
    return handler


def stop_file(handler: logging.Handler) -> None:
    """Close what `log_to_file` opened; an exception on its way out is its last line."""
    error = sys.exc_info()[1]
    if isinstance(error, Exception):
        handler.emit(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, str(error), (), None))
    logger.removeHandler(handler)
    logger.addHandler(_early)
    handler.close()


def warn_once(text: str) -> None:
    """A warning that is said only the first time."""
    if text not in _said:
        _said.add(text)
        logger.warning(text)


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Within the block warnings go to the list that it gives instead of the log, also those that were said before."""
    notes: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            notes.append(record.getMessage())
        return record.levelno != logging.WARNING

    before = set(_said)
    _said.clear()
    logger.addFilter(keep)
    try:
        yield notes
    finally:
        logger.removeFilter(keep)
        _said.clear()
        _said.update(before)
