"""From a network's scores back to the original photo: one way for evaluate, predict and infer.

The steps that the transforms recorded in `geometry` are undone last first: resizes by half-pixel bilinear (what
`F.interpolate(align_corners=False)` computes) or nearest, padding cropped, flips flipped; what a crop cut off is
unknown.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError

ScoresAre = Literal["logits", "probabilities", "distances"]
"""What a network's scores [C, h, w] are; probabilities are made of them at the photo's own size.

logits: any number; a softmax over the classes (a sigmoid with one channel or several labels a pixel) makes
probabilities. probabilities: not below 0; their shares of the sum over the classes (themselves, at most 1, with one
channel or several labels). distances: one channel, not below 0, foreground above 1; d stands for d / (1 + d).
"""

_TINY = np.finfo(np.float32).tiny
UNKNOWN = 255  # pixels outside a crop and pixels below a threshold, in class maps


def undo(array: np.ndarray, geometry: list[dict], interp: Literal["linear", "nearest"] = "linear") -> np.ndarray:
    """[C, H, W] at network size -> [C, H0, W0] at the size of the photo. Outside a crop: 0."""
    planes = [_undo_plane(plane, geometry, interp, 0) for plane in array]
    return array if planes[0] is array[0] else np.stack(planes)


def is_resized(geometry: list[dict]) -> bool:
    """Whether the network saw the photo at another size, padding and cropping apart."""
    return any(step["op"] == "resize" and step["from"] != step["to"] for step in geometry)


def label_map(mask: np.ndarray, geometry: list[dict]) -> np.ndarray:
    """Class numbers [H, W] -> [H0, W0] of uint8 (int32 above 255) by nearest neighbour. Outside a crop: 255."""
    small = mask.dtype == np.uint8 or (mask.min() >= 0 and mask.max() <= 255)
    return np.ascontiguousarray(_undo_plane(mask.astype(np.uint8 if small else np.int32), geometry, "nearest", UNKNOWN))


def class_map(
    scores: np.ndarray,
    geometry: list[dict],
    threshold: float | None = None,
    multilabel: bool = False,
    scores_are: ScoresAre = "logits",
) -> np.ndarray:
    """Scores [C, H, W] at network size -> classes of the photo, [H0, W0] of uint8 (int32 from 256 classes on).

    C == 1: 1 where the foreground's probability is above `threshold` (0.5). C > 1: the class of the highest score, and
    255 where its probability is below `threshold`. multilabel: uint8 [C, H0, W0], 1 where the class's own probability
    is above `threshold` (0.5). Outside a crop: 255. Classes are decided at the photo's size, plane by plane: memory is
    a few planes however many classes there are.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold: not a probability (got {threshold}, expected 0 to 1). Give a number like 0.5.")
    scores = scores.astype(np.float32, copy=False)
    if multilabel or len(scores) == 1:
        cut = score_of(0.5 if threshold is None else threshold, scores_are)
        planes = [(_undo_plane(plane, geometry, "linear", 0) > cut).view(np.uint8) for plane in scores]
        out = np.stack(planes) if multilabel else planes[0]
    else:
        best, out = _arg_max(scores, geometry)
        if threshold is not None:
            best = 1 / _sum_exp(scores, geometry, best) if scores_are == "logits" else best / _sum(scores, geometry)
            out[best < threshold] = UNKNOWN
    outside = _outside(geometry)
    if outside is not None:
        out[..., outside] = UNKNOWN
    return out


def probabilities(
    scores: np.ndarray,
    geometry: list[dict],
    multilabel: bool = False,
    scores_are: ScoresAre = "logits",
) -> np.ndarray:
    """Scores [C, H, W] at network size -> float32 probabilities [C, H0, W0] of the photo, 0 outside a crop.

    Of several classes they add up to 1; multilabel: of each class by itself; C == 1: [2, H0, W0], background and
    foreground.
    """
    out = np.stack([_undo_plane(plane, geometry, "linear", 0) for plane in scores.astype(np.float32, copy=False)])
    if len(scores) == 1 or multilabel:
        out = _each(out, scores_are)
        if not multilabel:
            out = np.concatenate([1 - out, out])
    elif scores_are == "logits":
        out -= out.max(axis=0)
        np.exp(out, out=out)
        out /= out.sum(axis=0)
    else:
        out /= np.maximum(out.sum(axis=0), _TINY)
    outside = _outside(geometry)
    if outside is not None:
        out[:, outside] = 0
    return out


