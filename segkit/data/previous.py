"""What stands in the way is moved aside, never overwritten."""

from __future__ import annotations

from pathlib import Path


def free_name(path: Path) -> Path:
    """The first of `path`_1, `path`_2, ... that is not there yet."""
    number = 1
    while (kept := path.with_name(f"{path.name}_{number}")).exists():
        number += 1
    return kept
