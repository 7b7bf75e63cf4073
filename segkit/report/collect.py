"""What one evaluation leaves for the report: counts of each photo, the measures, and small masks on disk."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from segkit import io
from segkit._cv2 import cv2
from segkit.engine.loader import EvalSample
from segkit.metrics import ConfusionMatrix, RocCurves
from segkit.report.measures import BoundaryIoU, Calibration, ObjectSizes, two_class_curves
from segkit.report.photos import name_of_photo

MASKS = "masks.zip"
SIDE = 1600
"""pixels of the longer side that predictions are kept at, beyond which no page shows them"""


class Collector:
    """An observer of `evaluate`. Of each photo it keeps the pixel counts of the classes in memory, and writes the
    prediction, made small, to `folder/masks.zip`; probabilities go into histograms. Use it as a context."""

    def __init__(self, dataset: Any, folder: Path):
        self.dataset, self.folder = dataset, folder
        classes = dataset.num_classes
        self.calibration, self.sizes = Calibration(), ObjectSizes(classes)
        self.boundary = BoundaryIoU(classes)
        self.curves = RocCurves(classes, dataset.ignore_index) if classes == 2 else None
        self.images: list[dict[str, Any]] = []

    def __enter__(self) -> Collector:
        io.prepare_folder(self.folder)
        self._writing = self.folder / f".{MASKS}.{os.getpid()}"
        self._masks = zipfile.ZipFile(self._writing, "w")
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._masks.close()
        if kind is None:
            os.replace(self._writing, self.folder / MASKS)
        else:
            self._writing.unlink()

    def __call__(self, sample: EvalSample, mask: np.ndarray, probabilities: np.ndarray) -> None:
        """See `segkit.engine.evaluate.Observer`."""
        label = np.asarray(sample.label)
        single = ConfusionMatrix(self.dataset.num_classes, self.dataset.ignore_index)
        single.update(mask, label)
        counts = np.stack(single.areas())
        self.images.append(
            {"index": sample.index, "path": name_of_photo(self.dataset, sample.path), "counts": counts.tolist()}
        )
        valid = label != self.dataset.ignore_index
        self.calibration.update(probabilities, mask, label, valid)
        self.sizes.update(mask, label, valid)
        self.boundary.update(mask, label, valid)
        if self.curves is not None:
            self.curves.update(probabilities, label)
        self._masks.writestr(f"{sample.index}.png", io.encode_png(small(mask)))

    def compute(self) -> dict[str, Any]:
        """All of it in plain types: `images`, `calibration`, `sizes`, `boundary_iou`, `curves`."""
        return {
            "images": self.images,
            "calibration": self.calibration.compute(),
            "sizes": self.sizes.compute(),
            "boundary_iou": self.boundary.compute(),
            "curves": two_class_curves(self.curves) if self.curves is not None else {},
        }


def small(mask: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A class map no larger than `side`, by nearest neighbour."""
    height, width = mask.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = np.uint8 if mask.dtype == np.uint8 else np.uint16
    return cv2.resize(mask.astype(kind), size, interpolation=cv2.INTER_NEAREST)
