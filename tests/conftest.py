"""Shared fixtures. `shared` is the folder of real data and reference numbers beside the checkout."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any, Iterator

THREADS_GIVEN = "OMP_NUM_THREADS" in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "2")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, and so what tests start: no Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402

from segkit.runtime import prepare  # noqa: E402

QUIET = "GLOG_minloglevel"
QUIET_GIVEN = QUIET in os.environ
prepare()  # before a test imports Paddle by itself
if not QUIET_GIVEN:  # processes that tests start shall show that segkit sets it
    del os.environ[QUIET]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite runs in two processes of one thread each; files asked for by name run in this one."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or (os.cpu_count() or 1) < 2:
        return 0
    if not THREADS_GIVEN:
        os.environ["OMP_NUM_THREADS"] = "1"
    if config.option.dist == "no":
        config.option.dist = "worksteal"
    return 2


FIRST = ("test_train", "test_loader", "test_determinism", "test_chaos", "test_long_runs", "test_ranks")
"""Files that start processes by fork: they go first, before other tests have loaded libraries and started threads,
some of which do not survive it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in FIRST)
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests have to tell beside having passed: `record_property("told", text)`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    told = [text for report in reports for name, text in report.user_properties if name == "told"]
    if told:
        terminalreporter.section("told")
        terminalreporter.write_line("\n".join(sorted(told)))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What segkit logs, by a handler of its own: pytest's is on the root logger, which segkit's lines do not reach."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("segkit")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real data and reference numbers are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
