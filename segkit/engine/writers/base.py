"""What keeps the curves and pictures of a run, whatever shows them."""

from __future__ import annotations

import abc
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

import numpy as np

from segkit.errors import InputError
from segkit.io import write_bytes_atomic

Setting = Union[int, float, str]


class Writer(abc.ABC):
    """Numbers and pictures by tag and iteration. A run that goes on writes what came after its checkpoint anew."""

    @staticmethod
    @abc.abstractmethod
    def require() -> Any:
        """The package that it takes, before anything else is done. Errors: it is not installed."""

    @abc.abstractmethod
    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Numbers by tag, such as `Train/loss`."""

    @abc.abstractmethod
    def image(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """A picture, uint8 [H, W, 3]."""

    @abc.abstractmethod
    def settings(self, values: dict[str, Setting]) -> None:
        """Hyper-parameters, compared over runs by `Train/loss` and `Evaluate/mIoU`."""

    @abc.abstractmethod
    def graph(self, model: Any, input_shape: list[int]) -> None:
        """The model's graph, for those that can show one of Paddle's."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Wait until everything is kept. Errors: it could not be."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flush and end."""


def is_kept(tag: str, iteration: int, trained: int, evaluated: int) -> bool:
    """Whether a record is of what a run that goes on from (`trained`, `evaluated`) has done already."""
    return iteration <= (evaluated if tag.startswith("Evaluate/") else trained)


def keep_records(path: Path, head: int, tail: int, keep: Callable[[bytes], bool]) -> None:
    """Leave out the records of a file that `keep` refuses, and what follows a torn one, or one that `keep` cannot read.

    A record is `head` bytes, of which the first 8 are its size (little-endian), its content, and `tail` bytes.
    """
    data = path.read_bytes() if path.is_file() else b""
    kept, at = [], 0
    while at + head <= len(data):
        begin = at + head
        end = begin + struct.unpack_from("<Q", data, at)[0]
        if end + tail > len(data):
            break
        try:
            wanted = keep(data[begin:end])
        except Exception:  # protobuf's own error, whose place depends on its version; what follows is no record either
            break
        if wanted:
            kept.append(data[at : end + tail])
        at = end + tail
    if len(b"".join(kept)) != len(data):
        write_bytes_atomic(path, b"".join(kept))


def unwritten(place: Path, flag: str) -> InputError:
    """The error where the disk did not take all of it."""
    return InputError(
        f"{place}: not all of the curves could be written: the disk is full, or the file was changed. "
        f"Make room there, then go on with --resume_model auto, or leave out {flag}."
    )
