"""Which photos show (nearly) the same: a perceptual hash finds candidates, their thumbnails decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segkit._cv2 import cv2

SIDE = 32
BITS = 64
BANDS = 8  # two hashes of at most 7 different bits agree in one of 8 bands
FAR = 7
ALIKE = 0.993


@dataclass(frozen=True)
class Look:
    """What a photo looks like: a 64-bit hash and a small gray copy of mean 0 and length 1, float32 [1024]."""

    hash: int
    thumbnail: np.ndarray


def look(image: np.ndarray) -> Look:
    """The look of an image, [H, W, C] of any number type.

    The hash are the signs, about their median, of the 64 lowest frequencies of the discrete cosine transform of the
    32x32 gray copy (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    gray = image if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    height, width = gray.shape
    step = max(1, min(height, width) // (SIDE * 8))  # averaging over 8 by 8 is enough, and quick on big photos
    small = cv2.resize(gray[::step, ::step].astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    thumbnail = (small - small.mean()).ravel()
    return Look(
        int.from_bytes(np.packbits(bits).tobytes(), "big"), thumbnail / max(float(np.linalg.norm(thumbnail)), 1e-6)
    )


def near(first: Look, second: Look) -> bool:
    """Whether two photos show nearly the same: hashes within 7 bits and thumbnails correlated above 0.993.

    Flat pictures (no contrast at all) are near nothing.
    """
    if bin(first.hash ^ second.hash).count("1") > FAR:
        return False
    return float(first.thumbnail @ second.thumbnail) > ALIKE


def near_pairs(looks: list[Look]) -> list[tuple[int, int]]:
    """Positions (smaller, larger) of all pairs that `near` holds for, sorted."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(looks):
        for band in range(BANDS):
            buckets.setdefault((band, item.hash >> (8 * band) & 255), []).append(index)
    found: set[tuple[int, int]] = set()
    for members in buckets.values():
        if len(members) < 2:
            continue
        thumbnails = np.stack([looks[index].thumbnail for index in members])
        for row in range(len(members) - 1):
            alike = np.flatnonzero(thumbnails[row + 1 :] @ thumbnails[row] > ALIKE)
            found.update(
                (members[row], members[row + 1 + other])
                for other in alike.tolist()
                if near(looks[members[row]], looks[members[row + 1 + other]])
            )
    return sorted(found)


def groups(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """A group number for each of `count` items, equal for items that a chain of `pairs` connects."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(item) for item in range(count)]
