"""Curves and pictures of a run, for VisualDL, TensorBoard or Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkit.deploy.outputs import as_rgb
from segkit.dist import is_main
from segkit.engine.writers.base import Writer
from segkit.engine.writers.tensor_board import TensorBoard
from segkit.engine.writers.visual_dl import VisualDL
from segkit.engine.writers.weights_and_biases import WeightsAndBiases
from segkit.io import overlay
from segkit.options import TrainOptions

WRITERS: dict[str, type[Writer]] = {
    "use_vdl": VisualDL, "use_tensorboard": TensorBoard, "use_wandb": WeightsAndBiases,
}  # fmt: skip
"""flag of `segkit train` -> what it turns on"""


def wanted(options: TrainOptions) -> list[str]:
    """The flags of `WRITERS` that are set. Errors: what they take is not there."""
    flags = [flag for flag in WRITERS if getattr(options, flag)]
    for flag in flags:
        WRITERS[flag].require()
    return flags


class Dashboard:
    """Hands what there is to see to the writers that `flags` (see `WRITERS`) name; on other ranks than the main one to
    none.

    Records that are in `folder` already of iterations after `trained`, or of evaluations after `evaluated`, are
    dropped: a resumed run writes them anew. Before the first checkpoint nothing is kept.
    """

    def __init__(self, folder: Path, flags: Sequence[str], trained: int = 0, evaluated: int = 0):
        self._writers = [WRITERS[flag](folder, trained, evaluated) for flag in flags] if is_main() else []

    @property
    def on(self) -> bool:
        """Whether anything is written."""
        return bool(self._writers)

    def train(self, iteration: int, row: dict[str, float]) -> None:
        """`Train/<name>` for each number of a log line."""
        names = ("loss", "lr", "batch_cost", "reader_cost", "ips", *(name for name in row if name.startswith("loss_")))
        for writer in self._writers:
            writer.scalars({f"Train/{name}": row[name] for name in names}, iteration)

    def evaluate(self, iteration: int, metrics: dict[str, Any]) -> None:
        """`Evaluate/mIoU`, `Evaluate/Acc`, ... and `Evaluate/IoU_<class>`."""
        names = [name for name in ("mIoU", "Acc", "Kappa", "mDice") if name in metrics]
        values = {f"Evaluate/{name}": float(metrics[name]) for name in names}
        for name, value in zip(metrics["class_names"], metrics["class_iou"]):
            if value is not None and value == value:
                values[f"Evaluate/IoU_{name}"] = float(value)
        for writer in self._writers:
            writer.scalars(values, iteration)

    def panel(
        self, iteration: int, number: int, parts: tuple[np.ndarray, np.ndarray, np.ndarray], palette: np.ndarray
    ) -> None:
        """One picture `input | label | prediction`. `parts`: photo [H, W, C] of any type, label and prediction
        [H, W]."""
        if not self._writers:
            return
        photo, label, prediction = as_rgb(parts[0]), *parts[1:]
        row = [photo, overlay(photo, label, palette), overlay(photo, prediction, palette)]
        picture = np.concatenate(row, axis=1)
        for writer in self._writers:
            writer.image(f"Evaluate/sample_{number}: input, label, prediction", picture, iteration)

    def settings(self, values: dict[str, Any]) -> None:
        """Hyper-parameters."""
        flat = {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in values.items()}
        for writer in self._writers:
            writer.settings(flat)

    def graph(self, model: Any, input_shape: list[int]) -> None:
        """The model's graph, where a writer can show it."""
        for writer in self._writers:
            writer.graph(model, input_shape)

    def flush(self) -> None:
        """Wait until everything is kept. `InputError` where it could not be."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Flush and close the records."""
        for writer in self._writers:
            writer.close()
