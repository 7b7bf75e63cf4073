"""VisualDL's records, one file for a run."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from segkit.engine.writers.base import Setting, Writer, is_kept, keep_records, unwritten
from segkit.errors import InputError
from segkit.log import warn_once

_FILE = "vdlrecords.segkit.log"  # one name for all, so that a resumed run goes on in the same file


class VisualDL(Writer):
    """Records in `folder`; see `Dashboard` for the arguments."""

    @staticmethod
    def require() -> Any:
        """See `Writer`."""
        try:
            import visualdl
        except ImportError as error:
            raise InputError(f"--use_vdl needs VisualDL ({error}). Install it: pip install visualdl.") from None
        return visualdl

    def __init__(self, folder: Path, trained: int, evaluated: int):
        package = self.require()
        from visualdl.proto.record_pb2 import Record

        def keep(content: bytes) -> bool:
            values = Record.FromString(content).values
            return trained > 0 and all(is_kept(value.tag, value.id, trained, evaluated) for value in values)

        self._path = folder / _FILE
        keep_records(self._path, 8, 0, keep)
        with contextlib.redirect_stdout(io.StringIO()):  # it remarks on a file that a resumed run goes on in
            self._writer = package.LogWriter(logdir=str(folder), file_name=_FILE)
        self._writer.flush()
        self._expected = self._path.stat().st_size
        self._count_bytes(self._writer._get_file_writer())

    def _count_bytes(self, file_writer: Any) -> None:
        """VisualDL's thread only prints a warning when it cannot write; the file's size tells."""
        add = file_writer.add_record

        def add_record(record: Any) -> None:
            self._expected += 8 + record.ByteSize()
            add(record)

        file_writer.add_record = add_record

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """See `Writer`."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, iteration)

    def image(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """See `Writer`."""
        self._writer.add_image(tag, picture, iteration)

    def settings(self, values: dict[str, Setting]) -> None:
        """See `Writer`."""
        self._writer.add_hparams(values, ["Train/loss", "Evaluate/mIoU"])

    def graph(self, model: Any, input_shape: list[int]) -> None:
        """The model's graph; where VisualDL cannot trace a model, the run goes on without it."""
        import paddle
        from paddle.pir_utils import DygraphOldIrGuard

        for old in self._path.parent.glob("vdlgraph.*.log"):  # of the part of the run before it was resumed
            old.unlink()
        hidden = io.StringIO()  # VisualDL prints what Paddle's tracing runs into
        try:
            with DygraphOldIrGuard(), warnings.catch_warnings():  # it reads .pdmodel, which Paddle 3 writes only so
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
                    self._writer.add_graph(model, input_spec=[paddle.static.InputSpec(input_shape, "float32")])
        except Exception as error:  # tracing is VisualDL's and Paddle's own business; the curves matter more
            warn_once(
                f"VisualDL could not draw the model's graph ({type(error).__name__}). Nothing needs to be done: "
                "curves and pictures are written all the same, and segkit info --config lists the layers."
            )

    def flush(self) -> None:
        """See `Writer`; a thread writes the file."""
        self._writer.flush()
        if self._path.stat().st_size != self._expected:
            raise unwritten(self._path, "--use_vdl")

    def close(self) -> None:
        """See `Writer`."""
        self._writer.close()
