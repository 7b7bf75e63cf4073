"""A quick sample of `python -m tests.chaos --kills 100`, and what else may befall a run: no room, no worker."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and kills as Linux does")


def test_killed_runs_end_as_if_never_stopped(tmp_path: Path) -> None:
    from tests.chaos.runs import Bench, trial

    bench, rng = Bench(tmp_path), np.random.default_rng(0)
    for number in range(4):
        made = trial(bench, rng, number)
        assert not made.problems, str(made)
