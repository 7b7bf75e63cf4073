"""What a photo is answered with: masks, overlays, polygons, run lengths, areas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from segkit import io
from segkit._cv2 import cv2
from segkit.deploy.outputs import draw_overlay
from segkit.deploy.serve.limits import Refused
from segkit.polygons import column_runs, rings

MEDIA = {
    "mask": "image/png",
    "overlay": "image/png",
    "overlay_jpeg": "image/jpeg",
    "areas": "application/json",
    "rle": "application/json",
    "polygons": "application/geo+json",
}
_ACCEPTED = {
    "*/*": "mask", "image/*": "mask", "image/png": "mask", "image/jpeg": "overlay_jpeg", "application/*": "areas",
    "application/json": "areas", "application/geo+json": "polygons",
}  # fmt: skip
_UNLABELLED = 255
_LARGEST_JPEG = 65_500  # the coder's own bound, below the format's 65,535


@dataclass
class Wanted:
    """`format`: one of `MEDIA`. `tolerance`: pixels by which polygons may leave the outline, 0 for the exact one."""

    format: str
    tolerance: float = 0.0


@dataclass
class Classes:
    """`names` may be fewer than the classes, or none; `palette`: uint8 [256 or more, 3]."""

    names: list[str]
    palette: np.ndarray
    count: Optional[int]

    def row(self, number: int) -> dict[str, Any]:
        """Class number, name and colour as replies give them."""
        name = self.names[number] if number < len(self.names) else str(number)
        return {"id": number, "name": name, "color": self.palette[number].tolist()}


def choose(format: Optional[str], accept: str) -> str:
    """The format that `?format=` names, or else the first of the `Accept` header that there is, best quality first."""
    if format is not None:
        if format not in MEDIA:
            raise Refused(400, f"format: got {format[:40]!r}, expected one of {', '.join(MEDIA)}.")
        return format
    kinds = sorted(map(_quality, filter(str.strip, accept.split(","))), key=lambda pair: -pair[1])
    for kind, quality in kinds or [("*/*", 1.0)]:
        if quality > 0 and kind in _ACCEPTED:
            return _ACCEPTED[kind]
    raise Refused(406, f"Accept: none of these kinds is made. Ask for {', '.join(sorted(set(MEDIA.values())))}.")


def _quality(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return kind, float(value)
            except ValueError:
                return kind, 0.0
    return kind, 1.0


def encode(wanted: Wanted, mask: np.ndarray, image: np.ndarray, classes: Classes, model: str) -> bytes:
    """The body of the reply.

    Args:
        mask: classes [H, W], or 0 and 1 in planes [C, H, W] where a pixel may have several.
        image: the photo [H, W, channels].
    """
    if wanted.format == "mask":
        if mask.ndim == 3:
            raise Refused(
                400, "this model gives several labels a pixel, which one PNG cannot hold. Ask for another format."
            )
        return io.encode_png(mask, classes.palette)
    if wanted.format.startswith("overlay"):
        if wanted.format == "overlay_jpeg" and max(image.shape[:2]) > _LARGEST_JPEG:
            raise Refused(
                400,
                f"overlay_jpeg: a JPEG has at most {_LARGEST_JPEG} pixels a side (got {image.shape[1]}x"
                f"{image.shape[0]}, width x height). Ask for format=overlay, which is a PNG.",
            )
        drawn = draw_overlay(image, mask, classes.palette)
        if wanted.format == "overlay":
            return io.encode_png(drawn)
        return cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()
    rows = areas(mask, classes)
    body: dict[str, Any] = {"model": model, "width": mask.shape[-1], "height": mask.shape[-2]}
    if wanted.format == "polygons":
        present = [row for row in rows if row["pixels"]]
        features = [feature(row, plane_of(mask, row["id"]), wanted.tolerance) for row in present]
        body = {"type": "FeatureCollection", **body, "features": features}
    else:
        if wanted.format == "rle":
            for row in rows:
                row["segmentation"] = run_lengths(plane_of(mask, row["id"]))
        unlabelled = 0 if mask.ndim == 3 else mask.size - sum(row["pixels"] for row in rows)
        body = {
            **body,
            "classes": rows,
            "unlabelled": {"pixels": unlabelled, "share": round(unlabelled / mask.size, 6)},
        }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def areas(mask: np.ndarray, classes: Classes) -> list[dict[str, Any]]:
    """id, name, color, pixels and share (0 to 1) of every class. 255 is no class where there are fewer than 256."""
    size = mask.shape[-1] * mask.shape[-2]
    if mask.ndim == 3:
        counts = mask.reshape(len(mask), -1).sum(axis=1, dtype=np.int64)
    else:
        counts = np.bincount(mask.ravel(), minlength=256)
        known = max(classes.count or 0, len(classes.names))
        if known <= _UNLABELLED:
            counts[_UNLABELLED] = 0
        counts = counts[: max(known, int(counts.nonzero()[0].max(initial=-1)) + 1)]
    return [
        {**classes.row(number), "pixels": int(count), "share": round(int(count) / size, 6)}
        for number, count in enumerate(counts)
    ]


def plane_of(mask: np.ndarray, number: int) -> np.ndarray:
    """uint8 [H, W]: 1 where the class is."""
    return mask[number] if mask.ndim == 3 else (mask == number).view(np.uint8)


def run_lengths(plane: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a plane of 0 and 1, as pycocotools reads them: `size` [H, W], `counts` text.

    From the fourth on each run is written as its difference to the one two before; numbers in groups of five bits, the
    lowest first, with a sixth bit where more follow, as characters from "0" on. Source: the data format page of COCO
    and the mask API's description of `counts`.
    """
    runs = column_runs(plane)
    values = runs.copy()
    values[3:] -= runs[1:-2]
    columns, last = [], np.zeros(len(values), bool)
    while not last.all():
        bits, rest = values & 31, values >> 5
        ends = np.where(bits & 16, rest == -1, rest == 0)
        columns.append(np.where(last, 0, bits + 48 + 32 * ~ends))
        last |= ends
        values = rest
    signs = np.stack(columns, axis=1).ravel() if columns else np.zeros(0, np.int64)
    return {"size": list(plane.shape), "counts": signs[signs > 0].astype(np.uint8).tobytes().decode("ascii")}


def feature(row: dict[str, Any], plane: np.ndarray, tolerance: float) -> dict[str, Any]:
    """A GeoJSON feature of one class: a MultiPolygon in pixels, x to the right and y down from the photo's corner."""
    return {
        "type": "Feature",
        "id": row["id"],
        "properties": row,
        "geometry": {"type": "MultiPolygon", "coordinates": rings(plane, tolerance)},
    }
