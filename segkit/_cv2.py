"""The one door to OpenCV: `from segkit._cv2 import cv2`.

Where it is absent or needs a display library that the machine lacks, the import ends with the line that mends it.
"""

from __future__ import annotations

from segkit.errors import InputError

try:
    import cv2
except ImportError as error:
    raise InputError(
        f"OpenCV cannot be loaded ({error}). Install the build that needs no display library:\n"
        "  pip uninstall -y opencv-python; pip install opencv-python-headless"
    ) from error

__all__ = ["cv2"]
