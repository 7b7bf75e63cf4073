"""Width and height from an image's first bytes, so that a file that would fill the memory is refused before decoding.

PNG specification 11.2.2; JPEG: ITU-T T.81, B.2.2; BMP: the BITMAPCOREHEADER and BITMAPINFOHEADER; WebP: RFC 9649.
"""

from __future__ import annotations

import os
import struct

from segkit.errors import InputError

MAX_PIXELS = 1 << 28
"""Of one picture: 16384 x 16384, 0.8 GB as RGB. The variable SEGKIT_MAX_PIXELS sets another."""
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


def size(data: bytes) -> tuple[int, int]:
    """(width, height) as stored of an encoded JPEG, PNG, BMP or WebP; (0, 0) of anything else and of damaged ones."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
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
