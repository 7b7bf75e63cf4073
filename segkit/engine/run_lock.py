"""One run at a time in a `save_dir`: a second one would delete and move what the first is writing."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from segkit.dist import is_main
from segkit.errors import InputError
from segkit.log import logger

NAME = ".lock"
_BYTE = 1 << 20  # beyond the text: what is locked cannot be read on Windows


@contextlib.contextmanager
def only_run_in(save_dir: Path) -> Iterator[None]:
    """Keep `save_dir` for this process during the block; rank 0 does so for all.

    The system itself ends the lock with the process, so that a killed run never blocks the next one; the file stays.
    A lock by record, unlike one by open file, is not the data workers' too, who may outlive the run for a moment.
    Errors: another process trains there.
    """
    if not is_main():
        yield
        return
    place = save_dir / NAME
    with place.open("ab", buffering=0) as file:
        try:
            _take(file.fileno())
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"--save_dir {save_dir}: another run trains there ({_holder(place)}). Wait for its end, stop it, or "
                "choose another --save_dir."
            ) from error
        except OSError as error:  # a network disk without locks
            logger.warning("%s: cannot be locked (%s): start no second run with this --save_dir", place, error)
        with contextlib.suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield


def _holder(place: Path) -> str:
    text = place.read_text(encoding="utf-8", errors="replace")
    return text or f"its process has locked {place}"


def _take(handle: int) -> None:
    """`BlockingIOError` or `PermissionError` where another process has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)
