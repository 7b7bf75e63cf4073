"""Things that are not doves: on the ground as distractors, and in front as occluders."""

from __future__ import annotations

import numpy as np

from segkit.datasets.drawing.bird import Patch, roundness
from segkit.datasets.drawing.canvas import Canvas
from segkit.datasets.drawing.raster import (
    Rng,
    between,
    blend,
    ellipse,
    fbm,
    jitter,
    polygon_mask,
    ribbon,
    smoothstep,
    spline,
    turn,
)

LEAF = np.array([(-1, 0), (-0.5, 0.34), (0.1, 0.42), (0.6, 0.24), (1, 0), (0.6, -0.24), (0.1, -0.42), (-0.5, -0.34)])


def _solid(points: np.ndarray, colour: np.ndarray, light: float, radius: float) -> Patch:
    """A rounded body of one colour; it stands on the lowest point of its outline."""
    low, high = points.min(axis=0) - 2, points.max(axis=0) + 2
    width, height = np.ceil(high - low).astype(int) + 1
    alpha = np.zeros((height, width), np.float32)
    found = polygon_mask(points - low, height, width)
    alpha[found[1]] = found[0]
    rgb = (
        np.broadcast_to(np.asarray(colour, np.float32), (height, width, 3)) * roundness(alpha, radius, light)[..., None]
    )
    return Patch(rgb.astype(np.float32), alpha, (width / 2, height - 4.0))


def stone(rng: Rng, size: float, light: float) -> Patch:
    """A pebble or a rock."""
    t = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radius = size * (1 + rng.normal(0, 0.12, 9))
    flat = between(rng, 0.45, 0.85)
    points = spline(np.stack([radius * np.cos(t), radius * np.sin(t) * flat], axis=1))
    colour = jitter(rng, [(150, 148, 144), (176, 166, 150), (122, 116, 112), (204, 198, 190)][rng.integers(4)], 10)
    patch = _solid(points, colour, light, size * between(rng, 0.4, 0.8))
    patch.rgb *= (1 + 0.07 * fbm(rng, *patch.alpha.shape, max(size / 3, 2), 3))[..., None]
    return patch


def rag(rng: Rng, size: float, light: float) -> Patch:
    """Crumpled paper, a bag or a cloth: pale, folded, of no shape."""
    t = np.linspace(0, 2 * np.pi, 13, endpoint=False)
    radius = size * (1 + rng.normal(0, 0.22, 13))
    points = np.stack([radius * np.cos(t) * between(rng, 1, 1.6), radius * np.sin(t) * 0.7], axis=1)
    colour = jitter(rng, [(228, 226, 222), (196, 200, 208), (206, 190, 166), (150, 156, 170)][rng.integers(4)], 8)
    patch = _solid(points, colour, light, size * 0.5)
    folds = fbm(rng, *patch.alpha.shape, max(size / 2, 3), 3)
    patch.rgb *= (1 - 0.3 * np.abs(folds % 1 - 0.5))[..., None]
    return patch


def bottle(rng: Rng, size: float, light: float) -> Patch:
    """A bottle, upright or lying, with a label."""
    heights = np.array([0, 0.1, 1.3, 1.6, 1.8, 2.3])
    widths = np.array([0.7, 0.78, 0.78, 0.6, 0.28, 0.26]) * size * 0.8
    points = ribbon(np.stack([np.zeros(6), -heights * size], axis=1), widths, 4)
    if rng.random() < 0.5:
        points = turn(points, between(rng, 70, 110))
    colour = jitter(rng, [(60, 110, 70), (120, 80, 44), (150, 190, 210), (200, 60, 54)][rng.integers(4)], 12)
    patch = _solid(points, colour, light, size * 0.4)
    h, w = patch.alpha.shape
    band = slice(int(h * 0.45), int(h * 0.75)) if h > w else slice(0, h)
    across = slice(0, w) if h > w else slice(int(w * 0.3), int(w * 0.6))
    blend(
        patch.rgb[band, across],
        jitter(rng, (220, 215, 200), 20),
        np.full(patch.alpha[band, across].shape, 0.75, np.float32),
    )
    return patch


def can(rng: Rng, size: float, light: float) -> Patch:
    """A tin can or a ball."""
    colour = jitter(rng, [(190, 50, 46), (50, 90, 160), (190, 192, 196), (220, 170, 50)][rng.integers(4)], 12)
    if rng.random() < 0.4:
        return _solid(ellipse(0, 0, size * 0.7, size * 0.7), colour, light, size * 0.7)
    points = ribbon([(0, 0), (0, -0.7 * size), (0, -1.4 * size)], [0.8 * size] * 3, 4)
    patch = _solid(turn(points, between(rng, -100, 100) if rng.random() < 0.5 else 0), colour, light, size * 0.4)
    patch.rgb *= (1 + 0.12 * fbm(rng, *patch.alpha.shape, max(size / 3, 2), 2))[..., None]
    return patch


def leaf(rng: Rng, size: float, light: float) -> Patch:
    """A single fallen leaf."""
    points = turn(LEAF * (1, between(rng, 0.6, 1.1)), between(rng, 0, 360)) * size * 0.8
    colour = jitter(rng, [(170, 110, 50), (140, 90, 60), (190, 160, 70), (110, 120, 60)][rng.integers(4)], 15)
    return _solid(points, colour, light, size * 0.3)


DISTRACTORS = (stone, stone, rag, bottle, can, leaf, leaf)


