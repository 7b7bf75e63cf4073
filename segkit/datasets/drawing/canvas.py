"""A picture under construction that knows which pixels show a dove."""

from __future__ import annotations

import numpy as np

from segkit._cv2 import cv2
from segkit.datasets.drawing.bird import Patch
from segkit.datasets.drawing.raster import blend, polygon_mask


class Canvas:
    """rgb float32 [h, w, 3] and `cover` float32 [h, w], how much of a pixel is dove."""

    def __init__(self, rgb: np.ndarray):
        self.rgb = rgb
        self.height, self.width = rgb.shape[:2]
        self.cover = np.zeros((self.height, self.width), np.float32)

    def _over(self, box: tuple, colour: np.ndarray, alpha: np.ndarray, dove: bool) -> None:
        blend(self.rgb[box], colour, alpha)
        self.cover[box] *= 1 - alpha
        if dove:
            self.cover[box] += alpha

    def polygon(self, points: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        """A filled outline in front of all; what is hidden behind it is no longer dove."""
        found = polygon_mask(points, self.height, self.width)
        if found:
            self._over(found[1], colour, found[0] * opacity, False)

    def place(self, patch: Patch, x: float, y: float, dove: bool) -> None:
        """`patch` with its foot at (x, y), in front of all."""
        left, top = round(x - patch.foot[0]), round(y - patch.foot[1])
        h, w = patch.alpha.shape
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, self.width), min(top + h, self.height)
        if x0 < x1 and y0 < y1:
            inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            self._over((slice(y0, y1), slice(x0, x1)), patch.rgb[inside], patch.alpha[inside], dove)

    def cast(self, patch: Patch, at: tuple[float, float], lean: tuple[float, float], dark: float, blur: float) -> None:
        """`patch`'s shadow from its foot at `at`: each pixel of height moves it by `lean` (right, up)."""
        fx, fy = patch.foot
        matrix = np.float32([[1, -lean[0], at[0] - fx + lean[0] * fy], [0, lean[1], at[1] - lean[1] * fy]])
        shadow = cv2.warpAffine(patch.alpha, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(blur, 0.6))
        self.rgb *= (1 - dark * shadow)[..., None]

    def darken(self, x: float, y: float, rx: float, ry: float, dark: float) -> None:
        """A soft dark ellipse: where something touches the ground."""
        x0, x1 = max(int(x - 2 * rx), 0), min(int(x + 2 * rx) + 1, self.width)
        y0, y1 = max(int(y - 2 * ry), 0), min(int(y + 2 * ry) + 1, self.height)
        if x0 < x1 and y0 < y1:
            v, u = np.mgrid[y0:y1, x0:x1].astype(np.float32)
            soft = np.exp(-2 * (((u - x) / rx) ** 2 + ((v - y) / ry) ** 2))
            self.rgb[y0:y1, x0:x1] *= (1 - dark * soft)[..., None]
