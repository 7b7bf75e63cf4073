"""glibc's malloc is tuned only where that is safe."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from segkit import runtime
from segkit.engine import memory


@pytest.fixture(autouse=True)
def outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said is put back."""
    monkeypatch.setattr(memory, "_outcome", memory._outcome)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Calls of mallopt, which is not really called."""
    made: list[tuple[int, int]] = []

    class Libc:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            made.append((name, value))
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Libc)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory, "available_memory", lambda: 16 << 30)
    for name in [n for n in memory.os.environ if n.startswith("MALLOC_") or n in ("GLIBC_TUNABLES", "LD_PRELOAD")]:
        monkeypatch.delenv(name)
    return made


def test_thresholds(calls: list[tuple[int, int]]) -> None:
    assert memory.tune_malloc() is True
    assert calls == [(-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 256 << 20)]
    assert memory.outcome().startswith("kept for the next step (faster")


@pytest.mark.parametrize(
    "case", ["macOS", "musl", "little memory", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"]
)
def test_left_alone(case: str, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "macOS":
        monkeypatch.setattr(memory.sys, "platform", "darwin")
    elif case == "musl":
        monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    elif case == "little memory":
        monkeypatch.setattr(memory, "available_memory", lambda: (8 << 30) - 1)
    else:
        monkeypatch.setenv(case, "/usr/lib/libjemalloc.so" if case == "LD_PRELOAD" else "1")
    assert memory.tune_malloc() is False
    assert calls == []
    assert memory.outcome().startswith("given back at once, which is slower: ")


def test_available_memory_is_within_the_machines() -> None:
    assert memory.available_memory() < 1 << 45


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("limit", "expected"), [(10 << 20, 7 << 20), (1 << 20, 0), ("max", None)])
def test_available_memory_in_a_control_group(limit, expected, tmp_path, monkeypatch) -> None:
    """Of 5 MB in use, 2 MB are files read before, which the kernel drops when memory is asked for."""
    for name, value in {"max": limit, "current": 5 << 20, "stat": f"anon 1\ninactive_file {2 << 20}"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    monkeypatch.setattr(runtime, "_GROUPS", ((str(tmp_path), *runtime._GROUPS[0][1:]),))
    found = memory.available_memory()
    assert found == expected if expected is not None else found > 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_freed_tensor_stays_in_the_process() -> None:
    code = """
import numpy as np
from segkit.engine import memory
memory.available_memory = lambda: 16 << 30
done = memory.tune_malloc()
def faults(): return int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[7])
np.ones(32 << 20, "uint8")
before = faults()
np.ones(32 << 20, "uint8")
print(done, faults() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    done, faults = result.stdout.split()
    if done == "False":
        pytest.skip("no glibc here, or the environment sets malloc")
    assert int(faults) < 1000, "8192 pages without it"
