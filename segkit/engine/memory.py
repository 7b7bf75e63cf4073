"""Memory of the process: glibc keeps what it has instead of giving every big tensor back and faulting it in again."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys

from segkit.dist import local_ranks
from segkit.log import logger
from segkit.runtime import available_memory

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MMAP_THRESHOLDS = (1 << 30, 32 << 20)  # the first that glibc takes: before 2.35 none above 32 MiB
TRIM_THRESHOLD = (1 << 31) - 1
TOP_PAD = 256 << 20
LEAST_MEMORY = 8 << 30


def tune_malloc(needed: int = LEAST_MEMORY) -> bool:
    """Serve big blocks (up to 1 GiB where glibc allows it) from a heap that is never trimmed; whether it was done.

    A training step on the CPU becomes up to a third faster and its peak memory up to twice as big (measured on
    U-Net), so it is done only where `needed` bytes are free for each rank of this machine. Nothing happens without
    glibc, and where the user has set MALLOC_* or GLIBC_TUNABLES. Calling it again is harmless.
    """
    refusal = _refusal() or _tried(needed)
    logger.debug("malloc: %s", f"left as it is: {refusal}" if refusal else "big blocks stay in the process")
    return not refusal


def plan() -> str:
    """What becomes of freed memory in a training on the CPU, for the start screen."""
    refusal = _refusal()
    if refusal:
        return f"given back at once, which is slower: {refusal}"
    return "kept after the first step where twice its peak has room (faster)"


@functools.cache
def tune_by_step() -> None:
    """Once in a process, after a training step: as `tune_malloc`, where twice the peak until now has room."""
    if not _refusal() and (reason := _tried(_second_peak())):
        logger.info("memory: freed memory is still given back at once, which is slower: %s", reason)


def _second_peak() -> int:
    """Bytes that twice the peak of this process takes beyond what it has now; `LEAST_MEMORY` where nobody tells."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        peak, now = (int(rows[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS"))
    except (OSError, KeyError, ValueError):
        return LEAST_MEMORY
    return 2 * peak - now


def _tried(needed: int) -> str:
    """Set the thresholds where so many bytes are free for this rank; why it was not done, empty where it was."""
    free = available_memory() // local_ranks()
    if free < needed:
        each = " for each rank" if local_ranks() > 1 else ""
        return f"{free / 2**30:.1f} GiB of memory are free{each}, fewer than {needed / 2**30:.1f}"
    mallopt = ctypes.CDLL(None).mallopt
    # The other two alone would make it slower: glibc then no longer raises its own threshold of 128 KiB as it goes.
    if not any(mallopt(M_MMAP_THRESHOLD, size) for size in MMAP_THRESHOLDS):
        return "glibc refuses"
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
    mallopt(M_TOP_PAD, TOP_PAD)
    return ""


def _refusal() -> str:
    """Why malloc had better be left alone whatever is free, empty where nothing speaks against tuning it."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return "not glibc"
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return "the environment sets it"
    if "malloc" in os.environ.get("LD_PRELOAD", ""):
        return "another allocator is loaded"
    return ""
