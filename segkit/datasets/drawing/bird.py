"""Renders one bird to a patch: colour, coverage, and where its feet are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segkit._cv2 import cv2
from segkit.datasets.drawing.poses import AIR_POSES, Shape, shape
from segkit.datasets.drawing.raster import Rng, between, blend, ellipse, fbm, jitter, polygon_mask, smoothstep, turn


@dataclass
class Patch:
    """A picture with transparency. rgb float32 [h, w, 3], alpha float32 [h, w]; `foot` (x, y) stands on the ground."""

    rgb: np.ndarray
    alpha: np.ndarray
    foot: tuple[float, float]


@dataclass
class Plumage:
    """Colours of one bird, RGB, and its wing pattern."""

    body: np.ndarray
    wing: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    primaries: np.ndarray
    pattern: str = "plain"
    iridescent: float = 0.0
    collar: bool = False
    blush: float = 0.0
    patches: float = 0.0
    beak: tuple = (70, 64, 66)
    legs: tuple = (186, 84, 84)
    eye: tuple = (214, 120, 50)
    crow: bool = False


def plumage(rng: Rng) -> Plumage:
    """One of six kinds of doves, varied."""
    kind = rng.choice(["white", "bars", "checker", "brown", "collared", "pied"], p=[0.26, 0.2, 0.1, 0.18, 0.17, 0.09])
    near = lambda *colour: jitter(rng, colour, 7)  # noqa: E731
    if kind == "white":
        tint = near(226, 223, 216)
        return Plumage(tint, tint * 0.98, tint * 1.02, tint * 0.95, tint * 0.92, beak=(206, 160, 146), eye=(60, 40, 36))
    if kind == "brown":
        body, back = near(176, 146, 128), near(146, 118, 92)
        return Plumage(
            body, back, near(170, 146, 134), near(120, 100, 82), near(104, 92, 82), "speckled", 0.25, blush=0.5
        )
    if kind == "collared":
        body = near(200, 184, 168)
        return Plumage(
            body, near(184, 164, 142), body * 1.03, near(168, 152, 136), near(116, 106, 98), collar=True, blush=0.3
        )
    gray = near(148, 153, 164)
    wing = near(186, 190, 196) if kind == "bars" else near(140, 144, 154)
    pattern = "bars" if kind != "checker" else "checker"
    patches = between(rng, 0.3, 0.9) if kind == "pied" else 0.0
    return Plumage(
        gray, wing, near(122, 128, 144), gray * 0.88, gray * 0.74, pattern, between(rng, 0.6, 1.0), patches=patches
    )


def crow(rng: Rng) -> Plumage:
    """The dark bird that is not a dove."""
    black = jitter(rng, (38, 38, 44), 4)
    return Plumage(
        black,
        black * 0.9,
        black,
        black * 0.85,
        black * 0.8,
        beak=(24, 24, 26),
        legs=(30, 30, 32),
        eye=(14, 12, 12),
        crow=True,
    )


def draw_bird(rng: Rng, length: float, pose: str, feathers: Plumage, light: float) -> Patch:
    """A bird whose trunk is `length` pixels long. `light` -1..1: from the left or the right of the picture."""
    bird = shape(rng, pose, long_beak=feathers.crow)
    squeeze = between(rng, 0.78, 1.0)  # turned a little towards the viewer
    mirrored = rng.random() < 0.5
    canvas = _Painter(bird, length, squeeze)
    canvas.paint(rng, feathers, -light if mirrored else light)
    rgb, alpha, foot = canvas.rgb, np.clip(canvas.alpha, 0, 1), canvas.foot
    if mirrored:
        rgb, alpha = rgb[:, ::-1], alpha[:, ::-1]
        foot = (rgb.shape[1] - 1 - foot[0], foot[1])
    if pose in AIR_POSES:
        rgb, alpha = _turned(rgb, alpha, between(rng, -28, 28))
        foot = (rgb.shape[1] / 2, rgb.shape[0] / 2)
    return Patch(np.ascontiguousarray(rgb), np.ascontiguousarray(alpha), foot)


def _turned(rgb: np.ndarray, alpha: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    h, w = alpha.shape
    side = int(np.ceil(np.hypot(h, w)))
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1)
    matrix[:, 2] += ((side - w) / 2, (side - h) / 2)
    rgb = cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return rgb, cv2.warpAffine(alpha, matrix, (side, side), flags=cv2.INTER_LINEAR)


class _Painter:
    """Paints the parts of one bird, back to front."""

    def __init__(self, bird: Shape, length: float, squeeze: float):
        self.bird, self.scale, self.squeeze = bird, length, squeeze
        points = np.concatenate(bird.outlines())
        low = points.min(axis=0) - 0.06
        high = points.max(axis=0) + 0.06
        self.origin = np.array([-low[0] * length * squeeze, high[1] * length])
        height, width = (int(np.ceil(v)) for v in ((high[1] - low[1]) * length, (high[0] - low[0]) * length * squeeze))
        self.alpha = np.zeros((height, width), np.float32)
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.foot = (float(self.origin[0]), float(self.origin[1] - bird.foot * length))
        y, x = np.mgrid[:height, :width].astype(np.float32)
        x, y = (x - self.origin[0]) / (length * squeeze), (self.origin[1] - y) / length
        c, s = np.cos(np.deg2rad(bird.tilt)), np.sin(np.deg2rad(bird.tilt))
        self.u, self.v = x * c + y * s, y * c - x * s  # along and across the trunk
        self.x, self.y = x, y

    def pixels(self, points: np.ndarray) -> np.ndarray:
        return self.origin + np.asarray(points) * (self.scale * self.squeeze, -self.scale)

    def fill(self, points: np.ndarray, colour: np.ndarray | tuple, opacity: float = 1.0) -> None:
        """A part: a colour [3] or a picture of the patch's size."""
        found = polygon_mask(self.pixels(points), *self.alpha.shape)
        if found is None:
            return
        mask, box = found
        colour = np.asarray(colour, np.float32)
        # The first paint also fills the half-covered rim, or edges would darken towards black.
        self.rgb[box] = np.where(
            (self.alpha[box] < 0.02)[..., None], colour[box] if colour.ndim == 3 else colour, self.rgb[box]
        )
        blend(self.rgb[box], colour[box] if colour.ndim == 3 else colour, mask * opacity)
        self.alpha[box] = np.maximum(self.alpha[box], mask * opacity)

    def line(self, points: np.ndarray, colour: np.ndarray, width: float, opacity: float) -> None:
        """A thin line of `width` body lengths on top; it adds no coverage."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        fixed = np.round(self.pixels(points) * 16).astype(np.int32)
        cv2.polylines(mask, [fixed], False, 255, max(1, round(width * self.scale)), cv2.LINE_AA, 4)
        blend(self.rgb, colour, mask.astype(np.float32) * (opacity / 255) * (self.alpha > 0.5))

    def paint(self, rng: Rng, feathers: Plumage, light: float) -> None:
        bird = self.bird
        self.down = fbm(rng, *self.alpha.shape, max(self.scale * 0.16, 2), 3, stretch=1.6)
        if bird.far is not None:
            self.fill(bird.far, self._spread_wing(feathers) * 0.8)
        for leg in bird.legs:
            self.fill(leg, feathers.legs)
        tail = self._tone(feathers.tail, 0.05)
        band = smoothstep(-self.u, 0.78, 0.83) * (0.55 if feathers.pattern in ("bars", "checker") else 0.15)
        self.fill(bird.tail, tail * (1 - band)[..., None])
        self.fill(bird.trunk, self._trunk(feathers))
        self.fill(bird.neck, self._neck(feathers))
        self.fill(bird.head, self._tone(feathers.head, 0.04))
        self._shade(light)
        if bird.wing is not None:
            self._folded_wing(feathers, light)
        if bird.near is not None:
            self.fill(bird.near, self._spread_wing(feathers) * between(rng, 0.92, 1.05))
            for line in bird.feathers:
                self.line(line, feathers.primaries * 0.7, 0.008, 0.55)
        self._face(feathers)

    def _tone(self, colour: np.ndarray, strength: float) -> np.ndarray:
        return colour * (1 + strength * self.down)[..., None]

    def _trunk(self, feathers: Plumage) -> np.ndarray:
        rgb = self._tone(feathers.body, 0.06)
        breast = smoothstep(self.u, -0.1, 0.35)
        blend(rgb, np.float32([196, 150, 144]), breast * 0.5 * feathers.blush)
        if feathers.patches:
            blend(
                rgb, np.float32([226, 224, 220]), smoothstep(self.down, 0.6 - feathers.patches, 1.0 - feathers.patches)
            )
        return rgb

    def _neck(self, feathers: Plumage) -> np.ndarray:
        shoulder = turn([(0.24, 0.07)], self.bird.tilt)[0]
        reach = np.linalg.norm(self.bird.head_at - shoulder) + 1e-6
        near_head = 1 - np.hypot(self.x - self.bird.head_at[0], self.y - self.bird.head_at[1]) / (reach * 1.25)
        rgb = self._trunk(feathers)
        blend(rgb, feathers.head, smoothstep(near_head, 0.1, 0.7))
        sheen = smoothstep(near_head, 0.0, 0.3) * (1 - smoothstep(near_head, 0.45, 0.75)) * feathers.iridescent
        hue = smoothstep(self.down + 4 * near_head, 0.6, 2.4)[..., None]
        blend(rgb, np.float32([74, 132, 104]) * (1 - hue) + np.float32([134, 92, 138]) * hue, sheen * 0.8)
        if feathers.collar:
            ring = smoothstep(near_head, 0.28, 0.34) * (1 - smoothstep(near_head, 0.42, 0.48))
            blend(rgb, np.float32([58, 54, 54]), ring * (self.x < self.bird.head_at[0] + 0.02))
        return rgb

    def _pattern(self, rgb: np.ndarray, feathers: Plumage) -> np.ndarray:
        """Markings of the wing along `u` (forward) and `v` (up) of the trunk."""
        u, v = self.u + 0.25 * self.v, self.v
        if feathers.pattern == "bars":
            for at in (-0.2, -0.36):
                blend(rgb, feathers.primaries * 0.6, np.exp(-(((u - at) / 0.032) ** 2)) * smoothstep(0.12 - v, 0, 0.05))
        elif feathers.pattern == "checker":
            cells = np.sin(u * 42) * np.sin(v * 48 + u * 20)
            blend(rgb, feathers.primaries * 0.75, smoothstep(cells, 0.1, 0.4) * 0.85)
        elif feathers.pattern == "speckled":
            cells = np.sin(u * 34) * np.sin(v * 40 + 9 * u)
            blend(rgb, feathers.primaries * 0.45, smoothstep(cells, 0.45, 0.7) * 0.8)
        else:
            blend(rgb, feathers.primaries * 0.9, smoothstep(np.sin(u * 30 + v * 26), 0.5, 1.0) * 0.18)
        return rgb

    def _folded_wing(self, feathers: Plumage, light: float) -> None:
        rgb = self._pattern(self._tone(feathers.wing, 0.05), feathers)
        if feathers.patches:
            blend(
                rgb, np.float32([222, 220, 216]), smoothstep(-self.down, 0.9 - feathers.patches, 1.3 - feathers.patches)
            )
        blend(rgb, feathers.primaries, smoothstep(-self.u, 0.34, 0.55))
        rgb *= (1.04 - 0.5 * smoothstep(-self.v, 0.02, 0.2) + 0.18 * smoothstep(self.v, 0.0, 0.2))[..., None]
        rgb *= 1 + 0.06 * light
        under = turned_down(self.bird.wing, 0.025)
        self.line(under, feathers.body * 0.4, 0.03, 0.5)
        self.fill(self.bird.wing, rgb)
        for k in range(4):
            start, end = (-0.12 - 0.05 * k, -0.1 + 0.055 * k), (-0.74, -0.05 + 0.012 * k)
            self.line(turn([start, end], self.bird.tilt), feathers.primaries * 0.6, 0.008, 0.5)

    def _spread_wing(self, feathers: Plumage) -> np.ndarray:
        rgb = self._tone(feathers.wing, 0.06)
        far_out = smoothstep(np.abs(self.v), 0.35, 0.8)
        blend(rgb, feathers.primaries, far_out * 0.65)
        if feathers.pattern in ("bars", "checker"):
            blend(
                rgb,
                feathers.primaries * 0.65,
                np.exp(-(((self.u + 0.12) / 0.035) ** 2)) * smoothstep(0.55 - np.abs(self.v), 0, 0.1),
            )
        rgb *= (1 + 0.06 * np.sin(self.u * 55 + self.v * 12))[..., None]
        return rgb

    def _shade(self, light: float) -> None:
        """Trunk, neck and head look round."""
        self.rgb *= roundness(self.alpha, 0.26 * self.scale, light)[..., None]

    def _face(self, feathers: Plumage) -> None:
        bird = self.bird
        self.fill(bird.beak, feathers.beak)
        if not feathers.crow:
            self.fill(ellipse(*(bird.beak[0] + (0.008, -0.008)), 0.024, 0.018, bird.head_angle), (214, 206, 200))
        self.fill(ellipse(*bird.eye, 0.026, 0.026), feathers.eye)
        self.fill(ellipse(*bird.eye, 0.014, 0.014), (16, 12, 12))


def roundness(alpha: np.ndarray, radius: float, light: float) -> np.ndarray:
    """Brightness [h, w] of a body of that coverage: the distance to its outline, up to `radius` pixels, taken as a
    height and lit from above and from `light`'s side."""
    solid = (alpha > 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 3) / radius
    height = np.sqrt(1 - (1 - np.minimum(distance, 1)) ** 2)
    height = cv2.GaussianBlur(height, (0, 0), max(0.12 * radius, 0.5))
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) * (radius / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) * (radius / 8)
    lit = (0.62 - 0.55 * light * dx - 0.75 * dy) / np.sqrt(1 + dx * dx + dy * dy) + 0.3
    return np.clip(lit, 0.5, 1.18)


def turned_down(points: np.ndarray, drop: float) -> np.ndarray:
    """The lower edge of an outline moved down by `drop`: where its shadow falls."""
    return points[: len(points) * 5 // 8] - (0, drop)
