"""TensorBoard's events, written by its own package: TensorFlow is not needed."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from segkit.engine.writers.base import Setting, Writer, is_kept, keep_records, unwritten
from segkit.errors import InputError
from segkit.io import encode_png

_MARK = ".segkit"  # ends the names of our own files


class TensorBoard(Writer):
    """Events in `folder`; see `Dashboard` for the arguments."""

    @staticmethod
    def require() -> Any:
        """See `Writer`."""
        try:
            from tensorboard.summary.writer import event_file_writer
        except ImportError as error:
            raise InputError(
                f"--use_tensorboard needs TensorBoard ({error}). Install it: pip install 'segkit[tensorboard]' "
                "(or: pip install tensorboard)."
            ) from None
        return event_file_writer

    def __init__(self, folder: Path, trained: int, evaluated: int):
        package = self.require()
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        def keep(content: bytes) -> bool:
            event = Event.FromString(content)
            return all(is_kept(value.tag, event.step, trained, evaluated) for value in event.summary.value)

        for path in folder.glob(f"events.out.tfevents.*{_MARK}"):
            if trained:
                keep_records(path, 12, 4, keep)  # the size and its checksum, the event, and its checksum
            else:
                path.unlink()
        self._event, self._summary = Event, Summary
        self._folder = folder
        with self._explained():
            self._writer = package.EventFileWriter(str(folder), filename_suffix=_MARK)

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """A thread writes the file; what befell it comes up at the next call."""
        try:
            yield
        except OSError as error:
            raise unwritten(self._folder, "--use_tensorboard") from error

    def _add(self, iteration: int, summary: Any) -> None:
        with self._explained():
            self._writer.add_event(self._event(wall_time=time.time(), step=iteration, summary=summary))

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """See `Writer`."""
        items = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(iteration, self._summary(value=items))

    def image(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """See `Writer`."""
        height, width, channels = picture.shape
        shown = self._summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encode_png(picture)
        )
        self._add(iteration, self._summary(value=[self._summary.Value(tag=tag, image=shown)]))

    def settings(self, values: dict[str, Setting]) -> None:
        """See `Writer`."""
        from tensorboard.plugins.hparams.summary_v2 import Metric, hparams_config_pb, hparams_pb

        metrics = [Metric("Train/loss"), Metric("Evaluate/mIoU")]
        self._add(0, hparams_config_pb(hparams=[], metrics=metrics))
        self._add(0, hparams_pb(values))

    def graph(self, model: Any, input_shape: list[int]) -> None:
        """Nothing: TensorBoard shows no graph of Paddle's."""

    def flush(self) -> None:
        """See `Writer`."""
        with self._explained():
            self._writer.flush()

    def close(self) -> None:
        """See `Writer`."""
        with contextlib.suppress(OSError):  # `flush` has said so
            self._writer.close()
