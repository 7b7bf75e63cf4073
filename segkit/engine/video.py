"""Videos in and out, through OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError


class UnreadableVideo(InputError):
    """A video that yields no frame."""


def frames(path: str, channels: int) -> Iterator[tuple[int, np.ndarray, float]]:
    """(number from 1, uint8 [H, W, channels] RGB or gray, frames per second) of each frame."""
    if channels not in (1, 3):
        raise InputError(f"{path}: a video has colour or gray frames, but the model takes {channels} channels.")
    capture = cv2.VideoCapture(path)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        number = 0
        while True:
            good, frame = capture.read()
            if not good:
                break
            number += 1
            code = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
            picture = cv2.cvtColor(frame, code)
            yield number, picture if picture.ndim == 3 else picture[:, :, None], rate
    finally:
        capture.release()
    if number == 0:
        raise UnreadableVideo(
            f"{path}: this video has no frame that OpenCV can read. Convert it to H.264 in an .mp4 file."
        )


class OverlayWriter:
    """An .mp4 that appears when it is whole. Use it as a context; frames are RGB uint8 [H, W, 3] of one size."""

    def __init__(self, path: Path):
        self.path = path
        self._part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._writer: Any = None

    def __enter__(self) -> OverlayWriter:
        return self

    def add(self, picture: np.ndarray, rate: float) -> None:
        """Append one frame."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            height, width = picture.shape[:2]
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
            if not self._writer.isOpened():
                raise InputError(f"{self.path}: OpenCV cannot write this video. Install opencv with FFmpeg.")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)
