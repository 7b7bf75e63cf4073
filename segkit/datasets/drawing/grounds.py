"""Backgrounds: each function paints float32 RGB [height, width, 3] of 0..255."""

from __future__ import annotations

import numpy as np

from segkit._cv2 import cv2
from segkit.datasets.drawing.raster import Rng, between, blend, ellipse, fbm, jitter, polygon_mask, smoothstep


def _flat(height: int, width: int, colour: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, np.float32), (height, width, 3)).copy()


def _mottle(rgb: np.ndarray, noise: np.ndarray, strength: float) -> None:
    rgb *= (1 + strength * noise)[..., None]


def _strokes(rgb: np.ndarray, lines: np.ndarray, colours: list[np.ndarray], thickness: int = 1) -> None:
    """Line segments [N, 2, 2] in a few colours, in place."""
    shared = np.array_split(np.round(lines).astype(np.int32), len(colours))
    for part, colour in zip(shared, colours):
        cv2.polylines(rgb, list(part), False, [float(c) for c in colour], thickness, cv2.LINE_8)


def sky(rng: Rng, height: int, width: int) -> np.ndarray:
    """A gradient with clouds, or overcast, or at dusk."""
    tops = [(88, 138, 200), (120, 165, 215), (165, 175, 188), (150, 150, 175), (70, 110, 170)]
    lows = [(190, 215, 235), (215, 228, 238), (205, 208, 212), (240, 205, 175), (170, 200, 228)]
    kind = rng.integers(len(tops))
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rgb = _flat(height, width, jitter(rng, tops[kind], 8)) * (1 - t) + jitter(rng, lows[kind], 8) * t
    clouds = fbm(rng, height, width, between(rng, 90, 220), 5, stretch=2.0)
    edge = between(rng, -0.4, 1.0)
    amount = smoothstep(clouds, edge, edge + 1.2) * between(rng, 0.6, 1.0)
    body = 245 - 40 * smoothstep(fbm(rng, height, width, 80, 3), 0, 2)
    blend(rgb, np.repeat(body[..., None], 3, axis=2), amount)
    return rgb


