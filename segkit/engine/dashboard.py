"""VisualDL curves and pictures of a run."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from segkit.dist import is_main
from segkit.errors import InputError
from segkit.io import overlay, write_bytes_atomic
from segkit.log import warn_once

_FILE = "vdlrecords.segkit.log"  # one name for all, so that a resumed run goes on in the same file


class Dashboard:
    """Writes VisualDL records into `folder`; does nothing when `folder` is None or on other ranks than the main one.

    Records that are there already of iterations after `trained`, or of evaluations after `evaluated`, are dropped: a
    resumed run writes them anew.
    """

    def __init__(self, folder: Path | None, trained: int = 0, evaluated: int = 0):
        self._writer: Any = None
        if folder is None or not is_main():
            return
        try:
            from visualdl import LogWriter
        except ImportError as error:
            raise InputError(f"--use_vdl needs VisualDL ({error}). Install it: pip install visualdl.") from None
        _drop_after(folder / _FILE, trained, evaluated)
        with contextlib.redirect_stdout(io.StringIO()):  # it remarks on a file that a resumed run goes on in
            self._writer = LogWriter(logdir=str(folder), file_name=_FILE)
        self._writer.flush()
        self._path = folder / _FILE
        self._expected = self._path.stat().st_size
        self._count_bytes(self._writer._get_file_writer())

    def _count_bytes(self, file_writer: Any) -> None:
        """VisualDL's thread only prints a warning when it cannot write; the file's size tells."""
        add = file_writer.add_record

        def add_record(record: Any) -> None:
            self._expected += 8 + record.ByteSize()
            add(record)

        file_writer.add_record = add_record

    @property
    def on(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def train(self, iteration: int, row: dict[str, float]) -> None:
        """`Train/<name>` for each number of a log line."""
        if self._writer is None:
            return
        for name in ("loss", "lr", "batch_cost", "reader_cost", "ips"):
            self._writer.add_scalar(f"Train/{name}", row[name], iteration)
        for name, value in row.items():
            if name.startswith("loss_"):
                self._writer.add_scalar(f"Train/{name}", value, iteration)

    def evaluate(self, iteration: int, metrics: dict[str, Any]) -> None:
        """`Evaluate/mIoU`, `Evaluate/Acc`, ... and `Evaluate/IoU_<class>`."""
        if self._writer is None:
            return
        for name in ("mIoU", "Acc", "Kappa", "mDice"):
            if name in metrics:
                self._writer.add_scalar(f"Evaluate/{name}", float(metrics[name]), iteration)
        for name, value in zip(metrics["class_names"], metrics["class_iou"]):
            if value is not None and value == value:
                self._writer.add_scalar(f"Evaluate/IoU_{name}", float(value), iteration)

    def panel(
        self, iteration: int, number: int, parts: tuple[np.ndarray, np.ndarray, np.ndarray], palette: np.ndarray
    ) -> None:
        """One picture `input | label | prediction`. `parts`: photo uint8 [H, W, 3], label and prediction [H, W]."""
        if self._writer is None:
            return
        photo, label, prediction = parts
        row = [photo, overlay(photo, label, palette), overlay(photo, prediction, palette)]
        self._writer.add_image(
            f"Evaluate/sample_{number}: input, label, prediction", np.concatenate(row, axis=1), iteration
        )

    def settings(self, values: dict[str, Any]) -> None:
        """Hyper-parameters, compared with `Evaluate/mIoU` and `Train/loss`."""
        if self._writer is not None:
            flat = {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in values.items()}
            self._writer.add_hparams(flat, ["Train/loss", "Evaluate/mIoU"])

    def graph(self, model: Any, input_shape: list[int]) -> None:
        """The model's graph; where VisualDL cannot trace a model, the run goes on without it."""
        if self._writer is None:
            return
        import paddle
        from paddle.pir_utils import DygraphOldIrGuard

        hidden = io.StringIO()  # VisualDL prints what Paddle's tracing runs into
        try:
            with DygraphOldIrGuard(), warnings.catch_warnings():  # it reads .pdmodel, which Paddle 3 writes only so
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
                    self._writer.add_graph(model, input_spec=[paddle.static.InputSpec(input_shape, "float32")])
        except Exception as error:  # tracing is VisualDL's and Paddle's own business; the curves matter more
            warn_once(f"VisualDL could not draw the model's graph ({type(error).__name__}); the curves are written.")

    def flush(self) -> None:
        """Wait until everything is in the file; a thread writes it. `InputError` where it could not."""
        if self._writer is None:
            return
        self._writer.flush()
        if self._path.stat().st_size != self._expected:
            raise InputError(
                f"{self._path}: not all of the curves could be written: the disk is full, or the file was changed. "
                "Make room there, then go on with --resume_model auto, or leave out --use_vdl."
            )

    def close(self) -> None:
        """Flush and close the records."""
        if self._writer is not None:
            self._writer.close()


def _drop_after(path: Path, trained: int, evaluated: int) -> None:
    """Leave out the records of later iterations, and a torn last one. A record is 8 bytes, its size (little-endian),
    and a protocol buffer. Before the first checkpoint nothing is kept."""
    from visualdl.proto.record_pb2 import Record

    data = path.read_bytes() if path.is_file() else b""
    kept, at = [], 0
    while trained and at + 8 <= len(data):
        end = at + 8 + struct.unpack_from("<Q", data, at)[0]
        if end > len(data):
            break
        try:
            values = Record.FromString(data[at + 8 : end]).values
        except Exception:  # protobuf's own error, whose place depends on its version; what follows is no record either
            break
        if all(value.id <= (evaluated if value.tag.startswith("Evaluate/") else trained) for value in values):
            kept.append(data[at:end])
        at = end
    if len(b"".join(kept)) != len(data):
        write_bytes_atomic(path, b"".join(kept))
