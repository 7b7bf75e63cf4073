"""What a stranger may send: size of the body, number of pixels by the header, how many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io as memory
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import numpy as np

from segkit import header, io
from segkit.bands import tiff_facts
from segkit.errors import InputError

_BODIES = 16  # so many of the largest bodies may lie in memory together
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TILE = (322, 323)  # TIFF 6.0: TileWidth, TileLength


class Refused(Exception):
    """A request that is answered with `status` and `message`; `retry_after` in seconds, 0 for never."""

    def __init__(self, status: int, message: str, retry_after: int = 0):
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


@dataclass
class Limits:
    """`body`: bytes of a request. `pixels`: of a photo. `queue`: photos taken and not yet answered. `upload`: seconds
    until a body must be here. `input`: pixels that the network gets of a photo at once."""

    body: int
    pixels: int
    queue: int
    upload: float
    input: int

    def check_body(self, size: int) -> None:
        """Refuse a body of more bytes than allowed."""
        if size > self.body:
            raise Refused(
                413,
                f"the body is larger than {self.body / 2**20:g} MiB. Send a smaller photo, or have the server started "
                "with a higher --max_body_mb.",
            )

    def check_pixels(self, data: bytes, channels: int) -> int:
        """Refuse a photo that its header says to be too large, before anything is decoded. Returns its pixels, of
        photos with more than 8 bits twice as many: they take twice the memory.

        Raises:
            Refused: more pixels, or numbers in all, than allowed.
            InputError: no format that is read, or a damaged header.
        """
        height, width, bands = header_size(data)
        most = max(4, channels)
        if height * width > self.pixels or height * width * bands > self.pixels * most:
            raise Refused(
                413,
                f"a photo of {width}x{height} pixels{f' and {bands} bands' if bands > most else ''} is too large "
                f"(expected at most {self.pixels:,} pixels). Send a smaller one, or have the server started with a "
                "higher --max_pixels.",
            )
        return height * width * (2 if _is_deep(data) else 1)

    def check_input(self, height: int, width: int) -> None:
        """Refuse what would be too large for the network at once."""
        if height * width > self.input:
            raise Refused(
                413,
                f"this model gets photos whole, and {width}x{height} pixels are too many for it (expected at most "
                f"{self.input:,}). Send a smaller one, or have the server started with a higher --max_input_pixels, or "
                "the model exported with test_config.is_slide or a Resize.",
            )


class Room:
    """Bounds what is in memory together. Whoever needs more waits, in order; a single one may need more than all."""

    def __init__(self, size: int):
        self._free = self._size = size
        self._turn, self._changed = asyncio.Lock(), asyncio.Condition()

    @contextlib.asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[None]:
        """Inside, `size` of the room is taken."""
        size = min(size, self._size)
        async with self._turn, self._changed:
            await self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            async with self._changed:
                self._free += size
                self._changed.notify_all()


class Admission:
    """Counts the photos that are taken and not yet answered, and the bytes of their bodies."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.taken = 0
        self.held = 0

    @contextlib.contextmanager
    def photo(self, seconds_a_photo: float) -> Iterator[None]:
        """A place in the queue, or `Refused`. `seconds_a_photo`: how fast places become free."""
        if self.taken >= self.limits.queue:
            raise Refused(
                429,
                f"{self.taken} photos are waiting already, no more are taken. Try again later.",
                min(60, max(1, math.ceil(self.taken * seconds_a_photo))),
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def hold(self, size: int) -> None:
        """Count bytes of a body as held in memory, or refuse them."""
        if self.held + size > _BODIES * self.limits.body:
            raise Refused(429, "too many photos are being sent at once. Try again later.", 1)
        self.held += size

    def release(self, size: int) -> None:
        """The bytes are no longer held."""
        self.held -= size


def header_size(data: bytes) -> tuple[int, int, int]:
    """(height, width, bands) that an image file's header says; bands above 4 are only told of TIFF and NPY.

    Of a tiled TIFF, no less than one tile. Errors: as `io.decode_image`.
    """
    if not data:
        raise InputError("image: the body is empty (0 bytes). Send the bytes of an image file.")
    if data.startswith(b"\x93NUMPY"):
        return _npy_size(data)
    if data.startswith(_TIFF):
        return _tiff_size(data)
    width, height = header.size(data)
    if not width or not height:
        raise InputError(
            f"image: not a readable image (got {len(data)} bytes beginning with {data[:8]!r}, expected {io.FORMATS}). "
            "It is damaged or of another format: convert it."
        )
    return height, width, 4


def _is_deep(data: bytes) -> bool:
    """Whether its pixels may have more than 8 bits."""
    return data.startswith((b"\x93NUMPY", *_TIFF)) or (data.startswith(b"\x89PNG") and data[24:25] == b"\x10")


def _tiff_size(data: bytes) -> tuple[int, int, int]:
    """Pages count as bands: a small file may name the same pixels many times. Without tifffile no such file is
    decoded, and Pillow, which decodes the plain ones, tells the size."""
    if importlib.util.find_spec("tifffile") is not None:
        facts = tiff_facts("image", data)
        (height, width, bands), tile = facts["shape"], facts["tile"]
        return max(height, tile[0]), max(width, tile[1]), bands
    from PIL import Image

    try:
        with Image.open(memory.BytesIO(data), formats=["TIFF"]) as image:
            tile = [int(image.tag_v2.get(tag, 0)) for tag in _TILE]
            return max(image.height, tile[1]), max(image.width, tile[0]), 4
    except Exception as error:  # of damaged files Pillow raises whatever comes
        raise io.unreadable("image", error) from error


def _npy_size(data: bytes) -> tuple[int, int, int]:
    file = memory.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape = read(file)[0]
    except Exception as error:  # the header is parsed as Python
        raise io.unreadable("image", error) from error
    height, width = (*shape, 1, 1)[:2]
    return height, width, math.prod(shape[2:])