def grass(rng: Rng, height: int, width: int) -> np.ndarray:
    """A lawn: mottled green or dry, with blades."""
    base = [(82, 108, 48), (105, 125, 62), (128, 124, 76), (66, 96, 56)][rng.integers(4)]
    rgb = _flat(height, width, jitter(rng, base, 8))
    _mottle(rgb, fbm(rng, height, width, 70, 4), 0.13)
    count = int(height * width / between(rng, 60, 130))
    start = rng.uniform(0, 1, (count, 2)) * (width, height)
    start = start[np.argsort(start[:, 1] // 40, kind="stable")]
    reach = rng.normal(0, 4, count), -rng.uniform(4, 15, count) * (0.5 + start[:, 1] / height)
    lines = np.stack([start, start + np.stack(reach, axis=1)], axis=1)
    shades = [jitter(rng, base, 20) for _ in range(10)]
    _strokes(rgb, lines, shades)
    return rgb


def pavement(rng: Rng, height: int, width: int) -> np.ndarray:
    """Slabs or asphalt, seen obliquely."""
    base = jitter(rng, [(116, 112, 104), (96, 96, 98), (138, 126, 106), (112, 100, 90)][rng.integers(4)], 8)
    rgb = _flat(height, width, base)
    if rng.random() < 0.7:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        depth = 1 / (0.45 + y / height)  # far slabs look smaller
        slope, size = between(rng, -0.5, 0.5), between(rng, 60, 150)
        u = ((x - width / 2) * depth + slope * y) / size
        v = depth * height * between(rng, 1.0, 1.6) / size
        u = u + 0.5 * (np.floor(v) % 2) * rng.integers(2)
        tones = rng.normal(0, 0.05, (64, 64)).astype(np.float32)
        rgb *= (1 + tones[np.floor(v).astype(int) % 64, np.floor(u).astype(int) % 64])[..., None]
        gap = np.minimum(np.minimum(u % 1, 1 - u % 1), np.minimum(v % 1, 1 - v % 1))
        rgb *= (1 - between(rng, 0.25, 0.5) * (1 - smoothstep(gap, 0.01, 0.05)))[..., None]
    _mottle(rgb, fbm(rng, height, width, 60, 4), 0.05)
    _mottle(rgb, fbm(rng, height, width, 3, 2), between(rng, 0.02, 0.09))
    return rgb


def gravel(rng: Rng, height: int, width: int) -> np.ndarray:
    """Packed pebbles: the cells of random points."""
    size = between(rng, 7, 20)
    seeds = np.full((height, width), 255, np.uint8)
    count = int(height * width / size**2)
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    base = [(122, 114, 102), (136, 122, 98), (98, 94, 90), (126, 112, 106)][rng.integers(4)]
    tones = np.asarray(base, np.float32) * (1 + rng.normal(0, 0.15, (cell.max() + 1, 1)))
    tones = (tones + rng.normal(0, 5, tones.shape)).astype(np.float32)
    rgb = tones[cell]
    rgb *= (1.08 - 0.55 * smoothstep(distance, size * 0.3, size * 0.85))[..., None]
    _mottle(rgb, fbm(rng, height, width, 90, 2), 0.06)
    return rgb


def litter(rng: Rng, height: int, width: int) -> np.ndarray:
    """Fallen leaves on earth."""
    rgb = _flat(height, width, jitter(rng, (92, 76, 58), 8))
    _mottle(rgb, fbm(rng, height, width, 30, 4), 0.15)
    palette = [(150, 104, 58), (172, 132, 76), (124, 84, 52), (140, 120, 84), (104, 92, 60), (182, 150, 104)]
    scatter_leaves(rng, rgb, int(height * width / 900), palette, (9, 24))
    return rgb


def scatter_leaves(rng: Rng, rgb: np.ndarray, count: int, palette: list, sizes: tuple[float, float]) -> None:
    """Almond-shaped leaves with a vein at random places, in place."""
    height, width = rgb.shape[:2]
    outline = np.array(
        [(-1, 0), (-0.5, 0.33), (0.1, 0.4), (0.6, 0.22), (1, 0), (0.6, -0.22), (0.1, -0.4), (-0.5, -0.33)]
    )
    for _ in range(count):
        size, angle = between(rng, *sizes), between(rng, 0, 2 * np.pi)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]]) * between(rng, 0.5, 1.2)
        middle = rng.uniform(0, 1, 2) * (width, height)
        points = middle + size * (outline[:, :1] * along + outline[:, 1:] * across)
        colour = jitter(rng, palette[rng.integers(len(palette))], 14)
        fixed = np.round(points).astype(np.int32)
        cv2.fillPoly(rgb, [np.add(fixed, (1, 2))], [float(c) * 0.45 for c in colour])
        cv2.fillPoly(rgb, [fixed], [float(c) for c in colour])
        cv2.line(rgb, fixed[0].tolist(), fixed[4].tolist(), [float(c) * 0.78 for c in colour], 1)