def _undo_plane(plane: np.ndarray, geometry: list[dict], interp: str, fill: float) -> np.ndarray:
    """One [H, W] plane through all steps backwards; a view of it where nothing is resized."""
    for step in reversed(geometry):
        op = step["op"]
        if op == "warp":
            raise InputError(
                "transforms: random warps (RandomRotation, RandomAffine, Albumentations) cannot be undone on a "
                "prediction. Take them out of val_dataset.transforms."
            )
        height, width = step["from"]
        expected = tuple(step.get("to", step["from"]))
        if plane.shape != expected:
            raise ValueError(f"scores of size {plane.shape} do not fit the geometry step {step}")
        if op == "resize":
            plane = _resize(plane, height, width, interp)
        elif op == "pad":
            plane = plane[step["top"] : step["top"] + height, step["left"] : step["left"] + width]
        elif op == "crop":
            whole = np.full((height, width), fill, plane.dtype)
            whole[step["top"] : step["top"] + expected[0], step["left"] : step["left"] + expected[1]] = plane
            plane = whole
        elif op == "flip":
            plane = plane[::-1] if step["axis"] == 0 else plane[:, ::-1]
        else:
            raise ValueError(f"unknown geometry step {step}")
    return plane


def _resize(plane: np.ndarray, height: int, width: int, interp: str) -> np.ndarray:
    if plane.shape == (height, width):
        return plane
    if interp == "linear":
        return cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = (
        # as F.interpolate counts, in float32; OpenCV's nearest picks another pixel at some exact borders
        (np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.int64)
        for old, new in zip(plane.shape, (height, width))
    )
    return plane[rows[:, None], columns]


def _arg_max(scores: np.ndarray, geometry: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(highest score, its class; of equal ones the first) at the photo's size, one plane at a time."""
    best = np.array(_undo_plane(scores[0], geometry, "linear", 0))
    kind = np.uint8 if len(scores) < 256 else np.int32
    index = np.zeros(best.shape, kind)
    for number in range(1, len(scores)):
        plane = _undo_plane(scores[number], geometry, "linear", 0)
        better = plane > best
        # numbers rise, so the larger of the old class and (better x number) is the new class: no masked copies
        np.maximum(index, better.view(np.uint8) * kind(number), out=index)
        np.maximum(best, plane, out=best)
    return best, index


def _sum_exp(scores: np.ndarray, geometry: list[dict], best: np.ndarray) -> np.ndarray:
    """Sum of exp(score - best) over the classes, one plane at a time: the softmax of the best class is 1 over it."""
    total = np.zeros_like(best)
    for plane in scores:
        total += cv2.exp(_undo_plane(plane, geometry, "linear", 0) - best)
    return total


def _outside(geometry: list[dict]) -> np.ndarray | None:
    """bool [H0, W0]: pixels that a crop cut off; None where nothing was cropped."""
    if not any(step["op"] == "crop" for step in geometry):
        return None
    seen = np.zeros(tuple(geometry[-1].get("to", geometry[-1]["from"])), np.uint8)
    return _undo_plane(seen, geometry, "nearest", UNKNOWN) == UNKNOWN


def _sum(scores: np.ndarray, geometry: list[dict]) -> np.ndarray:
    """Sum over the classes at the photo's size, one plane at a time; above 0."""
    total = np.array(_undo_plane(scores[0], geometry, "linear", 0))
    for plane in scores[1:]:
        total += _undo_plane(plane, geometry, "linear", 0)
    return np.maximum(total, _TINY)


def _each(scores: np.ndarray, scores_are: ScoresAre) -> np.ndarray:
    """The probability of each score by itself."""
    if scores_are == "logits":
        return 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    return scores / (1 + scores) if scores_are == "distances" else np.minimum(scores, 1)


def score_of(probability: float, scores_are: ScoresAre = "logits") -> float:
    """The score, by itself, that stands for this probability."""
    if scores_are == "probabilities":
        return probability
    odds = probability / (1 - probability) if probability < 1 else math.inf
    if scores_are == "distances":
        return odds
    return math.log(odds) if odds > 0 else -math.inf
