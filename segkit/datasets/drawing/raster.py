"""Outlines, anti-aliased filling and noise, on float32 RGB arrays of 0..255."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from segkit._cv2 import cv2

Rng = np.random.Generator
_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates


def spline(points: Sequence, closed: bool = True, steps: int = 8) -> np.ndarray:
    """Catmull-Rom curve [N, 2] through `points` [K, 2]."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def ribbon(points: Sequence, widths: Sequence[float], steps: int = 6) -> np.ndarray:
    """Outline [N, 2] of a smooth stroke along `points` whose width runs through `widths` (one a point)."""
    path = spline(points, closed=False, steps=steps)
    width = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)[:, None]
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * width / 2
    return np.concatenate([path + across, (path - across)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> np.ndarray:
    """Outline [count, 2]; `angle` in degrees."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.add(turn(np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1), angle), (x, y))


def turn(points: Sequence, degrees: float) -> np.ndarray:
    """`points` [N, 2] rotated about the origin."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(points, dtype=np.float64) @ np.array([[c, s], [-s, c]])


def polygon_mask(points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Coverage 0..1 of a polygon (pixels, x right, y down) within its bounding box, and that box; None outside."""
    x0, y0 = np.floor(points.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 2
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        return None
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = np.round((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / 255, (slice(y0, y1), slice(x0, x1))


def blend(rgb: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Lays `colour` ([3] or [h, w, 3]) over `rgb` [h, w, 3] in place."""
    rgb += (colour - rgb) * alpha[..., None]


def fbm(rng: Rng, height: int, width: int, cell: float, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Fractal noise [height, width], mean about 0, deviation about 1; features of `cell` pixels and finer.
    `stretch` > 1 makes them wider than high."""
    total = np.zeros((height, width), np.float32)
    norm = 0.0
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        grid = rng.standard_normal(
            (max(int(height / size) + 2, 2), max(int(width / (size * stretch)) + 2, 2)), dtype=np.float32
        )
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
        norm += 0.4 * 0.25**octave
    return total / np.float32(np.sqrt(norm))


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def jitter(rng: Rng, colour: Sequence[float], spread: float) -> np.ndarray:
    """A colour near `colour`: brightness varies by `spread`, the channels a little on their own."""
    return np.clip(np.asarray(colour) + rng.normal(0, spread) + rng.normal(0, spread * 0.3, 3), 0, 255).astype(
        np.float32
    )


def between(rng: Rng, low: float, high: float) -> float:
    """A uniform number as a Python float."""
    return float(rng.uniform(low, high))
