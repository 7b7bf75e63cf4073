"""One picture: a scene, its birds and things, and the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from segkit._cv2 import cv2
from segkit.datasets.drawing import grounds, props
from segkit.datasets.drawing.bird import Patch, crow, draw_bird, plumage
from segkit.datasets.drawing.canvas import Canvas
from segkit.datasets.drawing.poses import AIR_POSES, GROUND_POSES
from segkit.datasets.drawing.raster import Rng, between, blend, fbm, jitter, smoothstep

SIZES = ((640, 480), (600, 450), (640, 427), (500, 375), (700, 467), (480, 640), (450, 600), (427, 640), (512, 512))
FLOORS = (grounds.pavement, grounds.gravel, grounds.grass, grounds.litter, grounds.planks, grounds.roof)
WALLS = (grounds.foliage, grounds.brick, grounds.plaster, grounds.planks, grounds.water)
MOST_TRIES = 8
LEAST_SHARE = 0.05  # of the picture that must be dove


@dataclass
class Scene:
    """A background and where birds can be."""

    canvas: Canvas
    kind: str  # floor, horizon, perch or air
    top: float  # birds on the ground have their feet below this y
    line: np.ndarray | None = None  # a perch: points [N, 2]


@dataclass
class Light:
    """From where it comes and what shadows it makes."""

    side: float
    lean: tuple[float, float]
    dark: float
    soft: float


def draw_photo(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `index` of the set `seed`: RGB uint8 [h, w, 3] and its label uint8 [h, w], 1 where a dove is seen."""
    for attempt in range(MOST_TRIES):
        rng = np.random.default_rng([seed, index, attempt])
        canvas = _compose(rng)
        label = (canvas.cover > 0.5).astype(np.uint8)
        if label.mean() >= LEAST_SHARE:
            break
    return _camera(rng, canvas.rgb), label


def _compose(rng: Rng) -> Canvas:
    width, height = SIZES[rng.integers(len(SIZES))]
    scene = _scene(rng, height, width)
    side = between(rng, -1, 1)
    sunny = rng.random() < 0.6
    light = Light(
        side,
        (-side * between(rng, 0.4, 1.1), between(rng, 0.12, 0.4) * (1 if rng.random() < 0.7 else -1)),
        between(rng, 0.4, 0.62) if sunny else 0.0,
        between(rng, 0.01, 0.03),
    )
    if sunny and scene.kind in ("floor", "horizon") and rng.random() < 0.25:
        props.dapple(rng, scene.canvas)
    for draw in sorted(_things(rng, scene, light), key=lambda thing: thing[0]):
        draw[1]()
    _occlude(rng, scene)
    return scene.canvas


def _scene(rng: Rng, height: int, width: int) -> Scene:
    kind = str(rng.choice(["floor", "horizon", "perch", "air"], p=[0.4, 0.24, 0.18, 0.18]))
    pick = lambda choices: choices[rng.integers(len(choices))](rng, height, width)  # noqa: E731
    if kind == "floor":
        return Scene(Canvas(grounds.soften(rng, pick(FLOORS))), kind, 0.3 * height)
    if kind == "horizon":
        rgb = grounds.sky(rng, height, width) if rng.random() < 0.25 else grounds.bokeh(rng, pick(WALLS))
        top = between(rng, 0.25, 0.55) * height
        y = np.arange(height, dtype=np.float32)[:, None] - top
        waves = 4 * fbm(rng, 1, width, 60, 3) if rng.random() < 0.5 else np.zeros((1, width), np.float32)
        blend(rgb, grounds.soften(rng, pick(FLOORS[:5])), smoothstep(y + waves, -1.5, 1.5))
        return Scene(Canvas(rgb), kind, top + 0.04 * height)
    if kind == "perch":
        far = grounds.sky(rng, height, width) if rng.random() < 0.4 else grounds.bokeh(rng, pick(WALLS))
        canvas = Canvas(far)
        return Scene(canvas, kind, height, _perch(rng, canvas))
    rgb = grounds.sky(rng, height, width) if rng.random() < 0.5 else grounds.bokeh(rng, pick(WALLS))
    if rng.random() < 0.3:
        y = np.arange(height, dtype=np.float32)[:, None] - between(rng, 0.6, 0.9) * height
        edge = y + 14 * fbm(rng, 1, width, 90, 4)
        blend(rgb, pick((grounds.foliage, grounds.roof, grounds.water)), smoothstep(edge, -1, 1))
    return Scene(Canvas(rgb), kind, height)


