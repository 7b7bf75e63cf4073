"""Reading images and labels, writing pictures: one reader for train, val, predict and deploy.

Files are read and written as bytes, so that any path Python can open works. Images are decoded by OpenCV (fast),
labels by Pillow (OpenCV reads a palette PNG as a colour image and 1-bit as 0/255). EXIF orientation is applied to both.
What has more than 8 bits or 4 bands is `segkit.bands`' work.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Union

import numpy as np

from segkit import bands, exif, header
from segkit._cv2 import cv2
from segkit.dist import is_main
from segkit.errors import InputError
from segkit.log import warn_once
from segkit.palette import palette_png

PathLike = Union[str, "os.PathLike[str]"]
FORMATS = "JPEG, PNG, BMP, WebP, TIFF, NPY"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy")
_PNG, _NPY, _TIFF = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class WrongBands(InputError):
    """A picture of another number of bands than asked for."""


class ColourLabel(InputError):
    """A label of colours that no palette, or not this one, turns into class numbers."""


def read_image(path: PathLike, channels: int = 3) -> np.ndarray:
    """[H, W, channels] (RGB, RGBA, gray, or the bands of a TIFF or NPY), EXIF orientation applied.

    uint8, or float32 of the very values where the file holds another type (16-bit PNG, TIFF, NPY); there NaN stays.
    Errors: missing, empty, truncated, damaged or foreign file, or bands that do not fit `channels`.
    """
    return decode_image(_read_bytes(path), os.fspath(path), channels)


def decode_image(data: bytes, name: str, channels: int = 3) -> np.ndarray:
    """`read_image` of bytes already in memory; `name` is used in messages."""
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes). Copy it again or take it off the list.")
    if data[:6] == _NPY:
        return _fit_channels(bands.as_picture(bands.decode_npy(data, name), name), channels, name)
    if data[:4] in _TIFF:
        return _fit_channels(bands.as_picture(_decode_tiff(data, name, channels), name), channels, name)
    header.refuse_bomb(*header.size(data), name)
    if not header.is_sound(data) and not (_without_pillow() and header.ends(data)):
        _open_pillow(data, name)  # strict, and it knows what some cameras append
    deep = data[:8] == _PNG and data[24:25] == b"\x10"
    flags = None if deep else {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels)
    flags = cv2.IMREAD_UNCHANGED if flags is None else flags | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # some decoders raise instead of returning nothing
        array = None
    if array is None:
        raise InputError(
            f"{name}: not a readable image (got {len(data)} bytes beginning with {data[:8]!r}, expected {FORMATS}). "
            "It is damaged or of another format: copy or convert it again."
        )
    if array.ndim == 3:
        swap = cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB
        array = cv2.cvtColor(array, swap)
    if deep:
        array = array.astype(np.float32)
    return _fit_channels(exif.apply(array, exif.orientation(data)), channels, name)


def read_label(path: PathLike, palette: np.ndarray | None = None) -> np.ndarray:
    """Index map [H, W], uint8 (int32 where a value is above 255), EXIF orientation applied.

    Palette PNG: its indices. 1-bit: 0 and 1. Gray: as is. RGB(A) of three equal channels: that channel. Any other
    colour mask: the row of `palette` (uint8 [n, 3]) that has exactly this colour.
    Errors: unreadable file, colour mask without a palette, colours that the palette lacks.
    """
    data, name = _read_bytes(path), os.fspath(path)
    if not data:
        raise InputError(f"{name}: the label is empty (0 bytes). Copy it again or take it off the list.")
    if data[:6] == _NPY:
        return _small(bands.decode_npy(data, name), name)
    if data[:4] in _TIFF and not _pillow_knows(data, name):
        return _small(bands.decode_tiff(data, name), name)
    image = _open_pillow(data, name)
    if image.mode == "P":
        array = np.asarray(image)
    elif image.mode == "1":
        array = np.asarray(image).astype(np.uint8)
    elif image.mode in ("LA", "La"):
        array = np.asarray(image)[..., 0]
    elif image.mode in ("RGB", "RGBA", "RGBX"):
        array = _colours_to_indices(np.asarray(image)[..., :3], palette, name)
    elif image.mode == "L" or image.mode.startswith("I"):
        array = np.asarray(image)
    else:
        raise InputError(
            f"{name}: labels of this kind cannot be read (got pixel mode {image.mode}, expected palette, 1-bit, gray "
            "or RGB). Save it as an 8-bit gray or palette PNG of class numbers."
        )
    if image.format == "JPEG":
        warn_once(f"{name}: the label is a JPEG, whose compression blurs class numbers. Save labels as PNG.")
    if image.format != "TIFF":  # Pillow itself turns TIFFs
        array = exif.apply(array, exif.orientation(data))
    return _small(array, name)


def image_size(path: PathLike) -> tuple[int, int]:
    """(height, width) from the header alone, EXIF orientation applied."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            head = file.read(6)
        if head == _NPY:
            return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape[:2])
        if head[:4] in _TIFF and not _pillow_knows(path, name):
            return bands.tiff_facts(name)["shape"][:2]
        if _without_pillow():
            return _size_by_header(path)
        with _pillow(name).open(path) as image:
            width, height = image.size
            if image.format == "TIFF":  # some versions of Pillow have turned its size already
                width, height = image.tag_v2[256], image.tag_v2[257]
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except InputError:
        raise
    except Exception as error:  # Pillow raises whatever comes of damaged files
        raise unreadable(name, error) from error
    return (width, height) if turned else (height, width)