def brick(rng: Rng, height: int, width: int) -> np.ndarray:
    """A brick wall in running bond."""
    base = [(150, 84, 66), (168, 112, 86), (186, 150, 122), (176, 172, 164)][rng.integers(4)]
    high = between(rng, 16, 34)
    long = high * between(rng, 2.2, 3.0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    row = np.floor(y / high)
    u = x / long + 0.5 * (row % 2)
    tones = rng.normal(0, 0.1, (64, 64)).astype(np.float32)
    rgb = _flat(height, width, jitter(rng, base, 6))
    rgb *= (1 + tones[row.astype(int) % 64, np.floor(u).astype(int) % 64])[..., None]
    gap = np.minimum(np.minimum(u % 1, 1 - u % 1) * long, np.minimum(y % high, high - y % high))
    blend(rgb, jitter(rng, (178, 172, 160), 10), 1 - smoothstep(gap, 0.6, 2.2))
    _mottle(rgb, fbm(rng, height, width, 12, 3), 0.05)
    return rgb


def water(rng: Rng, height: int, width: int) -> np.ndarray:
    """Ripples, stretched sideways."""
    low = jitter(rng, [(60, 88, 104), (84, 106, 98), (96, 118, 138)][rng.integers(3)], 6)
    high = jitter(rng, (176, 196, 208), 10)
    ripples = fbm(rng, height, width, between(rng, 10, 24), 3, stretch=between(rng, 3, 6))
    rgb = _flat(height, width, low)
    blend(rgb, high, smoothstep(ripples, -0.6, 2.4) * np.linspace(0.9, 0.5, height, dtype=np.float32)[:, None])
    blend(rgb, np.float32([245, 245, 240]), smoothstep(ripples, 1.9, 2.6) * 0.7)
    return rgb


def roof(rng: Rng, height: int, width: int) -> np.ndarray:
    """Rows of round-ended tiles."""
    base = [(140, 76, 56), (96, 92, 96), (150, 102, 72), (86, 78, 74)][rng.integers(4)]
    wide = between(rng, 26, 52)
    high = wide * between(rng, 0.6, 0.9)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    row = np.floor(y / high)
    u = x / wide + 0.5 * (row % 2)
    drop = y / high - row
    edge = 1 - 0.35 * (2 * (u % 1) - 1) ** 2  # a tile's rounded lower edge
    tones = rng.normal(0, 0.09, (64, 64)).astype(np.float32)
    rgb = _flat(height, width, jitter(rng, base, 6))
    rgb *= (1 + tones[row.astype(int) % 64, np.floor(u).astype(int) % 64])[..., None]
    rgb *= (0.8 + 0.25 * drop - 0.4 * smoothstep(drop, edge - 0.04, edge + 0.02))[..., None]
    _mottle(rgb, fbm(rng, height, width, 20, 3), 0.06)
    return rgb


def foliage(rng: Rng, height: int, width: int) -> np.ndarray:
    """Layers of leaves with gaps of light; the far ones out of focus."""
    rgb = _flat(height, width, jitter(rng, (44, 62, 36), 6))
    blend(rgb, jitter(rng, (190, 208, 190), 10), smoothstep(fbm(rng, height, width, 60, 3), 0.9, 2.0) * 0.8)
    greens = [(70, 104, 48), (96, 132, 62), (58, 86, 50), (122, 146, 78), (88, 112, 74)]
    for layer in range(2):
        scatter_leaves(rng, rgb, int(height * width / 1500), greens, (8 + 6 * layer, 18 + 8 * layer))
        if layer == 0:
            rgb = cv2.GaussianBlur(rgb, (0, 0), between(rng, 2.0, 4.0))
    return rgb


def plaster(rng: Rng, height: int, width: int) -> np.ndarray:
    """A rendered wall with stains."""
    base = [(178, 166, 142), (160, 142, 118), (124, 130, 136), (186, 158, 116), (110, 118, 112)][rng.integers(5)]
    rgb = _flat(height, width, jitter(rng, base, 8))
    _mottle(rgb, fbm(rng, height, width, 120, 4), 0.06)
    blend(rgb, jitter(rng, (110, 104, 92), 8), smoothstep(fbm(rng, height, width, 60, 4, 0.3), 1.0, 2.6) * 0.6)
    _mottle(rgb, fbm(rng, height, width, 4, 2), 0.03)
    return rgb


def planks(rng: Rng, height: int, width: int) -> np.ndarray:
    """Weathered boards."""
    base = [(128, 104, 78), (104, 96, 88), (96, 72, 52), (146, 122, 92)][rng.integers(4)]
    wide = between(rng, 34, 80)
    x = np.arange(width, dtype=np.float32)[None, :].repeat(height, axis=0)
    tones = rng.normal(0, 0.09, 64).astype(np.float32)
    grain = fbm(rng, width, height, 6, 3, stretch=14).T
    rgb = _flat(height, width, jitter(rng, base, 8))
    rgb *= (1 + tones[(x / wide).astype(int) % 64] + 0.06 * grain)[..., None]
    gap = np.minimum(x % wide, wide - x % wide)
    rgb *= (0.35 + 0.65 * smoothstep(gap, 0.5, 2.5))[..., None]
    return rgb if rng.random() < 0.5 else np.ascontiguousarray(cv2.resize(rgb.transpose(1, 0, 2), (width, height)))


def soften(rng: Rng, rgb: np.ndarray) -> np.ndarray:
    """The same a little out of focus and darker: lens and exposure are set for the birds."""
    return cv2.GaussianBlur(rgb, (0, 0), between(rng, 1.2, 2.4)) * between(rng, 0.72, 0.92)


def bokeh(rng: Rng, rgb: np.ndarray) -> np.ndarray:
    """The same out of focus, with a few discs of light."""
    height, width = rgb.shape[:2]
    rgb = cv2.GaussianBlur(rgb, (0, 0), between(rng, 3, 9)) * between(rng, 0.72, 0.92)
    for _ in range(rng.integers(0, 8)):
        radius = between(rng, 6, 22)
        disc = ellipse(between(rng, 0, width), between(rng, 0, height), radius, radius)
        found = polygon_mask(disc, height, width)
        if found:
            blend(rgb[found[1]], jitter(rng, (215, 220, 200), 15), found[0] * between(rng, 0.1, 0.45))
    return rgb
