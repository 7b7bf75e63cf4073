"""Videos in and out, through OpenCV."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkit._cv2 import cv2
from segkit.deploy.inputs import Item
from segkit.errors import InputError


class UnreadableVideo(InputError):
    """A video or camera that yields no frame that the model can take."""


class Source:
    """The frames of a video file or a camera. Use it as a context; for a camera SIGTERM is like Ctrl-C inside it.

    `rate`: frames per second; `count`: how many frames the file says it has, None where it does not.
    """

    def __init__(self, item: Item, channels: int):
        if channels not in (1, 3):
            raise UnreadableVideo(
                f"{item.path}: a video has colour or gray frames, but the model takes {channels} channels. Give "
                "photos of as many."
            )
        self._item, self._colour = item, channels == 3
        self._capture: Any = None
        self._before: Any = None
        self._lock, self._closed = threading.Lock(), False
        self.rate, self.count = 25.0, None

    def __enter__(self) -> Source:
        self._capture = _opened(int(self._item.path) if self._item.path.isdecimal() else self._item.path)
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or self.rate
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self._item.is_camera else None
        if self._item.is_camera and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:  # a thread may be reading the next frame
            self._closed = True
            self._capture.release()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number from 1, uint8 [H, W, channels] RGB or gray) of each frame."""
        number = 0
        while True:
            with self._lock:
                if self._closed:
                    return
                good, frame = self._capture.read()
            if not good:
                break
            number += 1
            picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB if self._colour else cv2.COLOR_BGR2GRAY)
            yield number, picture if picture.ndim == 3 else picture[:, :, None]
        if number == 0 and self._item.is_camera:
            raise UnreadableVideo(
                f"camera {self._item.path}: it gives no picture (there is no such camera, or another program has it). "
                "Close that program, or give another number or URL: --image_path 1."
            )
        if number == 0:
            raise UnreadableVideo(
                f"{self._item.path}: this video has no frame that OpenCV can read. Convert it to H.264 in an .mp4 file."
            )


def _opened(source: Any) -> Any:
    """OpenCV's reader of a file, a camera's number or a URL, without its remarks: what is wrong is said in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's "quiet"
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        logging.setLogLevel(before)


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