def write_png(path: PathLike, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write what `encode_png` makes whole or not at all, making its folders."""
    write_bytes_atomic(path, encode_png(array, palette, os.fspath(path)))


def encode_png(array: np.ndarray, palette: np.ndarray | None = None, name: str = "mask") -> bytes:
    """A PNG of RGB uint8 [H, W, 3], or of an index map [H, W] of integers or bools (16-bit gray above 255). With
    `palette` (uint8 [n, 3]) it is a palette PNG whose indices are the classes. `name` is used in messages."""
    if array.ndim == 2:
        array = _small(array, name)
        if array.dtype != np.uint8:
            array = array.astype(np.uint16)
    if palette is not None and array.ndim == 2 and array.dtype == np.uint8:
        return palette_png(array, palette)
    if array.ndim == 3 and array.shape[2] >= 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", array)[1].tobytes()


def write_bytes_atomic(path: PathLike, data: bytes, sync: bool = False) -> None:
    """Write `data` beside `path` and rename it into place; makes missing folders. `sync` flushes it to the disk
    first, so that it also outlives a power cut.

    Errors: no room on the disk, no right to write, a file where a folder should be.
    """
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))  # no EDQUOT on Windows
        mend = "Make room there" if full else "Make it writable"
        raise InputError(f"{target}: cannot be written ({error.strerror}). {mend} or choose another folder.") from error


def prepare_folder(save_dir: Path) -> None:
    """Make `save_dir` and try to write there, so that a read-only place is known before the work, not after it."""
    if not is_main():
        return
    trial = save_dir / ".write_test"
    try:
        save_dir.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"--save_dir {save_dir}: cannot be written ({error.strerror or error}). Choose another folder."
        ) from error


def overlay(image: np.ndarray, mask: np.ndarray, palette: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """uint8 [H, W, 3]: the photo (uint8 [H, W, 3]) under the colours of `mask` (integers [H, W]).

    `opacity` is the photo's share, as PaddleSeg's `weight`: 0.6 of the photo and 0.4 of the class colour. Values that
    `palette` (uint8 [n, 3]) lacks, such as an ignore value, show the photo as it is.
    """
    colours = np.zeros((max(256, len(palette)), 3), np.uint8)
    colours[: len(palette)] = palette
    blended = cv2.addWeighted(image, opacity, colours[mask], 1 - opacity, 0)
    if len(palette) < 256:
        outside = mask >= len(palette)
        blended[outside] = image[outside]
    return blended


def _read_bytes(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(os.fspath(path), error) from error


def unreadable(name: str, error: Exception) -> InputError:
    """What to say of an image that cannot be opened because of `error`."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: no such file. Mend the path, or the list that names it.")
    if isinstance(error, OSError) and error.errno:
        return InputError(f"{name}: cannot be read ({error.strerror}). Mend the path or the access rights.")
    reason = "unknown or damaged format" if type(error).__name__ == "UnidentifiedImageError" else str(error)
    return InputError(
        f"{name}: not a readable image ({reason}; expected {FORMATS}). It is damaged, cut short or of another format: "
        "copy or convert it again."
    )


def _without_pillow() -> bool:
    """Whether this is a deployment machine with OpenCV alone, which then also judges what Pillow would."""
    try:
        importlib.import_module("PIL")
    except ImportError:
        return True
    return False


def _size_by_header(path: PathLike) -> tuple[int, int]:
    data = _read_bytes(path)
    width, height = header.size(data)
    return (width, height) if exif.orientation(data) in (5, 6, 7, 8) else (height, width)


