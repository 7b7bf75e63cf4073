"""EXIF orientation of JPEG, PNG and WebP bytes, read and applied without Pillow.

One reader for all formats and OpenCV versions: OpenCV itself applies the tag in some formats, versions and flags only.
Tag numbers and the eight orientations: EXIF 2.3 (JEITA CP-3451C), 4.6.4.
"""

from __future__ import annotations

import struct

import numpy as np

from segkit._cv2 import cv2

_ORIENTATION = 0x0112


def orientation(data: bytes) -> int:
    """The orientation tag, 1 (upright) to 8, of an encoded image; 1 where there is none or it is damaged."""
    try:
        block = _exif_block(data)
        value = _tag(block, _ORIENTATION) if block else 1
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def apply(array: np.ndarray, value: int) -> np.ndarray:
    """`array` [H, W] or [H, W, C] as a viewer shows it: flipped, turned or transposed by orientation `value`."""
    if value == 1:
        return array
    if value in (2, 3, 4):
        return cv2.flip(array, {2: 1, 3: -1, 4: 0}[value])
    turned = cv2.transpose(array)
    return turned if value == 5 else cv2.flip(turned, {6: 1, 7: -1, 8: 0}[value])


def _exif_block(data: bytes) -> bytes | None:
    """The TIFF-structured EXIF block inside an encoded image."""
    if data[:2] == b"\xff\xd8":
        return _in_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _in_chunks(data, start=8, kind=b"eXIf", kind_first=False, order=">", extra=4, align=1)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _in_chunks(data, start=12, kind=b"EXIF", kind_first=True, order="<", extra=0, align=2)
    return None


def _in_jpeg(data: bytes) -> bytes | None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xFF:  # a fill byte before the marker
            at += 1
            continue
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + size]
        if marker == 0xDA:  # pixels begin
            return None
        at += 2 + size
    return None


def _in_chunks(
    data: bytes, start: int, kind: bytes, kind_first: bool, order: str, extra: int, align: int
) -> bytes | None:
    """The chunk `kind` of a PNG (size, kind, bytes, CRC) or RIFF (kind, size, bytes, padding) file."""
    at = start
    while at + 8 <= len(data):
        size = struct.unpack_from(order + "I", data, at + (4 if kind_first else 0))[0]
        name = data[at : at + 4] if kind_first else data[at + 4 : at + 8]
        if name == kind:
            block = data[at + 8 : at + 8 + size]
            return block[6:] if block[:6] == b"Exif\0\0" else block
        at += 8 + size + extra + (size % align)
    return None


def _tag(block: bytes, tag: int) -> int:
    """A 16-bit value of the first directory of a TIFF structure; 1 where the tag is absent."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    at = struct.unpack_from(order + "I", block, 4)[0]
    for index in range(struct.unpack_from(order + "H", block, at)[0]):
        entry = at + 2 + 12 * index
        if struct.unpack_from(order + "H", block, entry)[0] == tag:
            return struct.unpack_from(order + "H", block, entry + 8)[0]
    return 1
