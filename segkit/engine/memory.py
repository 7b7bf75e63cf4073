"""Memory of the process: glibc keeps what it has instead of giving every big tensor back and faulting it in again."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from segkit.log import logger
from segkit.runtime import available_memory

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MMAP_THRESHOLD = 1 << 30
TRIM_THRESHOLD = (1 << 31) - 1
TOP_PAD = 256 << 20
LEAST_MEMORY = 8 << 30

_outcome = "as malloc does it"


def tune_malloc() -> bool:
    """Serve blocks up to 1 GiB from a heap that is never trimmed; returns whether it was done.

    A training step on the CPU becomes up to a third faster and its peak memory up to twice as big (measured on
    U-Net), so it is done only with 8 GiB of memory free. Nothing happens without glibc, and where the
    user has set MALLOC_* or GLIBC_TUNABLES. Call it before the first big tensor; calling it again is harmless.
    """
    global _outcome
    refusal = _refusal()
    if refusal:
        _outcome = f"given back at once, which is slower: {refusal}"
        logger.debug("malloc: left as it is: %s", refusal)
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_THRESHOLD, MMAP_THRESHOLD), (M_TRIM_THRESHOLD, TRIM_THRESHOLD), (M_TOP_PAD, TOP_PAD))
    results = [mallopt(name, value) for name, value in settings]
    done = all(results)
    _outcome = f"kept for the next step{'' if done else ' as far as glibc allows'} (faster, up to twice the peak)"
    logger.debug("malloc: big blocks stay in the process%s", "" if done else " as far as glibc allows")
    return done


def outcome() -> str:
    """What becomes of freed memory since `tune_malloc` was called, for the start screen."""
    return _outcome


def _refusal() -> str | None:
    """Why malloc had better be left alone, None where nothing speaks against tuning it."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return "not glibc"
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return "the environment sets it"
    if "malloc" in os.environ.get("LD_PRELOAD", ""):
        return "another allocator is loaded"
    available = available_memory()
    if available < LEAST_MEMORY:
        return f"{available / 2**30:.1f} GiB of memory are free, fewer than {LEAST_MEMORY >> 30}"
    return None