def _pillow(name: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{name}: reading it needs Pillow ({error}). Install it: pip install pillow") from error
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # what it cannot read is read otherwise
    Image.MAX_IMAGE_PIXELS = header.max_pixels()  # its own limit refuses labels whose photos are fine
    return Image


def _open_pillow(data: bytes, name: str) -> Any:
    """A Pillow image with its pixels loaded, so that damage shows here."""
    module = _pillow(name)
    header.refuse_bomb(*header.size(data), name)
    if data[:8] == _PNG and not header.is_sound(data):  # Pillow minds not every check sum
        raise unreadable(name, ValueError("a part is missing, or its check sum is wrong"))
    try:
        image = module.open(io.BytesIO(data))
        header.refuse_bomb(*image.size, name)  # of formats whose headers `header` does not know
        image.load()
    except InputError:
        raise
    except Exception as error:  # its decoders raise whatever comes of damaged files
        raise unreadable(name, error) from error
    return image


def _pillow_knows(source: bytes | PathLike, name: str) -> bool:
    """Whether Pillow knows the bands and numbers of this TIFF, bytes or a path."""
    module = _pillow(name)
    try:
        with module.open(io.BytesIO(source) if isinstance(source, bytes) else source):
            return True
    except Exception:  # of damaged files it raises whatever comes
        return False


def _decode_tiff(data: bytes, name: str, channels: int) -> np.ndarray:
    """8-bit TIFF of 1, 3 or 4 bands by Pillow, all others by tifffile."""
    module = _pillow(name)
    try:
        image = module.open(io.BytesIO(data))
        header.refuse_bomb(*image.size, name)
        bits, mode = max(image.tag_v2.get(258, (1,))), image.mode
        whole = channels in (1, 3) or len(image.getbands()) in (channels, image.tag_v2.get(277, 1))
    except InputError:
        raise
    except Exception:  # Pillow knows neither its bands nor its numbers, or it is cut short
        bits, mode, whole = "unknown", "unknown", False
    plain = bits != "unknown" and bits <= 8 and mode in ("1", "L", "P", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
    if not (plain and whole):
        array = bands.decode_tiff(data, name, f" (bits: {bits}, pixel mode: {mode})")
        found = array.shape[2] if array.ndim == 3 else 1
        if found in (2, 4) and found != channels:  # the last may be radar or infrared as well as alpha: never dropped
            raise _wrong_bands(found, channels, name)
        return array
    image = _open_pillow(data, name)
    if mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image if mode in ("RGB", "RGBA") else image.convert("RGB"))


def _fit_channels(array: np.ndarray, channels: int, name: str) -> np.ndarray:
    """[H, W] or [H, W, C] -> contiguous [H, W, channels]: gray repeated, colour to gray, alpha dropped."""
    array = array[..., None] if array.ndim == 2 else array
    found = array.shape[2]
    if (found == 2 and channels in (1, 3)) or (found == 4 and channels == 3):  # gray + alpha, RGB + alpha
        array = array[..., : found - 1]
    elif found in (3, 4) and channels == 1:
        array = cv2.cvtColor(np.ascontiguousarray(array[..., :3]), cv2.COLOR_RGB2GRAY)[..., None]
    if array.shape[2] == 1 and channels == 3:
        array = np.repeat(array, 3, axis=2)
    if array.shape[2] != channels:
        raise _wrong_bands(found, channels, name)
    return np.ascontiguousarray(array)


def _wrong_bands(found: int, channels: int, name: str) -> InputError:
    return WrongBands(
        f"{name}: wrong number of bands (got {found}, expected img_channels: {channels}). Set img_channels: "
        f"{found} in the data set and in_channels in the model, or convert the image."
    )


def _small(array: np.ndarray, name: str) -> np.ndarray:
    """An index map as contiguous uint8, or int32 where values need it."""
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[..., 0] if array.shape[2] == 1 else array[0]
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(
            f"{name}: not a map of class numbers (got {array.dtype} of shape {list(array.shape)}, expected integers "
            "[H, W]). Save one class number a pixel."
        )
    if array.dtype.itemsize == 1 and array.dtype.kind in "ub":
        return np.ascontiguousarray(array, np.uint8)
    fits = array.size == 0 or (array.min() >= 0 and array.max() <= 255)
    return np.ascontiguousarray(array, np.uint8 if fits else np.int32)


@functools.lru_cache(maxsize=2)
def _colour_table(palette: bytes) -> np.ndarray:
    """int16 [2**24]: packed colour -> first palette row of that colour, -1 where there is none."""
    rows = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(np.int64)
    table = np.full(1 << 24, -1, np.int16)
    packed = (rows[:, 0] << 16) | (rows[:, 1] << 8) | rows[:, 2]
    table[packed[::-1]] = np.arange(len(rows) - 1, -1, -1)
    return table


def _colours_to_indices(array: np.ndarray, palette: np.ndarray | None, name: str) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> class numbers [H, W]; see `read_label`."""
    red, green, blue = (array[..., band] for band in range(3))
    if palette is None:
        if np.array_equal(red, green) and np.array_equal(red, blue):
            return red
        raise ColourLabel(
            f"{name}: a colour label (RGB with different channels; expected class numbers). Give the colour of every "
            "class as `palette: [[r, g, b], ...]` in the data set, or convert it to a palette or gray PNG."
        )
    packed = (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue
    indices = _colour_table(np.ascontiguousarray(palette, np.uint8).tobytes())[packed]
    strange = np.unique(packed[indices < 0])
    if strange.size and np.array_equal(red, green) and np.array_equal(red, blue):
        return red  # class numbers saved as RGB
    if strange.size:
        listed = ", ".join(str([int(c) >> 16, int(c) >> 8 & 255, int(c) & 255]) for c in strange[:5])
        raise ColourLabel(
            f"{name}: {strange.size} colours of the label are not in the palette of {len(palette)} (got {listed}"
            f"{', ...' if strange.size > 5 else ''}). Add them to `palette`, or mend the label (a JPEG or a resized "
            "label has mixed colours)."
        )
    return indices


@functools.lru_cache(maxsize=1)
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
