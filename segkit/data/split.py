"""Dividing a data set: seeded, rare classes in every part, what belongs together in one part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data import duplicates
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import logger

MUST = 100.0  # outweighs all shares
PARTS = ("train", "val", "test")


@dataclass
class Sample:
    """One photo with its label, as `assign` and `write_lists` need it."""

    image: str
    """Path relative to the data set's folder, with forward slashes."""
    label: str
    pixels: np.ndarray
    """int [256]: pixels of each label value."""
    size: tuple[int, int]
    """(height, width)."""
    look: Optional[duplicates.Look] = None
    part: Optional[str] = None
    """The part that it is in already."""
    bands: int = 3
    """What `img_channels` should be for this photo."""
    moments: Optional[np.ndarray] = None
    """float [2, bands]: mean and mean square of each band; None for ordinary photos of 8 bits and colours."""
    nodata: Optional[float] = None


@dataclass
class Shares:
    """How much of the photos each part gets; they need not add up to 1."""

    train: float
    val: float
    test: float

    def of_all(self) -> list[float]:
        """The three shares, adding up to 1. Errors: negative ones, or no train part."""
        shares = [self.train, self.val, self.test]
        if min(shares) < 0 or self.train <= 0 or not np.isfinite(shares).all():
            raise InputError(
                f"--train, --val, --test: got {self.train}, {self.val}, {self.test}, expected shares of 0 or more, and "
                "above 0 for train. Give 0.7, 0.15 and 0.15, say."
            )
        return [share / sum(shares) for share in shares]


def assign(
    samples: list[Sample],
    shares: Shares,
    seed: int = 0,
    stratify: bool = False,
    group_by: Optional[str] = None,
    folds: int = 0,
    together: bool = True,
) -> list[str]:
    """The part of each sample: train, val or test; with `folds` K, `0` to `K-1`.

    Samples of one group (near-identical photos; those whose names give the same match of the pattern `group_by`)
    stay together. Groups are dealt out one after another, each to the part that lacks most: of photos, and with
    `stratify` of the pixels of each class, rare classes weighing as much as common ones (after Sechidis et al., On the
    Stratification of Multi-Label Data, 2011). Groups that hold rare classes are dealt first. `together=False` lets
    near-identical photos part.
    Errors: a pattern that is none, or matches no name; fewer groups than parts.
    """
    names, wanted = (
        (list(PARTS), shares.of_all()) if not folds else ([str(k) for k in range(folds)], [1 / folds] * folds)
    )
    names, wanted = zip(*((name, share) for name, share in zip(names, wanted) if share > 0))
    members = _members(samples, group_by, together)
    if len(samples) == 1 and not folds:
        return ["train"]
    if len(members) < len(names):
        raise InputError(
            f"{'--folds' if folds else '--train, --val, --test'}: too many parts (got {len(names)}, expected at most "
            f"{len(members)}, one for each group of photos that belong together, such as near-identical ones). Ask for "
            "fewer parts, or for other groups."
        )
    demand = _demand(samples, members, stratify)
    lacking = np.ones((len(names), demand.shape[1]))  # of each part's own share, what it still lacks
    rng = np.random.default_rng(seed)
    order = _order(demand, rng)
    result = [""] * len(samples)
    room = np.maximum(np.round(np.array(wanted) * len(samples)), 1)  # photos that each part may still take
    left = (demand[:, 1:] > 0).sum(axis=0)  # groups that hold each class and are not yet dealt
    has = np.zeros((len(names), len(left)), bool)
    empty = np.ones(len(names), bool)
    for done, row in enumerate(order):
        choice = empty if len(order) - done <= empty.sum() else room > 0 if (room > 0).any() else np.ones_like(empty)
        held = demand[row, 1:] > 0
        urgent = held & (left <= (~has).sum(axis=0))  # too few groups are left to be generous with the class
        bonus = (~has[:, urgent]).sum(axis=1) * (MUST - np.arange(len(names)))
        gain = np.where(choice, lacking @ demand[row] + bonus, -np.inf)
        best = int(np.lexsort((rng.random(len(names)), -gain))[0])
        lacking[best] -= demand[row] / wanted[best]
        left -= held
        has[best] |= held
        empty[best] = False
        room[best] -= len(members[row])
        for index in members[row]:
            result[index] = names[best]
    return result


