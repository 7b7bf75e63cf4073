"""Decoded samples kept for the next epochs, in memory (/dev/shm) or in the folder for temporary files.

Every array is a .npy file that readers map into memory: the worker processes of a rank share its pages, and what one
of them has decoded none decodes again. Only decoding is left out: what the transforms do, and draw, is the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np

from segkit import dist
from segkit.errors import InputError
from segkit.io import image_size
from segkit.log import logger
from segkit.runtime import available_memory

try:
    import fcntl
except ImportError:  # Windows: no worker processes there, and a killed run's folder is not found again
    fcntl = None

KINDS = ("none", "ram", "disk")
SHARED_MEMORY = "/dev/shm"
SHARE = 0.5  # of what is free; the training itself needs memory too
_PREFIX = "segkit-cache-"
_OWNER = "owner"
_KEYS = ("image", "label")


class Cache:
    """Arrays of samples by their number, up to `limit` bytes; what comes later is not kept.

    Files appear whole or not at all, so that worker processes need not wait for each other. The folder goes with
    this object or at the end of the process that made it; after a kill, the next run with a cache removes it.
    """

    def __init__(self, kind: Literal["ram", "disk"]):
        parent, free = _place(kind)
        self.limit = int(free * SHARE / dist.world_size())  # every rank has its own
        self._kind, self._floor = kind, free * (1 - SHARE) / 2  # other caches, started as empty, fill up too
        _remove_left(parent)
        self.folder, owner = _new_folder(parent)
        self._used, self._full = os.path.join(self.folder, "used"), False
        Path(self._used).write_bytes(b"0")
        weakref.finalize(self, _remove, self.folder, os.getpid(), owner)

    def get(self, index: int) -> Optional[dict[str, np.ndarray]]:
        """The arrays of sample `index`, read-only, or None where they are not kept."""
        if not os.path.exists(self._file(index, "whole")):
            return None
        found = {}
        for key in _KEYS:
            with contextlib.suppress(FileNotFoundError):  # a sample without label
                found[key] = np.asarray(np.load(self._file(index, key), mmap_mode="r", allow_pickle=False))
        return found if "image" in found else None

    def put(self, index: int, sample: dict[str, Any]) -> None:
        """Keep `image` and `label` of a sample, where there is room."""
        arrays = {key: sample[key] for key in _KEYS if sample.get(key) is not None}
        if self._full:
            return
        try:
            size = sum(array.nbytes + 4096 for array in arrays.values())
            if _place(self._kind)[1] < self._floor or not self._reserve(size):
                self._full = True
                logger.info("cache: full; the samples that are not in it are decoded anew every time")
                return
            for key, array in arrays.items():
                self._write(self._file(index, key), array)
            Path(self._file(index, "whole")).touch()
        except OSError as error:  # no room after all, or the folder was removed: training goes on without
            self._full = True
            logger.info("cache: nothing more is kept (%s)", error.strerror)

    def _file(self, index: int, key: str) -> str:
        return os.path.join(self.folder, f"{index}.{key}.npy")

    @staticmethod
    def _write(path: str, array: np.ndarray) -> None:
        beside = f"{path}.{os.getpid()}"
        try:
            with open(beside, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise

    def _reserve(self, size: int) -> bool:
        """Count `size` bytes as used, whichever process asks; False where that would pass the limit."""
        with open(self._used, "r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            used = int(file.read()) + size
            if used > self.limit:
                return False
            file.seek(0)
            file.write(b"%d" % used)
        return True


def make_cache(kind: str, files: list, channels: int) -> Optional[Cache]:
    """The cache that a data set of those (image, label) files asks for; says where it is and how large.

    `InputError` for an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"cache: unknown (got {kind!r}, expected {', '.join(KINDS)}). Use one of them.")
    if kind == "none":
        return None
    cache = Cache(kind)
    compared = ""
    if files:
        with contextlib.suppress(InputError):  # it is named when it is read
            height, width = image_size(files[0][0])
            compared = f" (all samples need about {height * width * (channels + 1) * len(files) / 2**20:,.0f} MB)"
    limit = f"{cache.limit / 2**20:,.0f}"
    logger.info("cache: decoded samples are kept in %s, at most %s MB%s", cache.folder, limit, compared)
    return cache


def _place(kind: str) -> tuple[str, int]:
    """The folder for caches of that kind, and how many bytes are free there."""
    folder = SHARED_MEMORY if kind == "ram" and os.path.isdir(SHARED_MEMORY) else tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return folder, min(free, available_memory() or free) if kind == "ram" else free


def _new_folder(parent: str) -> tuple[str, int]:
    """A folder with a locked file in it, and that file's handle: the lock is held until this process and the workers
    that it forks have ended. Only the whole thing gets the name by which `_remove_left` looks for folders."""
    folder = tempfile.mkdtemp(prefix=".segkit-", dir=parent)
    owner = os.open(os.path.join(folder, _OWNER), os.O_CREAT | os.O_RDWR, 0o600)
    if fcntl is not None:
        fcntl.flock(owner, fcntl.LOCK_EX)
    named = os.path.join(parent, _PREFIX + os.path.basename(folder)[len(".segkit-") :])
    os.rename(folder, named)
    return named, owner


def _remove(folder: str, owner: int, handle: int) -> None:
    """What the process that made the cache does at its end; its forked workers leave it alone."""
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(parent: str) -> None:
    """Folders of killed runs: nobody holds their lock any more."""
    if fcntl is None:
        return
    for owner in Path(parent).glob(f"{_PREFIX}*/{_OWNER}"):
        with contextlib.suppress(OSError), open(owner, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)