def branch(rng: Rng, canvas: Canvas, y: float, thick: float, leaves: int) -> np.ndarray:
    """A bough across the picture at about `y`; its path [N, 2]."""
    xs = np.linspace(-40, canvas.width + 40, 7)
    path = np.stack([xs, y + np.cumsum(rng.normal(0, canvas.height * 0.018, 7))], axis=1)
    brown = jitter(rng, [(96, 76, 60), (120, 104, 90), (76, 64, 56)][rng.integers(3)], 8)
    widths = np.linspace(thick, thick * between(rng, 0.4, 0.8), 7)
    canvas.polygon(ribbon(path, widths), brown)
    canvas.polygon(ribbon(path - (0, thick * 0.25), widths * 0.3), brown * 1.3)
    canvas.polygon(ribbon(np.add(path, (0, thick * 0.3)), widths * 0.25), brown * 0.65)
    for _ in range(leaves):
        twig(rng, canvas, path[rng.integers(7)] + (between(rng, -30, 30), 0), thick, brown)
    return spline(path, closed=False)


def twig(rng: Rng, canvas: Canvas, start: np.ndarray, thick: float, brown: np.ndarray) -> None:
    """A side shoot with leaves."""
    angle, length = between(rng, -170, -10) * (1 if rng.random() < 0.6 else -1), between(rng, 3, 7) * thick
    end = start + turn([(length, 0)], angle)[0]
    canvas.polygon(ribbon([start, (start + end) / 2 + rng.normal(0, 4, 2), end], (thick * 0.3, thick * 0.2, 2)), brown)
    green = [(84, 120, 52), (110, 140, 60), (150, 130, 60)][rng.integers(3)]
    for t in np.linspace(0.3, 1, rng.integers(3, 7)):
        points = turn(np.add(LEAF, (1, 0)), angle + between(rng, -70, 70)) * between(rng, 0.4, 0.9) * thick
        canvas.polygon(start + (end - start) * t + points, jitter(rng, green, 14))


def blades(rng: Rng, canvas: Canvas) -> None:
    """Tall grass at the lower edge."""
    left = between(rng, -0.2, 0.7) * canvas.width
    span = between(rng, 0.25, 0.6) * canvas.width
    tall = between(rng, 0.1, 0.28) * canvas.height
    green = [(96, 130, 56), (140, 136, 80), (80, 112, 60)][rng.integers(3)]
    for _ in range(rng.integers(12, 40)):
        foot = np.array([left + between(rng, 0, span), canvas.height + 4.0])
        high = tall * between(rng, 0.4, 1.0)
        tip = np.add(foot, (rng.normal(0, 0.35) * high, -high))
        middle = (foot + tip) / 2 + (rng.normal(0, 0.08) * high, -0.1 * high)
        canvas.polygon(
            ribbon([foot, middle, tip], (between(rng, 3, 7), between(rng, 2, 5), 0.6), 4), jitter(rng, green, 16)
        )


def fence(rng: Rng, canvas: Canvas) -> None:
    """Bars, or two slanted sets of wires, in front of everything."""
    colour = jitter(rng, [(70, 72, 76), (150, 150, 150), (120, 96, 72), (60, 84, 64)][rng.integers(4)], 8)
    size = between(rng, 50, 130)
    wire = rng.random() < 0.4
    width = between(rng, 1.5, 3) if wire else between(rng, 4, 11)
    reach = canvas.width + canvas.height
    for k in np.arange(-canvas.height - between(rng, 0, size), reach, size):
        for lean in (1.0, -1.0) if wire else (0.0,):
            x = k if lean >= 0 else k + canvas.height
            line = np.array([(x, -10), (x + lean * (canvas.height + 20), canvas.height + 10)])
            across = np.array([width / 2, 0])
            points = np.array([line[0] - across, line[0] + across, line[1] + across, line[1] - across])
            canvas.polygon(points, colour)
            canvas.polygon(points if wire else points - across * 0.6, colour * 1.12, 0.3)  # the lit side
    if not wire and rng.random() < 0.7:
        y = between(rng, 0.15, 0.9) * canvas.height
        canvas.polygon(
            np.array([(-5, y), (canvas.width + 5, y), (canvas.width + 5, y + width), (-5, y + width)]), colour * 0.9
        )


def near_leaves(rng: Rng, canvas: Canvas) -> None:
    """A few big leaves hanging in from a corner, close to the lens."""
    corner = np.array([rng.choice([0.0, canvas.width]), rng.choice([0.0, canvas.height])])
    green = [(70, 104, 48), (110, 136, 64), (150, 96, 50)][rng.integers(3)]
    for _ in range(rng.integers(4, 10)):
        size = between(rng, 0.04, 0.1) * canvas.width
        at = corner + rng.normal(0, 0.13, 2) * (canvas.width, canvas.height)
        points = turn(spline(LEAF), between(rng, 0, 360)) * size
        colour = jitter(rng, green, 14)
        canvas.polygon(at + points, colour)
        vein = ribbon([at + points[0], at + points[len(points) // 2]], (1.5, 1.0), 3)
        canvas.polygon(vein, colour * 0.8)


def dapple(rng: Rng, canvas: Canvas) -> None:
    """The shade of trees out of the picture."""
    shade = smoothstep(fbm(rng, canvas.height, canvas.width, between(rng, 50, 140), 3), -0.2, 0.6)
    canvas.rgb *= (1 - between(rng, 0.2, 0.42) * shade)[..., None]
