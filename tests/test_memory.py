"""glibc's malloc is tuned only where that is safe."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any, Iterator

import pytest

from segkit import runtime
from segkit.engine import memory


class Calls(list):
    """Calls of mallopt, which refuses blocks above `largest` bytes in the heap."""

    largest = 1 << 40


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """mallopt is not really called."""
    made = Calls()

    class Libc:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            made.append((name, value))
            return int(name != memory.M_MMAP_THRESHOLD or value <= made.largest)

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Libc)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory, "available_memory", lambda: 16 << 30)
    for name in [n for n in memory.os.environ if n.startswith("MALLOC_") or n in ("GLIBC_TUNABLES", "LD_PRELOAD")]:
        monkeypatch.delenv(name)
    memory.tune_by_step.cache_clear()
    yield made
    memory.tune_by_step.cache_clear()


def test_thresholds(calls: list[tuple[int, int]]) -> None:
    assert memory.tune_malloc() is True
    assert calls == [(-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 256 << 20)]


def test_thresholds_of_an_older_glibc(calls: Calls) -> None:
    """Before 2.35 it takes 32 MiB at most. Where it takes none, the other two would only make it slower."""
    calls.largest = 32 << 20
    assert memory.tune_malloc() is True
    assert calls == [(-3, 1 << 30), (-3, 32 << 20), (-1, (1 << 31) - 1), (-2, 256 << 20)]
    calls.clear()
    calls.largest = 0
    assert memory.tune_malloc() is False
    assert {name for name, _ in calls} == {-3}


@pytest.mark.parametrize(("ranks", "free", "tuned"), [(1, 8, True), (4, 31, False), (4, 32, True)])
def test_ranks_of_one_machine_share_its_memory(
    ranks: int, free: int, tuned: bool, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", str(ranks))
    monkeypatch.setattr(memory, "available_memory", lambda: free << 30)
    assert memory.tune_malloc() is tuned


@pytest.mark.parametrize("room", [True, False])
def test_after_a_step_twice_the_peak_must_have_room(
    room: bool, calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """5 GiB at most and 2 now: 8 more may be wanted."""
    monkeypatch.setattr(
        memory, "open", lambda *_, **__: io.StringIO(f"VmHWM: {5 << 20} kB\nVmRSS: {2 << 20} kB"), raising=False
    )
    monkeypatch.setattr(memory, "available_memory", lambda: (8 if room else 6) << 30)
    for _ in range(2):
        memory.tune_by_step()
    assert len(calls) == (3 if room else 0)
    said = [
        "memory: freed memory is still given back at once, which is slower: 6.0 GiB of memory are free, fewer than 8.0"
    ]
    assert caplog.messages == ([] if room else said)


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
    little = case == "little memory"  # how little is known after the first step
    assert memory.plan().startswith("kept after" if little else "given back at once, which is slower: ")


def test_available_memory_is_within_the_machines() -> None:
    assert memory.available_memory() < 1 << 45


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("limit", "expected"), [(10 << 20, 7 << 20), (1 << 20, 0), ("max", None)])
def test_available_memory_in_a_control_group(limit, expected, tmp_path, monkeypatch) -> None:
    """Of 5 MB in use, 2 MB are files read before, which the kernel drops when memory is asked for."""
    for name, value in {"max": limit, "current": 5 << 20, "stat": f"anon 1\ninactive_file {2 << 20}"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    monkeypatch.setattr(runtime, "_CONTROL_GROUPS", tmp_path)
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