def _perch(rng: Rng, canvas: Canvas) -> np.ndarray:
    """A bough, a wire, or a ledge; the line that birds stand on."""
    y = between(rng, 0.5, 0.82) * canvas.height
    kind = rng.integers(3)
    if kind == 0:
        thick = between(rng, 10, 24)
        path = props.branch(rng, canvas, y, thick, rng.integers(2, 7))
        return path - (0, thick * 0.3)
    xs = np.linspace(-10, canvas.width + 10, 30)
    if kind == 1:
        slope, sag = between(rng, -0.06, 0.06), between(rng, 0, 25)
        path = np.stack([xs, y + slope * (xs - canvas.width / 2) + sag * np.sin(np.pi * xs / canvas.width)], axis=1)
        canvas.polygon(props.ribbon(path, [between(rng, 2.5, 5)] * 2, 2), jitter(rng, (50, 50, 54), 8))
        return path
    ledge = (grounds.planks, grounds.brick, grounds.plaster)[rng.integers(3)](rng, canvas.height, canvas.width)
    rows = np.arange(canvas.height, dtype=np.float32)[:, None] - y + np.zeros((1, canvas.width), np.float32)
    blend(canvas.rgb, ledge * 0.85, smoothstep(rows, -1, 1))
    blend(canvas.rgb, jitter(rng, (196, 190, 180), 14), smoothstep(rows, -1, 1) * (1 - smoothstep(rows, 14, 16)))
    return np.stack([xs, np.full(30, y + 5)], axis=1)


def _things(rng: Rng, scene: Scene, light: Light) -> list[tuple[float, Callable[[], None]]]:
    """Birds and distractors with the y that orders them, far to near."""
    canvas = scene.canvas
    doves = int(rng.choice([1, 2, 3, 4], p=[0.16, 0.3, 0.3, 0.24]))
    crows = int(rng.random() < 0.1)
    base = between(rng, *[(0.3, 0.38), (0.38, 0.5), (0.46, 0.64)][rng.integers(3)]) * min(canvas.height, canvas.width)
    if doves == 1 or scene.kind == "air":
        base = max(base, 0.3 * min(canvas.height, canvas.width))
    things, last = [], None
    order = rng.permutation([True] * doves + [False] * crows)
    for is_dove in order:
        x = between(rng, 0.06, 0.94) * canvas.width
        if last is not None and rng.random() < 0.4:
            x = last + between(rng, 0.5, 1.2) * base * rng.choice([-1, 1])
        x = last = float(np.clip(x, 0.04 * canvas.width, 0.96 * canvas.width))
        things.append(_bird(rng, scene, light, (x, base), bool(is_dove)))
    if scene.kind in ("floor", "horizon"):
        for _ in range(rng.integers(0, 3)):
            make = props.DISTRACTORS[rng.integers(len(props.DISTRACTORS))]
            y = between(rng, scene.top, canvas.height)
            size = base * between(rng, 0.1, 0.32) * (0.4 + y / canvas.height)
            patch = make(rng, max(size, 4), light.side)
            things.append((y, _placer(canvas, patch, (between(rng, 0, canvas.width), y), False, light)))
    return things


