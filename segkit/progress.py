"""A progress bar on the main rank's terminal, and nothing in files and CI."""

from __future__ import annotations

import sys
from typing import Any, Optional

from segkit.log import talks
from segkit.terminal import is_terminal


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self) -> None:
        """One more is done."""


def progress(total: Optional[int], title: str) -> Any:
    """A context with `update()`: a tqdm bar where somebody watches, unless `--quiet`, or without tqdm. `total`: None
    where nobody knows."""
    if not (talks() and is_terminal(sys.stderr)):
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError:  # a machine that only runs exported models may lack it
        return _NoBar()
    return tqdm(total=total, desc=title, dynamic_ncols=True, leave=False)
