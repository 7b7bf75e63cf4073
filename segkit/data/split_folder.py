"""`segkit data split`: the list files of a data set, written anew."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit.data.previous import free_name
from segkit.data.samples import load_samples
from segkit.data.split import PARTS, Sample, Shares, assign, write_lists
from segkit.errors import InputError, counted


def split_folder(
    folder: str,
    shares: tuple[float, float, float],
    seed: int = 0,
    stratify: bool = False,
    group_by: Optional[str] = None,
    folds: int = 0,
) -> dict[str, Any]:
    """Write train.txt, val.txt and test.txt, or folds/0/, folds/1/, ... with train.txt and val.txt each.

    Lists that were there are moved to previous_lists_N/. Gives the number of photos and the pixels of each class a
    part, and `said`, lines to print.
    Errors: `folder` is none or holds no photos; shares, folds or pattern that make no sense.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder. Mend the path.")
    if folds < 0 or folds == 1:
        raise InputError(f"--folds: got {folds}, expected 2 or more. Leave it out for train, val and test parts.")
    samples = load_samples(root)
    parts = assign(samples, Shares(*shares), seed, stratify, group_by, folds)
    said = keep_old(root, folds)
    if folds:
        for fold in range(folds):
            own = ["val" if part == str(fold) else "train" for part in parts]
            (root / "folds" / str(fold)).mkdir(parents=True, exist_ok=True)
            write_lists(root / "folds" / str(fold), samples, own)
        said.append(
            f"{root}: {folds} folds below folds/; train each with --opts train_dataset.train_path=folds/0/train.txt "
            "val_dataset.val_path=folds/0/val.txt"
        )
    else:
        write_lists(root, samples, parts)
    table = _table(samples, parts)
    said += [
        f"{root}: {part}: {counted(row['photos'], 'photo')}; pixels of each class: {row['pixels']}"
        for part, row in table.items()
    ]
    return {"parts": table, "said": said}


def keep_old(root: Path, folds: int) -> list[str]:
    """Moves lists that are there aside, and says so."""
    old = [root / "folds"] if folds else [root / f"{part}.txt" for part in PARTS]
    old = [path for path in old if path.exists()]
    if not old:
        return []
    kept = free_name(root / "previous_lists")
    kept.mkdir()
    for path in old:
        os.rename(path, kept / path.name)
    return [f"{root}: the lists that were there are now in {kept.name}/"]


def _table(samples: list[Sample], parts: list[str]) -> dict[str, dict[str, Any]]:
    """Photos and class pixels of each part."""
    counts = Counter(parts)
    top = max(int(np.flatnonzero(sample.pixels[:255]).max(initial=0)) for sample in samples) + 1
    return {
        part: {
            "photos": counts[part],
            "pixels": np.sum([s.pixels[:top] for s, own in zip(samples, parts) if own == part], axis=0).tolist(),
        }
        for part in sorted(counts, key=lambda part: (PARTS.index(part) if part in PARTS else 9, part))
    }