def _bird(rng: Rng, scene: Scene, light: Light, at: tuple[float, float], is_dove: bool) -> tuple[float, Callable]:
    """One bird near x = at[0], of about at[1] pixels: its order, and what draws it."""
    canvas, (x, base) = scene.canvas, at
    feathers = plumage(rng) if is_dove else crow(rng)
    size = base * between(rng, 0.8, 1.2)
    flying = scene.kind == "air" or rng.random() < 0.1
    if flying:
        pose = AIR_POSES[rng.integers(len(AIR_POSES))]
        y = between(rng, 0.18, 0.85 if scene.kind == "air" else 0.4) * canvas.height
        patch = draw_bird(rng, size * 0.85, pose, feathers, light.side)
        return y - canvas.height, _placer(canvas, patch, (x, y), is_dove, None)
    if scene.kind == "perch":
        y = float(np.interp(x, scene.line[:, 0], scene.line[:, 1]))
        pose = ("standing", "alert", "resting")[rng.integers(3)]
        patch = draw_bird(rng, size, pose, feathers, light.side)
        return y, _placer(canvas, patch, (x, y + 2), is_dove, None)
    y = between(rng, scene.top + 0.06 * canvas.height, 0.97 * canvas.height)
    size *= 0.6 + 0.6 * y / canvas.height
    pose = GROUND_POSES[rng.integers(len(GROUND_POSES))]
    patch = draw_bird(rng, size, pose, feathers, light.side)
    return y, _placer(canvas, patch, (x, y), is_dove, light)


def _placer(
    canvas: Canvas, patch: Patch, at: tuple[float, float], dove: bool, light: Light | None
) -> Callable[[], None]:
    """Draws `patch` at `at`, with its shadow where it stands on the ground."""

    def draw() -> None:
        wide = patch.alpha.shape[1]
        if light is not None:
            canvas.darken(at[0], at[1], wide * 0.3, max(wide * 0.07, 2), 0.5)
            if light.dark:
                canvas.cast(patch, at, light.lean, light.dark, light.soft * wide)
        canvas.place(patch, *at, dove)

    return draw


def _occlude(rng: Rng, scene: Scene) -> None:
    """What stands between the birds and the camera, in one picture of four."""
    canvas = scene.canvas
    if rng.random() > 0.25:
        return
    if scene.kind in ("floor", "horizon"):
        choice = rng.integers(4)
        if choice < 2:
            props.blades(rng, canvas)
        elif choice == 2:
            props.near_leaves(rng, canvas)
        else:
            props.fence(rng, canvas)
    elif rng.random() < 0.6:
        props.branch(rng, canvas, between(rng, 0.1, 0.95) * canvas.height, between(rng, 6, 14), rng.integers(2, 6))
    else:
        props.near_leaves(rng, canvas)


def _camera(rng: Rng, rgb: np.ndarray) -> np.ndarray:
    """Exposure, colour cast, contrast, vignette, blur, noise and JPEG blocks; uint8 [h, w, 3]."""
    height, width = rgb.shape[:2]
    level = rgb.mean() / 255
    gain = float(np.clip(between(rng, 0.4, 0.52) / level, 0.75, 1.25))
    cast = np.float32([1 + rng.normal(0, 0.03), 1, 1 + rng.normal(0, 0.04)])
    rgb = np.clip(rgb * gain * cast / 255, 0, 1.3)
    rgb = np.clip(rgb, 0, None) ** np.float32(between(rng, 0.85, 1.2))
    rgb = (rgb - 0.45) * np.float32(between(rng, 0.88, 1.12)) + 0.45
    if rng.random() < 0.5:
        y, x = np.ogrid[:height, :width]
        radius = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2).astype(np.float32)
        rgb *= (1 - between(rng, 0.1, 0.6) * radius)[..., None]
    blur = between(rng, 0, 1.3)
    if blur > 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), blur)
    grain = between(rng, 0.0, 0.03)
    rgb = rgb + rng.standard_normal((height, width, 1), dtype=np.float32) * grain
    picture = np.clip(rgb * 255, 0, 255).astype(np.uint8)
    quality = int(rng.integers(50, 96))
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
