"""Every mistake of the table has its exit code and message; random ones have some message, and end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad_input import world
from tests.bad_input.mutate import KINDS
from tests.bad_input.play import OPEN, expected, play
from tests.bad_input.table import ROWS

SAID = expected()
REMEDY = re.compile(
    r"\b(add|choose|check|convert|copy|correct|cut|delete|did you mean|enlarge|export|fill|free space|give|install|is '\w+'|"
    r"it takes|keep one|known|leave|look at|make|mend|pick|put|resume from|save|say|see|set|such as|take|turn the|use|write|"
    r"with one of|admit|commands:)\b",
    re.IGNORECASE,
)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return world.build(tmp_path_factory.mktemp("bad") / "world")


def test_the_table_and_what_is_expected_go_together() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 120
    assert set(names) == set(SAID), "run python -m tests.bad_input and read the difference"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_mistake_is_answered(row, template: Path, tmp_path: Path) -> None:
    if row.name.startswith("machine: no right") and not sys.platform.startswith("linux"):
        pytest.skip("names a place of Linux where nobody may write")
    if row.goes_on and not sys.platform.startswith("linux"):
        pytest.skip("warns of what Linux alone has")
    if "GPU" in row.name and paddle.is_compiled_with_cuda():
        pytest.skip("here there is a GPU, or Paddle's build for one")
    found, wanted = play(row, template, tmp_path / "w"), SAID[row.name]
    pattern = ".*".join(map(re.escape, wanted.split(OPEN)))
    assert re.fullmatch(pattern, found, re.DOTALL), f"expected:\n{wanted}\ngot:\n{found}"
    assert found.startswith("exit 0\n" if row.goes_on else "exit 2\n")


@pytest.fixture(scope="module")
def here(template: Path, tmp_path_factory) -> Path:
    return world.copy(template, tmp_path_factory.mktemp("random") / "world")


ALARMED = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="hangs are noticed by an alarm signal")


HANGS = """
import contextlib, time
from tests.bad_input.mutate import Hang, limited

for swallowed in (Exception, BaseException):
    begin = time.monotonic()
    try:
        with limited(1), contextlib.suppress(swallowed):
            time.sleep(5)
    except Hang as error:
        print(error, time.monotonic() - begin < 3)
"""


@ALARMED
def test_a_hang_is_noticed_whatever_swallows_it() -> None:
    """In a process of its own: signals have ended test processes that held all engines' libraries."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == 2 * ["took longer than 1 s True"], done.stderr


def test_every_message_says_what_to_do() -> None:
    """A second sentence, or names to choose from, after what is wrong."""
    lacking = [name for name, text in SAID.items() if not REMEDY.search(text)]
    assert not lacking


@ALARMED
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind, examples", [("configs", 25), ("deploys", 15), ("lists", 60), ("images", 110)])
def test_random_mistakes_are_answered(kind: str, examples: int, here: Path) -> None:
    """More of them: python -m tests.bad_input --configs 1000 --images 1000."""

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(SEEDS)
    def check(seed: int) -> None:
        KINDS[kind](here, seed)

    with world.inside(here):
        check()
