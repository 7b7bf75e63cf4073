"""Bird outlines by pose, in body lengths: x forward, y up, the middle of the trunk at the origin."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segkit.datasets.drawing.raster import Rng, between, ellipse, ribbon, spline, turn

GROUND_POSES = ("standing", "walking", "pecking", "alert", "resting")
AIR_POSES = ("wings up", "wings down", "spread", "landing")
_TRUNK = [(0.4, -0.06), (0.24, -0.23), (-0.06, -0.27), (-0.34, -0.16), (-0.52, -0.03), (-0.4, 0.1), (-0.1, 0.2)]
_TRUNK += [(0.18, 0.24), (0.36, 0.14)]
_FOLDED = [(0.28, 0.1), (0.2, -0.07), (-0.04, -0.15), (-0.4, -0.11), (-0.82, -0.05), (-0.46, 0.07), (-0.1, 0.17)]
_FOLDED += [(0.14, 0.19)]


@dataclass
class Shape:
    """The outlines of one bird and what its colouring needs to know."""

    tilt: float
    trunk: np.ndarray
    tail: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    head_at: np.ndarray
    head_angle: float
    beak: np.ndarray
    eye: np.ndarray
    wing: np.ndarray | None = None  # folded, on the near side
    near: np.ndarray | None = None  # spread wings
    far: np.ndarray | None = None
    feathers: list[np.ndarray] = field(default_factory=list)
    legs: list[np.ndarray] = field(default_factory=list)
    foot: float = 0.0  # y of the ground

    def outlines(self) -> list[np.ndarray]:
        """Everything that is filled."""
        wings = [part for part in (self.wing, self.near, self.far) if part is not None]
        return [self.trunk, self.tail, self.neck, self.head, self.beak, *wings, *self.legs]


def shape(rng: Rng, pose: str, long_beak: bool = False) -> Shape:
    """A bird in `pose`, every measure varied a little."""
    ranges = {  # tilt of the trunk, direction of the neck, its length, angle of the head
        "standing": ((14, 38), (48, 82), (0.28, 0.38), (-12, 10)),
        "walking": ((2, 18), (28, 62), (0.28, 0.38), (-15, 8)),
        "pecking": ((-26, -10), (-58, -22), (0.34, 0.42), (-80, -45)),
        "alert": ((30, 48), (72, 96), (0.36, 0.46), (-6, 12)),
        "resting": ((0, 12), (38, 66), (0.2, 0.26), (-14, 4)),
    }
    air = ((-8, 26), (2, 30), (0.26, 0.34), (-14, 6))
    tilt, direction, length, head_angle = (between(rng, *pair) for pair in ranges.get(pose, air))
    if pose == "landing":
        tilt += 25
    plump = between(rng, 0.9, 1.1) * (1.14 if pose == "resting" else 1.0 if pose in ranges else 0.85)
    trunk = np.array(_TRUNK) * (1, plump) + rng.normal(0, 0.008, (len(_TRUNK), 2))
    shoulder = turn([(0.24, 0.07)], tilt)[0]
    reach = length * np.array([np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))])
    head_at = shoulder + reach
    bow = turn([reach * 0.5], 90)[0] * between(rng, -0.3, 0.3)
    neck = ribbon(
        [turn([(0.1, 0.02)], tilt)[0], shoulder, shoulder + reach / 2 + bow, head_at], (0.4, 0.38, 0.22, 0.17)
    )
    bill = 0.17 if long_beak else between(rng, 0.1, 0.13)
    thick = 0.036 if long_beak else 0.022
    beak = [(0.08, thick), (0.08 + bill * 0.7, thick * 0.6), (0.09 + bill, -0.018), (0.08, -0.03)]
    fan = between(rng, 0.2, 0.42) if pose in AIR_POSES else between(rng, 0.13, 0.2)
    droop = between(rng, -0.06, 0.04)
    tail = ribbon([(-0.3, 0.0), (-0.6, droop / 2), (-between(rng, 0.86, 1.0), droop)], (0.2, 0.15, fan))
    bird = Shape(
        tilt=tilt,
        trunk=turn(spline(trunk), tilt),
        tail=turn(tail, tilt),
        neck=neck,
        head=ellipse(*head_at, 0.118, 0.1, head_angle),
        head_at=head_at,
        head_angle=head_angle,
        beak=turn(beak, head_angle) + head_at,
        eye=turn([(0.045, 0.022)], head_angle)[0] + head_at,
    )
    if pose in AIR_POSES:
        _spread(rng, bird, pose)
    else:
        folded = np.array(_FOLDED) * (between(rng, 0.94, 1.06), plump)
        bird.wing = turn(spline(folded), tilt)
        _stand(rng, bird, pose)
    return bird


def _stand(rng: Rng, bird: Shape, pose: str) -> None:
    """Legs with toes, straight down to one ground line."""
    lowest = bird.trunk[:, 1].min()
    if pose == "resting":
        bird.foot = lowest + 0.03
        return
    bird.foot = min(lowest - between(rng, 0.1, 0.17), bird.beak[:, 1].min() - 0.01)
    stride = between(rng, 0.12, 0.3) if pose == "walking" else between(rng, 0.02, 0.1)
    hip = turn([(0.0, -0.16)], bird.tilt)[0]
    for side in (-1, 1):
        foot = np.array([hip[0] + side * stride / 2 + 0.03, bird.foot + (0.02 if side < 0 else 0)])
        bird.legs.append(
            ribbon([np.add(hip, (side * 0.03, 0)), (hip + foot) / 2 - (0.02, 0), foot], (0.09, 0.035, 0.03))
        )
        for toe in ((0.11, -0.012), (0.08, -0.035), (-0.06, -0.005)):
            bird.legs.append(ribbon([foot, foot + np.array(toe) * 0.6, foot + toe], (0.028, 0.024, 0.014), 2))


def _spread(rng: Rng, bird: Shape, pose: str) -> None:
    """The two wings of a flying bird."""
    if pose == "wings up":
        near = between(rng, 62, 120)
        far = near + between(rng, -30, -12)
    elif pose == "wings down":
        near = between(rng, -125, -60)
        far = near + between(rng, 14, 34)
    elif pose == "landing":
        near, far = between(rng, 95, 150), between(rng, 40, 75)
    else:
        near, far = between(rng, -125, -70), between(rng, 65, 118)
    length = between(rng, 0.8, 1.1)
    bird.near, bird.feathers = _open_wing(near, length, bird.tilt)
    bird.far, _ = _open_wing(far, length * between(rng, 0.85, 1.0), bird.tilt)


def _open_wing(angle: float, length: float, tilt: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """A spread wing whose span points to `angle` degrees of the trunk, and the lines between its feathers."""
    down = -1 if np.sin(np.deg2rad(angle)) < 0 else 1
    out = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    front, rear = np.array([0.24, 0.07 * down]), np.array([-0.26, 0.05 * down])
    wrist = front + out * length * 0.42 + (0.12, 0)
    tip = front + out * length - (0.18 * length, 0)
    leading = spline([front, wrist, wrist * 0.3 + tip * 0.7 + (0.05, 0), tip], closed=False, steps=6)
    ends, lines = [], []
    count = 9
    for i in range(count):
        t = i / (count - 1)
        base = tip * (1 - t) + rear * t
        bulge = np.array([-0.3, 0.0]) * np.sin(np.pi * min(t * 1.15, 1)) * length
        end = base + bulge
        ends += [end, end * 0.92 + (0.08 * (wrist + rear) / 2)] if i < count - 1 else [end]
        root = leading[-1] * (1 - t) + front * t
        lines.append(turn(np.array([end, end * 0.35 + root * 0.65]), tilt))
    return turn(np.concatenate([leading, np.array(ends)]), tilt), lines[:-1]
