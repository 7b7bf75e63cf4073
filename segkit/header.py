"""Width and height from an image's first bytes, so that a file that would fill the memory is refused before decoding,
and whether it is whole.

PNG specification 11.2.2; JPEG: ITU-T T.81, B.2.2; BMP: the BITMAPCOREHEADER and BITMAPINFOHEADER; WebP: RFC 9649.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Sequence

from segkit.errors import InputError

MAX_PIXELS = 1 << 28
"""Of one picture: 16384 x 16384, 0.8 GB as RGB. The variable SEGKIT_MAX_PIXELS sets another."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG markers among those of frames that begin something else


def max_pixels() -> int:
    """How many pixels a picture may have."""
    text = os.environ.get("SEGKIT_MAX_PIXELS", "")
    return int(text) if text.isdigit() else MAX_PIXELS


def refuse_bomb(width: int, height: int, name: str) -> None:
    """`InputError` for a picture of more pixels than `max_pixels`."""
    if width * height > max_pixels():
        raise InputError(
            f"{name}: too many pixels (got {width} x {height}, expected at most {max_pixels():,} in all): decoding it "
            "could fill the memory. Cut it into tiles, or set the environment variable SEGKIT_MAX_PIXELS higher."
        )


def refuse_large(shape: Sequence[int], itemsize: int, name: str) -> None:
    """`InputError` for an array of more bytes than the largest picture has as float32 RGBA."""
    limit = 16 * max_pixels()
    if math.prod(shape) * itemsize > limit:
        raise InputError(
            f"{name}: too large (got an array of shape {list(shape)}, {math.prod(shape) * itemsize / 2**30:.1f} GB, "
            f"expected at most {limit / 2**30:.1f} GB): decoding it could fill the memory. Cut it into tiles, or set "
            "the environment variable SEGKIT_MAX_PIXELS higher."
        )


def size(data: bytes) -> tuple[int, int]:
    """(width, height) as stored of an encoded JPEG, PNG, BMP or WebP; (0, 0) of anything else and of damaged ones."""
    try:
        if data[:8] == _PNG:
            return struct.unpack_from(">II", data, 16)
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:2] == b"BM":
            core = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
            return abs(width), abs(height)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:
        pass
    return 0, 0


def is_sound(data: bytes) -> bool:
    """Whether a JPEG, BMP or WebP ends where it should, and what pixels of a PNG depend on has its check sums.

    OpenCV fills what is lost with gray, takes a palette with a wrong sum as it is, and at most prints a warning.
    """
    if data[:2] == b"\xff\xd8":
        return data[-64:].rstrip(b"\0\r\n").endswith(b"\xff\xd9")
    if data[:8] == _PNG:
        return _png_is_sound(data)
    if data[:2] == b"BM":
        return len(data) >= struct.unpack_from("<I", data.ljust(6, b"\xff"), 2)[0] > 0
    return data[:4] == b"RIFF" and len(data) >= 8 + struct.unpack_from("<I", data.ljust(8, b"\xff"), 4)[0]


def ends(data: bytes) -> bool:
    """Whether a JPEG has its end mark after the last of its pixels, whatever a camera has put behind it."""
    return data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _png_is_sound(data: bytes) -> bool:
    at, seen = 8, []
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind[:1].isupper() or kind == b"tRNS":
            if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
                return False
            if kind in (b"IHDR", b"PLTE") and kind in seen:
                return False
            seen.append(kind)
        if kind == b"IEND":
            return seen[0] == b"IHDR"
        at = end + 4
    return False


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # between segments decoders skip to the next marker
            at += 1
            continue
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        alone = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8
        at += 2 if alone else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":  # the canvas: 24 bits each, less one
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
