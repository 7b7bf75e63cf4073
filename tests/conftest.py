"""Shared fixtures. `shared` is the folder of real data and reference numbers beside the checkout."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from pathlib import Path
from typing import Any

THREADS_GIVEN = "OMP_NUM_THREADS" in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest  # noqa: E402

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


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """What a native crash says goes into a file of the process, for the summary: the rest of it is lost with it."""
    if hasattr(config, "workerinput"):
        faulthandler.enable(open(Path(config.workerinput["crashes"], config.workerinput["workerid"]), "w"))  # noqa: SIM115
    elif config.pluginmanager.hasplugin("dsession"):
        config.crashes = tempfile.TemporaryDirectory()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["crashes"] = node.config.crashes.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Stacks of test processes that crashed, and what tests have to tell beside having passed:
    `record_property("told", text)`."""
    if hasattr(terminalreporter.config, "crashes"):
        for path in sorted(Path(terminalreporter.config.crashes.name).iterdir()):
            if text := path.read_text(encoding="utf-8"):
                terminalreporter.section(f"{path.name} crashed")
                terminalreporter.write(text)
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    told = [text for report in reports for name, text in report.user_properties if name == "told"]
    if told:
        terminalreporter.section("told")
        terminalreporter.write_line("\n".join(sorted(told)))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real data and reference numbers are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
