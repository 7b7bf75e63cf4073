"""What predict and infer draw and outline beside the masks, as the flags say."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Optional

import numpy as np

from segkit import io
from segkit.deploy import figures
from segkit.deploy.coco import CocoFile
from segkit.deploy.outputs import as_rgb, draw_overlay
from segkit.deploy.pipeline import Photo
from segkit.dist import rank, world_size
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import PictureOptions, check_idle
from segkit.polygons import BACKGROUNDS, is_background, write_labelme

POLYGONS, FIGURES, GRIDS = "polygons", "figures", "grids"
_PHOTO, _LABEL = "img.png", "label.png"  # in each folder of labelme's json_to_dataset
_OPACITY, _ROWS = 0.4, 3  # PaddleSeg's share of the colours; rows of a page


def check(options: PictureOptions, multilabel: bool = False) -> None:
    """`InputError` for flags that cannot work, before anything is loaded."""
    if options.legend or options.figures:
        _require_pillow("--legend" if options.legend else "--figures")
    check_idle(options, "figures", options.figures is not None, ("labels",))
    if options.opacity is not None and not 0 <= options.opacity <= 1:
        raise InputError(f"--opacity: got {options.opacity}, expected a share from 0 (the photo alone) to 1.")
    if options.opacity is not None and options.style == "contour":
        raise InputError("--opacity: contours have none. Leave it out, or take --style filled or both.")
    if options.labels is not None and not Path(options.labels).is_dir():
        raise InputError(f"--labels {options.labels}: no such folder. Give the folder of the label PNGs.")
    if options.polygons and multilabel:
        raise InputError("--polygons: shapes hide one another, but this model gives a pixel several labels.")


def _require_pillow(flag: str) -> None:
    try:
        importlib.import_module("PIL.ImageFont")
    except ImportError as error:
        raise InputError(f"{flag} writes class names with Pillow ({error}). Install it: pip install pillow.") from None


class Pictures:
    """Overlays, figures and polygons of photos, below `folder`. `palette`: uint8 [n, 3]; what lies beyond it shows
    the photo as it is. Called by several threads at a time; `finish` comes last."""

    def __init__(self, folder: Path, options: PictureOptions, classes: list[str], palette: np.ndarray):
        self.folder, self.options, self.classes, self.palette = folder, options, classes, palette
        self._coco: Optional[CocoFile] = None
        if options.polygons == "coco":
            part = f"_{rank()}" if world_size() > 1 else ""
            self._coco = CocoFile(folder / POLYGONS / f"coco{part}.json", classes)
        self._rows: set[Path] = set()
        self._without_label = False

    def overlay(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The photo [H, W, C] under its classes, uint8 [H, W, 3]."""
        opacity = _OPACITY if self.options.opacity is None else self.options.opacity
        return draw_overlay(image, mask, self.palette, self.options.style or "filled", opacity)

    def write_overlay(self, path: Path, photo: Photo, mask: np.ndarray) -> None:
        """The overlay of a photo, with its legend where one is wanted."""
        drawn = self.overlay(photo.image, mask)
        if self.options.legend:
            drawn = figures.with_legend(drawn, figures.entries([mask], self.classes, self.palette))
        io.write_png(path, drawn)

    def write(self, name: str, photo: Photo, mask: np.ndarray, is_frame: bool) -> None:
        """Figure and polygons. Frames of videos have no file that COCO could name, and no figure."""
        if self.options.polygons == "labelme":
            target = self.folder / POLYGONS / f"{name}.json"
            write_labelme(target, mask, self.classes, None if is_frame else photo.path)
        if self._coco and not is_frame:
            self._coco.add(photo.path, mask)
        if self.options.figures and not is_frame:
            path = self.folder / FIGURES / f"{name}.png"
            io.write_png(path, self._row(name, photo, mask))
            self._rows.add(path)

    def _row(self, name: str, photo: Photo, mask: np.ndarray) -> np.ndarray:
        masks, panels = [mask], [("input", as_rgb(photo.image))]
        label = self._label(name, photo)
        if label is not None:
            masks.append(label)
            panels.append(("label", self.overlay(photo.image, label)))
        panels.append(("prediction", self.overlay(photo.image, mask)))
        return figures.row(panels, figures.entries(masks, self.classes, self.palette))

    def _label(self, name: str, photo: Photo) -> Optional[np.ndarray]:
        """The label [H, W] of a photo; None where none is wanted or there."""
        if self.options.labels is None:
            return None
        path = Path(self.options.labels) / f"{name}.png"
        if path.name == _PHOTO and (beside := path.with_name(_LABEL)).is_file():
            path = beside
        if not path.is_file() or path.samefile(photo.path):
            if not self._without_label:
                self._without_label = True
                logger.warning(
                    "%s: there is no such label: the figures of such photos show none. Give --labels the folder whose "
                    "PNGs are named and laid out as the photos are. (Said for the first such photo only.)", path,
                )  # fmt: skip
            return None
        label, size = io.read_label(path, self.palette), photo.image.shape[:2]
        if label.shape != size:
            raise InputError(
                f"{path}: this label does not fit its photo (got {label.shape[1]}x{label.shape[0]}, expected "
                f"{size[1]}x{size[0]}, width x height). Check that they belong together."
            )
        return label

    def finish(self) -> None:
        """What takes all photos: the COCO file, the list of classes for labelme, and the pages."""
        if self._coco:
            self._coco.write()
        if self.options.polygons == "labelme":
            names = [BACKGROUNDS[0] if not at and is_background(name) else name for at, name in enumerate(self.classes)]
            text = "".join(f"{name}\n" for name in ("__ignore__", *names))
            io.write_bytes_atomic(self.folder / POLYGONS / "labels.txt", text.encode())
        if self.options.figures == "grid":
            rows, part = sorted(self._rows), f"{rank()}_" if world_size() > 1 else ""
            for number, start in enumerate(range(0, len(rows), _ROWS), start=1):
                page = figures.page([io.read_image(path) for path in rows[start : start + _ROWS]])
                io.write_png(self.folder / GRIDS / f"page_{part}{number:03d}.png", page)
