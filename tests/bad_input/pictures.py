"""Small pictures in every format that is read."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FORMATS = ("jpeg", "jpeg-progressive", "png", "png-16", "png-palette", "bmp", "webp", "webp-lossless", "tiff", "tiff-16", "npy")  # fmt: skip


def picture(width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3], smooth with some noise."""
    rng = np.random.default_rng(width)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None] * np.ones(3)
    return (ramp + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)


def encoded(kind: str, width: int = 40, height: int = 30) -> bytes:
    """The bytes of a file of one of `FORMATS`."""
    array, out = picture(width, height), io.BytesIO()
    if kind == "npy":
        np.save(out, array)
    elif kind == "tiff-16":
        import tifffile

        tifffile.imwrite(out, array.astype(np.uint16) * 200, photometric="rgb", compression="zlib")
    elif kind == "png-16":
        import cv2

        return cv2.imencode(".png", array.astype(np.uint16) * 200)[1].tobytes()
    else:
        image = Image.fromarray(array)
        image = image.quantize(16) if kind == "png-palette" else image
        name, _, how = kind.partition("-")
        extra = {"progressive": {"progressive": True}, "lossless": {"lossless": True}}.get(how, {})
        image.save(out, name.upper(), **extra, **({"compression": "tiff_lzw"} if kind == "tiff" else {}))
    return out.getvalue()
