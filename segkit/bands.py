"""Pictures beyond 8 bits or 4 bands: TIFF through tifffile, .npy, and pixels without data. No paddle.

Values are kept as they are: nothing is scaled. uint8 stays uint8, every other type becomes float32, the two types
that transforms know.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from segkit.errors import InputError
from segkit.header import refuse_bomb, refuse_large

INSTALL = "pip install tifffile imagecodecs"
_ORIENTATION, _GDAL_NODATA = 274, 42113
_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def decode_tiff(data: bytes, name: str, kind: str = "") -> np.ndarray:
    """The first picture of a TIFF as it is stored: [H, W] or [H, W, bands] of any number type, upright.

    Tiles, strips, planes one after another and pages of one band each (a stack) are all put together, bands last.
    `kind`: what is known of the file, for the message where tifffile is absent.
    Errors: no tifffile, a compression that needs imagecodecs, damaged files, complex numbers.
    """
    tifffile = _tifffile(name, kind)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series, page = file.series[0], file.pages[0]
            refuse_bomb(page.imagewidth, page.imagelength, name)
            refuse_large(series.shape, series.dtype.itemsize, name)
            array, axes = series.asarray(), series.axes
            if 0 in array.shape:
                raise ValueError(f"no pixels, shape {list(array.shape)}")
            turn = page.tags[_ORIENTATION].value if _ORIENTATION in page.tags else 1
            palette = page.photometric == 3
    except InputError:
        raise
    except Exception as error:  # tifffile and its codecs raise whatever comes
        if "imagecodecs" in str(error):
            raise InputError(f"{name}: its compression needs imagecodecs ({error}). Install it: {INSTALL}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: not a readable TIFF ({reason}). It is damaged or cut short: copy it.") from error
    array = np.asarray(array) if palette else _bands_last(array, axes, name)
    if array.dtype.kind not in "uifb":
        raise InputError(
            f"{name}: pixels that are no plain numbers (got {array.dtype}, expected integers or floats). "
            "Save amplitude and phase, or real and imaginary part, as bands."
        )
    return _TURNS.get(int(turn), lambda a: a)(array)


def decode_npy(data: bytes, name: str) -> np.ndarray:
    """A .npy array of any shape. Errors: damaged files, arrays of objects."""
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # its header is parsed as Python, and may ask for any amount of memory
        raise InputError(f"{name}: not a readable .npy array ({error}). Save it again with numpy.save.") from error


def as_picture(array: np.ndarray, name: str) -> np.ndarray:
    """A stored array as transforms know it: [H, W] or [H, W, bands], uint8 as it is, other numbers as float32."""
    if array.dtype.kind not in "uifb" or array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{name}: not a picture (got {array.dtype} of shape {list(array.shape)}, expected numbers [H, W] or "
            "[H, W, bands]). Save it so, bands last."
        )
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def fill_missing(image: np.ndarray, nodata: float | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """`image` [H, W, bands] with pixels without data set to the mean of the others, a band at a time, and a bool map
    [H, W] of those pixels (None where there are none).

    A pixel has no data where every band equals `nodata`, or a band of a float image is not finite.
    """
    missing = None
    if nodata is not None and nodata == nodata:
        missing = (image == image.dtype.type(nodata)).all(axis=2) if _holds(image.dtype, nodata) else None
    if image.dtype.kind == "f" and not np.isfinite(image.sum(dtype=np.float64)):
        strange = ~np.isfinite(image).all(axis=2)
        missing = strange if missing is None else missing | strange
    if missing is None or not missing.any():
        return image, None
    valid = image[~missing]
    filled = image.copy()
    filled[missing] = valid.mean(axis=0, dtype=np.float64).astype(image.dtype) if len(valid) else 0
    return filled, missing


def tiff_facts(path: str, data: bytes | None = None) -> dict[str, Any]:
    """What a TIFF's header says: `shape` (H, W, bands), `tile` (rows, columns; 0 for strips), `dtype`, `nodata` (GDAL's
    tag, or None). Decodes nothing. `data`: the file's bytes where they are in memory; `path` is then for messages."""
    tifffile = _tifffile(path, "")
    try:
        with tifffile.TiffFile(path if data is None else io.BytesIO(data)) as file:
            page, series = file.pages[0], file.series[0]
            bands = int(np.prod(series.shape)) // max(1, page.imagelength * page.imagewidth)
            text = page.tags[_GDAL_NODATA].value if _GDAL_NODATA in page.tags else None
            shape = (page.imagelength, page.imagewidth, bands)
            tile = (page.tilelength, page.tilewidth)
            nodata = None if text is None else float(text)
            return {"shape": shape, "tile": tile, "dtype": str(page.dtype), "nodata": nodata}
    except Exception as error:
        raise InputError(f"{path}: not a readable TIFF ({error}). It is damaged: copy it again.") from error


def _bands_last(array: np.ndarray, axes: str, name: str) -> np.ndarray:
    """[..., Y, X, ...] -> [Y, X] or [Y, X, bands]; every other axis becomes bands."""
    kept = [index for index, axis in enumerate(axes) if axis in "YX"]
    if len(kept) != 2:
        raise InputError(f"{name}: no picture of rows and columns (got the axes {axes}). Save it as one [H, W, bands].")
    others = [index for index in range(array.ndim) if index not in kept]
    moved = array.transpose([*kept, *others])
    return moved.reshape(*moved.shape[:2], -1) if others else moved


def _holds(dtype: np.dtype, value: float) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _tifffile(name: str, kind: str) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f"{name}: a TIFF of more than 8 bits, other bands than 1, 3 or 4, or damaged{kind}; reading it needs the "
            f"extra tiff, which cannot be loaded ({error}). Install it: {INSTALL}"
        ) from error
    return tifffile
