"""Where a picture lies on the ground: masks of GeoTIFFs keep their coordinates."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import warn_once

_SUFFIXES = (".tif", ".tiff")
_POINTS, _PIXEL_SCALE, _MATRIX = 33922, 33550, 34264  # GeoTIFF 1.1, 7.1: tie points, pixel scale, transformation


def write_georeferenced(path: Path, mask: np.ndarray, photo: str) -> bool:
    """Write `mask` (class numbers [H, W], or planes [C, H, W]) as a GeoTIFF with the coordinates of `photo`, where
    that is a GeoTIFF and rasterio is there (a warning says how to get it). Returns whether it was written."""
    if not photo.lower().endswith(_SUFFIXES) or not _has_coordinates(photo):
        return False
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        warn_once(
            "the photos have coordinates, which PNG masks cannot keep. For GeoTIFF masks beside them install the extra "
            "geo: pip install rasterio"
        )
        return False
    planes = (mask if mask.ndim == 3 else mask[None]).astype(np.uint8 if mask.max(initial=0) < 256 else np.int32)
    try:
        with rasterio.open(photo) as source:
            place = {"crs": source.crs, "transform": source.transform, "gcps": source.gcps[0] or None}
    except rasterio.errors.RasterioError as error:
        raise InputError(f"{photo}: its coordinates cannot be read ({error}). Save it as a GeoTIFF again.") from error
    count, height, width = planes.shape
    kind = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": planes.dtype.name}
    place = {key: value for key, value in place.items() if value is not None}
    with MemoryFile() as memory:
        with memory.open(compress="deflate", **kind, **place) as target:
            target.write(planes)
        write_bytes_atomic(path, bytes(memory.getbuffer()))
    return True


def _has_coordinates(photo: str) -> bool:
    """Whether a TIFF says where it lies, read by Pillow, which is always there."""
    from PIL import TiffImagePlugin

    try:
        with open(photo, "rb") as file:
            head = file.read(8)
            head += file.read(8) if head[2:3] == b"+" else b""  # BigTIFF's is longer
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
    except (OSError, SyntaxError, ValueError, struct.error):
        return False
    return bool({_PIXEL_SCALE, _MATRIX, _POINTS} & set(tags))