def divide(samples: list[Sample], val: float, test: float, seed: int) -> list[str]:
    """The parts that `convert` and `init` draw: stratified; where all photos are near-identical, nevertheless divided,
    with a warning."""
    shares = Shares(1 - val - test, val, test)
    parts = sum(share > 0 for share in shares.of_all())
    if len(samples) >= parts > len(_members(samples, None, together=True)):
        logger.warning(
            "too few of the %d photos differ: near-identical photos are in two parts, so that scores look better than "
            "they are. Add photos of other scenes.",
            len(samples),
        )
        return assign(samples, shares, seed, stratify=True, together=False)
    return assign(samples, shares, seed, stratify=True)


def _order(demand: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Groups with a large share of anything first, so that the many small ones can even things out; the seed decides
    among those of about the same share."""
    most = demand.max(axis=1)
    steps = np.round(np.log2(most / most.max()))
    return sorted(rng.permutation(len(demand)).tolist(), key=lambda row: -steps[row])


def _demand(samples: list[Sample], members: list[list[int]], stratify: bool) -> np.ndarray:
    """[groups, 1 + classes]: each group's share of all photos, and of the pixels of each class that occurs."""
    photos = np.array([len(rows) for rows in members], float)[:, None] / len(samples)
    if not stratify:
        return photos
    pixels = np.stack([np.sum([samples[index].pixels[:255] for index in rows], axis=0) for rows in members])
    present = pixels.sum(axis=0) > 0
    shares = pixels[:, present] / pixels[:, present].sum(axis=0)
    return np.concatenate([photos, shares], axis=1)


def _members(samples: list[Sample], group_by: Optional[str], together: bool) -> list[list[int]]:
    """Positions of the samples of each group."""
    seen = [index for index, sample in enumerate(samples) if together and sample.look is not None]
    pairs = [(seen[a], seen[b]) for a, b in duplicates.near_pairs([samples[index].look for index in seen])]
    if group_by is not None:
        try:
            pattern = re.compile(group_by)
        except re.error as error:
            raise InputError(f"--group_by: not a regular expression (got {group_by!r}: {error}). Mend it.") from None
        first: dict[str, int] = {}
        for index, sample in enumerate(samples):
            found = pattern.search(sample.image)
            if found:
                key = "\0".join(found.groups(default="")) or found.group()
                pairs.append((first.setdefault(key, index), index))
        if not first:
            raise InputError(
                f"--group_by: {group_by!r} matches no photo (such as {samples[0].image}). Mend the pattern; what its "
                "brackets match names the group, as in '(video\\d+)_'."
            )
    rows: dict[int, list[int]] = {}
    for index, group in enumerate(duplicates.groups(len(samples), pairs)):
        rows.setdefault(group, []).append(index)
    return list(rows.values())


def write_lists(folder: Path, samples: list[Sample], parts: list[str]) -> dict[str, int]:
    """train.txt, val.txt and, where it has photos, test.txt; the number of lines of each.

    A single photo stands in train.txt and val.txt both, so that training can begin.
    """
    tab = any(" " in text for sample in samples for text in (sample.image, sample.label))
    counts = {}
    for part in PARTS:
        rows = [sample for sample, own in zip(samples, parts) if own == part]
        if part == "val" and not rows:
            rows = samples if len(samples) == 1 else []
        if rows:
            text = "".join(f"{row.image}{chr(9) if tab else ' '}{row.label}\n" for row in rows)
            write_bytes_atomic(folder / f"{part}.txt", text.encode("utf-8"))
            counts[part] = len(rows)
    return counts
