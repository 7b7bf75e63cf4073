"""The pictures of a report: which photos are worth a look, and each as photo, label, prediction and errors."""

from __future__ import annotations

import base64
import contextlib
import html
import zipfile
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import numpy as np

from segkit import io
from segkit._cv2 import cv2
from segkit.deploy.outputs import as_rgb, full_palette
from segkit.errors import InputError
from segkit.metrics import scores_from_areas
from segkit.report.collect import MASKS, SIDE, small
from segkit.report.measures import image_score
from segkit.report.photos import Photos

_PER_CLASS = 3
_USUAL, _PANELS = 800, 26  # pixels of a side where so many panels are shown
_LEAST = 400
_QUALITY = 60
ERRORS = {"missed": (59, 130, 246), "too much": (249, 115, 22), "wrong": (225, 29, 72), "ignored": (160, 160, 160)}
"""colours of the error map; `missed` and `too much` are those of two classes, `wrong` that of more"""


def chosen(images: Sequence[dict[str, Any]], most: int) -> list[int]:
    """Positions in `images` (see `Collector`) of the worst two thirds and the best third of `most` by mIoU, and of the
    three worst by each class's IoU, as far as `3 x most` goes; no photo twice, the worst first."""
    scores = {number: image_score(np.array(item["counts"])) for number, item in enumerate(images)}
    ranked = sorted((number for number, score in scores.items() if score is not None), key=lambda n: scores[n] or 0.0)
    worst = -(-2 * most // 3)
    best = ranked[worst:][-(most - worst) :] if most > worst else []
    found = dict.fromkeys([*ranked[:worst], *best])
    classes = len(images[0]["counts"][0]) if images else 0
    for index in range(classes):
        shown = [n for n in ranked if images[n]["counts"][2][index]]
        shown.sort(key=lambda n: class_scores(images[n]["counts"])[index] or 0.0)
        found.update(dict.fromkeys(shown[: max(0, min(_PER_CLASS, 3 * most - len(found)))]))
    return [number for number in ranked if number in found]


def class_scores(counts: Sequence[Sequence[int]]) -> list[Optional[float]]:
    """IoU of each class in one photo; None for a class that is neither labelled nor predicted there."""
    return scores_from_areas(*np.array(counts))["class_iou"]


class Masks:
    """The small predictions that `Collector` wrote. Errors: the file is not there, not whole, or of other photos."""

    def __init__(self, folder: Path):
        self._path = folder / MASKS
        with self._explained():
            self._file = zipfile.ZipFile(self._path)

    def read(self, index: int) -> np.ndarray:
        """The mask [h, w] of sample `index`."""
        with self._explained():
            data = np.frombuffer(self._file.read(f"{index}.png"), np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{self._path}: cannot be read ({error}). Run segkit report on that run again.") from error


def side_of(panels: int) -> int:
    """Pixels of the longer side of the pictures in so many panels: as large as lets a page stay at a megabyte or
    two, fewer of them larger."""
    return round(min(SIDE, max(_LEAST, _USUAL * (_PANELS / max(panels, 1)) ** 0.5)))


def pictures(photos: Photos, item: dict[str, Any], masks: Sequence[tuple[str, np.ndarray]], side: int) -> str:
    """HTML: the photo, the label, and of each (name, mask [h, w]) the prediction and where it is wrong, no larger than
    `side`. `item`: what report.json says of the photo."""
    dataset, sample = photos.dataset, photos.sample(item)
    # The label goes the way of the masks, which `Collector` made small, so that the same pixels are left.
    label = small(small(sample["label"]), side)
    photo = cv2.resize(as_rgb(sample["image"]), label.shape[::-1], interpolation=cv2.INTER_AREA)
    palette = full_palette(dataset.palette)
    shown = palette.copy()
    shown[min(dataset.ignore_index, len(palette) - 1)] = ERRORS["ignored"]
    cells = [_cell("photo", _webp(photo)), _cell("label", _indexed(label, shown))]
    for name, kept in masks:
        mask = small(kept, side)
        cells.append(_cell(f"prediction{name}", _indexed(mask, palette)))
        wrong = error_map(mask, label, dataset.ignore_index, dataset.num_classes)
        cells.append(_cell(f"errors{name}", _transparent(wrong)))
    return "".join(cells)


def error_map(mask: np.ndarray, label: np.ndarray, ignored: int, classes: int) -> np.ndarray:
    """uint8 [h, w]: 0 where it is right, else 1 + the place in `ERRORS`."""
    found = np.zeros(label.shape, np.uint8)
    found[mask != label] = 3
    if classes == 2:
        found[(label == 1) & (mask == 0)] = 1
        found[(label == 0) & (mask == 1)] = 2
    found[label == ignored] = 4
    return found


def _cell(name: str, address: str) -> str:
    return (
        f'<figure class="{name.split()[0]}"><div class=pic><img src="{address}" alt=""></div>'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
    )


def _webp(picture: np.ndarray) -> str:
    quality = [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    return _address("webp", cv2.imencode(".webp", picture[:, :, ::-1], quality)[1].tobytes())


def _indexed(mask: np.ndarray, palette: np.ndarray) -> str:
    if mask.dtype == np.uint8:
        return _address("png", io.encode_png(mask, palette[:256]))
    return _address("png", io.encode_png(palette[np.minimum(mask, len(palette) - 1)]))


def _transparent(found: np.ndarray) -> str:
    colours = np.array([(0, 0, 0, 0), *((*colour, 220) for colour in ERRORS.values())], np.uint8)
    return _address("png", io.encode_png(colours[found]))


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
